"""Airline: cancel, change and book what the policy allows one customer; its tools would allow far more."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date
from typing import Any

from tau2_slime.policy_rules import airline
from tau2_slime.policy_rules.airline import flight_status, free_bags, is_flown
from tau2_slime.policy_rules.rules import Call, Past, Record, Stated
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of, pick_weighted, split_count
from tau2_slime.synth.sandbox import Sandbox

FRAMES: Mapping[str, tuple[str, ...]] = {
    "cancel": (
        "You want to cancel {trip} because {why}.",
        "Please have {trip} cancelled: {why}.",
        "Your wish is that {trip} is cancelled, since {why}.",
        "Cancel {trip} for you, as {why}.",
    ),
    "bags": (
        "You want to add {more} to {trip}, so that it has {total} checked bags in total; if there is a fee, you use {pay}.",
        "For {trip} you need {more} more than booked, {total} checked bags altogether, and any fee goes to {pay}.",
        "Please raise the checked bags of {trip} to {total} in total, which is {more} extra; charge {pay} if needed.",
    ),
    "rename": (
        "On {trip}, the passenger {old} should be replaced by {new}, born {dob}.",
        "You want to change the passenger {old} of {trip} to {new}, date of birth {dob}.",
        "In place of {old}, the passenger on {trip} should be {new}, born {dob}.",
    ),
    "cabin": (
        "You want to move {trip} to {cabin} on the same flights; the difference goes through {pay}.",
        "Please change the cabin of {trip} to {cabin} and keep the flights; use {pay} for the difference.",
        "For {trip} you would like to fly {cabin} on the flights you have, and you settle the difference with {pay}.",
    ),
    "flight": (
        (
            "You want to change {trip} from its flight {old} to flight {new} on {day}, in the same cabin; the "
            "difference goes through {pay}."
        ),
        (
            "Please rebook {trip}: instead of {old} you take flight {new} on {day}, same cabin, and {pay} covers "
            "the difference."
        ),
        (
            "For {trip} you would like flight {new} on {day} in place of {old}. The cabin stays, and you settle "
            "the difference with {pay}."
        ),
    ),
    "book": (
        "You want to book a one-way flight from {origin} to {destination} on {day} with flight {flight} in "
        "{cabin} for {people}, "
        "with {bags}, {insurance}, paid with {pay}.",
        "Please book flight {flight} from {origin} to {destination} on {day}, one way, in {cabin}, for "
        "{people}; you take {bags}, "
        "{insurance}, and you pay with {pay}.",
    ),
    "certificate": (
        "You complain about the cancelled flight in {trip} and ask for compensation.",
        "The flight in {trip} was cancelled by the airline, and you want a compensation for that.",
        "Because the airline cancelled a flight of {trip}, you ask for a compensation.",
    ),
}
_WHY = {
    "health": (
        "you fell ill",
        "you are sick and cannot travel",
        "your doctor advised you not to fly for health reasons",
    ),
    "weather": ("a storm is forecast there", "the weather at your destination is dangerous"),
    "other": ("your plans have changed", "a meeting was moved", "the event that you wanted to see does not take place"),
}
_NAMES = ("Nora", "Elias", "Clara", "Hugo", "Ines", "Oscar", "Lena", "Felix", "Mara", "Jonas", "Alma", "Bruno")
_LAST = ("Becker", "Lindgren", "Moreau", "Novak", "Sandoval", "Okafor", "Tanaka", "Whitfield", "Rinaldi", "Haugen")
_CABINS = {"basic_economy": "basic economy", "economy": "economy", "business": "business"}
_MORE = ("", "one bag", "two bags", "three bags", "four bags")
KINDS = ("cancel", "bags", "rename", "cabin", "flight", "book", "certificate")
LAST_DAY = "2024-05-30"


def users(db: Record) -> dict[str, int]:
    """User id -> how many writes the reservations allow, about."""
    out = {}
    for user_id, user in db.users.items():
        open_ = [db.reservations[r] for r in user.reservations if _open(db, db.reservations[r])]
        out[user_id] = 2 * len(open_) + 1
    return out


def _open(db: Record, reservation: Record) -> bool:
    """True for a reservation that something can be done with."""
    return (
        reservation.status != "cancelled"
        and reservation.origin != reservation.destination
        and not any(is_flown(db, segment) for segment in reservation.flights)
    )


class Sampler:
    """Builds one proposal; see `sampling.retail.Sampler`."""

    def __init__(self, rng: random.Random, box: Sandbox, user_id: str, weights: Mapping[str, float]) -> None:
        self._rng, self._box, self._weights = rng, box, weights
        with box.reading() as db:
            self._db: Any = db
        self._user = self._db.users[user_id]
        self._reservations = [self._db.reservations[r] for r in self._user.reservations]
        self._steps: list[tuple[Intent, list[Call], Call]] = []
        self._used: dict[str, set[str]] = {}
        self._reasons: set[str] = set()
        self._spent: dict[str, float] = {}
        self._asked = False
        self.communicate: list[str] = []

    def build(self, difficulty: str) -> Proposal | None:
        """None if the customer has no room for the writes after all."""
        wanted = split_count(self._rng, difficulty)
        with self._box.reading():
            self._reason = self._rng.choice(sorted(_WHY))
            for _ in range(wanted * 14):
                if len(self._steps) == wanted:
                    break
                made = self._one(pick_weighted(self._rng, self._weights, KINDS))
                if made is not None:
                    self._steps.append(made)
            return self._proposal(difficulty) if len(self._steps) == wanted else None

    def _one(self, kind: str) -> tuple[Intent, list[Call], Call] | None:
        if kind == "book":
            return self._book()
        if kind == "certificate":
            return self._certificate()
        candidates = [r for r in self._reservations if _open(self._db, r)]
        if not candidates:
            return None
        reservation = self._rng.choice(candidates)
        used = self._used.setdefault(reservation.reservation_id, set())
        pays = {"bags", "cabin", "flight"}
        if "cancel" in used or kind in used or (kind == "cancel" and used) or (kind in pays and used & pays):
            return None
        make = {
            "cancel": self._cancel,
            "bags": self._bags,
            "rename": self._rename,
            "cabin": self._cabin,
            "flight": self._flight,
        }[kind]
        made = make(reservation)
        if made is None or self._box.violations(made[1]):
            return None
        used.add(kind)
        look = [Call("get_reservation_details", {"reservation_id": reservation.reservation_id})]
        return made[0], look, made[1]

    def _trip(self, reservation: Record) -> str:
        r = reservation
        return self._rng.choice(
            (f"reservation {r.reservation_id}", f"your reservation {r.reservation_id}", f"the trip {r.reservation_id}")
        )

    def _cancel(self, reservation: Record) -> tuple[Intent, Call] | None:
        self._reasons.add(self._reason)
        slots = {"trip": self._trip(reservation), "why": self._rng.choice(_WHY[self._reason])}
        call = Call("cancel_reservation", {"reservation_id": reservation.reservation_id})
        watched = Stated(cancel_reasons=frozenset({self._reason}))
        if list(airline.check(self._db, call, Past(), watched)):
            return None
        return Intent("cancel", slots), call

    def _card(self, cost: float) -> tuple[str, str] | None:
        """(payment id, how the customer names it) of a method that can cover ``cost``."""
        methods = [m for m in self._user.payment_methods.values() if m.source != "certificate"]
        self._rng.shuffle(methods)
        for method in methods:
            same = [m for m in self._user.payment_methods.values() if m.source == method.source]
            if method.source == "credit_card":
                return method.id, f"your {method.brand.capitalize()} card ending in {method.last_four}"
            if len(same) == 1 and method.amount - self._spent.get(method.id, 0) >= cost and cost >= 0:
                self._spent[method.id] = self._spent.get(method.id, 0) + cost
                return method.id, "your gift card"
        return None

    def _bags(self, reservation: Record) -> tuple[Intent, Call] | None:
        more = self._rng.randint(1, 3)
        total = reservation.total_baggages + more
        paid = max(0, total - free_bags(self._user.membership, reservation.cabin, len(reservation.passengers)))
        if paid < reservation.nonfree_baggages:
            return None
        card = self._card(50 * (paid - reservation.nonfree_baggages))
        if card is None:
            return None
        slots = {"trip": self._trip(reservation), "more": _MORE[more], "total": str(total), "pay": card[1]}
        arguments = {
            "reservation_id": reservation.reservation_id,
            "total_baggages": total,
            "nonfree_baggages": paid,
            "payment_id": card[0],
        }
        return Intent("bags", slots), Call("update_reservation_baggages", arguments)

    def _rename(self, reservation: Record) -> tuple[Intent, Call] | None:
        passengers = [p.model_dump() for p in reservation.passengers]
        position = self._rng.randrange(len(passengers))
        old = passengers[position]
        names = [f"{p['first_name']} {p['last_name']}" for p in passengers]
        new = self._person()
        if names.count(names[position]) > 1:
            return None
        passengers[position] = new
        slots = {
            "trip": self._trip(reservation),
            "old": f"{old['first_name']} {old['last_name']}",
            "new": f"{new['first_name']} {new['last_name']}",
            "dob": new["dob"],
        }
        arguments = {"reservation_id": reservation.reservation_id, "passengers": passengers}
        return Intent("rename", slots), Call("update_reservation_passengers", arguments)

    def _person(self) -> dict[str, str]:
        born = date(self._rng.randint(1955, 2004), self._rng.randint(1, 12), self._rng.randint(1, 28))
        return {"first_name": self._rng.choice(_NAMES), "last_name": self._rng.choice(_LAST), "dob": born.isoformat()}

    def _cabin(self, reservation: Record) -> tuple[Intent, Call] | None:
        cabins = [cabin for cabin in _CABINS if cabin != reservation.cabin and cabin != "basic_economy"]
        cabin = self._rng.choice(cabins)
        flights = [{"flight_number": s.flight_number, "date": s.date} for s in reservation.flights]
        if any(s.date > LAST_DAY for s in reservation.flights):
            return None
        cost = self._cost(reservation, flights, cabin)
        card = self._card(cost) if cost is not None else None
        if card is None:
            return None
        slots = {"trip": self._trip(reservation), "cabin": f"{_CABINS[cabin]} class", "pay": card[1]}
        arguments = {
            "reservation_id": reservation.reservation_id,
            "cabin": cabin,
            "flights": flights,
            "payment_id": card[0],
        }
        return Intent("cabin", slots), Call("update_reservation_flights", arguments)

    def _cost(self, reservation: Record, flights: list[dict[str, str]], cabin: str) -> float | None:
        total = 0
        there = {(s.flight_number, s.date): s.price for s in reservation.flights} if cabin == reservation.cabin else {}
        for flight in flights:
            key = flight["flight_number"], flight["date"]
            if key in there:
                total += there[key]
            elif flight_status(self._db, *key) == "available":
                total += self._db.flights[key[0]].dates[key[1]].prices[cabin]
            else:
                return None
        paid: int = sum(s.price for s in reservation.flights)
        return (total - paid) * len(reservation.passengers)

    def _flight(self, reservation: Record) -> tuple[Intent, Call] | None:
        if reservation.cabin == "basic_economy":
            return None
        position = self._rng.randrange(len(reservation.flights))
        segment = reservation.flights[position]
        others = [
            (flight.flight_number, day)
            for flight in self._db.flights.values()
            if (flight.origin, flight.destination) == (segment.origin, segment.destination)
            for day, instance in flight.dates.items()
            if instance.status == "available" and (flight.flight_number, day) != (segment.flight_number, segment.date)
        ]
        if not others:
            return None
        number, day = self._rng.choice(sorted(others))
        flights = [{"flight_number": s.flight_number, "date": s.date} for s in reservation.flights]
        old = dict(flights[position])
        flights[position] = {"flight_number": number, "date": day}
        cost = self._cost(reservation, flights, reservation.cabin)
        card = self._card(cost) if cost is not None else None
        if card is None or old["flight_number"] == number:
            return None
        slots = {
            "trip": self._trip(reservation),
            "old": old["flight_number"],
            "new": number,
            "day": day,
            "pay": card[1],
        }
        arguments = {
            "reservation_id": reservation.reservation_id,
            "cabin": reservation.cabin,
            "flights": flights,
            "payment_id": card[0],
        }
        return Intent("flight", slots), Call("update_reservation_flights", arguments)

    def _book(self) -> tuple[Intent, list[Call], Call] | None:
        if "book" in self._used:
            return None
        rng, count = self._rng, self._rng.randint(1, 2)
        cabin = rng.choice(sorted(_CABINS))
        day = f"2024-05-{rng.randint(17, 29)}"
        open_ = [
            flight
            for flight in self._db.flights.values()
            if flight_status(self._db, flight.flight_number, day) == "available"
            and flight.dates[day].available_seats[cabin] >= count
            and flight.origin != flight.destination
        ]
        if not open_:
            return None
        flight = rng.choice(open_)
        user = self._user
        people = [{"first_name": user.name.first_name, "last_name": user.name.last_name, "dob": user.dob}]
        said = "yourself"
        if count == 2:
            other = self._person()
            people.append(other)
            said = f"yourself and {other['first_name']} {other['last_name']} (born {other['dob']})"
        bags = rng.randint(0, 2)
        paid = max(0, bags - free_bags(user.membership, cabin, count))
        insured = rng.random() < 0.4
        price = flight.dates[day].prices[cabin] * count + 50 * paid + (30 * count if insured else 0)
        card = self._card(price)
        if card is None:
            return None
        self._used["book"] = {"book"}
        slots = {
            "origin": flight.origin,
            "destination": flight.destination,
            "day": day,
            "flight": flight.flight_number,
            "cabin": f"{_CABINS[cabin]} class",
            "people": said,
            "bags": ("no checked bags", "1 checked bag", "2 checked bags")[bags],
            "insurance": "with travel insurance" if insured else "without travel insurance",
            "pay": card[1],
        }
        arguments = {
            "user_id": user.user_id,
            "origin": flight.origin,
            "destination": flight.destination,
            "flight_type": "one_way",
            "cabin": cabin,
            "flights": [{"flight_number": flight.flight_number, "date": day}],
            "passengers": people,
            "payment_methods": [{"payment_id": card[0], "amount": price}],
            "total_baggages": bags,
            "nonfree_baggages": paid,
            "insurance": "yes" if insured else "no",
        }
        search = {"origin": flight.origin, "destination": flight.destination, "date": day}
        call = Call("book_reservation", arguments)
        if self._box.violations(call):
            return None
        return Intent("book", slots), [Call("search_direct_flight", search)], call

    def _certificate(self) -> tuple[Intent, list[Call], Call] | None:
        if "certificate" in self._used:
            return None
        for reservation in self._reservations:
            states = {flight_status(self._db, s.flight_number, s.date) for s in reservation.flights}
            if "cancelled" not in states or reservation.status == "cancelled":
                continue
            call = Call(
                "send_certificate", {"user_id": self._user.user_id, "amount": 100 * len(reservation.passengers)}
            )
            if self._box.violations(call):
                return None
            self._used["certificate"] = {"certificate"}
            self._asked = True
            look = [Call("get_reservation_details", {"reservation_id": reservation.reservation_id})]
            return Intent("certificate", {"trip": self._trip(reservation)}), look, call
        return None

    def _proposal(self, difficulty: str) -> Proposal:
        rng, user = self._rng, self._user
        intents = [intent for intent, _, _ in self._steps]
        calls: list[Call] = [Call("get_user_details", {"user_id": user.user_id})] if rng.random() < 0.75 else []
        early = rng.random() < 0.5
        if early:
            calls += [call for _, before, _ in self._steps for call in before]
        for _, before, call in self._steps:
            calls += [*before, call]
        unique: list[Call] = []
        for call in calls:
            if call not in unique:
                unique.append(call)
        unique = self._with_detours(unique)
        return Proposal(
            domain="airline",
            difficulty=difficulty,
            user=user.user_id,
            intents=intents,
            calls=unique,
            reason=write(rng, intents, FRAMES),
            known=f"You are {user.name.first_name} {user.name.last_name}. Your user id is {user.user_id}.",
            unknown=None,
            manner=manner_of(rng),
            stated=Stated(
                cancel_reasons=frozenset(self._reasons or {"other"}), asked_for_compensation=self._asked or None
            ),
            facts=[value for intent in intents for value in intent.slots.values()],
        )

    def _with_detours(self, calls: list[Call]) -> list[Call]:
        """Reads that agents make as well: another reservation, a search, a sum, a flight's status."""
        rng, out = self._rng, list(calls)
        ids = [r.reservation_id for r in self._reservations]
        place = rng.randint(min(1, len(out)), len(out))
        if rng.random() < 0.3:
            out[place:place] = [
                Call("get_reservation_details", {"reservation_id": r}) for r in rng.sample(ids, min(2, len(ids)))
            ]
        trips = [r for r in self._reservations if r.flights]
        if trips and rng.random() < 0.25:
            leg = rng.choice(rng.choice(trips).flights)
            where = {"origin": leg.origin, "destination": leg.destination, "date": leg.date}
            place = rng.randint(min(1, len(out)), len(out))
            kinds = rng.choice(
                (
                    ("search_direct_flight",),
                    ("search_onestop_flight",),
                    ("search_direct_flight", "search_onestop_flight"),
                )
            )
            if leg.date <= LAST_DAY:
                out[place:place] = [Call(kind, where) for kind in kinds]
        if rng.random() < 0.12:
            amounts = [str(rng.randint(40, 400)) for _ in range(2)]
            place = rng.randint(min(1, len(out)), len(out))
            out[place:place] = [Call("calculate", {"expression": " + ".join(amounts)})]
        return [call for i, call in enumerate(out) if call not in out[:i]]


def propose(
    rng: random.Random, box: Sandbox, user_id: str, difficulty: str, weights: Mapping[str, float]
) -> Proposal | None:
    """One proposal for ``user_id`` in the untouched environment ``box``; None if there is no room for it."""
    return Sampler(rng, box, user_id, weights).build(difficulty)
