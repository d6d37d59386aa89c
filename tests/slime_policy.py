"""Scripts for the servers that a slime harness mocks: a policy that calls tools, well and badly, and a user."""

from __future__ import annotations

import random
from typing import Any

_GOOD = '<tool_call>\n{"name": "get_users", "arguments": {}}\n</tool_call>'
_TWO = _GOOD + '\n<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>'
_BROKEN = '<tool_call>\n{"name": "create_task", "arguments": {"user_id": \n</tool_call>'


def policy(context: dict[str, Any]) -> dict[str, Any]:
    rng = random.Random(str(context["seed"]))
    text = rng.choice(
        [_GOOD, _TWO, _BROKEN, "Could you tell me more?", "One moment.", "Sure, what shall it be called?"]
    )
    return {"text": text, "token_delay": 0.002}


def user(body: dict[str, Any]) -> dict[str, Any]:
    said = sum(message["role"] == "assistant" for message in body["messages"])
    return {"content": "###STOP###" if said >= 3 else f"Please go on ({said}).", "delay": 0.05}
