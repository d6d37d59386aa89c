"""What a simulator says, without its reasoning.

An endpoint without a reasoning parser (a hybrid Qwen3 that slime itself serves, for one) sends reasoning and words as one
text. The agent must not see the reasoning: it repeats the scenario, and a ``###STOP###`` that is only considered would end
the conversation.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def strip_reasoning(text: str) -> tuple[str, bool]:
    """``(words, stripped)``: ``text`` without the reasoning that it begins with, and whether there was any.

    The opening tag may be missing: some templates write it at the end of the prompt. Reasoning without a closing tag leaves
    no words.

    >>> strip_reasoning("<think>Should I agree?</think> Yes, please.")
    ('Yes, please.', True)
    """
    stripped = False
    while True:  # some models reason twice
        opened = text.lstrip().startswith(OPEN)
        before, close, words = text.partition(CLOSE)
        if not close:
            return ("", True) if opened else (text, stripped)
        if not opened and OPEN in before:
            return text, stripped
        text, stripped = words.strip(), True
