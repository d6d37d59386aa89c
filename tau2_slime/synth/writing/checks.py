"""What a text of a model may not do: leave a fact out, bring a number in, change who speaks, or add a condition."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tau2_slime.synth.frames import Intent
from tau2_slime.synth.gates.case import plain, word_in

MOST_CHARS, LEAST_CHARS = 2500, 20
_DIGITS = re.compile(r"[#$]?\b[\w.,:/-]*\d[\w.,:/-]*")
_FIRST_PERSON = re.compile(r"\b(i|i'm|i'd|i've|i'll|me|my|mine|myself|we|us|our|ours)\b")
_SECOND_PERSON = re.compile(r"\b(you|your|yours|yourself)\b")
_CONDITION = re.compile(
    r"\b(if|unless|otherwise|in case|provided that|as long as|only when|should (?:that|this|it|they|the agent)|"
    r"alternatively|or else|instead of that|failing that|in the event)\b"
)
_COUNTS = re.compile(r"\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twice|double|half)\b")
_MONEY = re.compile(r"\b(dollars?|usd|cents?|bucks|euros?)\b|[$€£]")
_MARKUP = re.compile(r"[{}<>`]|\*\*|^#|^\s*[-*] ", re.MULTILINE)
MAY_HEDGE = frozenset({"human", "bags"})
"""Kinds of requests whose own sentences hold a condition."""


def problem(text: str, intents: Sequence[Intent], template: str, known: str) -> str | None:
    """Why ``text`` cannot stand in for ``template``, in words that its writer can act on; None if it can.

    Args:
        template: the generator's own sentences for ``intents``.
        known: what else the customer knows, such as the name.
    """
    said, allowed = plain(text), plain(f"{template} {known}")
    if not LEAST_CHARS <= len(text) <= MOST_CHARS:
        return f"the text has {len(text)} characters, and {LEAST_CHARS} to {MOST_CHARS} are allowed"
    if _MARKUP.search(text):
        return "the text holds markup: write plain sentences"
    for intent in intents:
        for facts in intent.facts.values():
            for fact in facts:
                if not word_in(said, plain(fact)):
                    return f"the text must hold {fact!r}, word for word"
    first = _FIRST_PERSON.search(said)
    if first or not _SECOND_PERSON.search(said):
        return "the text must speak to the customer as 'you', never as 'I' or 'we'"
    if not MAY_HEDGE & {intent.kind for intent in intents}:
        condition = _CONDITION.search(said)
        if condition:
            return f"the text adds a condition ({condition.group(0)!r}) that the requests do not have"
    for pattern in (_DIGITS, _COUNTS, _MONEY):
        for match in pattern.finditer(said):
            word = match.group(0).strip(".,:;/-")
            if not word_in(allowed, word):
                return f"the text holds {word!r}, which the customer was not told"
    return None
