"""What a user simulator with tools says of its own device: that it did something, or what its tools showed."""

from __future__ import annotations

import re

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who
from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import Made
from tau2_slime.diagnosis.user_side import user_finding
from tau2_slime.diagnosis.words import (
    claims_done,
    lacks,
    quoted,
    sentences,
    subject,
)


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
            return user_finding(
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
