"""The parts of a domain's policy that speak of what a task's gold writes do."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_SAME = {"updat": "modif", "chang": "modif", "reser": "fligh", "certi": "compe", "refue": "data"}
"""Beginnings of words that τ²'s tools and policies use for one thing."""
_STOP_WORDS = {"to", "of", "the", "a", "and", "user", "details", "get", "set", "tool"}


def clauses(policy: str, tools: Iterable[str]) -> list[str]:
    """The sections of ``policy`` (Markdown) whose headings speak of these tools, each once, in the tools' order.

    >>> clauses("# Rules\\nBe kind.\\n## Cancel an order\\nOnly pending ones.", ["cancel_pending_order", "calculate"])
    ['## Cancel an order\\nOnly pending ones.']
    """
    starts = [(match.start(), _words(match.group(1))) for match in _HEADING.finditer(policy)]
    ends = [*(start for start, _ in starts[1:]), len(policy)]
    found: dict[str, None] = {}
    for tool in tools:
        words = _words(tool.replace("_", " "))
        shared = [
            (len(words & heading), not heading - words, policy[start:end].strip())
            for (start, heading), end in zip(starts, ends, strict=True)
        ]
        exact = [text for count, whole, text in shared if count > 1 and whole]
        best = max(shared, key=lambda one: one[:2], default=(0, False, ""))
        found.update(dict.fromkeys(exact or ([best[2]] if best[0] else [])))
    return list(found)


def _words(text: str) -> set[str]:
    """Without endings: "modifies", "modify" and "modification" count as one word."""
    words = {word[:5] for word in re.findall(r"[a-z]+", text.lower()) if word not in _STOP_WORDS}
    return {_SAME.get(word, word) for word in words}
