"""Chat messages as chat-completion servers spell them (arguments as JSON text), and what their replies mean to the core."""

from __future__ import annotations

import json
from typing import Any

from tau2_slime.tokens.calls.parsers.checks import parsed_call, parsed_reply
from tau2_slime.tokens.calls.types import ParsedTurn, Tool

_SAID = ("role", "content", "tool_calls", "reasoning_content", "reasoning", "reasoning_details")
"""What of a reply belongs to the conversation; the rest (``refusal``, ``audio``, ...) is about the reply."""


def to_wire(message: dict[str, Any]) -> dict[str, Any]:
    """A chat message of the core (as `trainable_agents.chat_message` makes it) for a request."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def as_said(message: dict[str, Any]) -> dict[str, Any]:
    """The server's message as it is sent back in the next request: every word, reasoning and call id as it came."""
    kept = {key: message[key] for key in _SAID if message.get(key) is not None}
    return {"role": "assistant", "content": None, **kept}


def to_turn(message: dict[str, Any], tools: list[Tool]) -> ParsedTurn:
    """The server's message, as it took the model's text apart; tool calls are checked as in every door."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        calls.append(
            parsed_call(function.get("name") or "", function.get("arguments") or "", tools, call.get("id") or None)
        )
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return parsed_reply(text_of(message.get("content")), reasoning or None, calls)


def under_ids_said(new: list[dict[str, Any]], ids: list[str]) -> list[dict[str, Any]]:
    """``new`` with its tool results, which come first and in the order of the calls, under the ``ids`` that the server gave.

    The core makes up an id where there is none; a server that says ``""`` has to find its own word in the answer.
    """
    out = list(new)
    for place, said in enumerate(ids[: sum(message["role"] == "tool" for message in new)]):
        out[place] = {**out[place], "tool_call_id": said}
    return out


def text_of(content: Any) -> str | None:
    """The text of a message's content, which may be a list of parts (dicts or objects); None if there is none.

    Blanks and all, as the server wrote it: so τ²'s own agent hands it on.
    """
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else getattr(part, "text", None) for part in content]
        return "".join(part for part in parts if part) or None
    return content
