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
_OPENINGS = (
    "",
    "Also, ",
    "In addition, ",
    "Besides that, ",
    "Another thing: ",
    "On top of that, ",
    "While you are at it, ",
)


@cache
def _pattern(frame: str) -> re.Pattern[str]:
    parts = _SLOT.split(frame)
    return re.compile(
        "".join(
            f"(?P<{part}>[^\\n]+?)" if i % 2 else re.escape(part if i else part[:1].lower() + part[1:])
            for i, part in enumerate(parts)
        )
    )


def write(rng: random.Random, intents: Sequence[Intent], frames: Mapping[str, Sequence[str]]) -> str:
    """One sentence an intent, in their order, each on a line of its own."""
    lines = []
    for number, intent in enumerate(intents):
        wording = rng.choice(frames[intent.kind])
        sentence = _SLOT.sub(lambda m, slots=intent.slots: slots[m.group(1)], wording)  # type: ignore[misc]
        opening = rng.choice(_OPENINGS) if number else ""
        lines.append(opening + (sentence[:1].lower() + sentence[1:] if opening else sentence))
    return "\n".join(lines)


def read(text: str, frames: Mapping[str, Sequence[str]]) -> list[Intent] | None:
    """The intents of a text that `write` wrote; None if a line is not one of its sentences, or could be two."""
    found: list[Intent] = []
    for line in text.split("\n"):
        opening = next((o for o in _OPENINGS if o and line.startswith(o)), "")
        sentence = line[len(opening) :]
        sentence = sentence[:1].lower() + sentence[1:]
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
