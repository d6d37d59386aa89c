"""Thoughts and stop tokens: what surrounds the text of a turn."""

from __future__ import annotations

THINK, END_THINK = "<think>", "</think>"

STOP_TEXTS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|observation|>",
    "<|user|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)
"""Texts of tokens that end a turn in the families served here."""


def strip_stop(text: str) -> str:
    """`text` without the stop tokens, and the white space around them, at its end.

    The caller should have cut the stop token off by its id; this is for the one that did not.
    """
    while True:
        bare = text.rstrip()
        stop = next((stop for stop in STOP_TEXTS if bare.endswith(stop)), None)
        if stop is None:
            return text
        text = bare.removesuffix(stop)


def open_reasoning(text: str, start: int = 0) -> tuple[str, int | None]:
    """Reasoning that is open at text[start]: (its text, where what follows begins).

    The second value is None where the reasoning never closes: all the rest is reasoning. A <think> that the model
    writes although the template had opened the block is not part of the reasoning.
    """
    end = text.find(END_THINK, start)
    inside = text[start:] if end < 0 else text[start:end]
    lead = inside.lstrip()
    if lead.startswith(THINK):
        inside = lead.removeprefix(THINK)
    return inside, None if end < 0 else end + len(END_THINK)


def split_reasoning(text: str, *, reasoning_open: bool = False) -> tuple[str | None, str, bool]:
    """(reasoning, rest, unclosed) for a turn that thinks first and then speaks.

    `reasoning` is stripped, None if empty; `rest` is everything after the reasoning, unstripped ("" if unclosed).
    A </think> that nothing opened ends a reasoning that began at the start of the text.
    """
    if not reasoning_open:
        begin, end = text.find(THINK), text.find(END_THINK)
        implied = end >= 0 and not 0 <= begin < end
        if not implied and not text.lstrip().startswith(THINK):
            return None, text, False
    inside, after = open_reasoning(text)
    return inside.strip() or None, "" if after is None else text[after:], after is None


def joined(pieces: list[str]) -> str | None:
    """The non-empty ones of `pieces`, stripped, a line break between them; None if there is none."""
    return "\n".join(stripped for piece in pieces if (stripped := piece.strip())) or None
