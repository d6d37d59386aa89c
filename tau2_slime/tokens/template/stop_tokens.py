"""Which token ends an assistant turn in history, and on which tokens the server has to stop.

The two are not always the same: gpt-oss samples `<|return|>` and writes `<|end|>` in history; GLM has no end of turn at
all, the next role's marker is what the model samples last. A family is recognised by tokens that the vocabulary has
*and* the template writes; a template of no known family gets its closer from what it renders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Family(NamedTuple):
    marks: tuple[str, ...]
    """All of them in the vocabulary and in the template: it is this family."""
    closers: tuple[str, ...]
    stops: tuple[str, ...]


FAMILIES: tuple[Family, ...] = (
    # GLM-4.5 and later
    Family(
        ("<|user|>", "<|observation|>"),
        ("<|user|>", "<|observation|>", "<|system|>"),
        ("<|user|>", "<|observation|>", "<|endoftext|>"),
    ),
    # gpt-oss
    Family(("<|call|>", "<|return|>"), ("<|end|>", "<|call|>", "<|return|>"), ("<|return|>", "<|call|>")),
    # Llama-3.x
    Family(("<|eot_id|>",), ("<|eot_id|>", "<|eom_id|>"), ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")),
    # Qwen, Kimi-K2, Nemotron-3, Hermes
    Family(("<|im_end|>",), ("<|im_end|>",), ("<|im_end|>", "<|endoftext|>")),
    # DeepSeek
    Family(("<｜end▁of▁sentence｜>",), ("<｜end▁of▁sentence｜>",), ("<｜end▁of▁sentence｜>",)),
    # MiniMax-M2
    Family(("[e~[",), ("[e~[",), ("[e~[",)),
    # Gemma-4
    Family(("<turn|>",), ("<turn|>",), ("<turn|>",)),
)


def find_family(source: str, token_id: Callable[[str], int | None]) -> tuple[dict[str, int], frozenset[int]] | None:
    """(closers, stop ids) of the first family whose marks are all there; None when no family is known."""
    for family in FAMILIES:
        if all(mark in source and token_id(mark) is not None for mark in family.marks):
            closers = {spelling: token for spelling in family.closers if (token := token_id(spelling)) is not None}
            stops = frozenset(token for spelling in family.stops if (token := token_id(spelling)) is not None)
            return closers, stops
    return None


def first_control_token(text: str, tokens: Mapping[str, int]) -> tuple[str, int] | None:
    """The added token that `text` spells first (the longest, where several begin there)."""
    best: tuple[int, int, str] | None = None
    for spelling in tokens:
        position = text.find(spelling)
        if position >= 0 and (best is None or (position, -len(spelling)) < best[:2]):
            best = (position, -len(spelling), spelling)
    return None if best is None else (best[2], tokens[best[2]])
