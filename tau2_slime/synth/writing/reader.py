"""The round trip: a model that sees the text alone says what is requested, and two of three answers must get it right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_slime.synth.frames import Intent, plainest
from tau2_slime.synth.gates.case import plain, word_in
from tau2_slime.synth.writing.answers import PaidAnswers, WriterSpec

VOTES, ENOUGH = 3, 2
CHOICES = {
    "retail": {"why": "'no longer needed', 'ordered by mistake' or 'other'"},
    "airline": {"why": "'health', 'weather' or 'other'", "bags": "a number in digits", "insurance": "'yes' or 'no'"},
    "telecom": {"wifi": "'yes' or 'no', as the customer has it or not"},
}
"""Slots that are answered by one of a few words."""
_FILLER = frozenset(
    (
        *("a", "an", "the", "of", "in", "with", "to", "and", "for", "on", "by", "at", "from", "is", "be", "as", "it"),
        *("you", "your", "my", "their", "his", "her", "one", "class", "account", "card", "credit", "number", "code"),
        *("default", "address", "method", "payment", "order", "reservation", "trip", "flight", "item", "items", "new"),
        *("option", "options", "ending"),
    )
)
"""Words of a slot's answer that change nothing."""
_WORD = re.compile(r"[a-z0-9#'.-]+")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


def question(domain: str, text: str, known: str, wordings: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The prompt. It shows every kind of request, and none of those that the text was written for."""
    choices = CHOICES.get(domain, {})
    kinds = "\n".join(f"- {kind}: {plainest(sentences[0])}" for kind, sentences in wordings.items())
    closed = "".join(f'\nAnswer "{slot}" with {choice}.' for slot, choice in choices.items())
    system = (
        "You read what a customer of a company wants, and list every single request in it. Kinds of requests, with the "
        f"slots that each has in braces:\n{kinds}\n"
        'Answer with one JSON object and nothing else: {"requests": [{"kind": ..., "SLOT": ..., ...}, ...], '
        '"others": [...]}. Fill each slot with the words of the text, as short as possible; several things are joined by '
        f'"and". Name under "others" whatever is wished and fits no kind, and every condition.{closed}'
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": f"{known}\n\n{text}"}]


async def reads_back(
    answers: PaidAnswers,
    spec: WriterSpec,
    prompt: Sequence[Mapping[str, Any]],
    intents: Sequence[Intent],
) -> tuple[bool, float]:
    """True if most votes name exactly ``intents``; and what the votes cost in dollars.

    Raises what `PaidAnswers.ask` raises.
    """
    agree = against = 0
    cost = 0.0
    for number in range(VOTES):
        answer = await answers.ask(spec, prompt, number)
        cost += answer.cost
        if names(answer.text, intents):
            agree += 1
        else:
            against += 1
        if ENOUGH in (agree, against):
            break
    return agree >= ENOUGH, cost


def names(text: str, intents: Sequence[Intent]) -> bool:
    """True if a reader's answer names every one of ``intents``, and nothing else."""
    fenced = _FENCE.match(text)
    try:
        content = json.loads(fenced.group(1) if fenced else text)
        requests = list(content["requests"])
        if content.get("others"):
            return False
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    left = list(intents)
    for request in requests:
        found = next((intent for intent in left if isinstance(request, dict) and _same(request, intent)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _same(request: Mapping[str, Any], intent: Intent) -> bool:
    if request.get("kind") != intent.kind or set(request) - {"kind"} - set(intent.slots):
        return False
    for slot, meaning in intent.means.items():
        if plain(str(request.get(slot, ""))) != meaning:
            return False
    for slot, facts in intent.facts.items():
        value = plain(str(request.get(slot, "")))
        if not all(word_in(value, plain(fact)) for fact in facts):
            return False
        # A word more, such as another colour, is another request.
        allowed = set(_words(intent.slots[slot])) | _FILLER
        if facts and not set(_words(value)) <= allowed:
            return False
    return True


def _words(text: str) -> list[str]:
    return [word.strip(".'-") for word in _WORD.findall(plain(text)) if word.strip(".'-")]
