"""Airline's policy, of which its tools check little: what breaks which of the `airline_rules`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tau2_slime.policy_rules.airline_rules import rules
from tau2_slime.policy_rules.rules import (
    Call,
    Past,
    Record,
    Rule,
    Stated,
    Violation,
    of_another_customer,
    out_of_order,
)

NOW = datetime(2024, 5, 15, 15, 0, 0)
"""The time that the policy names."""
FLOWN = ("landed", "flying")
_PROFILE = r"payment methods must already be in user profile"
_FREE_BAGS = {"regular": 0, "silver": 1, "gold": 2}
_CABIN_BAGS = {"basic_economy": 0, "economy": 1, "business": 2}

RESERVATION_WRITES = frozenset(
    {
        "cancel_reservation",
        "update_reservation_baggages",
        "update_reservation_flights",
        "update_reservation_passengers",
    }
)
writes = RESERVATION_WRITES | {"book_reservation", "send_certificate"}


def free_bags(membership: str, cabin: str, passengers: int) -> int:
    """How many checked bags a reservation carries without charge."""
    return (_FREE_BAGS[membership] + _CABIN_BAGS[cabin]) * passengers


def flight_status(db: Record, flight_number: str, date: str) -> str:
    """τ²'s status of a flight on a date; empty if it does not fly then."""
    flight = db.flights.get(flight_number)
    instance = flight.dates.get(date) if flight is not None else None
    return str(instance.status) if instance is not None else ""


def is_flown(db: Record, segment: Record) -> bool:
    """True for a segment of a reservation that has taken off. A cancelled flight of the past has not."""
    return flight_status(db, segment.flight_number, segment.date) in FLOWN


def may_cancel(db: Record, reservation: Record, stated: Stated) -> bool:
    """True if the policy has a ground for cancelling, flown segments aside. An unknown reason counts as a fitting one."""
    if NOW - datetime.fromisoformat(reservation.created_at) <= timedelta(hours=24):
        return True
    if any(flight_status(db, s.flight_number, s.date) == "cancelled" for s in reservation.flights):
        return True
    if reservation.cabin == "business":
        return True
    reasons = stated.cancel_reasons
    return reservation.insurance == "yes" and (reasons is None or bool(reasons & {"health", "weather"}))


def check(db: Record, call: Call, past: Past, stated: Stated) -> Iterator[Violation]:
    """See `DomainPolicy.check`."""
    if call.name not in writes:
        return
    a = call.arguments
    yield from out_of_order(call, past, rules["A22"])
    if call.name in RESERVATION_WRITES:
        reservation = db.reservations.get(a["reservation_id"])
        if reservation is None:
            return  # the tool refuses it
        yield from of_another_customer(rules["A2"], past, reservation.reservation_id, reservation.user_id)
        if reservation.status == "cancelled":
            yield Violation(rules["A21"], f"{reservation.reservation_id} is cancelled")
        yield from _CHECKS[call.name](db, reservation, a, stated)
        return
    user = db.users.get(a["user_id"])
    if user is None:
        return
    if past.customer is not None and user.user_id != past.customer:
        yield Violation(rules["A2"], f"{user.user_id} is not {past.customer}")
    if call.name == "book_reservation":
        yield from _book(db, user, a)
    else:
        yield from _certificate(db, user, a, past, stated)


def _value(entry: Record, key: str) -> Any:
    return entry.get(key) if isinstance(entry, Mapping) else getattr(entry, key)


def _book(db: Record, user: Record, a: Mapping[str, Any]) -> Iterator[Violation]:
    passengers, flights = len(a["passengers"]), a["flights"]
    if passengers > 5:
        yield Violation(rules["A3"], f"{passengers} passengers")
    sources: list[str] = []
    paid = 0
    for payment in a["payment_methods"]:
        method = user.payment_methods.get(_value(payment, "payment_id"))
        if method is None:
            yield Violation(
                rules["A4"], f"{_value(payment, 'payment_id')} is not in the profile of {user.user_id}", _PROFILE
            )
            continue
        sources.append(method.source)
        paid += _value(payment, "amount")
        if method.source != "credit_card" and method.amount < _value(payment, "amount"):
            yield Violation(rules["A4"], f"{method.id} holds {method.amount:g}")
    for source, most in (("certificate", 1), ("credit_card", 1), ("gift_card", 3)):
        if sources.count(source) > most:
            yield Violation(rules["A4"], f"{sources.count(source)} payments by {source.replace('_', ' ')}")
    yield from _available(db, flights, a["cabin"], passengers)
    yield from _connected(db, flights, a["origin"], a["destination"], a["flight_type"], rules["A7"])
    yield from _paid_bags(user, a["cabin"], passengers, a["total_baggages"], a["nonfree_baggages"])
    prices = [_price(db, flight, a["cabin"]) for flight in flights]
    if all(price is not None for price in prices):
        total = sum(price or 0 for price in prices) * passengers + 50 * a["nonfree_baggages"]
        total += 30 * passengers if a["insurance"] == "yes" else 0
        if total != paid:
            yield Violation(rules["A4"], f"{paid} are paid, {total} are due")


def _price(db: Record, flight: Record, cabin: str) -> int | None:
    known = db.flights.get(_value(flight, "flight_number"))
    instance = known.dates.get(_value(flight, "date")) if known is not None else None
    return instance.prices[cabin] if instance is not None and instance.status == "available" else None


def _available(db: Record, flights: Sequence[Any], cabin: str, passengers: int) -> Iterator[Violation]:
    for flight in flights:
        number, date = _value(flight, "flight_number"), _value(flight, "date")
        status = flight_status(db, number, date)
        if status != "available":
            yield Violation(rules["A5"], f"{number} on {date} is {status or 'unknown'}")
        elif db.flights[number].dates[date].available_seats[cabin] < passengers:
            yield Violation(rules["A5"], f"{number} on {date} has too few seats in {cabin}")


def _connected(
    db: Record, flights: Sequence[Any], origin: str, destination: str, flight_type: str, ends: Rule
) -> Iterator[Violation]:
    legs = [db.flights.get(_value(flight, "flight_number")) for flight in flights]
    if not legs or any(leg is None for leg in legs):
        return
    for i in range(1, len(legs)):
        if legs[i].origin != legs[i - 1].destination:
            yield Violation(rules["A7"], f"{legs[i].flight_number} does not start where the one before it lands")
        arrival = _moment(_value(flights[i - 1], "date"), legs[i - 1].scheduled_arrival_time_est)
        if _moment(_value(flights[i], "date"), legs[i].scheduled_departure_time_est) < arrival:
            yield Violation(rules["A7"], f"{legs[i].flight_number} leaves before the flight before it lands")
    first, last, stops = legs[0].origin, legs[-1].destination, {leg.destination for leg in legs}
    if first != origin:
        yield Violation(ends, f"the first flight leaves from {first}, not from {origin}")
    if flight_type == "one_way" and last != destination:
        yield Violation(ends, f"the last flight lands in {last}, not in {destination}")
    if flight_type == "round_trip" and (last != origin or destination not in stops):
        yield Violation(ends, f"the flights are not a round trip from {origin} to {destination}")


def _moment(date: str, time: str) -> tuple[str, str]:
    """A day and a time of it; ``+1`` marks an arrival on the next day."""
    day = datetime.fromisoformat(date)
    if time.endswith("+1"):
        day += timedelta(days=1)
    return day.date().isoformat(), time.removesuffix("+1")


def _paid_bags(user: Record, cabin: str, passengers: int, total: int, paid: int) -> Iterator[Violation]:
    due = max(0, total - free_bags(user.membership, cabin, passengers))
    if paid != due:
        yield Violation(rules["A6"], f"{due} of {total} bags are to be paid ({user.membership}, {cabin}), not {paid}")


def _certificate(db: Record, user: Record, a: Mapping[str, Any], past: Past, stated: Stated) -> Iterator[Violation]:
    if stated.asked_for_compensation is False:
        yield Violation(rules["A18"], "the customer did not ask for compensation")
    eligible, cancelled, delayed = [], [], []
    for reservation_id in user.reservations:
        reservation = db.reservations[reservation_id]
        states = {flight_status(db, s.flight_number, s.date) for s in reservation.flights}
        if not states & {"cancelled", "delayed"}:
            continue
        if user.membership == "regular" and reservation.insurance != "yes" and reservation.cabin != "business":
            continue
        eligible.append(reservation_id)
        count = len(reservation.passengers)
        if "cancelled" in states:
            cancelled.append(100 * count)
        if "delayed" in states:
            delayed.append((50 * count, reservation_id in past.changed))
    amount = a["amount"]
    if not eligible:
        yield Violation(rules["A18"], f"no reservation of {user.user_id} gives a right to compensation")
    elif amount in cancelled or (amount, True) in delayed:
        return
    elif (amount, False) in delayed:
        yield Violation(rules["A20"], "the delayed reservation was not changed or cancelled before")
    elif cancelled:
        yield Violation(rules["A19"], f"{amount} is not 100 dollars a passenger ({', '.join(map(str, cancelled))})")
    else:
        yield Violation(rules["A20"], f"{amount} is not 50 dollars a passenger of a changed, delayed reservation")


def _cancel(db: Record, reservation: Record, a: Mapping[str, Any], stated: Stated) -> Iterator[Violation]:
    if any(is_flown(db, segment) for segment in reservation.flights):
        yield Violation(rules["A16"], f"{reservation.reservation_id} has a flown segment")
    elif not may_cancel(db, reservation, stated):
        yield Violation(rules["A17"], f"{reservation.reservation_id} has no ground for a cancellation")


def _method(db: Record, reservation: Record, payment_id: str) -> Iterator[Violation]:
    method = db.users[reservation.user_id].payment_methods.get(payment_id)
    if method is None:
        yield Violation(rules["A15"], f"{payment_id} is not in the profile of {reservation.user_id}")
    elif method.source == "certificate":
        yield Violation(rules["A15"], f"{payment_id} is a certificate")


def _bags(db: Record, reservation: Record, a: Mapping[str, Any], stated: Stated) -> Iterator[Violation]:
    if a["total_baggages"] < reservation.total_baggages:
        yield Violation(rules["A12"], f"{reservation.total_baggages} bags become {a['total_baggages']}")
    user = db.users[reservation.user_id]
    yield from _paid_bags(
        user, reservation.cabin, len(reservation.passengers), a["total_baggages"], a["nonfree_baggages"]
    )
    yield from _method(db, reservation, a["payment_id"])


def _passengers(db: Record, reservation: Record, a: Mapping[str, Any], stated: Stated) -> Iterator[Violation]:
    if len(a["passengers"]) != len(reservation.passengers):
        yield Violation(rules["A14"], f"{len(reservation.passengers)} passengers become {len(a['passengers'])}")


def _flights(db: Record, reservation: Record, a: Mapping[str, Any], stated: Stated) -> Iterator[Violation]:
    old = [(segment.flight_number, segment.date) for segment in reservation.flights]
    new = [(_value(flight, "flight_number"), _value(flight, "date")) for flight in a["flights"]]
    flown = [(s.flight_number, s.date) for s in reservation.flights if is_flown(db, s)]
    if a["cabin"] != reservation.cabin and flown:
        yield Violation(rules["A10"], f"{flown[0][0]} is flown, and the cabin would change")
    if new != old and reservation.cabin == "basic_economy":
        yield Violation(rules["A8"], f"{reservation.reservation_id} is basic economy")
    if lost := [number for number, date in flown if (number, date) not in new]:
        yield Violation(rules["A11"], f"{lost[0]} is flown")
    keeps_price = a["cabin"] == reservation.cabin
    added = [f for f, key in zip(a["flights"], new, strict=True) if not (keeps_price and key in old)]
    yield from _available(db, added, a["cabin"], len(reservation.passengers))
    if new != old:
        yield from _connected(
            db, a["flights"], reservation.origin, reservation.destination, reservation.flight_type, rules["A9"]
        )
    yield from _method(db, reservation, a["payment_id"])


_CHECKS = {
    "cancel_reservation": _cancel,
    "update_reservation_baggages": _bags,
    "update_reservation_flights": _flights,
    "update_reservation_passengers": _passengers,
}


def customer(db: Record, call: Call, answer: str) -> str | None:
    """See `DomainPolicy.customer`."""
    if call.name in ("get_user_details", "book_reservation", "send_certificate"):
        user_id = call.arguments.get("user_id")
        return user_id if user_id in db.users else None
    if call.name in RESERVATION_WRITES or call.name == "get_reservation_details":
        reservation = db.reservations.get(call.arguments.get("reservation_id"))
        return None if reservation is None else str(reservation.user_id)
    return None


def identifies(call: Call) -> bool:
    """See `DomainPolicy.identifies`."""
    return call.name in ("get_user_details", "book_reservation", "send_certificate")
