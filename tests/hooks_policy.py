"""Scripts for the servers that a slime harness mocks: a policy that solves every other task, a user who sometimes fails."""

from __future__ import annotations

import itertools
import random
from typing import Any

_CREATE = '{"name": "create_task", "arguments": {"user_id": "user_1", "title": "Important Meeting"}}'
_UPDATE = '{"name": "update_task_status", "arguments": {"task_id": "task_1", "status": "completed"}}'
_BROKEN = '{"name": "create_task", "arguments": '
_replies = itertools.count(1)


def policy(context: dict[str, Any]) -> dict[str, Any]:
    """First turn: solve the create task, solve the update task, or send what cannot be read. Then talk."""
    rng = random.Random(str(context["seed"]))
    call = rng.choice([_CREATE, _UPDATE, _CREATE, _UPDATE, _BROKEN])
    text = "It is done." if context["turn"] > 1 else f"<tool_call>\n{call}\n</tool_call>"
    return {"text": text, "token_delay": 0.002}


def user(body: dict[str, Any]) -> dict[str, Any]:
    """Every ninth reply is empty, which is the simulator's failure."""
    said = sum(message["role"] == "assistant" for message in body["messages"])
    if next(_replies) % 9 == 0:
        return {"content": ""}
    return {"content": "###STOP###" if said >= 2 else "Please go on.", "delay": 0.02}
