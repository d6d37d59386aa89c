"""What a scripted policy can see: token ids in, the case and the place in its script out.

The policy keeps nothing between two requests, as a real model does not: everything is read from ``input_ids``. Turns are
counted by the ids of the chat template's own generation prompt, which no customer can spell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tau2_slime.local.gold import CaseReference, find_reference

if TYPE_CHECKING:
    from tau2_slime.tokens.template.chat_template import ChatTemplate

_THINK = re.compile(r"</?think>")
_TICKET = re.compile(r"<ticket>\n(.*?)\n</ticket>", re.DOTALL)
# What a generation prompt may hold after the role: nothing, an open thought, or an empty one.
_OPENING = re.compile(r"\s*(<think>)?\s*(</think>)?\s*")


@dataclass(frozen=True)
class Place:
    """Where in its script the policy stands."""

    reference: CaseReference | None
    """The case that the user named."""
    ticket: str | None
    """The ticket of a solo episode; None if there is a reference."""
    turn: int
    """Messages that the policy has written since it knew the case."""
    heard: tuple[str, ...]
    """Text of each of those turns with what followed it, such as the tool result."""
    thinking: bool
    """The generation prompt has opened the reasoning, and nothing has closed it."""
    begun: tuple[int, ...]
    """Ids after the last assistant header: the rest of the generation prompt, and what an aborted call left behind."""
    begun_text: str
    """Their text without the generation prompt's part."""


class ContextReader:
    """Reads the contexts that one chat template writes."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        probe = [{"role": "user", "content": "x"}]
        without = template.render(probe, None, add_generation_prompt=False)
        prompt = template.render(probe, None, add_generation_prompt=True).removeprefix(without)
        self.header = _THINK.split(prompt)[0].rstrip()
        """The text that begins every turn of the assistant."""
        self._header_ids = template.encode(self.header)
        if not self._header_ids:
            raise ValueError("the chat template has no generation prompt; the embedded policy cannot count its turns")
        self._decode = lru_cache(maxsize=512)(self._decode_now)

    def _decode_now(self, ids: tuple[int, ...]) -> str:
        return self._template.decode(ids)

    def read(self, ids: Sequence[int]) -> Place:
        """Find the case and the turn. Never raises: a context that names no case is a `Place` without one."""
        ids = list(ids)
        starts = self._headers(ids)
        size = len(self._header_ids)
        ends = [*starts, len(ids)]
        # Segment 0 is what precedes the first assistant turn; segment i the i-th turn and what came after it.
        segments = [tuple(ids[begin:end]) for begin, end in zip([0, *(s + size for s in starts)], ends, strict=True)]
        begun = segments[-1] if starts else ()
        begun_text = self._template.decode(begun)
        opening = _OPENING.match(begun_text)
        assert opening is not None  # the pattern matches the empty string
        known, reference, ticket = self._case(segments[:-1] if starts else segments)
        heard = segments[known + 1 : -1] if known is not None else []
        return Place(
            reference=reference,
            ticket=ticket,
            turn=len(heard),
            heard=tuple(self._decode(segment) for segment in heard),
            thinking=bool(opening.group(1)) and not opening.group(2),
            begun=begun,
            begun_text=begun_text[opening.end() :],
        )

    def _headers(self, ids: list[int]) -> list[int]:
        """Positions at which an assistant turn begins."""
        header, at = self._header_ids, -1
        found: list[int] = []
        while True:
            try:
                at = ids.index(header[0], at + 1)
            except ValueError:
                return found
            if ids[at : at + len(header)] == header:
                found.append(at)

    def _case(self, segments: list[tuple[int, ...]]) -> tuple[int | None, CaseReference | None, str | None]:
        """Index of the segment that tells the case, and the case."""
        # The system prompt is by far the longest segment: look there last.
        for index in (*range(1, len(segments)), 0):
            if index < len(segments) and (reference := find_reference(self._decode(segments[index]))) is not None:
                return index, reference, None
        ticket = _TICKET.search(self._decode(segments[0])) if segments else None
        return (None, None, None) if ticket is None else (0, None, ticket.group(1))
