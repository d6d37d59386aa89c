"""What a user simulator did that led a conversation astray: each rule names the message, or finds nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, as_text
from tau2_slime.diagnosis.meaning import Differing, expressed, names_specifically, speaks_of, specifics
from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import Made, Said
from tau2_slime.diagnosis.words import (
    agrees,
    asks,
    claims_done,
    declines,
    lacks,
    mentions,
    offers_help,
    quoted,
    refusal,
    sentences,
    squeeze,
    subject,
)
from tau2_slime.outcome import Flaw


def _user(
    what: What, said: Said, *more: Evidence, sure: float = 0.8, pattern: re.Pattern[str] | None = None, tool: str = ""
) -> Finding:
    evidence = (Evidence(said.turn, quoted(said.text, pattern)), *more)
    return Finding(Who.USER, what, said.turn, evidence, sure, tool=tool)


# ---- before a divergent write ------------------------------------------------------------------------------------------


def gave_the_value(case: Case, call: Made, differences: list[Differing]) -> Finding | None:
    """The user's words hold the value with which a divergent write differs from gold, and the scenario does not."""
    for each in differences:
        for said in case.story.texts("user", before=call.turn):
            where = _first_said(case, said, each, call)
            if where is None:
                continue
            what = What.INVENTED if _is_fact(each) and not _known(case, said.turn, each) else What.OFF_SCRIPT
            path = f"{call.name}.{each.path}"
            evidence = (
                Evidence(said.turn, where[:200]),
                Evidence(call.turn, name=path, here=as_text(each.here), gold=as_text(each.gold)),
            )
            return Finding(Who.USER, what, said.turn, evidence, 0.8, each.kind, call.name)
    return None


def _first_said(case: Case, said: Said, each: Differing, call: Made) -> str | None:
    """The user's sentence that says the differing value, which neither its scenario nor the agent has said before.

    Small numbers count only beside what the call is about.
    """
    small = isinstance(each.here, (int, float)) and abs(each.here) < 100
    told = [case.scenario, *(one.text for one in case.story.texts("assistant", before=said.turn))]
    for sentence in sentences(said.text):
        if small and not subject(call.name).search(sentence):
            continue
        for words in expressed(sentence, each.here, each.gold, each.kind, case.world):
            form = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.I)
            if not any(form.search(text) for text in told):
                return sentence
    return None


def _known(case: Case, turn: int, each: Differing) -> bool:
    value = squeeze(as_text(each.here))
    return value in squeeze(case.scenario) or value in squeeze(case.heard_before(turn))


def _is_fact(each: Differing) -> bool:
    """An id, address, e-mail, name or amount; not a choice such as a cabin or a colour."""
    if each.kind in ("record", "amount"):
        return True
    if isinstance(each.here, (int, float)):
        return True
    name = each.path.split(".")[-1].split("[")[0]
    return bool(
        re.search(
            r"name|address|city|zip|state|country|email|phone|dob|payment_id|payment_method_id|flight_number", name
        )
    )


def asked_for(case: Case, call: Made) -> Said | None:
    """The user's text that asks for an extra write before the agent has offered it, and that its scenario does not hold."""
    about = subject(call.name)
    strict = case.alike(call.name) or bool(about.search(case.scenario))
    for said in case.story.texts("user", before=call.turn):
        if not speaks_of(said.text, call.name, call.arguments, case.world, strictly=False):
            continue
        if strict and not names_specifically(said.text, call.arguments, case.world):
            continue
        offered = [
            one
            for one in case.story.texts("assistant", before=said.turn)
            if speaks_of(one.text, call.name, call.arguments, case.world, strictly=strict) and asks(one.text)
        ]
        if offered:
            return None
        if strict and _scenario_names(case, call):
            return None
        return said
    return None


def _scenario_names(case: Case, call: Made) -> bool:
    """True if the scenario speaks of the record or an item of the write."""
    named = [
        (kind, value)
        for kind, value in specifics(call.arguments, case.world)
        if names_specifically(
            case.scenario, {"order_id": value} if kind == "record" else {"item_ids": [value]}, case.world
        )
    ]
    return bool(named)


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
                yield _user(what, said, sure=0.85)
                break
    stopped = premature_stop(case)
    if stopped is not None:
        yield stopped


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
        return _user(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.9)
    questions = [s for s in sentences(before.text) if asks(s) and not offers_help(s)]
    pending = [w for w in case.needed if any(subject(w.name).search(s) for s in sentences(before.text))]
    said = re.sub(r"###\w[\w-]*###", "", stop.text)
    if questions and pending and not declines(said) and refusal(before.text) is None:
        return _user(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.8)
    if refusal(before.text) is not None:
        return None
    if case.has_user_tools or any(refused_offer(case, write) is not None for write in case.needed):
        return None
    unspoken = [write for write in case.needed if write.requestor == "assistant" and not _spoken(case, write)]
    if unspoken and len(unspoken) == len(case.needed) and (offers_help(before.text) or questions):
        return _user(What.PREMATURE_STOP, stop, _asked_last(before), sure=0.7)
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
        own = next((s for s in sentences(said.text) if lacks(s)), said.text)
        named = [kind for kind, (words, _) in _GIVEN.items() if re.search(words, own, re.I)]
        kinds = named or [kind for kind, (words, _) in _GIVEN.items() if re.search(words, asked.text, re.I)]
        for kind in kinds:
            words, form = _GIVEN[kind]
            given = re.search(form, case.known)
            if given is None or (case.unknown and re.search(words, case.unknown, re.I)):
                continue
            if any(re.search(form, one.text) for one in texts):
                continue
            return _user(
                What.WITHHELD, said, Evidence(asked.turn, quoted(asked.text, re.compile(words, re.I))), sure=0.8
            )
    return None


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
        agreed_later = any(agrees(one.text) and not one.stops for one in case.story.texts("user", after=said.turn))
        if not agreed_later:
            return _user(What.REFUSED_OFFER, said, Evidence(before.turn, offers[-1][:200]), tool=write.name)
    return None


def claimed_not_done(case: Case, write: GoldWrite) -> Finding | None:
    """The user says that it did what it was asked to do on its device, without the call."""
    if write.requestor != "user":
        return None
    about = subject(write.name)
    for asked in case.story.texts("assistant"):
        if not about.search(asked.text):
            continue
        said = next(iter(case.story.texts("user", after=asked.turn)), None)
        if said is None or not claims_done(said.text) or lacks(said.text):
            continue
        calls = [call for call in case.story.calls if call.requestor == "user" and asked.turn < call.turn < said.turn]
        if any(call.name == write.name for call in calls):
            continue
        if about.search(said.text) or not calls:
            return _user(
                What.CLAIMED_NOT_DONE,
                said,
                Evidence(asked.turn, quoted(asked.text, about)),
                tool=write.name,
                pattern=about,
            )
    return None


_TOPICS: tuple[tuple[str, str, str], ...] = (
    # what it is about, what a tool or a user says if it is so, and if it is not
    (r"airplane", r"\bON\b|enabled|: yes", r"\bOFF\b|disabled|: no\b|not (on|enabled)"),
    (r"data saver", r"\bON\b|enabled|: yes", r"\bOFF\b|disabled|: no\b|not (on|enabled)"),
    (r"roaming", r"\bON\b|enabled(?!: no)|: yes", r"\bOFF\b|disabled|: no\b|not (on|enabled)"),
    (
        r"mobile data|data (enabled|disabled)",
        r"\bON\b|enabled(?!: no)|: yes",
        r"\bOFF\b|disabled|: no\b|not (on|enabled)",
    ),
    (r"wi-?fi calling", r"\bON\b|enabled", r"\bOFF\b|disabled|not (on|enabled)"),
    (r"\bvpn\b", r"\bON\b|connected|active", r"\bOFF\b|disconnected|no active|not connected"),
    (r"\bsim\b", r"active|working", r"missing|no sim|locked|not (detected|inserted)"),
    (r"speed", r"excellent", r"\b(very poor|poor|fair|good|no connection|failed|slow)\b"),
    (
        r"mms|picture message",
        r"\bcan send|working|able to send|works|went through",
        r"cannot|can'?t|not able|unable|fail",
    ),
    (
        r"signal|service|cellular",
        r"excellent|good|fair|connected|full (bars|signal)|back",
        r"no (signal|service)|none|disconnected|not connected",
    ),
    (r"payment|bill", r"\bpaid|success|made|went through", r"no payment|not (been )?paid|fail|insufficient|declin"),
)


def misreported(case: Case) -> Finding | None:
    """The user reports another result than its tool gave."""
    results = [call for call in case.story.calls if call.requestor == "user" and call.result is not None]
    for said in case.story.texts("user"):
        since = case.story.last_text("user", before=said.turn)
        fresh = [c for c in results if (since.turn if since else -1) < c.turn < said.turn]
        for call in fresh:
            for sentence in sentences(said.text):
                about = next(
                    (t for t in _TOPICS if re.search(t[0], sentence, re.I) and _told(call, t) is not None), None
                )
                if about is None:
                    continue
                truth, claim = _told(call, about), _polarity(sentence, about)
                if claim is not None and truth != claim:
                    line = next(
                        (x for x in (call.result or "").splitlines() if re.search(about[0], x, re.I)), call.result or ""
                    )
                    evidence = Evidence(call.result_turn, line.strip()[:200])
                    finding = Finding(
                        Who.USER, What.MISREPORTED, said.turn, (Evidence(said.turn, sentence[:200]), evidence), 0.75
                    )
                    return finding
    return None


def _told(call: Made, topic: tuple[str, str, str]) -> bool | None:
    """What a tool's result says about the topic; None if nothing, or both."""
    for line in (call.result or "").splitlines():
        for part in line.split("|"):
            if re.search(topic[0], part, re.I) or re.search(topic[0], call.name.replace("_", " "), re.I):
                found = _polarity(part, topic)
                if found is not None:
                    return found
    return None


def _polarity(text: str, topic: tuple[str, str, str]) -> bool | None:
    yes, no = re.search(topic[1], text, re.I) is not None, re.search(topic[2], text, re.I) is not None
    return None if yes == no else yes


def answered_nothing(case: Case, value: str) -> bool:
    """True if nobody but the tools has said ``value``."""
    return not any(mentions(said.text, value) for said in case.story.said)
