"""The message of a chat-completion server, as a `ParsedTurn` like any other."""

from __future__ import annotations

from tau2_slime.chat.completion import Said
from tau2_slime.tokens.calls.action_text import ActionFormat
from tau2_slime.tokens.calls.json_text import BadJson, read_json
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
        if isinstance(value, str):  # encoded twice, as some models do
            value = read_json(value)
    except BadJson as problem:
        return bad(f"The arguments of {name} are not valid JSON: {problem}.")
    if not isinstance(value, dict):
        return bad(f"The arguments of {name} must be a JSON object.")
    return checked_call(name, value, tools, arguments, call_id)


def chat_turn(said: Said, tools: list[Tool], actions: ActionFormat | None = None) -> ParsedTurn:
    """A chat-completion server's message as the policy's turn, its calls compared with the tools.

    ``actions``: how the policy acts in text, if it does. A call that the server read out of such a text is not executed.
    """
    if actions is not None:
        turn = ParsedTurn(said.content, None, reasoning_unclosed=True)
        if not said.unclosed:
            turn = actions.parse(said.content or "", tools)
        turn.reasoning = "\n".join(filter(None, (said.thoughts, turn.reasoning))) or None
        turn.calls += [
            ParsedCall(
                "", {}, CallStatus.INVALID_JSON, call.arguments, "No tools were offered: write the action as text."
            )
            for call in said.calls
        ]
        return turn
    calls = [parsed_call(call.name, call.arguments, tools, call.id or None) for call in said.calls]
    return ParsedTurn(said.content, said.thoughts, calls, said.unclosed)
