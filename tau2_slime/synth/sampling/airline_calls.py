"""Airline: the calls of a proposal in one of the orders that agents take, with the detours that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.sampling.sampler import once

if TYPE_CHECKING:
    from tau2_slime.synth.sampling.airline import AirlineSampler

LAST_DAY = "2024-05-30"
"""τ² cannot search flights with a change of planes beyond May."""
THOROUGH, SEARCHING, ADDING = 0.6, 0.1, 0.06
"""How often an agent reads all reservations, looks for a flight that nobody asked for, and adds two numbers."""


def look(reservation_id: str) -> Call:
    """The look at a reservation."""
    return Call("get_reservation_details", {"reservation_id": reservation_id})


def laid_out(sampler: AirlineSampler) -> list[Call]:
    """Reads and writes of what the customer wants."""
    rng = sampler.rng
    out: list[Call] = []
    if rng.random() < 0.6:
        out += [call for request in sampler.requests for call in request.reads]
    for request in sampler.requests:
        quick = request.intent.kind == "certificate" and rng.random() < 0.3
        out += [*([] if quick else request.reads), request.call]
    if rng.random() < THOROUGH:
        every = [look(reservation.reservation_id) for reservation in sampler.reservations]
        out[:0] = every[:5]
    trips = [r for r in sampler.reservations if r.flights]
    if trips and rng.random() < SEARCHING:
        leg = rng.choice(rng.choice(trips).flights)
        where = {"origin": leg.origin, "destination": leg.destination, "date": leg.date}
        one, two = "search_direct_flight", "search_onestop_flight"
        if leg.date <= LAST_DAY:
            place = rng.randint(0, len(out))
            out[place:place] = [Call(kind, where) for kind in rng.choice(((one,), (one, two)))]
    if rng.random() < ADDING:
        expression = f"{rng.randint(40, 400)} + {rng.randint(40, 400)}"
        out.insert(rng.randint(min(1, len(out)), len(out)), Call("calculate", {"expression": expression}))
    if rng.random() < 0.85:
        place = 0 if rng.random() < 0.75 else rng.randint(0, len(out))
        out.insert(place, Call("get_user_details", {"user_id": sampler.user.user_id}))
    return once(out)
