"""Airline: a new one-way booking, new passengers, and the payment method that covers an amount."""

from __future__ import annotations

import random
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from tau2_slime.policy_rules.airline import flight_status, free_bags
from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.frames import Intent
from tau2_slime.synth.sampling.airline_wording import FIRST_NAMES, LAST_NAMES
from tau2_slime.synth.sampling.sampler import Request, Sampler

if TYPE_CHECKING:
    from tau2_slime.policy_rules.rules import Record

CABINS = {"basic_economy": "basic economy", "economy": "economy", "business": "business"}
"""τ²'s name -> how customers say it."""
_BAGS = ("no checked bags", "1 checked bag", "2 checked bags")


class Payment(NamedTuple):
    """A payment method, how the customer names it, and what of that is said word for word."""

    id: str
    words: str
    fact: str


def new_passenger(rng: random.Random) -> dict[str, str]:
    """Somebody who is in no reservation."""
    born = date(rng.randint(1955, 2004), rng.randint(1, 12), rng.randint(1, 28))
    return {"first_name": rng.choice(FIRST_NAMES), "last_name": rng.choice(LAST_NAMES), "dob": born.isoformat()}


def pay_with(sampler: Sampler, cost: float) -> Payment | None:
    """A credit card, or the only gift card if it covers ``cost`` dollars and nothing else of the conversation needs it."""
    methods = [m for m in sampler.user.payment_methods.values() if m.source != "certificate"]
    sampler.rng.shuffle(methods)
    for method in methods:
        if method.source == "credit_card":
            return Payment(
                method.id, f"your {method.brand.capitalize()} card ending in {method.last_four}", method.last_four
            )
        alone = sum(m.source == method.source for m in methods) == 1
        if alone and 0 <= cost <= method.amount and method.id not in sampler.used:
            sampler.used[method.id] = {"payment"}
            return Payment(method.id, "your gift card", "gift card")
    return None


def booking(sampler: Sampler) -> Request | None:
    """A booking of one flight for the customer, alone or with somebody else; None if no flight has the seats."""
    rng, user, count = sampler.rng, sampler.user, sampler.rng.randint(1, 2)
    cabin = rng.choice(sorted(CABINS))
    day = f"2024-05-{rng.randint(17, 29)}"
    flight = _open_flight(sampler, cabin, day, count)
    if flight is None:
        return None
    people = [{"first_name": user.name.first_name, "last_name": user.name.last_name, "dob": user.dob}]
    said = "yourself"
    companion: tuple[str, ...] = ()
    if count == 2:
        other = new_passenger(rng)
        people.append(other)
        companion = (f"{other['first_name']} {other['last_name']}", other["dob"])
        said = f"yourself and {companion[0]} (born {companion[1]})"
    bags, insured = rng.randint(0, 2), rng.random() < 0.4
    paid = max(0, bags - free_bags(user.membership, cabin, count))
    price = flight.dates[day].prices[cabin] * count + 50 * paid + (30 * count if insured else 0)
    pay = pay_with(sampler, price)
    if pay is None:
        return None
    slots = {
        "origin": flight.origin,
        "destination": flight.destination,
        "day": day,
        "flight": flight.flight_number,
        "cabin": f"{CABINS[cabin]} class",
        "people": said,
        "bags": _BAGS[bags],
        "insurance": "with travel insurance" if insured else "without travel insurance",
        "pay": pay.words,
    }
    facts = {
        **{"origin": (flight.origin,), "destination": (flight.destination,), "day": (day,)},
        **{"flight": (flight.flight_number,), "cabin": (CABINS[cabin],), "people": companion, "pay": (pay.fact,)},
    }
    arguments = {
        "user_id": user.user_id,
        "origin": flight.origin,
        "destination": flight.destination,
        "flight_type": "one_way",
        "cabin": cabin,
        "flights": [{"flight_number": flight.flight_number, "date": day}],
        "passengers": people,
        "payment_methods": [{"payment_id": pay.id, "amount": price}],
        "total_baggages": bags,
        "nonfree_baggages": paid,
        "insurance": "yes" if insured else "no",
    }
    search = {"origin": flight.origin, "destination": flight.destination, "date": day}
    intent = Intent("book", slots, facts, {"bags": str(bags), "insurance": "yes" if insured else "no"})
    return Request(intent, [Call("search_direct_flight", search)], Call("book_reservation", arguments))


def _open_flight(sampler: Sampler, cabin: str, day: str, count: int) -> Record | None:
    found = [
        flight
        for flight in sampler.db.flights.values()
        if flight_status(sampler.db, flight.flight_number, day) == "available"
        and flight.dates[day].available_seats[cabin] >= count
        and flight.origin != flight.destination
    ]
    return sampler.rng.choice(found) if found else None
