"""What the agent did that gold does not, and what it left undone: each rule names the decisive message, or finds nothing."""

from __future__ import annotations

import re

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, agent_finding, as_text
from tau2_slime.diagnosis.matching import other_tool_for
from tau2_slime.diagnosis.meaning import differing, names_specifically, record_of_call, speaks_of
from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import Made, Said
from tau2_slime.diagnosis.user_devices import claimed_not_done, misreported
from tau2_slime.diagnosis.user_requests import asked_for, gave_the_value
from tau2_slime.diagnosis.user_side import refused_offer, withheld
from tau2_slime.diagnosis.words import agrees, asks, asks_to_act, mentions, quoted, refusal, sentences, subject

_CONFIRM = r"obtain explicit user confirmation|explicit user confirmation"
_TRANSFER = r"transfer the user to a human agent if and only if"


def _call(call: Made, gold: GoldWrite | None = None) -> Evidence:
    gold_text = None if gold is None else f"{gold.name}({as_text(gold.arguments)})"
    return Evidence(call.turn, name=call.name, here=as_text(call.arguments), gold=gold_text)


# ---- divergent writes --------------------------------------------------------------------------------------------------


def consent(case: Case, call: Made) -> Said | None:
    """The customer's text that agrees to the call, after the agent has listed it; None if there is none."""
    answer = case.story.last_text("user", before=call.turn)
    if answer is None or not agrees(answer.text):
        return None
    listed = case.story.last_text("assistant", before=answer.turn)
    if listed is None or not case.story.texts("user", before=listed.turn):  # the greeting lists nothing
        return None
    named = subject(call.name).search(listed.text) or any(mentions(listed.text, value) for value in _ids(call))
    if not asks_to_act(listed.text) and not (named and asks(listed.text)):
        return None
    since = [c for c in case.made if answer.turn < c.turn < call.turn and c.requestor == "assistant"]
    if any(_about_another(case, call, each, listed) for each in since):
        return None
    return answer


def _about_another(case: Case, call: Made, earlier: Made, listed: Said) -> bool:
    """True if the listing was that of an earlier write, and says nothing of this one."""
    if record_of_call(call.arguments) != record_of_call(earlier.arguments):
        return not names_specifically(listed.text, call.arguments, case.world)
    if call.name != earlier.name:
        return not subject(call.name).search(listed.text.replace(earlier.name.replace("_", " "), ""))
    return False


def _ids(call: Made) -> list[str]:
    return [str(value) for key, value in call.arguments.items() if key.endswith("_id") and value]


def divergent_write(case: Case, call: Made) -> Finding:
    """What a write is that took effect and that gold does not have."""
    pair = case.paired(call)
    broken = call.violations[0] if call.violations else None
    clause = case.clause(broken.pattern) if broken is not None else None
    if pair is not None:
        differences = differing(call.arguments, pair.arguments)
        given = gave_the_value(case, call, differences)
        if given is not None:
            return given
        first = differences[0] if differences else None
        evidence = [
            Evidence(call.turn, name=f"{call.name}.{each.path}", here=as_text(each.here), gold=as_text(each.gold))
            for each in differences[:3]
        ] or [_call(call, pair)]
        detail = first.kind if first is not None else ""
        if consent(case, call) is None:
            before = case.story.last_text("user", before=call.turn)
            said = [Evidence(before.turn, quoted(before.text))] if before is not None else []
            clause = clause or case.clause(_CONFIRM)
            return agent_finding(
                What.UNCONFIRMED_WRITE,
                call.turn,
                *evidence,
                *said,
                tool=call.name,
                detail=detail,
                clause=clause,
                sure=0.85,
            )
        return agent_finding(What.WRONG_ARGUMENT, call.turn, *evidence, tool=call.name, detail=detail, clause=clause)
    other = other_tool_for(call, case.needed)
    asked = asked_for(case, call) if broken is None else None
    if other is not None and not (
        asked is not None and not subject(other.name).search(asked.text) and _only_asks_for(case, call, other)
    ):
        return agent_finding(What.WRONG_TOOL, call.turn, _call(call, other), tool=call.name, clause=clause)
    if asked is not None:
        evidence_of_user = (Evidence(asked.turn, quoted(asked.text, subject(call.name))), _call(call))
        return Finding(Who.USER, What.OFF_SCRIPT, asked.turn, evidence_of_user, 0.75, tool=call.name)
    more = [Evidence(call.turn, name=broken.rule.id, here=broken.why)] if broken is not None else []
    return agent_finding(What.EXTRA_ACTION, call.turn, _call(call), *more, tool=call.name, clause=clause, sure=0.85)


def _only_asks_for(case: Case, call: Made, other: GoldWrite) -> bool:
    """True if the user asks for the call's own tool and never for gold's."""
    about = subject(other.name)
    return not any(about.search(said.text) for said in case.story.texts("user", before=call.turn))


# ---- left undone -------------------------------------------------------------------------------------------------------


def left_undone(case: Case) -> list[Finding]:
    """Why gold writes are missing: the first of the list is the cause."""
    found: list[Finding] = []
    write = case.needed[0]
    malformed = [one for each in case.needed if (one := _malformed(case, each)) is not None]
    if malformed:
        found.append(min(malformed, key=lambda one: one.turn or 0))
    earlier = withheld(case)
    false = next((f for w in case.needed if (f := claimed_not_done(case, w)) is not None), None) or (
        misreported(case) if case.has_user_tools else None
    )
    causes = [one for one in (earlier, false) if one is not None]
    own = _transferred(case) or _refused(case)
    if own is not None:
        causes.append(own)
    declined = next((f for w in case.needed if (f := refused_offer(case, w)) is not None), None)
    if declined is not None:
        causes.append(declined)
    found += sorted(causes, key=lambda one: one.turn if one.turn is not None else 0)
    turn = case.story.closing()
    text = next((s for s in case.story.texts("assistant") if s.turn == turn), None)
    words = [Evidence(turn, quoted(text.text))] if text is not None else []
    gold = Evidence(None, name=write.name, here="(never made)", gold=as_text(write.arguments))
    found.append(agent_finding(What.MISSING_ACTION, turn, gold, *words, tool=write.name, sure=0.8))
    return found


def _malformed(case: Case, write: GoldWrite) -> Finding | None:
    call = next(
        (c for c in case.story.calls if not c.reached and c.name == write.name and c.requestor == write.requestor), None
    )
    if call is None:
        return None
    return agent_finding(What.MALFORMED_CALL, call.turn, _call(call), tool=call.name)


def _transferred(case: Case) -> Finding | None:
    call = case.transfer
    if call is None or case.gold.transfers:
        return None
    left = Evidence(None, name=case.needed[0].name, here="(never made)", gold=as_text(case.needed[0].arguments))
    clause = case.clause(_TRANSFER)
    return agent_finding(What.PREMATURE_TRANSFER, call.turn, _call(call), left, tool=call.name, clause=clause)


def _refused(case: Case) -> Finding | None:
    """The agent says that it cannot or may not do what gold does."""
    for strictly in (True, False):
        for said in case.story.texts("assistant"):
            sentence = refusal(said.text)
            if sentence is None:
                continue
            for write in case.needed:
                about = subject(write.name)
                if write.requestor != "assistant" or any(
                    c.turn > said.turn and c.name == write.name and c.effective for c in case.made
                ):
                    continue
                before = case.story.last_text("user", before=said.turn)
                asked = before is not None and speaks_of(
                    before.text, write.name, write.arguments, case.world, strictly=False
                )
                last = not case.story.texts("assistant", after=said.turn + 2)
                near = any(about.search(s) and refusal(s) for s in sentences(said.text))
                if (near and (not case.alike(write.name) or not strictly)) or (not strictly and asked and last):
                    return agent_finding(
                        What.WRONG_REFUSAL, said.turn, Evidence(said.turn, sentence[:200]), tool=write.name, sure=0.75
                    )
    return None


def not_communicated(case: Case) -> Finding | None:
    """The world is as gold leaves it, but a required value was not said."""
    if not case.unsaid:
        return None
    turn = case.story.closing()
    text = next((s for s in case.story.texts("assistant") if s.turn == turn), None)
    words = [Evidence(turn, quoted(text.text, re.compile(r"\d")))] if text is not None else []
    gold = Evidence(None, name="communicate_info", here="(not said)", gold=", ".join(case.unsaid))
    return agent_finding(What.NOT_COMMUNICATED, turn, gold, *words)
