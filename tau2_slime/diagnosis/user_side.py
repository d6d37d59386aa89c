"""What a user simulator did that brought a conversation to nothing: each rule names the message, or finds nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, as_text
from tau2_slime.diagnosis.meaning import names_specifically, speaks_of
from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import TRANSFER, Said
from tau2_slime.diagnosis.words import (
    agrees,
    asks,
    claims_done,
    declines,
    first_sentence,
    lacks,
    offers_help,
    quoted,
    refusal,
    sentences,
    squeeze,
    subject,
)
from tau2_slime.outcome import Flaw


def user_finding(
    what: What, said: Said, *more: Evidence, sure: float = 0.8, pattern: re.Pattern[str] | None = None, tool: str = ""
) -> Finding:
    evidence = (Evidence(said.turn, quoted(said.text, pattern)), *more)
    return Finding(Who.USER, what, said.turn, evidence, sure, tool=tool)


# ---- with which the conversation ends ----------------------------------------------------------------------------------


def broke_off(case: Case) -> Iterator[Finding]:
    """Role flip, leak, premature stop: with no sensible word of the user after it, and gold's work left."""
    if not (case.needed or case.unsaid):
        return
    for flaw, what in ((Flaw.ROLE_FLIP, What.ROLE_FLIP), (Flaw.LEAK, What.LEAK)):
        for found in case.flaws:
            if found.flaw is Flaw.LEAK and found.position == _opening(case):  # common and harmless
                continue
            if found.flaw is flaw and _nothing_sensible_after(case, found.position):
                said = next(
                    one for one in case.story.texts("user", after=found.position - 1) if one.turn == found.position
                )
                yield user_finding(what, said, sure=0.85)
                break
    stopped = premature_stop(case)
    if stopped is not None:
        yield stopped
    misled = _misled(case)
    if misled is not None:
        yield misled


def _misled(case: Case) -> Finding | None:
    """The user invents a fact with which the agent then finds nothing, and the conversation comes to nothing."""
    for found in case.flaws:
        if found.flaw is not Flaw.INVENTED:
            continue
        value = squeeze(found.words)
        later = [call for call in case.story.calls if call.turn > found.position and call.requestor == "assistant"]
        used = next(
            (call for call in later if call.error and value and value in squeeze(as_text(call.arguments))), None
        )
        if used is not None and not any(call.effective for call in later) and case.needed:
            said = next(one for one in case.story.texts("user", after=found.position - 1))
            evidence = Evidence(used.turn, name=used.name, here=as_text(used.arguments))
            return user_finding(What.INVENTED, said, evidence, pattern=re.compile(re.escape(found.words)))
    return None


def _opening(case: Case) -> int:
    texts = case.story.texts("user")
    return texts[0].turn if texts else -1


def _nothing_sensible_after(case: Case, turn: int) -> bool:
    if any(call.turn > turn and call.effective for call in case.story.calls):
        return False
    flawed = {
        found.position for found in case.flaws if found.flaw in (Flaw.ROLE_FLIP, Flaw.LEAK, Flaw.EMPTY, Flaw.REPEAT)
    }
    texts = case.story.texts("user")
    if texts and texts[0].turn == turn and len(texts) > 2:
        return False
    return all(one.stops or one.turn in flawed for one in texts if one.turn > turn)


def premature_stop(case: Case) -> Finding | None:
    """The user hangs up before an action that it just confirmed, or before it has said all that its scenario wants."""
    stop = case.story.stop()
    if stop is None or "###TRANSFER###" in stop.text or not (case.needed or case.unsaid):
        return None
    before = case.story.last_text("assistant", before=stop.turn)
    if before is None or case.transfer is not None:
        return None
    if any(found.flaw is Flaw.PREMATURE_STOP and found.position == stop.turn for found in case.flaws):
        return user_finding(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.9)
    if refusal(before.text) is not None:
        return None
    questions = [s for s in sentences(before.text) if asks(s) and not offers_help(s)]
    pending = [w for w in case.needed if subject(w.name).search(before.text)]
    said = re.sub(r"###\w[\w-]*###", "", stop.text)
    told_to = any(w.requestor == "user" for w in pending) and not claims_done(said)
    if not declines(said) and ((questions and pending) or (told_to and not offers_help(before.text))):
        return user_finding(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.8)
    refused = any(refusal(one.text) is not None for one in case.story.texts("assistant"))
    if questions and case.needed and not refused and not lacks(said) and not declines(said):
        return user_finding(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.6)
    if case.has_user_tools or any(refused_offer(case, write) is not None for write in case.needed):
        return None
    unspoken = [write for write in case.needed if write.requestor == "assistant" and not _spoken(case, write)]
    if unspoken and len(unspoken) == len(case.needed) and (offers_help(before.text) or questions):
        return user_finding(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.7)
    return None


def _asked_last(said: Said) -> Evidence:
    asked = [sentence for sentence in sentences(said.text) if asks(sentence)]
    return Evidence(said.turn, asked[-1][:200] if asked else quoted(said.text))


def _spoken(case: Case, write: GoldWrite) -> bool:
    """True if the user has asked for what the gold write does."""
    texts = case.story.texts("user")
    if case.alike(write.name) and names_specifically(case.known, write.arguments, case.world):
        return any(names_specifically(one.text, write.arguments, case.world) for one in texts)
    return any(speaks_of(one.text, write.name, write.arguments, case.world, strictly=False) for one in texts)


# ---- with gold's work left ---------------------------------------------------------------------------------------------

_GIVEN: dict[str, tuple[str, str]] = {
    "email": (r"e-?mail", r"[\w.+-]+@[\w-]+\.\w+"),
    "zip": (r"\bzip", r"\b\d{5}\b"),
    "order": (r"\border", r"#?\bW\d{7}\b"),
    "user id": (r"\buser.?id|profile id|customer id|account id", r"\b[a-z]+_[a-z]+_\d{4}\b"),
    "reservation": (r"reservation|confirmation|booking", r"\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{6}\b"),
    "phone": (r"phone", r"\b\d{3}-\d{3}-\d{4}\b"),
    "name": (r"\bname\b", r"\b(?i:you are|you're|name is|your name:?) [A-Z]\w+ [A-Z]\w+"),
    "birth": (r"birth|\bdob\b", r"\b(19|20)\d\d-\d\d-\d\d\b|\b(?i:born|birth)\w*\b[^.]*\d{4}"),
    "payment": (r"payment|\bcard\b|paypal", r"credit card|gift card|paypal|certificate|visa|mastercard"),
    "address": (
        r"address",
        r"\b\d+ [A-Z]\w+ (Street|St|Avenue|Ave|Road|Lane|Drive|Boulevard|Court|Way)\b|\d+ \w+ \w+, (Suite|Apt)",
    ),
    "passenger": (r"passenger", r"passenger"),
}


def withheld(case: Case) -> Finding | None:
    """The user says that it has not got what its scenario gives, and never gives it."""
    texts = case.story.texts("user")
    for said in texts:
        if not lacks(said.text):
            continue
        asked = case.story.last_text("assistant", before=said.turn)
        if asked is None or not asks(asked.text):
            continue
        own = first_sentence(said.text, lacks) or said.text
        named = [kind for kind, (words, _) in _GIVEN.items() if re.search(words, own, re.I)]
        kinds = named or [kind for kind, (words, _) in _GIVEN.items() if re.search(words, asked.text, re.I)]
        for kind in kinds:
            words, form = _GIVEN[kind]
            given = re.search(form, case.known)
            if given is None or (case.unknown and re.search(words, case.unknown, re.I)):
                continue
            if any(re.search(form, one.text) for one in texts) or _went_on(case, said):
                continue
            return user_finding(
                What.WITHHELD, said, Evidence(asked.turn, quoted(asked.text, re.compile(words, re.I))), sure=0.8
            )
    return None


def _went_on(case: Case, said: Said) -> bool:
    """True if the agent found another way: it looks something up afterwards."""
    calls = (call for call in case.story.calls if call.turn > said.turn and call.requestor == "assistant")
    return any(not call.error and call.name not in (TRANSFER, "calculate") for call in calls)


def _answers(case: Case, said: Said, about: re.Pattern[str]) -> bool:
    before = case.story.last_text("assistant", before=said.turn)
    return before is not None and about.search(before.text) is not None


def refused_offer(case: Case, write: GoldWrite) -> Finding | None:
    """The user turns down exactly what its scenario wants."""
    about = subject(write.name)
    for said in case.story.texts("user"):
        before = case.story.last_text("assistant", before=said.turn)
        if before is None or not declines(re.sub(r"###\w[\w-]*###", "", said.text)) or refusal(before.text) is not None:
            continue
        offers = [s for s in sentences(before.text) if asks(s) and not offers_help(s)]
        if not offers or not about.search(before.text):
            continue
        if case.alike(write.name) and not names_specifically(before.text, write.arguments, case.world):
            continue
        agreed_later = any(
            agrees(one.text) and not one.stops and _answers(case, one, about)
            for one in case.story.texts("user", after=said.turn)
        )
        if not agreed_later:
            return user_finding(What.REFUSED_OFFER, said, Evidence(before.turn, offers[-1][:200]), tool=write.name)
    return None
