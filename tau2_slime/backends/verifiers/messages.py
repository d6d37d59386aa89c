"""Chat messages between this package and verifiers v0: dicts on our side, its pydantic classes on the other."""

from __future__ import annotations

import json
from typing import Any

import verifiers as vf

from tau2_slime.backends.chat_wire import text_of
from tau2_slime.tokens.calls.parsers.checks import parsed_call, parsed_reply
from tau2_slime.tokens.calls.types import ParsedTurn, Tool


def to_vf(message: dict[str, Any]) -> Any:
    """A chat message (as `trainable_agents.chat_message` makes it) as verifiers' own."""
    role, content = message["role"], message["content"]
    if role == "tool":
        return vf.ToolMessage(tool_call_id=message["tool_call_id"], content=content)
    if role == "system":
        return vf.SystemMessage(content=content)
    if role == "user":
        return vf.UserMessage(content=content)
    calls = [
        vf.ToolCall(
            id=call["id"],
            name=call["function"]["name"],
            arguments=json.dumps(call["function"]["arguments"], ensure_ascii=False),
        )
        for call in message.get("tool_calls") or []
    ]
    return vf.AssistantMessage(content=content, tool_calls=calls or None)


def tool_def(tool: Tool) -> Any:
    """An OpenAI function schema as verifiers' `Tool`."""
    function = tool["function"]
    return vf.Tool(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
    )


def to_turn(message: Any, tools: list[Tool]) -> ParsedTurn:
    """The model's message, as its server took it apart; tool calls are checked as in every door."""
    calls = [parsed_call(call.name, call.arguments or "", tools, call.id or None) for call in message.tool_calls or []]
    reasoning = message.get("reasoning_content")
    return parsed_reply(text_of(message.content), reasoning or None, calls)
