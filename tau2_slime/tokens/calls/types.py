"""A turn taken apart into text, reasoning and calls with a status; and what a parser must offer (`ToolCallParser`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
"""A value of a JSON text."""
JsonObject: TypeAlias = dict[str, Json]

Tool = dict[str, Any]
"""An OpenAI function schema: {"type": "function", "function": {"name", "description", "parameters"}}."""

Call = tuple[str, dict[str, Any]]
"""A tool's name and its arguments."""


class CallStatus(StrEnum):
    """What became of one attempt to call a tool."""

    OK = "ok"
    """Well formed, a known tool, arguments typed by its schema."""
    INVALID_JSON = "invalid_json"
    """Not readable: broken JSON, or (for the XML-like formats) broken structure between intact outer tags."""
    UNCLOSED = "unclosed"
    """A tag that frames the call is missing; the text may have been cut."""
    UNKNOWN_TOOL = "unknown_tool"
    """Readable, but no such tool was offered."""
    BAD_ARGUMENTS = "bad_arguments"
    """Readable, but the arguments do not fit the tool's schema."""


@dataclass
class ParsedCall:
    """One attempt to call a tool, good or bad."""

    name: str
    """The tool's name, or the best guess at it; "" where none could be read."""
    arguments: dict[str, Any]
    """Typed by the tool's schema as far as possible; plain JSON values."""
    status: CallStatus
    raw: str
    """The text of the call as sampled, tags included."""
    error: str | None = None
    """One sentence for the model; None exactly when `status` is OK."""
    id: str | None = None
    """The id that the model itself wrote, in the formats that have one."""


@dataclass
class ParsedTurn:
    """One assistant turn, taken apart."""

    content: str | None
    """Text outside reasoning and calls, stripped; None if there is none."""
    reasoning: str | None
    """Text of the thoughts, stripped; None if there is none."""
    calls: list[ParsedCall] = field(default_factory=list)
    reasoning_unclosed: bool = False
    """The text ended inside the reasoning: there is neither content nor a call after it."""


@runtime_checkable
class ToolCallParser(Protocol):
    """Reads and writes the tool calls of one family of models.

    A class of your own with these three is chosen by its dotted path, ``tool_call_parser: my.module.MyParser``.
    `calls.parsers.tagged.TaggedParser` is a base for formats between two tags; `calls.schema_types.checked_call` compares a
    call with the tools.
    """

    name: str
    """The name by which it was chosen; a run records it."""

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        """Take one assistant turn apart. Never raises, whatever the text.

        Args:
            text: the decoded tokens of the turn, without its stop token.
            tools: the tools that were offered.
            reasoning_open: the chat template's generation prompt already opened the reasoning block.
        """
        ...

    def format(self, calls: list[Call]) -> str:
        """The canonical text that a model of this family writes for `calls`; the inverse of `parse`."""
        ...


class ParserUnavailable(ValueError):
    """The named parser does not exist or cannot run here; the message names the fix."""


class UnknownToolFormat(ValueError):
    """The chat template writes no known tool-call format; the message names the choices."""
