"""Chat messages as chat-completions servers write them (arguments as JSON text), and how their replies are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tau2_slime.tokens.calls.parsers.chat_server import parsed_call, parsed_reply
from tau2_slime.tokens.calls.types import ParsedTurn, Tool

if TYPE_CHECKING:
    from tau2_slime.backends.turns import ChatMessage

_CONVERSATION_KEYS = ("role", "content", "tool_calls", "reasoning_content", "reasoning", "reasoning_details")
"""What of a reply belongs to the conversation. The rest (``refusal``, ``audio``, ...) describes the reply."""


def request_message(message: ChatMessage) -> ChatMessage:
    """``message``, whose call arguments are a mapping, as a request to a server has it."""
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


def reply_to_send_back(message: ChatMessage) -> ChatMessage:
    """The server's message for the next request: its text, reasoning and call ids exactly as they came."""
    kept = {key: message[key] for key in _CONVERSATION_KEYS if message.get(key) is not None}
    return {"role": "assistant", "content": None, **kept}


def parse_chat_reply(message: ChatMessage, tools: list[Tool]) -> ParsedTurn:
    """The server's message as the policy's turn. Tool calls are checked against ``tools``, as in every door."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        calls.append(
            parsed_call(function.get("name") or "", function.get("arguments") or "", tools, call.get("id") or None)
        )
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return parsed_reply(content_text(message.get("content")), reasoning or None, calls)


def with_call_ids(new: list[ChatMessage], call_ids: list[str]) -> list[ChatMessage]:
    """``new`` with its tool results under the ``call_ids`` that the server gave to its calls, in the order of the calls.

    The tool results come first in ``new``. The episode makes up an id for a call that has none; a server that wrote ``""``
    must find ``""`` in the result.
    """
    out = list(new)
    results = sum(message["role"] == "tool" for message in new)
    for position, call_id in enumerate(call_ids[:results]):
        out[position] = {**out[position], "tool_call_id": call_id}
    return out


def content_text(content: object) -> str | None:
    """The text of a message's ``content``: a str, or a list of parts (dicts or objects). None without text.

    Leading and trailing white space stays, as τ²'s own agent keeps it.
    """
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else getattr(part, "text", None) for part in content]
        return "".join(part for part in parts if part) or None
    return content if isinstance(content, str) else None
