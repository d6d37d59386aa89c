"""Two servers that misbehave on demand: a router that speaks sglang's /generate, and an OpenAI-compatible user model.

A script is a list of moves; every episode (routing key) plays it from the beginning, one move for each request. A move
answers one request. Honest answers are remembered, so that a test can say which tokens a trajectory must hold.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FAREWELL = "Your case is now complete. Goodbye."


def log_prob(token: int) -> float:
    """What the router says of every token: exact in binary, so it must come back exactly."""
    return -(1 + token % 60) / 64


@dataclass
class Ask:
    """One request of the policy."""

    key: str
    ids: list[int]
    params: dict[str, Any]
    payload: dict[str, Any]
    ordinal: int
    """Which request of its episode it is, from 0."""


Move = Callable[["Router", web.Request, Ask], Awaitable[web.StreamResponse]]


class _Server:
    """An aiohttp application on a port that stays its own while it is stopped: nobody else can listen there meanwhile."""

    def __init__(self) -> None:
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that the server may bind it as well
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self._runner: web.AppRunner | None = None
        self._release = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def start(self) -> None:
        self._release = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        self._release.set()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def close(self) -> None:
        await self.stop()
        self._held.close()

    async def silence(self) -> None:
        """No answer until the server stops."""
        await self._release.wait()


class Router(_Server):
    """Answers /generate from a script; when the script has ended, with a farewell."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.script: Sequence[Move] = ()
        self.choose: Callable[[Ask], Move | None] = lambda ask: None
        """Asked before the script; what it returns does not use up a move."""
        self.version: str | None = "7"
        self.asks: list[Ask] = []
        self.sent: dict[str, list[list[int]]] = defaultdict(list)
        """Routing key -> the ids of each honest answer, in order."""
        self._at: dict[str, int] = defaultdict(int)
        self._count: dict[str, int] = defaultdict(int)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/generate", self._generate)]

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def id_of(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        payload = await request.json()
        key = request.headers.get("X-SMG-Routing-Key", "")
        ask = Ask(key, payload["input_ids"], payload["sampling_params"], payload, self._count[key])
        self._count[key] += 1
        self.asks.append(ask)
        move = self.choose(ask)
        if move is None:
            at = self._at[key]
            self._at[key] += 1
            move = self.script[at] if at < len(self.script) else say(FAREWELL)
        return await move(self, request, ask)

    def body(self, ask: Ask, ids: list[int], finish: dict[str, Any]) -> dict[str, Any]:
        """A reply as sglang writes it."""
        meta: dict[str, Any] = {
            "id": f"{ask.key}-{ask.ordinal}",
            "finish_reason": finish,
            "prompt_tokens": len(ask.ids),
            "completion_tokens": len(ids),
            "cached_tokens": 0,
            "input_token_logprobs": [],
            "output_token_logprobs": [[log_prob(token), token, None] for token in ids],
            "output_token_logprobs_length": len(ids),
            "e2e_latency": 0.01,
        }
        if self.version is not None:
            meta["weight_version"] = self.version
        return {"text": self.tokenizer.decode(ids), "output_ids": ids, "meta_info": meta}


# ---- moves of the router ---------------------------------------------------------------------------------------------


def spell(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def answer(
    text: str,
    *,
    stop: str | None = "<|im_end|>",
    finish: dict[str, Any] | None = None,
    version: str | None = None,
    mangle: Callable[[dict[str, Any]], Any] | None = None,
) -> Move:
    """Sample ``text`` and the stop token, as far as max_new_tokens goes.

    ``mangle`` changes the whole reply, or returns another; then it is not honest.
    """

    async def move(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        ids = router.encode(text) + ([router.id_of(stop)] if stop else [])
        reason = finish or {"type": "stop", "matched": ids[-1]}
        most = ask.params["max_new_tokens"]
        if mangle is None and len(ids) > most:
            ids, reason = ids[:most], finish or {"type": "length", "length": most}
        body = router.body(ask, ids, reason)
        if version is not None:
            body["meta_info"]["weight_version"] = version
        if mangle is None:
            router.sent[ask.key].append(ids)
            return web.json_response(body)
        changed = mangle(body)
        return web.json_response(body if changed is None else changed)

    return move


def say(text: str) -> Move:
    return answer(text)


def call(name: str, **arguments: Any) -> Move:
    return answer(spell(name, arguments))


def cut(text: str) -> Move:
    """``text`` until max_new_tokens."""

    async def move(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        ids = router.encode(text)
        size = ask.params["max_new_tokens"]
        ids = (ids * (size // len(ids) + 1))[:size]
        router.sent[ask.key].append(ids)
        return web.json_response(router.body(ask, ids, {"type": "length", "length": size}))

    return move


def partial(text: str, *, version: str = "7") -> Move:
    """``text``, aborted by the server."""
    reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
    return answer(text, stop=None, finish=reason, version=version)


def queued_abort() -> Move:
    """An abort from the waiting queue: no token, no counts."""

    def strip(body: dict[str, Any]) -> None:
        body["output_ids"] = []
        meta = body["meta_info"]
        for name in ("prompt_tokens", "completion_tokens", "output_token_logprobs", "output_token_logprobs_length"):
            del meta[name]
        meta["finish_reason"] = {"type": "abort", "message": "Abort in waiting queue"}

    return answer("x", mangle=strip)


def http(status: int, body: str, content_type: str = "application/json") -> Move:
    async def move(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type)

    return move


def error(status: int, message: str) -> Move:
    return http(status, json.dumps({"error": {"message": message, "code": status}}))


def reset_mid_reply() -> Move:
    """Headers and half a body, then the connection is gone."""

    async def move(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b'{"text": "I wa')
        assert request.transport is not None
        request.transport.abort()
        return response

    return move


def hang() -> Move:
    async def move(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        await router.silence()
        return web.Response(status=500)

    return move


def after(action: Callable[[], Any], move: Move) -> Move:
    """``move``, once ``action`` has been called (awaited, if it gives something to await)."""

    async def wrapped(router: Router, request: web.Request, ask: Ask) -> web.StreamResponse:
        result = action()
        if asyncio.iscoroutine(result):
            await result
        return await move(router, request, ask)

    return wrapped


# ---- the user model --------------------------------------------------------------------------------------------------


@dataclass
class UserMove:
    """One answer of the user model."""

    status: int = 200
    content: Any = None
    finish: str = "stop"
    """Why the message ended, if it calls no tool."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the message."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Tool calls: name, and the arguments as the JSON text that the model wrote."""
    raw: str | None = None
    """The whole body, in place of all this."""
    before: Callable[[], Any] | None = None
    silent: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """Of an answer with another status than 200."""
    message: str = "no"
    """What such an answer says."""


class UserModel(_Server):
    """Answers /v1/chat/completions from a script; when it has ended, the user hangs up."""

    def __init__(self) -> None:
        super().__init__()
        self.script: Sequence[UserMove] = ()
        self.prompts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._complete)]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        at = len(self.prompts)
        self.prompts.append(await request.json())
        move = self.script[at] if at < len(self.script) else UserMove(content="Thank you. ###STOP###")
        if move.before is not None:
            move.before()
        if move.silent:
            await self.silence()
        if move.raw is not None:
            return web.Response(status=move.status, text=move.raw, content_type="application/json")
        if move.status != 200:
            return web.json_response(
                {"error": {"message": move.message, "type": "error", "code": "no"}},
                status=move.status,
                headers=move.headers,
            )
        calls = [
            {"id": f"u{at}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(move.calls)
        ]
        message = {
            "role": "assistant",
            "content": move.content,
            **({"tool_calls": calls} if calls else {}),
            **move.more,
        }
        return web.json_response(
            {
                "id": f"chatcmpl-{at}",
                "object": "chat.completion",
                "created": 1,
                "model": "test",
                "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else move.finish}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
            }
        )
