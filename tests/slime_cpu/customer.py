"""The scripted user behind an OpenAI-compatible endpoint: what litellm would reach over the network, with its delay."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.world import domains, tau2_compat

DOMAIN, SPLIT = "mock", "base"
GONE = "gone"
"""A model that never answers."""


async def reply(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a /v1/chat/completions body of τ²'s user simulator, whose prompt holds the task's scenario.

    Raises:
        LookupError: no task of the mock domain has that scenario, or the model is the one called `GONE`.
    """
    if body.get("model") == GONE:
        raise LookupError("this simulator is gone")
    t = tau2_compat.load()
    system, *said = body["messages"]
    tasks = [task for task in domains.tasks(DOMAIN, SPLIT) if str(task.user_scenario) in system["content"]]
    if not tasks:
        raise LookupError("no task of the mock domain has this scenario")
    # The simulator is the assistant of its own conversation, and the agent its user.
    heard = [
        (t.AssistantMessage if message["role"] == "user" else t.UserMessage)(
            role="assistant" if message["role"] == "user" else "user", content=message["content"]
        )
        for message in said
    ]
    user = ScriptedUser(tasks[0], DOMAIN, SPLIT)
    user.start(heard[:-1])
    answer = await user.reply(heard[-1])
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:12]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", ""),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer.content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
