"""How the house style counts a Markdown page: its words, and the words of a mean sentence."""

from __future__ import annotations

import re

_CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
_SHORTEST_SENTENCE = 4
"""A piece of fewer words is a label, not a sentence."""


def word_count(page: str) -> int:
    """All words of the page; those of its code blocks and tables count too."""
    return len(page.split())


def sentence_lengths(page: str) -> list[int]:
    """The number of words of each sentence outside code blocks, tables and headings. Inline code counts as one word."""
    lines = (line for line in _CODE_BLOCK.sub("", page).splitlines() if not line.lstrip().startswith(("|", "#")))
    prose = re.sub(r"`[^`]*`", "code", " ".join(lines))
    lengths = [len(piece.split()) for piece in re.split(r"(?<=[.!?])\s+", prose)]
    return [length for length in lengths if length >= _SHORTEST_SENTENCE]
