"""Writes in another order than gold's: as right as gold, or too early for what they depend on."""

from __future__ import annotations

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, agent_finding, as_text
from tau2_slime.diagnosis.matching import canonical, exact
from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import Made


def order_dependent(case: Case) -> Finding | None:
    """The same writes in another order of independent calls or list items: as right as gold, with another hash."""
    if not case.counts_database or not case.played.differences or case.missing or case.extra:
        return None
    if not case.played.equal_but_for_order and (_swapped(case) is not None or not _other_lists(case)):
        return None
    path, _, here, gold = case.played.differences[0]
    turn = _first_out_of_order(case)
    return Finding(Who.TASK, What.ORDER_DEPENDENT, turn, (Evidence(None, name=path, here=here, gold=gold),), 0.9)


def _sequence(case: Case) -> list[tuple[Made, int]]:
    """Each effective write with the position of the gold write that it is."""
    waiting: dict[str, list[int]] = {}
    for position, write in enumerate(case.gold.writes):
        waiting.setdefault(canonical(write.requestor, write.name, write.arguments), []).append(position)
    found = []
    for call in case.made:
        same = waiting.get(canonical(call.requestor, call.name, call.arguments))
        if same:
            found.append((call, same.pop(0)))
    return found


def _other_lists(case: Case) -> bool:
    return any(
        exact(call.requestor, call.name, call.arguments)
        != exact(case.gold.writes[at].requestor, case.gold.writes[at].name, case.gold.writes[at].arguments)
        for call, at in _sequence(case)
    )


def _first_out_of_order(case: Case) -> int:
    sequence = _sequence(case)
    for place, (call, at) in enumerate(sequence):
        gold = case.gold.writes[at]
        if at != place or exact(call.requestor, call.name, call.arguments) != exact(
            gold.requestor, gold.name, gold.arguments
        ):
            return call.turn
    return sequence[0][0].turn if sequence else case.story.last


def _swapped(case: Case) -> tuple[Made, GoldWrite] | None:
    """A write that came before another one that it depends on, and that other one; both made."""
    sequence = _sequence(case)
    for place, (call, at) in enumerate(sequence):
        for _, earlier in sequence[place + 1 :]:
            if earlier < at and _depends(case, call, case.gold.writes[at], case.gold.writes[earlier]):
                return call, case.gold.writes[earlier]
    return None


def _depends(case: Case, call: Made, one: GoldWrite, other: GoldWrite) -> bool:
    if not case.counts_database:
        return True
    return bool((one.touched | call.touched) & other.touched)


def wrong_order(case: Case) -> Finding | None:
    """Every gold write was made, or tried, but one before another one that it depends on."""
    too_early = _too_early(case) or (None if case.needed else _swapped(case))
    if too_early is None:
        return None
    call, before = too_early
    turn = call.turn
    if call.requestor == "user":  # the agent asked for it
        asked = case.story.last_text("assistant", before=call.turn)
        turn = asked.turn if asked is not None else turn
    evidence = [
        Evidence(
            call.turn,
            name=call.name,
            here=as_text(call.arguments),
            gold=f"after {before.name}({as_text(before.arguments)})",
        )
    ]
    if call.error and call.result and call.result_turn is not None:
        evidence.append(Evidence(call.result_turn, call.result[:200]))
    clause = case.clause(call.violations[0].pattern) if call.violations else None
    return agent_finding(What.WRONG_ORDER, turn, *evidence, tool=call.name, clause=clause, sure=0.8)


def _too_early(case: Case) -> tuple[Made, GoldWrite] | None:
    """A gold write that was refused, because another one that gold makes first came only afterwards."""
    needed = {canonical(w.requestor, w.name, w.arguments): w for w in case.needed}
    for call in case.story.calls:
        write = needed.get(canonical(call.requestor, call.name, call.arguments))
        if write is None or call.effective or not call.reached:
            continue
        at = case.gold.writes.index(write)
        later = {i for made, i in _sequence(case) if made.turn > call.turn}
        for position, before in enumerate(case.gold.writes):
            if position != at and position in later and (position < at or before.touched & write.touched):
                return call, before
            if position > at and before.touched & write.touched:  # what gold makes later may have closed the record
                made = next((made for made, i in _sequence(case) if i == position and made.turn < call.turn), None)
                if made is not None:
                    return made, write
    return None
