"""Rules of a domain's policy that can be computed on the database: which of them a write breaks.

`violations_of` is the seam: it takes a call and the state before it and names rules. Whoever knows more rules, or facts
that stand in no database, adds them here; the decision works without any. Each rule carries a short pattern, and `clause_of`
finds the sentence of *this* release's policy that it matches, so that no text of the policy is copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tau2_slime.diagnosis.records import find

if TYPE_CHECKING:
    from tau2_slime.world.domains import World

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Violation:
    """A rule that a write breaks."""

    rule: str
    """Its name, such as ``airline.cancel``."""
    why: str
    """What is against it, in a few words."""
    pattern: str
    """A regular expression that matches the policy's sentence."""


@lru_cache(maxsize=512)
def clause_of(policy: str, pattern: str) -> str | None:
    """Heading path and sentence of ``policy`` that ``pattern`` matches; None if this release says it in other words."""
    headings: list[str] = []
    for line in policy.splitlines():
        text = line.strip()
        if text.startswith("#"):
            level = len(text) - len(text.lstrip("#"))
            headings = [*headings[: level - 1], text.lstrip("# ").strip()]
            continue
        found = re.search(pattern, text, re.I)
        if found:
            sentences = re.split(r"(?<=[.!?])\s+", text.lstrip("-* "))
            sentence = next((one for one in sentences if re.search(pattern, one, re.I)), text)
            return " > ".join([*headings[1:], sentence])
    return None


def violations_of(domain: str, world: World, name: str, arguments: Arguments, told: str) -> tuple[Violation, ...]:
    """The rules that a write breaks in the state of ``world``.

    ``told``: what the customer says of itself (the scenario), for rules that depend on a reason. Rules never raise: a record
    that is not there breaks none, as the tool refuses the call anyway.
    """
    rule = _RULES.get((domain, name))
    if rule is None:
        return ()
    try:
        return tuple(rule(world, arguments, told))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return ()


# ---- airline -----------------------------------------------------------------------------------------------------------

_NOW = "2024-05-15T15:00:00"
_A_DAY_AGO = "2024-05-14T15:00:00"
_FLOWN = ("landed", "flying")
_COVERED = re.compile(
    r"\b(sick|ill|illness|unwell|health|medical|hospital|surgery|injur\w*|weather|storm|hurricane|snow|doctor|fever|covid)\b",
    re.I,
)


def _status(world: World, flight: Any) -> str:
    found = find(world, "flights", flight.flight_number)
    date = found.dates.get(flight.date) if found is not None else None
    return str(getattr(date, "status", ""))


def _flown(world: World, reservation: Any) -> bool:
    return any(_status(world, flight) in _FLOWN or flight.date < _NOW[:10] for flight in reservation.flights)


def _cancel(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    held = find(world, "reservations", arguments["reservation_id"])
    if any(_status(world, flight) in _FLOWN for flight in held.flights):
        yield Violation(
            "airline.cancel_flown", "a part is already flown", r"any portion of the flight has already been flown"
        )
        return
    allowed = (
        held.created_at >= _A_DAY_AGO
        or held.cabin == "business"
        or any(_status(world, flight) == "cancelled" for flight in held.flights)
        or (held.insurance == "yes" and _COVERED.search(told) is not None)
    )
    if not allowed:
        yield Violation(
            "airline.cancel",
            "no ground for a cancellation",
            r"flight can be cancelled if any of the following|cancellation rules",
        )


def _change_flights(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    held = find(world, "reservations", arguments["reservation_id"])
    flights = [dict(flight) for flight in arguments["flights"]]
    same = [(f["flight_number"], f["date"]) for f in flights] == [(f.flight_number, f.date) for f in held.flights]
    if held.cabin == "basic_economy" and not same:
        yield Violation(
            "airline.basic_economy", "basic economy's flights are fixed", r"basic economy flights cannot be modified"
        )
    if arguments["cabin"] != held.cabin and any(_status(world, flight) in _FLOWN for flight in held.flights):
        yield Violation("airline.cabin_flown", "a segment is flown", r"cabin cannot be changed if any flight")
    first, last = (
        find(world, "flights", flights[0]["flight_number"]),
        find(world, "flights", flights[-1]["flight_number"]),
    )
    ends = (first.origin, last.destination)
    if held.flight_type == "one_way" and ends != (held.origin, held.destination):
        yield Violation("airline.route", "another route", r"without changing the origin, destination")
    if held.flight_type == "round_trip":
        turns = {find(world, "flights", f["flight_number"]).destination for f in flights}
        if ends[0] != held.origin or ends[1] != held.origin or held.destination not in turns:
            yield Violation("airline.route", "another route", r"without changing the origin, destination")
    yield from _payment(world, held, arguments)


def _payment(world: World, held: Any, arguments: Arguments) -> Iterator[Violation]:
    user = find(world, "users", held.user_id)
    method = user.payment_methods.get(arguments.get("payment_id"))
    if method is not None and getattr(method, "source", "") == "certificate":
        yield Violation("airline.payment", "a certificate pays for a change", r"single gift card or credit card")


_FREE = {"regular": 0, "silver": 1, "gold": 2}
_BY_CABIN = {"basic_economy": 0, "economy": 1, "business": 2}


def _free_bags(membership: str, cabin: str, passengers: int) -> int:
    return (_FREE[membership] + _BY_CABIN[cabin]) * passengers


def _bags(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    held = find(world, "reservations", arguments["reservation_id"])
    user = find(world, "users", held.user_id)
    total = int(arguments["total_baggages"])
    if total < held.total_baggages:
        yield Violation("airline.bags_removed", "bags are removed", r"can add but not remove checked bags")
    free = _free_bags(user.membership, held.cabin, len(held.passengers))
    if int(arguments["nonfree_baggages"]) != max(0, total - free):
        yield Violation("airline.free_bags", f"{free} bags are free", r"free checked bag for each|each extra baggage")


def _passengers(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    held = find(world, "reservations", arguments["reservation_id"])
    if len(arguments["passengers"]) != len(held.passengers):
        yield Violation("airline.passengers", "another number of passengers", r"cannot modify the number of passengers")


def _book(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    user = find(world, "users", arguments["user_id"])
    passengers = len(arguments["passengers"])
    if passengers > 5:
        yield Violation("airline.five", "more than five passengers", r"at most five passengers")
    kinds = [user.payment_methods[dict(one)["payment_id"]].source for one in arguments["payment_methods"]]
    if kinds.count("certificate") > 1 or kinds.count("credit_card") > 1 or kinds.count("gift_card") > 3:
        yield Violation("airline.payments", "too many payment methods", r"at most one travel certificate")
    free = _free_bags(user.membership, arguments["cabin"], passengers)
    if int(arguments["nonfree_baggages"]) != max(0, int(arguments["total_baggages"]) - free):
        yield Violation("airline.free_bags", f"{free} bags are free", r"free checked bag for each|each extra baggage")


def _certificate(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    """Only what holds for every reservation of the customer: which of them the complaint is about stands in no database."""
    user = find(world, "users", arguments["user_id"])
    held = [found for one in user.reservations if (found := find(world, "reservations", one)) is not None]
    fitting = [r for r in held if user.membership != "regular" or r.insurance == "yes" or r.cabin == "business"]
    amount = float(arguments["amount"])
    if not fitting:
        yield Violation("airline.compensation", "nobody to compensate", r"only compensate if the user is")
        return
    for each in fitting:
        states = {_status(world, flight) for flight in each.flights}
        if "cancelled" in states and amount == 100 * len(each.passengers):
            return
        changed = each.status == "cancelled" or any(p.amount < 0 for p in each.payment_history)
        if "delayed" in states and amount == 50 * len(each.passengers) and changed:
            return
    yield Violation(
        "airline.compensation",
        "no flight cancelled, none delayed and changed",
        r"do not offer compensation for any other|delayed flights in a",
    )


# ---- retail ------------------------------------------------------------------------------------------------------------


def _exchange(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    if any(a == b for a, b in zip(arguments["item_ids"], arguments["new_item_ids"], strict=False)):
        yield Violation(
            "retail.same_options", "exchanged for the same item", r"same product but of different product option"
        )


def _cancel_order(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    if find(world, "orders", arguments["order_id"]).status != "pending":
        yield Violation("retail.pending", "not pending", r"only be cancelled if its status is 'pending'")


def _modify_order(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    if find(world, "orders", arguments["order_id"]).status != "pending":
        yield Violation("retail.pending", "not pending", r"only be modified if its status is 'pending'")
    if "item_ids" in arguments:
        yield from _exchange(world, arguments, told)


# ---- telecom -----------------------------------------------------------------------------------------------------------


def _refuel(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    if float(arguments["gb_amount"]) > 2:
        yield Violation("telecom.refuel", "more than 2 GB", r"maximum amount of data that can be refueled")


def _request(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    bill = find(world, "bills", arguments["bill_id"])
    if bill is not None and str(getattr(bill.status, "value", bill.status)) != "Overdue":
        yield Violation(
            "telecom.overdue", "the bill is not overdue", r"check the bill status to make sure it is overdue"
        )


def _resume(world: World, arguments: Arguments, told: str) -> Iterator[Violation]:
    line = find(world, "lines", arguments["line_id"])
    ends = getattr(line, "contract_end_date", None)
    if ends is not None and str(ends) < "2025-02-25":
        yield Violation("telecom.contract", "the contract has ended", r"not allowed to lift the suspension")


Rule = Callable[["World", Arguments, str], Iterator[Violation]]
_RULES: dict[tuple[str, str], Rule] = {
    ("airline", "cancel_reservation"): _cancel,
    ("airline", "update_reservation_flights"): _change_flights,
    ("airline", "update_reservation_baggages"): _bags,
    ("airline", "update_reservation_passengers"): _passengers,
    ("airline", "book_reservation"): _book,
    ("airline", "send_certificate"): _certificate,
    ("retail", "exchange_delivered_order_items"): _exchange,
    ("retail", "cancel_pending_order"): _cancel_order,
    ("retail", "modify_pending_order_address"): _modify_order,
    ("retail", "modify_pending_order_payment"): _modify_order,
    ("retail", "modify_pending_order_items"): _modify_order,
    ("telecom", "refuel_data"): _refuel,
    ("telecom", "send_payment_request"): _request,
    ("telecom", "resume_line"): _resume,
}
