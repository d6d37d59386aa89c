"""What a simulator says, without what it thinks.

An endpoint without a reasoning parser (a hybrid Qwen3 that slime itself serves, for one) sends thoughts and words as one
text. No customer says the first: they hold the scenario, and a ``###STOP###`` that is only weighed would end it all.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def spoken(text: str) -> tuple[str, bool]:
    """``(words, cut)``: ``text`` without the thoughts that it begins with, and whether there were any.

    They need not be opened: some templates do that in the prompt. Thoughts that never close leave no words.
    """
    cut = False
    while True:  # some think twice
        begins = text.lstrip().startswith(OPEN)
        before, close, words = text.partition(CLOSE)
        if not close:
            return ("", True) if begins else (text, cut)
        if not begins and OPEN in before:
            return text, cut
        text, cut = words.strip(), True
