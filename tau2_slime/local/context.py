"""What a scripted policy can see: token ids in, the case and the position in its script out.

Like a model, the policy keeps nothing between two requests. It reads everything from ``input_ids``. It counts its turns by
the ids of the chat template's own generation prompt, which no user can spell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tau2_slime.local.gold import CaseReference, find_reference
from tau2_slime.tokens.calls.action_text import format_told_in

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.action_text import ActionFormat
    from tau2_slime.tokens.template.chat_template import ChatTemplate

_THINK = re.compile(r"</?think>")
_TICKET = re.compile(r"<ticket>\n(.*?)\n</ticket>", re.DOTALL)
# What a generation prompt may hold after the role: nothing, an open reasoning block, or an empty one.
_OPENING = re.compile(r"\s*(<think>)?\s*(</think>)?\s*")


@dataclass(frozen=True)
class ScriptPosition:
    """Where in its script the policy is."""

    reference: CaseReference | None
    """The case that the user named."""
    ticket: str | None
    """The ticket of a solo episode. None if there is a `reference`."""
    turn: int
    """Messages that the policy has written since it knew the case."""
    heard: tuple[str, ...]
    """The text of each of those turns together with what followed it, such as a tool result."""
    thinking: bool
    """True if the generation prompt has opened the reasoning and nothing has closed it."""
    begun: tuple[int, ...]
    """Ids after the last assistant header: the rest of the generation prompt, and what an aborted call left there."""
    begun_text: str
    """The text of `begun` without the generation prompt's part."""
    actions: ActionFormat | None = None
    """How the system prompt wants actions to be written; None: as the chat template does."""


class ContextReader:
    """Reads the contexts that one chat template writes."""

    def __init__(self, template: ChatTemplate) -> None:
        """Raises ValueError if the template has no generation prompt."""
        self._template = template
        probe = [{"role": "user", "content": "x"}]
        without = template.render(probe, None, add_generation_prompt=False)
        prompt = template.render(probe, None, add_generation_prompt=True).removeprefix(without)
        prompt = prompt or without.rpartition("x")[2]  # Mistral's turn begins where the user's ends
        self.header = _THINK.split(prompt)[0].rstrip()
        """The text that begins every turn of the assistant."""
        self._header_ids = template.encode(self.header)
        if not self._header_ids:
            raise ValueError("the chat template has no generation prompt; the embedded policy cannot count its turns")
        self._decode = lru_cache(maxsize=512)(template.decode)

    def read(self, ids: Sequence[int]) -> ScriptPosition:
        """Find the case and the turn in ``ids``. A context that names no case gives a `ScriptPosition` without one."""
        ids = list(ids)
        starts = self._header_positions(ids)
        size = len(self._header_ids)
        ends = [*starts, len(ids)]
        # Segment 0 comes before the first assistant turn. Segment i is the i-th turn and what came after it.
        segments = [tuple(ids[begin:end]) for begin, end in zip([0, *(s + size for s in starts)], ends, strict=True)]
        begun = segments[-1] if starts else ()
        begun_text = self._template.decode(begun)
        opening = _OPENING.match(begun_text)
        assert opening is not None  # the pattern matches the empty string
        known, reference, ticket = self._find_case(segments[:-1] if starts else segments)
        heard = segments[known + 1 : -1] if known is not None else []
        return ScriptPosition(
            reference=reference,
            ticket=ticket,
            turn=len(heard),
            heard=tuple(self._decode(segment) for segment in heard),
            thinking=bool(opening.group(1)) and not opening.group(2),
            begun=begun,
            begun_text=begun_text[opening.end() :],
            actions=format_told_in(self._decode(segments[0])),
        )

    def _header_positions(self, ids: list[int]) -> list[int]:
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

    def _find_case(self, segments: list[tuple[int, ...]]) -> tuple[int | None, CaseReference | None, str | None]:
        """The index of the segment that tells the case, the case's reference, and the ticket (solo)."""
        # The system prompt is by far the longest segment: look there last.
        for index in (*range(1, len(segments)), 0):
            text = self._decode(segments[index]) if index < len(segments) else ""
            # Where the user's words follow the system prompt without a turn between, examples may name cases before them.
            if (reference := find_reference(text, last=index == 0)) is not None:
                return index, reference, None
        ticket = _TICKET.search(self._decode(segments[0])) if segments else None
        return (None, None, None) if ticket is None else (0, None, ticket.group(1))
