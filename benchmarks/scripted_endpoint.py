"""The scripted users and agents behind an OpenAI-compatible endpoint: ``python benchmarks/scripted_endpoint.py PORT``.

A model's name is ``openai/DOMAIN@POSITION``: the user of that task of the domain's split ``base``; ``openai/agent:...`` is
its agent, which plays gold. It answers at once and keeps nothing between two calls.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from aiohttp import web

from tau2_slime.local.gold import GoldScript
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.world import domains, tau2_compat

GREETING = "Hi! How can I help you today?"


def agent_says(task: Any, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The next message of gold play, in OpenAI's spelling."""
    said = [m for m in messages if m["role"] == "assistant" and m.get("content") != GREETING]
    turn = GoldScript.from_task(task).turn(len(said))
    if turn.call is None:
        return {"role": "assistant", "content": turn.text}
    function = {"name": turn.call[0], "arguments": json.dumps(turn.call[1])}
    call = {"id": f"call_{len(said)}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def user_says(domain: str, task: Any, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The user's next message, in OpenAI's spelling."""
    t = tau2_compat.load()
    user = ScriptedUser(task, domain, "base")
    heard: list[Any] = []
    for said in messages[1:]:  # the simulator is the assistant of its own conversation, and the agent its user
        if said["role"] == "tool":
            heard.append(t.ToolMessage(id=said["tool_call_id"], content=said["content"], requestor="user", role="tool"))
        elif said["role"] == "user":
            heard.append(t.AssistantMessage(role="assistant", content=said["content"]))
        else:
            calls = [
                t.ToolCall(
                    id=call["id"],
                    name=call["function"]["name"],
                    arguments=json.loads(call["function"]["arguments"]),
                    requestor="user",
                )
                for call in said.get("tool_calls") or []
            ]
            heard.append(t.UserMessage(role="user", content=said.get("content"), tool_calls=calls or None))
    user.start(heard[:-1])
    reply = await user.reply(heard[-1])
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
            for c in reply.tool_calls
        ]
    return message


async def answer(body: dict[str, Any]) -> dict[str, Any]:
    domain, _, position = body["model"].removeprefix("agent:").rpartition("@")
    task = domains.tasks(domain, "base")[int(position)]
    if body["model"].startswith("agent:"):
        message = agent_says(task, body["messages"])
    else:
        message = await user_says(domain, task, body["messages"])
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
        ],
        "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
    }


async def chat(request: web.Request) -> web.Response:
    return web.json_response(await answer(json.loads(await request.read())))


if __name__ == "__main__":
    tau2_compat.load()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
