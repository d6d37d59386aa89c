"""An OpenAI-compatible endpoint on this machine: plays a task's gold actions as the agent, or says what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tau2_slime.local.gold import GoldScript, find_reference
from tau2_slime.world import domains, tau2_compat

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""Request body -> message, or {"status": 500}, or {"sleep": seconds}."""


def gold(body: dict[str, Any]) -> dict[str, Any]:
    """The gold action that is due, from the messages alone."""
    turns, reference = 0, None
    for message in body["messages"]:
        if message["role"] == "user" and reference is None:
            reference = find_reference(message["content"] or "")
        elif message["role"] == "assistant" and reference is not None:
            turns += 1
    if reference is None:
        return {"content": "What is your case reference?"}
    task = domains.find_task(reference.domain, reference.split, task_id=reference.task_id)
    turn = GoldScript.from_task(task).turn(turns)
    return {"calls": [(turn.call[0], json.dumps(turn.call[1]))]} if turn.call else {"content": turn.text}


class ApiServer:
    def __init__(self, answer: Answer, *, tokens: tuple[int, int] = (1000, 100)) -> None:
        self.answer, self.tokens = answer, tokens
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most = 0

    async def __aenter__(self) -> ApiServer:
        tau2_compat.load()
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            step = self.answer(body)
            await asyncio.sleep(step.get("sleep", 0))
        finally:
            self.in_flight -= 1
        if "status" in step:
            error = {"message": step.get("message", "no"), "type": "x", "code": step.get("code", "x")}
            return web.json_response({"error": error}, status=step["status"], headers=step.get("headers"))
        message: dict[str, Any] = {"role": "assistant", "content": step.get("content"), **step.get("more", {})}
        if "calls" in step:
            message["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(step["calls"])
            ]
        prompt, reply = self.tokens
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": step.get("finish", "stop"), "message": message}],
                "usage": {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply},
            }
        )
