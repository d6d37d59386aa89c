"""Text of one assistant turn -> content, reasoning and tool calls, each call with a status.

Only what the model sampled is parsed, and nothing that it tried to call is ever dropped: a call that cannot be read
becomes a `ParsedCall` whose `error` is a sentence that the model can repair from. The parsers live in
`tau2_slime.tokens.parsers`; this module holds their types, the registry, and the choice of a parser by chat template.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

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


class ToolCallParser(Protocol):
    """Reads and writes the tool calls of one family of models."""

    @property
    def name(self) -> str: ...

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        """Take `text`, the decoded tokens of one turn, apart. Never raises, whatever the text.

        `reasoning_open`: the chat template's generation prompt already opened the reasoning block.
        """
        ...

    def format(self, calls: list[Call]) -> str:
        """The canonical text that a model of this family writes for `calls`; the inverse of `parse`."""
        ...


class ParserUnavailable(ValueError):
    """The named parser does not exist or cannot run here; the message names the fix."""


class UnknownToolFormat(ValueError):
    """No known tool-call format is written by the chat template; the message names the choices."""


BUILT_IN = ("hermes", "qwen_xml", "glm")
PARSERS = (*BUILT_IN, "sglang:<parser>")
"""What `get_parser` accepts; `<parser>` is any name of sglang's --tool-call-parser."""

SGLANG_PREFIX = "sglang:"


def get_parser(name: str) -> ToolCallParser:
    """The parser called `name` (one of `PARSERS`). Raises ParserUnavailable."""
    from tau2_slime.tokens import parsers

    if name.startswith(SGLANG_PREFIX):
        return parsers.sglang_parser(name.removeprefix(SGLANG_PREFIX))
    if name not in BUILT_IN:
        raise ParserUnavailable(f"unknown tool-call parser {name!r}; choose one of {', '.join(PARSERS)}")
    return parsers.built_in(name)


_MARKERS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("<minimax:tool_call>",), "sglang:minimax-m2"),
    (("ns_token", "<invoke name="), None),
    (("<|tool_call_begin|>",), "sglang:kimi_k2"),
    (("｜DSML｜", "function_calls"), "sglang:deepseekv32"),
    (("｜DSML｜",), "sglang:deepseekv4"),
    (("<｜tool▁calls▁begin｜>", "```json"), "sglang:deepseekv3"),
    (("<｜tool▁calls▁begin｜>",), "sglang:deepseekv31"),
    (("<｜tool_calls_begin｜>",), "sglang:step3"),
    (("<|channel|>", "functions.", "<|call|>"), "sglang:gpt-oss"),
    (("[TOOL_CALLS]",), "sglang:mistral"),
    (("<|tool_call_start|>",), "sglang:lfm2"),
    (("<|START_ACTION|>",), "sglang:cohere_command4"),
    (("<|tool_call>",), "sglang:gemma4"),
    (("<tool_call>", "<arg_key>"), "glm"),
    (("<tool_call>", "<function="), "qwen_xml"),
    (("<tool_call>", '"name"'), "hermes"),
    (("<function=",), None),
    (("<|start_header_id|>", '"parameters": '), "sglang:llama3"),
    (("<|start_header_id|>", "<|python_tag|>"), "sglang:llama3"),
)
"""Texts that a chat template writes around a call -> parser, None for a format without one. The first row whose texts
all occur wins."""

_TELLING_TOKENS = (
    ("<arg_key>", "glm"),
    ("<|tool_call_begin|>", "sglang:kimi_k2"),
    ("<minimax:tool_call>", "sglang:minimax-m2"),
)
"""Added tokens that occur in one family only, for templates that leave the writing of calls to the caller."""


def detect_parser(template_source: str, added_tokens: Iterable[str] = ()) -> str:
    """Name of the parser for what this chat template writes when an assistant turn calls a tool.

    `added_tokens`: texts of the tokenizer's added tokens, asked only where the template itself shows no format.
    Raises UnknownToolFormat. The name may be one that `get_parser` cannot serve on this machine.
    """
    source = template_source.replace('\\"', '"')
    for texts, name in _MARKERS:
        if all(text in source for text in texts):
            if name is None:
                break
            return name
    else:
        tokens = set(added_tokens)
        for token, name in _TELLING_TOKENS:
            if token in tokens:
                return name
    raise UnknownToolFormat(
        "the chat template shows no tool-call format that is known here; name the parser yourself, one of "
        + ", ".join(PARSERS)
    )
