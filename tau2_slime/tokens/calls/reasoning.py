"""The reasoning of a turn, cut off from its text."""

from __future__ import annotations

from tau2_slime.chat.thoughts import Tags
from tau2_slime.tokens.families import END_THINK, THINK


def open_reasoning(text: str, start: int = 0, tags: Tags = (THINK, END_THINK)) -> tuple[str, int | None]:
    """(text of the reasoning that is open at text[start], index after its closing tag).

    The index is None if the reasoning never closes: then all the rest is reasoning. A <think> that the model writes although
    the template had opened the block is not part of the reasoning.
    """
    opening, closing = tags
    end = text.find(closing, start)
    inside = text[start:] if end < 0 else text[start:end]
    lead = inside.lstrip()
    if lead.startswith(opening):
        inside = lead.removeprefix(opening)
    return inside, None if end < 0 else end + len(closing)


def split_reasoning(
    text: str, *, reasoning_open: bool = False, tags: Tags = (THINK, END_THINK)
) -> tuple[str | None, str, bool]:
    """(reasoning, rest, unclosed) for a turn that thinks first and then speaks.

    `reasoning` is stripped, None if empty; `rest` is everything after the reasoning, unstripped ("" if unclosed).
    A closing tag without an opening one ends a reasoning that began at the start of the text.

    >>> split_reasoning("<think>hm</think>Hello.")
    ('hm', 'Hello.', False)
    >>> split_reasoning("<think>hm")
    ('hm', '', True)
    """
    if not reasoning_open:
        begin, end = (text.find(tag) for tag in tags)
        implied = end >= 0 and not 0 <= begin < end
        if not implied and not text.lstrip().startswith(tags[0]):
            return None, text, False
    inside, after = open_reasoning(text, 0, tags)
    return inside.strip() or None, "" if after is None else text[after:], after is None


def without_reasoning(text: str, tags: Tags = (THINK, END_THINK)) -> tuple[list[str], list[str]]:
    """(pieces of content, pieces of reasoning) of a text without calls, whose reasoning may stand anywhere.

    Text before a closing tag without an opening one is reasoning. Takes time that grows with the text and no faster.
    """
    opening, closing = tags
    content: list[str] = []
    thoughts: list[str] = []
    at, begin, end = 0, text.find(opening), text.find(closing)
    while True:
        if 0 <= begin < at:
            begin = text.find(opening, at)
        if 0 <= end < at:
            end = text.find(closing, at)
        if end >= 0 and not 0 <= begin < end:
            thoughts.extend([*content, text[at:end]])
            content, at = [], end + len(closing)
            continue
        if begin < 0:
            return [*content, text[at:]], thoughts
        content.append(text[at:begin])
        inside, after = open_reasoning(text, begin + len(opening), tags)
        thoughts.append(inside)
        if after is None:
            return content, thoughts
        at = after
