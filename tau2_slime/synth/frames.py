"""Sentences with slots: one way to write them, and the same way back, so that a text can be read as the intents it holds."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

Slots = Mapping[str, str]


@dataclass(frozen=True)
class Intent:
    """One request of the customer, as data: what `reader` must find again in the text."""

    kind: str
    slots: Slots = field(default_factory=dict)
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Slot -> what of it stands in every wording, word for word: numbers, names, values."""
    means: Slots = field(default_factory=dict)
    """Slot that is free in its words -> which of a few things it says, such as the policy's reason for a cancellation."""

    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Equal for two intents that ask for the same."""
        return self.kind, tuple(sorted(self.slots.items()))


_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_OPENINGS = (
    "",
    "Also, ",
    "In addition, ",
    "Besides that, ",
    "Another thing: ",
    "On top of that, ",
    "While you are at it, ",
)


def chosen(rng: random.Random, frame: str) -> str:
    """``frame`` with one of each ``[this|or that]``.

    >>> chosen(random.Random(0), "[Please cancel|Cancel] {order}.") in ("Please cancel {order}.", "Cancel {order}.")
    True
    """
    return _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), frame)


def plainest(frame: str) -> str:
    """``frame`` with the first of each choice.

    >>> plainest("[Please cancel|Cancel] {order}.")
    'Please cancel {order}.'
    """
    return _CHOICE.sub(lambda match: match.group(1).split("|")[0], frame)


@cache
def _pattern(frame: str) -> re.Pattern[str]:
    """What a sentence of ``frame`` matches; small and capital letters of the frame are alike, those of slots are kept."""
    parts = _SLOT.split(frame)
    return re.compile(
        "".join(f"(?P<{part}>[^\\n]+?)" if i % 2 else _literal(part) for i, part in enumerate(parts)), re.IGNORECASE
    )


def _literal(words: str) -> str:
    parts = _CHOICE.split(words)
    return "".join(
        f"(?:{'|'.join(map(re.escape, part.split('|')))})" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )


def lowered(sentence: str) -> str:
    """``sentence`` as it goes on after an opening; a word in capital letters stays."""
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]


def write(rng: random.Random, intents: Sequence[Intent], frames: Mapping[str, Sequence[str]]) -> str:
    """One sentence an intent, in their order, each on a line of its own."""
    lines = []
    for number, intent in enumerate(intents):
        wording = chosen(rng, rng.choice(frames[intent.kind]))
        sentence = _SLOT.sub(lambda m, slots=intent.slots: slots[m.group(1)], wording)  # type: ignore[misc]
        opening = rng.choice(_OPENINGS) if number else ""
        lines.append(opening + (lowered(sentence) if opening else sentence))
    return "\n".join(lines)


def read(text: str, frames: Mapping[str, Sequence[str]]) -> list[Intent] | None:
    """The intents of a text that `write` wrote; None if a line is not one of its sentences, or could be two."""
    found: list[Intent] = []
    for line in text.split("\n"):
        opening = next((o for o in _OPENINGS if o and line.startswith(o)), "")
        sentence = line[len(opening) :]
        keys: dict[object, Intent] = {}
        for kind, wordings in frames.items():
            for wording in wordings:
                match = _pattern(wording).fullmatch(sentence)
                if match is not None:
                    intent = Intent(kind, match.groupdict())
                    keys[intent.key()] = intent
        if len(keys) != 1:
            return None
        found += keys.values()
    return found


def same(first: Iterable[Intent], second: Iterable[Intent]) -> bool:
    """True if both ask for the same, in whatever order."""
    return Counter(i.key() for i in first) == Counter(i.key() for i in second)
