"""What the formats that nest tags inside <tool_call> share: a call that breaks off somewhere, and what to say of it."""

from __future__ import annotations

from tau2_slime.tokens.calls.parsers.tagged import CLOSE, Draft, TaggedParser, rough_end
from tau2_slime.tokens.calls.types import CallStatus


class Broken(Exception):
    """The structure ends too early."""

    def __init__(self, problem: str, missing: str | None = None) -> None:
        """`problem`: where and why, part of a sentence; `missing`: the closing tag whose absence is all that is wrong."""
        super().__init__(problem)
        self.missing = missing


class StructuredParser(TaggedParser):
    """A call that cannot be read to its closing tag is UNCLOSED or INVALID_JSON, with all that was read before."""

    def read(self, text: str, start: int, draft: Draft) -> int:
        """Fill `draft` from the call whose <tool_call> ends at `start`; the index after </tool_call>. Raises Broken."""
        raise NotImplementedError

    def read_call(self, text: str, start: int) -> tuple[Draft, int]:
        draft = Draft("")
        try:
            return draft, self.read(text, start, draft)
        except Broken as broken:
            _, end, closed = rough_end(text, start)
            problem, missing = str(broken), broken.missing
        draft.status = CallStatus.INVALID_JSON if closed and missing is None else CallStatus.UNCLOSED
        if draft.status == CallStatus.INVALID_JSON:
            draft.error = f"The tool call cannot be read: {problem}."
        else:
            draft.error = f"The tool call is not closed: {missing or CLOSE} is missing, {problem}."
        return draft, end
