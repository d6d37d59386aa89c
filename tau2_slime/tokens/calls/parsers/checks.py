"""Calls compared with the tools that were offered, however they came; and a chat server's message as a ParsedTurn."""

from __future__ import annotations

from typing import Any

from tau2_slime.tokens.calls.literal_json import BadJson, read_json, to_plain_json
from tau2_slime.tokens.calls.reasoning import split_reasoning
from tau2_slime.tokens.calls.schema_types import coerce
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn, Tool


def checked_call(
    name: str, arguments: dict[str, Any], tools: list[Tool], raw: str, call_id: str | None = None
) -> ParsedCall:
    """A call that could be read, compared with the tools: OK, UNKNOWN_TOOL or BAD_ARGUMENTS.

    Args:
        name: the tool's name.
        arguments: by name; the values may be those of `literal_json`.
        tools: the tools that were offered.
        raw: the text of the call.
        call_id: the id that the model wrote, if the format has one.
    """
    offered = {tool["function"]["name"]: tool["function"] for tool in tools or []}
    if name not in offered:
        choices = f"the tools are {', '.join(offered)}" if offered else "none was offered"
        error = f"No tool is named {name[:80]!r}; {choices}."
        return ParsedCall(name, to_plain_json(arguments), CallStatus.UNKNOWN_TOOL, raw, error, call_id)
    typed, problems = coerce(arguments, offered[name].get("parameters") or {})
    if problems:
        error = f"The call of {name} does not fit its schema: {'; '.join(problems)}."
        return ParsedCall(name, typed, CallStatus.BAD_ARGUMENTS, raw, error, call_id)
    return ParsedCall(name, typed, CallStatus.OK, raw, None, call_id)


def parsed_call(name: str, arguments: str, tools: list[Tool], call_id: str | None = None) -> ParsedCall:
    """A tool call as chat-completion servers return it, with ``arguments`` as JSON text, compared with the tools."""

    def bad(problem: str) -> ParsedCall:
        return ParsedCall(name, {}, CallStatus.INVALID_JSON, arguments, problem, call_id)

    if not name:
        return bad("The tool call has no name.")
    try:
        value = read_json(arguments) if arguments.strip() else {}
    except BadJson as problem:
        return bad(f"The arguments of {name} are not valid JSON: {problem}.")
    if not isinstance(value, dict):
        return bad(f"The arguments of {name} must be a JSON object.")
    return checked_call(name, value, tools, arguments, call_id)


def parsed_reply(content: str | None, reasoning: str | None, calls: list[ParsedCall]) -> ParsedTurn:
    """A chat-completion server's message, its calls read by `parsed_call`.

    A server that runs without a reasoning parser leaves the reasoning at the beginning of the text. It is cut off, also
    without an opening tag, because some templates write that in the prompt. Other text stays as it came, white space
    included. Reasoning that the server did set apart wins.
    """
    if content is None:
        return ParsedTurn(None, reasoning, calls)
    thoughts, said, unclosed = split_reasoning(content)
    return ParsedTurn(content if said == content else said.strip(), reasoning or thoughts, calls, unclosed)
