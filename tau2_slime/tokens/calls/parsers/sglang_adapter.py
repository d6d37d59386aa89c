"""sglang's tool-call parsers, for the families without a parser here. Calls that sglang drops are reported all the same.

sglang is imported when the parser is made. It comes with the container; this package does not depend on it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tau2_slime.tokens.calls.json_text import BadJson, read_json
from tau2_slime.tokens.calls.parsers.tagged import MAX_CALLS, joined, strip_stop_tokens, too_many
from tau2_slime.tokens.calls.reasoning import split_reasoning, without_reasoning
from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.types import Call, CallStatus, ParsedCall, ParsedTurn, ParserUnavailable, Tool
from tau2_slime.tokens.families import END_THINK, PARSER_CLASSES, THINK, sglang_family

_KIMI_CALL = re.compile(
    r"<\|tool_call_begin\|>\s*([^\s<|]+)\s*<\|tool_call_argument_begin\|>\s*(.*?)\s*(?=<\|tool_call_(?:begin|end)\|>|$)",
    re.DOTALL,
)
"""A call's id and its arguments."""
_MISTRAL_ID = re.compile(r"\[CALL_ID\][^\[]*(?=\[ARGS\])")
_HARMONY_START = "<|start|>assistant"


class _SglangCall(Protocol):
    """What sglang returns for a call."""

    name: str | None
    parameters: str


class SglangParser:
    """Adapter of sglang's FunctionCallParser; see `ToolCallParser`.

    sglang does not say which text a call came from, or why it failed. So `raw` is the turn without its reasoning, and a call
    that sglang left out is INVALID_JSON, whatever is wrong with it. Numbers lose their literal: 1.50 arrives as 1.5.
    """

    def __init__(self, name: str) -> None:
        """`name`: one of sglang's --tool-call-parser. Raises ParserUnavailable."""
        try:
            from sglang.srt.entrypoints.openai.protocol import Tool as SglangTool
            from sglang.srt.function_call.function_call_parser import FunctionCallParser
        except Exception as error:  # a half-installed sglang fails in many ways: torch, triton, shared libraries
            raise ParserUnavailable(
                f"the tool-call parser 'sglang:{name}' needs sglang, which cannot be imported here "
                f"({type(error).__name__}: {error}); run inside an sglang or slime container, or choose one of "
                f"{', '.join(PARSER_CLASSES)}"
            ) from error
        known = FunctionCallParser.ToolCallParserEnum
        if name not in known:
            raise ParserUnavailable(f"this sglang has no tool-call parser {name!r}; it has {', '.join(sorted(known))}")
        self.name, self._sglang_name = f"sglang:{name}", name
        family = sglang_family(name)
        self._tags = family.reasoning_tags if family is not None else (THINK, END_THINK)
        self._call_start = family.call_start if family is not None else None
        self._parser, self._tool = FunctionCallParser, SglangTool

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        text = self._prepared(strip_stop_tokens(text))
        if self._call_start is not None and text.count(self._call_start) > MAX_CALLS:
            *whole, _ = text.split(self._call_start, MAX_CALLS + 1)
            text = self._call_start.join([*whole, ""])  # ends with one call that cannot be read
        reasoning, rest, unclosed = self._split(text, reasoning_open)
        if unclosed:
            begin = text.find(self._call_start) if self._call_start is not None else -1
            turn = self._calls_of(text[begin:], tools) if begin >= 0 else ParsedTurn(None, None)
            if not any(call.status in (CallStatus.OK, CallStatus.BAD_ARGUMENTS) for call in turn.calls):
                return ParsedTurn(None, reasoning, reasoning_unclosed=True)
            thoughts = [text[:begin].strip().removeprefix(self._tags[0]), turn.content or "", turn.reasoning or ""]
            return ParsedTurn(None, joined(thoughts), turn.calls)  # a call that was made before the thought was closed
        turn = self._calls_of(rest, tools)
        turn.reasoning = joined([reasoning or "", turn.reasoning or ""])
        return turn

    def _calls_of(self, text: str, tools: list[Tool]) -> ParsedTurn:
        """A turn without its first thought."""
        normal, found, failure = self._ask(text, tools)
        beyond, found = len(found) > MAX_CALLS, found[:MAX_CALLS]
        calls = [self._call(item, tools, text) for item in found]
        if self._sglang_name == "kimi_k2":
            for call, call_id in zip(calls, _kimi_ids(text, found), strict=True):
                call.id = call_id
        missing = 0 if beyond else self._expected(text, found, failure is not None) - len(calls)
        because = f" ({failure})" if failure else ""
        error = f"A tool call in this message cannot be read{because}: write every call exactly in the given format."
        calls += [ParsedCall("", {}, CallStatus.INVALID_JSON, text.strip(), error) for _ in range(missing)]
        if beyond:
            calls.append(too_many(text))
        if calls and not found:
            normal = ""  # sglang hands the unread calls back as if they were said
        content, thoughts = without_reasoning(normal, self._tags)
        return ParsedTurn(joined(content), joined(thoughts), calls)

    def format(self, calls: list[Call]) -> str:
        raise NotImplementedError(
            f"{self.name} only reads calls; the parsers that write them are {', '.join(PARSER_CLASSES)}"
        )

    def _prepared(self, text: str) -> str:
        """`text` with what sglang's parser needs and the decoded tokens of one turn lack."""
        if self._sglang_name == "mistral":
            return _MISTRAL_ID.sub("", text).replace("[TOOL_CALLS][", "[TOOL_CALLS] [")
        if self._sglang_name == "gpt-oss":
            if text.lstrip().startswith("<|channel|>"):
                text = _HARMONY_START + text.lstrip()  # the generation prompt wrote it
            last = text[text.rfind("<|start|>") :]
            # It is a stop token as well: the caller or `strip_stop_tokens` took it off.
            return text + "<|call|>" if " to=functions." in last and "<|call|>" not in last else text
        return text

    def _split(self, text: str, reasoning_open: bool) -> tuple[str | None, str, bool]:
        """(reasoning, rest, unclosed), by sglang's own parser where the reasoning is a channel."""
        if self._sglang_name != "gpt-oss":
            return split_reasoning(text, reasoning_open=reasoning_open, tags=self._tags)
        from sglang.srt.parser.reasoning_parser import ReasoningParser

        reasoning, rest = ReasoningParser("gpt-oss").parse_non_stream(text)
        unclosed = not (rest or "").strip() and text.rfind("<|end|>") < text.rfind("<|channel|>analysis<|message|>")
        return (reasoning or "").strip() or None, rest or "", unclosed

    def _ask(self, text: str, tools: list[Tool]) -> tuple[str, list[_SglangCall], str | None]:
        """(text outside calls, the calls, error); the error is "" if sglang saw a call that it did not return, else None."""
        try:
            parser = self._parser([self._tool(**tool) for tool in tools], self._sglang_name)
            with _unknown_tools_forwarded():
                normal, found = parser.parse_non_stream(text)
            return normal, found, "" if not found and parser.has_tool_call(text) else None
        except Exception as error:  # sglang's code may raise anything on what a model sampled: the call is at fault
            return text, [], str(error) or type(error).__name__

    def _call(self, item: _SglangCall, tools: list[Tool], text: str) -> ParsedCall:
        name = item.name or ""
        try:
            arguments = read_json(item.parameters)
            problem = "they are not a JSON object"
            if name and isinstance(arguments, dict):
                return checked_call(name, arguments, tools, text.strip())
        except BadJson as bad:
            problem = str(bad)
        error = f"The arguments of the call of {name} cannot be read: {problem}." if name else "A call names no tool."
        return ParsedCall(name, {}, CallStatus.INVALID_JSON, text.strip(), error)

    def _expected(self, text: str, found: list[_SglangCall], failed: bool) -> int:
        """How many calls the text begins, as far as one can tell."""
        start = self._call_start
        begun = text.count(start) - sum(item.parameters.count(start) for item in found) if start else 0
        return max(begun, int(failed))


def _kimi_ids(text: str, found: list[_SglangCall]) -> list[str | None]:
    """The id that the model wrote for each call; sglang leaves out a call whose id or arguments it cannot read."""
    written = _KIMI_CALL.findall(text)
    if len(written) == len(found):
        return [call_id for call_id, _ in written]
    ids: list[str | None] = []
    left = iter(written)
    for item in found:
        name = re.compile(rf"(functions\.)?{re.escape(item.name or '')}:\d+|\d+")
        same = (i for i, arguments in left if arguments == item.parameters.strip() and name.fullmatch(i))
        ids.append(next(same, None))
    return ids


_switching = threading.Lock()


@contextmanager
def _unknown_tools_forwarded() -> Iterator[None]:
    """Make sglang return calls of tools that were not offered; it reads the switch from the environment each time.

    One parse at a time: two event loops in two threads would take the switch from each other.
    """
    switch = "SGLANG_FORWARD_UNKNOWN_TOOLS"
    with _switching:
        before = os.environ.get(switch)
        os.environ[switch] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[switch]
            else:
                os.environ[switch] = before
