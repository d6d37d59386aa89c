"""The thoughts at the beginning of a message, cut off from its words: every family's spelling in one table.

A server without a reasoning parser sends thoughts and words as one text. Nobody must hear the thoughts: those of a user
repeat the scenario, and a ``###STOP###`` that is only considered would end the conversation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Tags = tuple[str, str]
"""The text that opens the thoughts, and the text that closes them."""

THINK: Tags = ("<think>", "</think>")
"""DeepSeek, GLM, Hunyuan, MiniMax, Nemotron, Qwen and most others."""
MISTRAL: Tags = ("[THINK]", "[/THINK]")
COHERE: Tags = ("<|START_THINKING|>", "<|END_THINKING|>")
GEMMA: Tags = ("<|channel>thought", "<channel|>")
KIMI: Tags = ("◁think▷", "◁/think▷")
SEED: Tags = ("<seed:think>", "</seed:think>")

SPELLINGS: tuple[Tags, ...] = (
    *(THINK, MISTRAL, COHERE, GEMMA, KIMI, SEED),
    *(("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>")),
    *(("<longcat_think>", "</longcat_think>"), ("<|begin_of_thought|>", "<|end_of_thought|>")),
)
"""gpt-oss writes channels instead (`_channels`)."""
_WRAPPERS: tuple[Tags, ...] = (
    *(("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<answer>", "</answer>")),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
"""Around the words of models that also mark these; taken off where thoughts stood before."""
_MOST_BLOCKS = 16
"""Some models think twice before they speak; none does it more often."""

_CHANNEL = re.compile(
    r"<\|channel\|>(?P<name>[^<]{0,200})(?:<\|constrain\|>[^<]{0,50})?<\|message\|>"
    r"(?P<text>.*?)(?:<\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)|(?P<open>\Z))",
    re.DOTALL,
)


class Spoken(NamedTuple):
    """A message without its thoughts."""

    words: str
    """Exactly the text where there were no thoughts; stripped where there were."""
    thoughts: str | None
    """Stripped; None if there are none."""
    unclosed: bool = False
    """The text ended inside the thoughts, without a word."""


def cut_thoughts(text: str) -> Spoken:
    """``text`` without the thoughts that it begins with.

    The opening tag may be missing: some templates write it at the end of the prompt. A tag further inside is a word.

    >>> cut_thoughts("<think>Should I agree?</think> Yes, please.")
    Spoken(words='Yes, please.', thoughts='Should I agree?', unclosed=False)
    """
    if text.lstrip()[:20].startswith(("<|channel|>", "<|start|>")):
        return _channels(text)
    if text.lstrip()[:8] == "analysis" and "assistantfinal" in text:  # channels whose control tokens were taken out
        before, _, words = text.partition("assistantfinal")
        return Spoken(words.strip(), before.strip().removeprefix("analysis").strip() or None)
    thoughts: list[str] = []
    rest = text
    for _ in range(_MOST_BLOCKS):
        found = first_block(rest)
        if found is None:
            break
        inside, after = found
        thoughts.append(inside.strip())
        if after is None:
            return Spoken("", _joined(thoughts), unclosed=True)
        rest = after
    if not thoughts:
        return Spoken(text, None)
    words = rest.strip()
    for opening, closing in _WRAPPERS:
        if words.startswith(opening):
            words = words.removeprefix(opening).removesuffix(closing).strip()
    return Spoken(words, _joined(thoughts))


def first_block(text: str) -> tuple[str, str | None] | None:
    """(thoughts at the beginning, text after them or None if they never end); None without thoughts."""
    start = len(text) - len(text.lstrip())
    for opening, closing in SPELLINGS:
        if text.startswith(opening, start):
            inside, closed, after = text[start + len(opening) :].partition(closing)
            return inside, after if closed else None
    for opening, closing in SPELLINGS:
        end = text.find(closing)
        if end >= 0 and opening not in text[:end]:
            return text[:end], text[end + len(closing) :]
    return None


def _channels(text: str) -> Spoken:
    """gpt-oss: the analysis is thought, and what is final is said; a comment is said where nothing is final."""
    thoughts: list[str] = []
    final: list[str] = []
    comments: list[str] = []
    closed = True
    if _CHANNEL.search(text) is None:
        return Spoken(text, None)
    for found in _CHANNEL.finditer(text):
        name, said = found["name"].strip(), found["text"].strip()
        if name.startswith("analysis"):
            thoughts.append(said)
            closed = found["open"] is None
        elif name.startswith("final"):
            final.append(said)
        else:  # a call that the server left in the text stays as it was written
            comments.append(found[0].strip() if " to=" in found["name"] else said)
    words = "\n".join(filter(None, final or comments))
    return Spoken(words, _joined(thoughts), unclosed=bool(thoughts) and not words and not closed)


def _joined(pieces: list[str]) -> str | None:
    return "\n".join(filter(None, pieces)) or None
