"""Retail: the calls of a proposal in one of the orders that agents take, each read before the write that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.sampling.sampler import once

if TYPE_CHECKING:
    from tau2_slime.synth.sampling.retail import RetailSampler

CAREFUL, CURIOUS = 0.2, 0.01
"""How often an agent reads all orders of the customer, and the list of all products."""


def laid_out(sampler: RetailSampler) -> list[Call]:
    """Reads and writes of what the customer wants, after the look-up of the customer."""
    rng = sampler.rng
    reads = [call for request in sampler.requests for call in request.reads]
    out: list[Call] = []
    if rng.random() < 0.5:  # everything is read first, in whatever order
        if rng.random() < 0.5:
            rng.shuffle(reads)
        out += reads
    for request in sampler.requests:
        out += [*request.reads, request.call]
    if rng.random() < CAREFUL:
        orders = [Call("get_order_details", {"order_id": order}) for order in sampler.user.orders]
        out[:0] = orders[: rng.randint(1, 3)]
    if rng.random() < CURIOUS:
        out.insert(0, Call("list_all_product_types", {}))
    if rng.random() < 0.55:
        place = 0 if rng.random() < 0.8 else rng.randint(0, len(out))
        out.insert(place, Call("get_user_details", {"user_id": sampler.user.user_id}))
    sums = [call for asked in sampler.asked for call in asked.reads]
    place = len(out) if rng.random() < 0.5 else rng.randint(min(1, len(out)), len(out))
    out[place:place] = sums
    return once(out)
