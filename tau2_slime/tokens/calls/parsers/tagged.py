"""The base of formats whose calls stand between two tags.

`TaggedParser` reads everything around the calls: text, reasoning, stop tokens, calls without one of their tags. A subclass
reads and writes what stands between the tags. The whole of a format whose calls are ``<call>NAME</call>``:

>>> class NameOnly(TaggedParser):
...     name = "name_only"
...     opening, closing = "<call>", "</call>"
...
...     def read_call(self, text, start):
...         end_of_body, end, closed = self.end_of_broken_call(text, start)
...         status = CallStatus.OK if closed else CallStatus.UNCLOSED
...         error = None if closed else f"The tool call is not closed: write {self.closing} after it."
...         return DraftCall(text[start:end_of_body].strip(), {}, status, error), end
...
...     def find_unopened_call(self, text):
...         return None
...
...     def format(self, calls):
...         return "".join(f"{self.opening}{name}{self.closing}" for name, _ in calls)
>>> turn = NameOnly().parse("<think>hm</think>One moment. <call>wait</call>", [])
>>> turn.reasoning, turn.content, turn.calls[0].name, turn.calls[0].status.value
('hm', 'One moment.', 'wait', 'unknown_tool')
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from tau2_slime.tokens.calls.reasoning import open_reasoning
from tau2_slime.tokens.calls.schema_types import checked_call, plain_arguments
from tau2_slime.tokens.calls.types import Call, CallStatus, ParsedCall, ParsedTurn, Tool
from tau2_slime.tokens.families import END_THINK, STOP_TEXTS, THINK

_SPACE = re.compile(r"\s*")

MAX_CALLS = 128
"""Calls, good or bad, that are read in one turn: what follows is one more that cannot be read. It bounds the time of a turn
that holds nothing but opening tags."""


@dataclass
class DraftCall:
    """A call as it was read, before it is compared with the tools."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    status: CallStatus = CallStatus.OK
    error: str | None = None
    """One sentence for the model; None if the call could be read in full."""
    id: str | None = None
    others: list[DraftCall] = field(default_factory=list)
    """Further calls between the same two tags."""


class BrokenCall(Exception):
    """A call that nests tags ends too early."""

    def __init__(self, at: int, problem: str, missing: str | None = None) -> None:
        """``at``: index up to which it was read; a closing tag before it belongs to an argument. ``problem``: where and why,
        part of a sentence. ``missing``: the closing tag, if nothing else is wrong.
        """
        super().__init__(problem)
        self.at, self.missing = at, missing


class TaggedParser:
    """A `ToolCallParser` of a format with an opening and a closing tag.

    Text after a call that was never closed belongs to that call.
    """

    name = ""
    opening, closing = "<tool_call>", "</tool_call>"
    cannot_contain: ClassVar[tuple[str, ...]] = ()
    """Texts that no argument can contain, because the format has no escape for them."""

    def __init__(self) -> None:
        self._opens = re.compile(f"{re.escape(THINK)}|{re.escape(self.opening)}")
        self._edge = re.compile(f"{re.escape(self.opening)}|{re.escape(self.closing)}")

    # --- the subclass's part

    def read_call(self, text: str, start: int) -> tuple[DraftCall, int]:
        """(the call, the index after it) of the call whose opening tag ends at ``start``. Never raises.

        A call that lacks nothing but its closing tag is UNCLOSED and keeps its name and arguments.
        """
        raise NotImplementedError

    def find_unopened_call(self, text: str) -> tuple[int, int, str] | None:
        """(start, end, best guess at the name) of the first call in ``text`` that lacks its opening tag; else None."""
        raise NotImplementedError

    def format(self, calls: list[Call]) -> str:
        """See `ToolCallParser.format`."""
        raise NotImplementedError

    # --- for the subclass

    def end_of_broken_call(self, text: str, start: int) -> tuple[int, int, bool]:
        """(end of its body, end of the call, is it closed) of a call that cannot be read further than ``start``.

        The call reaches to the next closing tag, or to the next opening tag, which begins another call, or to the end.
        """
        edge = self._edge.search(text, start)
        if edge is None:
            return len(text), len(text), False
        if edge.group() == self.closing:
            return edge.start(), edge.end(), True
        return edge.start(), edge.start(), False

    # --- the turn

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        """See `ToolCallParser.parse`. A <think> inside a call is part of the call."""
        text = strip_stop_tokens(text)
        content: list[str] = []
        thoughts: list[str] = []
        calls: list[ParsedCall] = []
        at = 0
        thinking = reasoning_open
        while True:
            if thinking:
                inside, after = open_reasoning(text, at)
                if after is None:
                    call = self._call_in_thought(text, at, tools)
                    if call is None:
                        thoughts.append(inside)
                        return ParsedTurn(joined(content), joined(thoughts), calls, reasoning_unclosed=True)
                    inside, after, content = (
                        text[at:call].removeprefix(THINK),
                        call,
                        thoughts,
                    )  # all but calls is thought
                thoughts.append(inside)
                at, thinking = after, False
            tag = self._opens.search(text, at)
            self._read_between_calls(text[at : tag.start() if tag else len(text)], content, thoughts, calls)
            if tag is None or len(calls) > MAX_CALLS:
                break
            if tag.group() == THINK:
                at, thinking = tag.end(), True
                continue
            if len(calls) >= MAX_CALLS:
                calls.append(too_many(text[tag.start() :]))
                break
            first, at = self.read_call(text, tag.end())
            raw = text[tag.start() : at]
            for draft in [first, *first.others]:
                if len(calls) >= MAX_CALLS:  # one pair of tags may hold a list of them
                    calls.append(too_many(raw))
                    break
                if draft.error is None:
                    calls.append(checked_call(draft.name, draft.arguments, tools, raw, draft.id))
                else:
                    arguments = plain_arguments(draft.arguments)
                    calls.append(ParsedCall(draft.name, arguments, draft.status, raw, draft.error, draft.id))
        return ParsedTurn(None if content is thoughts else joined(content), joined(thoughts), calls)

    def _call_in_thought(self, text: str, start: int, tools: list[Tool]) -> int | None:
        """Where a call begins that the model made without closing its thought, as servers read it; None if it made none.

        A thought may also quote an opening tag: only a call that can be read, of a tool that was offered, ends it.
        """
        offered = {tool["function"]["name"] for tool in tools or []}
        for tag in islice(re.finditer(re.escape(self.opening), text[start:]), MAX_CALLS):
            draft, _ = self.read_call(text, start + tag.end())
            if draft.error is None and draft.name in offered:
                return start + tag.start()
        return None

    def _read_between_calls(self, text: str, content: list[str], thoughts: list[str], calls: list[ParsedCall]) -> None:
        """Sort the text between two calls: content, calls that lack their opening tag, thoughts that lack theirs."""
        cut = text.rfind(END_THINK)
        if cut >= 0:
            # Left in the content, thoughts would reach the user and earn reward for what was never said.
            thoughts.extend([*content, text[:cut].replace(END_THINK, "\n")])
            content.clear()
            text = text[cut + len(END_THINK) :]
        while (found := self.find_unopened_call(text)) is not None:
            start, end, name = found
            if len(calls) >= MAX_CALLS:
                calls.append(too_many(text[start:]))
                text = text[:start]
                break
            error = f"The tool call is not opened: write {self.opening} before it and {self.closing} after it."
            calls.append(ParsedCall(name, {}, CallStatus.UNCLOSED, text[start:end], error))
            content.append(text[:start])
            text = text[end:]
        content.append(text)


def too_many(text: str) -> ParsedCall:
    """What stands for the calls after the first `MAX_CALLS`, in ``text``."""
    error = f"One message may hold {MAX_CALLS} tool calls; what follows them was not read."
    return ParsedCall("", {}, CallStatus.INVALID_JSON, text, error)


def strip_stop_tokens(text: str) -> str:
    """`text` without the stop tokens, and the white space around them, at its end.

    Callers cut the stop token off by its id; this is for text that comes from elsewhere.

    >>> strip_stop_tokens("Bye. <|im_end|>")
    'Bye. '
    """
    while (bare := text.rstrip()).endswith(STOP_TEXTS):
        text = bare.removesuffix(next(stop for stop in STOP_TEXTS if bare.endswith(stop)))
    return text


def joined(pieces: list[str]) -> str | None:
    """The pieces, stripped, with a line break between them and without the empty ones; None if all are empty."""
    return "\n".join(stripped for piece in pieces if (stripped := piece.strip())) or None


class NestedTagParser(TaggedParser):
    """A format that nests tags inside a call.

    A call that cannot be read to its closing tag is UNCLOSED or INVALID_JSON, and keeps all that was read before.
    """

    def read(self, text: str, start: int, draft: DraftCall) -> int:
        """Fill ``draft`` from the call whose opening tag ends at ``start``, and return the index after its closing tag.

        Raises:
            BrokenCall: the call cannot be read any further.
        """
        raise NotImplementedError

    def read_call(self, text: str, start: int) -> tuple[DraftCall, int]:
        draft = DraftCall("")
        try:
            return draft, self.read(text, start, draft)
        except BrokenCall as broken:
            problem, missing, read = str(broken), broken.missing, broken.at
        _, end, closed = self.end_of_broken_call(text, read)
        if closed and missing is None:
            draft.status, draft.error = CallStatus.INVALID_JSON, f"The tool call cannot be read: {problem}."
        else:
            missing = missing or self.closing
            draft.status = CallStatus.UNCLOSED
            draft.error = f"The tool call is not closed: {missing} is missing, {problem}."
        return draft, end


def skip_space(text: str, at: int) -> int:
    """Index of the first character at or after ``at`` that is not white space."""
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()
