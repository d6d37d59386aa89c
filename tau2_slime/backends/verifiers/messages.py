"""Chat messages between this package, which has dicts, and verifiers v0, which has pydantic classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import verifiers as vf

from tau2_slime.chat.completion import Said, read_message
from tau2_slime.tokens.calls.types import Tool

if TYPE_CHECKING:
    from tau2_slime.backends.turns import ChatMessage


def to_verifiers_message(
    message: ChatMessage,
) -> vf.SystemMessage | vf.UserMessage | vf.AssistantMessage | vf.ToolMessage:
    """A chat message as verifiers' own class."""
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


def to_verifiers_tool(tool: Tool) -> vf.Tool:
    """An OpenAI function schema as verifiers' own class."""
    function = tool["function"]
    return vf.Tool(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
    )


def said_in(message: vf.AssistantMessage) -> Said:
    """The model's message, read as from any server."""
    whole = message.model_dump()
    whole["tool_calls"] = [
        {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls or []
    ]
    return read_message(whole)
