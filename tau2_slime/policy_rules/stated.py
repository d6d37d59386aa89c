"""What a customer's text states beyond the database: reasons, complaints, amounts. A generator passes data instead."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from tau2_slime.policy_rules.rules import NOTHING_STATED, Stated

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

_MISTAKE = re.compile(r"\b(mistake\w*|by accident|accidental\w*|in error)\b")
_NO_NEED = re.compile(
    r"\b(no longer|any ?more|unneeded|(?:do not|don't|does not|doesn't|did not|didn't|not) (?:really )?(?:need|want))\b"
)
_OTHER_REASON = re.compile(
    r"\b(cheaper|better (?:deal|price|offer)|lower price|too expensive|too slow|too long|too late|late|delay\w*|unreasonable"
    r"|bad reviews?|negative reviews?|cannot afford|can't afford|competitor|another (?:store|shop|site|retailer))\b"
)
_BECAUSE = re.compile(r"\bcancel\w*[^.;!?\n]*?(?:\b(?:because|since|the reason is|due to)\b|reason:|[,:])([^.;!?\n]*)")
_ANOTHER_WISH = re.compile(r"exchang|return|modif|chang|swap|replac|upgrad|another|instead")
_HEALTH = re.compile(
    r"\b(health\w*|sick\w*|ill|illness|unwell|injur\w+|medical\w*|doctor\w*|hospital\w*|surger\w+|fever|flu|covid\w*"
    r"|(?:broke|broken|break) (?:(?:my|your|his|her|a|an|the) )?(?:leg|arm|foot|hip|rib|wrist|ankle|collarbone|\w+ bone)\w*"
    r"|broke (?:my|your|his|her) \w+|diagnos\w+|infection|ankle|pneumonia|not feeling well|bad back|physician|pregnan\w+"
    r"|food poisoning|heart (?:attack|condition|problems?)|stroke|migraine\w*|appendicitis|concussion|sprain\w*|virus"
    r"|contagious|vomit\w*|chemotherapy)\b"
)
_WEATHER = re.compile(
    r"\b(weather|storm\w*|hurricane\w*|snow\w*|blizzard\w*|tornado\w*|flood\w*|typhoon\w*|thunder\w*"
    r"|cyclone\w*|monsoon\w*|rain|rains|rainy|rainfall|(?:strong|high|heavy) winds?|fog|foggy|icy|hail\w*|heat ?wave)\b"
)
_COMPENSATION = re.compile(
    r"\b(compensat\w*|vouchers?|certificates?|reimburse\w*|goodwill|gesture|make (?:it )?up (?:for|to)|make amends"
    r"|something for (?:the|your|my) (?:trouble|inconvenience))\b"
)
_REFUEL = re.compile(r"\brefuel\w*(?:\s+\w+){0,4}?\s+(\d+(?:\.\d+)?)\s*gb\b")


def text_of(task: Task) -> str:
    """All that the user simulator is told about the task, persona aside."""
    told = task.user_scenario.instructions
    if isinstance(told, str):
        return told
    parts = (told.reason_for_call, told.known_info, told.unknown_info, told.task_instructions)
    return "\n".join(part for part in parts if part)


def stated_by(domain: str, task: Task) -> Stated:
    """What the text of ``task`` states. Where a text could mean several things, the field is None."""
    return stated_in(domain, text_of(task))


@lru_cache(maxsize=1024)
def stated_in(domain: str, words: str) -> Stated:
    """What a customer's ``words`` state, as `stated_by`."""
    text = words.lower().replace("’", "'")
    if domain == "retail":
        return Stated(cancel_reasons=_retail_reasons(text))
    if domain == "airline":
        found = {name for name, words in (("health", _HEALTH), ("weather", _WEATHER)) if words.search(text)}
        return Stated(
            cancel_reasons=frozenset(found or {"other"}), asked_for_compensation=bool(_COMPENSATION.search(text))
        )
    if domain == "telecom":
        amounts = {float(amount) for amount in _REFUEL.findall(text)}
        return Stated(refuel_gb=amounts.pop() if len(amounts) == 1 else None)
    return NOTHING_STATED


def _retail_reasons(text: str) -> frozenset[str] | None:
    found = set()
    if _MISTAKE.search(text):
        found.add("ordered by mistake")
    if _NO_NEED.search(text):
        found.add("no longer needed")
    if found:
        return frozenset(found)
    if any(_OTHER_REASON.search(clause) and not _ANOTHER_WISH.search(clause) for clause in _BECAUSE.findall(text)):
        return frozenset()
    return None
