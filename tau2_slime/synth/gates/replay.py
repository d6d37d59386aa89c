"""G3 to G7 and G14: what happens when the gold calls are played, without one of them, and in another order."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.gates.case import Case, Findings

MOST_ORDERED = 5
"""Writes of which all orders are tried; of more, a sample."""
SAMPLED_ORDERS = 30
LISTS = ("item_ids", "passengers", "payment_methods", "flights")
"""Arguments that are lists, and that a customer may name in any order."""
ORDER_WORDS = re.compile(
    r"\b(first|firstly|then|afterwards?|after|before|next|finally|lastly|last|second|secondly|third|once (?:that|this|it)|"
    r"followed by|in (?:this|that) order|subsequently|later|at the end|to start|to begin)\b"
)


def check(case: Case, found: Findings) -> bool:
    """G3 to G7. False if the gold cannot be played at all, so that nothing that follows makes sense."""
    for position, step in enumerate(case.steps):
        if step.error:
            found.fail("G3", f"action {position} ({step.call.name}): {step.answer[:160]}")
        for violation in step.violations:
            found.fail("G7", f"action {position} ({step.call.name}): {violation}")
    if case.end == case.start.state() and not case.communicated:
        found.fail("G4", "the gold changes nothing, and nothing is to be communicated")
    again = case.sandbox()
    for call in case.calls:
        again.play(call)
    if again.state() != case.end:
        found.fail("G5", "two plays of the gold end in different states")
    elif not case.in_database and not case.assertions_hold(case.ended):
        found.fail("G8", "an assertion of the task does not hold after the gold")
    return "G3" not in found.failed


def check_needed(case: Case, found: Findings) -> None:
    """G6: no write, and no pair of writes, can be left out without a trace."""
    writes = [i for i, call in enumerate(case.calls) if case.start.is_write(call)]
    for size in (1, 2):
        for left_out in combinations(writes, size):
            box = case.sandbox()
            for position, call in enumerate(case.calls):
                if position not in left_out and (position in writes or not case.in_database):
                    box.play(call)
            if box.state() == case.end:
                names = " and ".join(f"action {i} ({case.calls[i].name})" for i in left_out)
                found.fail("G6", f"without {names} the end state is the same")
                return


def check_order(case: Case, found: Findings) -> None:
    """G14: other orders of the writes, and of lists in them, end in the same state; or the text fixes the order."""
    if not case.in_database:
        return  # assertions ask for a result, not for the way to it
    for position, call, key, other in _other_lists(case):
        calls = [other if i == position else step.call for i, step in enumerate(case.steps) if not step.error]
        if _ends_elsewhere(case, calls) and not _list_is_fixed(case, call, key):
            found.fail("G14", f"action {position} ({call.name}): another order of {key} ends in another state")
            break
    writes = case.writes
    if len(writes) < 2 or ORDER_WORDS.search(case.text):
        return
    elsewhere = _orders_that_end_elsewhere(case, writes)
    if elsewhere is not None:
        found.fail("G14", f"the order {', '.join(call.name for call in elsewhere)} ends in another state")


def _ends_elsewhere(case: Case, calls: Sequence[Call]) -> bool:
    """True if ``calls`` are as allowed as the gold and end in another state."""
    box = case.sandbox()
    return box.run(calls) and box.state() != case.end


def _orders_that_end_elsewhere(case: Case, writes: Sequence[Call]) -> Sequence[Call] | None:
    if len(writes) > MOST_ORDERED:
        shuffled = random.Random(case.task.id)
        for _ in range(SAMPLED_ORDERS):
            order = shuffled.sample(writes, len(writes))
            if _ends_elsewhere(case, [*_identification(case), *order]):
                return order
        return None
    reads = _identification(case)
    reached: dict[frozenset[int], dict[Hashable, tuple[int, ...]]] = {frozenset(): {None: ()}}
    # Sets of writes by size: orders that meet in one state go on as one.
    for size in range(1, len(writes) + 1):
        for chosen in combinations(range(len(writes)), size):
            states: dict[Hashable, tuple[int, ...]] = {}
            for last in chosen:
                for before in reached.get(frozenset(chosen) - {last}, {}).values():
                    box = case.sandbox()
                    if box.run([*reads, *(writes[i] for i in before), writes[last]]):
                        states.setdefault(box.state(), (*before, last))
            reached[frozenset(chosen)] = states
    ends = reached[frozenset(range(len(writes)))]
    return next(([writes[i] for i in order] for state, order in ends.items() if state != case.end), None)


def _identification(case: Case) -> list[Call]:
    """The reads at the beginning, which the policy wants before a write."""
    out = []
    for step in case.steps:
        if case.start.is_write(step.call):
            break
        if not step.error and step.call.name != "transfer_to_human_agents":
            out.append(step.call)
    return out[:2]


def _other_lists(case: Case) -> Iterator[tuple[int, Call, str, Call]]:
    """(position, gold call, argument, the call with the argument in another order)."""
    for position, call in enumerate(case.calls):
        if not case.start.is_write(call):
            continue
        for key in LISTS:
            entries = call.arguments.get(key)
            if not isinstance(entries, list) or len(entries) < 2:
                continue
            orders = [order for order in permutations(range(len(entries))) if order != tuple(range(len(entries)))]
            for order in orders[:12]:
                arguments = {**call.arguments, key: [entries[i] for i in order]}
                partner = call.arguments.get("new_item_ids")
                if key == "item_ids" and isinstance(partner, list) and len(partner) == len(entries):
                    arguments["new_item_ids"] = [partner[i] for i in order]
                yield position, call, key, replace(call, arguments=arguments)


def _list_is_fixed(case: Case, call: Call, key: str) -> bool:
    """True if the text, or the reservation as it is, gives the order of the list."""
    entries = call.arguments[key]
    if key in ("item_ids", "flights"):
        return key == "flights"  # flights in another order do not connect; items in another order do harm in τ²
    if key == "payment_methods":
        return (
            True
            if ORDER_WORDS.search(case.text)
            else _in_order_of_mention(case, [str(e["payment_id"]) for e in entries])
        )
    names = [f"{e['first_name']} {e['last_name']}".lower() for e in entries]
    with case.start.reading() as db:
        reservation = getattr(db, "reservations", {}).get(call.arguments.get("reservation_id"))
        there = [] if reservation is None else [f"{p.first_name} {p.last_name}".lower() for p in reservation.passengers]
    kept = [name for name in names if name in there]
    if kept != [name for name in there if name in names]:
        return False
    if reservation is not None and all(
        new in there or old == there[i] for i, (new, old) in enumerate(zip(names, there, strict=False))
    ):
        return True
    if reservation is not None:
        changed = [name for i, name in enumerate(names) if i >= len(there) or name != there[i]]
        return len(changed) <= 1 or _in_order_of_mention(case, changed)
    own = _own_name(case)
    said = ["yourself" if name == own else name for name in names]
    return _in_order_of_mention(case, names) or _in_order_of_mention(case, said)


def _own_name(case: Case) -> str | None:
    """The customer's name, if the text says 'yourself' for it."""
    with case.start.reading() as db:
        user = db.users.get(case.customer)
        if user is None or "yourself" not in case.text:
            return None
        return f"{user.name.first_name} {user.name.last_name}".lower()


def _payments_in_order(case: Case, call: Call, entries: Sequence[Mapping[str, object]]) -> bool:
    """True if the text names the kinds of payment in the order of the list: certificates, gift cards, cards."""
    with case.start.reading() as db:
        methods = db.users[call.arguments["user_id"]].payment_methods
        sources = [str(methods[str(entry["payment_id"])].source).replace("_", " ") for entry in entries]
    return _in_order_of_mention(case, sources) and len(set(sources)) == len(sources)


def _in_order_of_mention(case: Case, words: Sequence[str]) -> bool:
    """True if the text names ``words`` in their order; those that it does not name may stand anywhere."""
    places = [place for word in words if (place := case.text.find(word)) >= 0]
    return places == sorted(places)
