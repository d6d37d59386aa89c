"""The message of a chat-completion server, as a `ParsedTurn` like any other."""

from __future__ import annotations

from tau2_slime.tokens.calls.json_text import BadJson, read_json
from tau2_slime.tokens.calls.reasoning import split_reasoning
from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn, Tool


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
