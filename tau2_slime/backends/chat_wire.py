"""Chat messages as chat-completions servers take them: arguments as JSON text, results under the ids of their calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tau2_slime.backends.turns import ChatMessage


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
