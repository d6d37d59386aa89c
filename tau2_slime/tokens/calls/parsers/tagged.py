"""The scan of a turn whose calls stand between <tool_call> and </tool_call>; what is between is the subclass's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.tokens.calls.parsers.checks import checked_call
from tau2_slime.tokens.calls.reasoning import joined, open_reasoning, strip_stop
from tau2_slime.tokens.calls.spelled_json import plain
from tau2_slime.tokens.calls.types import Call, CallStatus, ParsedCall, ParsedTurn, Tool
from tau2_slime.tokens.families import END_THINK, THINK

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_OPENING = re.compile(f"{re.escape(THINK)}|{re.escape(OPEN)}")
_EDGE = re.compile(f"{re.escape(OPEN)}|{re.escape(CLOSE)}")
_SPACE = re.compile(r"\s*")


@dataclass
class Draft:
    """A call as read, before the tools are asked. `error` is None where it could be read in full."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    status: CallStatus = CallStatus.OK
    error: str | None = None
    id: str | None = None


def skip_space(text: str, at: int) -> int:
    """Index of the first character at or after `at` that is not white space."""
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def rough_end(text: str, start: int) -> tuple[int, int, bool]:
    """Where a call that cannot be read is taken to end: (end of its body, end of the call, is it closed).

    It reaches to the next </tool_call>, or to the next <tool_call>, which begins another call, or to the end.
    """
    edge = _EDGE.search(text, start)
    if edge is None:
        return len(text), len(text), False
    if edge.group() == CLOSE:
        return edge.start(), edge.end(), True
    return edge.start(), edge.start(), False


class TaggedParser:
    """Base of the built-in parsers. Text after a call that was never closed belongs to that call."""

    name = ""

    def read_call(self, text: str, start: int) -> tuple[Draft, int]:
        """The call whose <tool_call> ends at `start`, and the index after it. Never raises."""
        raise NotImplementedError

    def unopened(self, text: str) -> tuple[int, int, str] | None:
        """The first call in `text` whose <tool_call> is missing: (start, end, best-known name), or None."""
        raise NotImplementedError

    def format(self, calls: list[Call]) -> str:
        raise NotImplementedError

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        """See ToolCallParser.parse. A <think> inside a call is part of the call."""
        text = strip_stop(text)
        content: list[str] = []
        thoughts: list[str] = []
        calls: list[ParsedCall] = []
        at = 0
        thinking = reasoning_open
        while True:
            if thinking:
                inside, after = open_reasoning(text, at)
                thoughts.append(inside)
                if after is None:
                    return ParsedTurn(joined(content), joined(thoughts), calls, reasoning_unclosed=True)
                at, thinking = after, False
            tag = _OPENING.search(text, at)
            self._outside(text[at : tag.start() if tag else len(text)], content, thoughts, calls)
            if tag is None:
                return ParsedTurn(joined(content), joined(thoughts), calls)
            if tag.group() == THINK:
                at, thinking = tag.end(), True
                continue
            draft, at = self.read_call(text, tag.end())
            calls.append(self._finish(draft, tools, text[tag.start() : at]))

    def _outside(self, text: str, content: list[str], thoughts: list[str], calls: list[ParsedCall]) -> None:
        """Sort text between calls: content, calls that lack their opening tag, thoughts that lack theirs."""
        cut = text.rfind(END_THINK)
        if cut >= 0:
            # Left in the content, thoughts would reach the user and earn reward for what was never said.
            thoughts.extend([*content, text[:cut].replace(END_THINK, "\n")])
            content.clear()
            text = text[cut + len(END_THINK) :]
        while (found := self.unopened(text)) is not None:
            start, end, name = found
            error = f"The tool call is not opened: write {OPEN} before it and {CLOSE} after it."
            calls.append(ParsedCall(name, {}, CallStatus.UNCLOSED, text[start:end], error))
            content.append(text[:start])
            text = text[end:]
        content.append(text)

    def _finish(self, draft: Draft, tools: list[Tool], raw: str) -> ParsedCall:
        if draft.error is None:
            return checked_call(draft.name, draft.arguments, tools, raw, draft.id)
        return ParsedCall(draft.name, plain(draft.arguments), draft.status, raw, draft.error, draft.id)
