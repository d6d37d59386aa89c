"""The parts of a domain's policy that speak of what a task's gold writes do."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_SAME = {"updat": "modif", "chang": "modif", "reser": "fligh", "certi": "compe", "refue": "data"}
"""Beginnings of words that τ²'s tools and policies use for one thing."""
_STOP_WORDS = {"to", "of", "the", "a", "and", "user", "details", "get", "set", "tool"}


def clauses(policy: str, tools: Iterable[str]) -> list[str]:
    """For each tool the section of ``policy`` (Markdown) whose heading shares most words with its name, each section once.

    >>> clauses("# Rules\\nBe kind.\\n## Cancel an order\\nOnly pending ones.", ["cancel_pending_order", "calculate"])
    ['## Cancel an order\\nOnly pending ones.']
    """
    starts = [(match.start(), match.group(1)) for match in _HEADING.finditer(policy)]
    ends = [*(start for start, _ in starts[1:]), len(policy)]
    found: dict[str, None] = {}
    for tool in tools:
        words = _words(tool.replace("_", " "))
        scored = [
            (len(words & _words(heading)), -len(_words(heading) - words), -start, end)
            for (start, heading), end in zip(starts, ends, strict=True)
        ]
        best = max(scored, default=(0, 0, 0, 0))
        if best[0] > 0:
            found[policy[-best[2] : best[3]].strip()] = None
    return list(found)


def _words(text: str) -> set[str]:
    """Without endings: "modifies", "modify" and "modification" count as one word."""
    words = {word[:5] for word in re.findall(r"[a-z]+", text.lower()) if word not in _STOP_WORDS}
    return {_SAME.get(word, word) for word in words}
