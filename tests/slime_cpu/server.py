"""The embedded policy as router and worker of a training job: weight updates, faults, and a journal of every call.

    python -m tests.slime_cpu.server OPTIONS.json     # prints its URL

On top of `PolicyServer`: /pause_generation and /continue_generation as sglang has them (new calls wait, then the weights
have a new version; what runs comes back cut short in mode abort, and goes on with the new weights in the modes retract and
in_place), and GET /journal, which hands over what was asked and answered since the last time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, cast

from tau2_slime.local.context import ScriptPosition
from tau2_slime.local.gold import ScriptTurn
from tau2_slime.local.policy import GoldPolicy
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.sampler import BadRequest, Sampler
from tau2_slime.local.spelling import draw, log_prob
from tests.slime_cpu import customer
from tests.slime_cpu.check import digest, experts, kept_set

FAULTS = ("500", "503", "reset", "lost", "garbage", "cut")
"""reset: the connection ends before an answer; lost: after it was sampled; cut: half of the JSON."""


@dataclass
class Options:
    checkpoint: str
    latency: float = 0.001
    """Seconds per token."""
    spread: float = 0.0
    """0.5: a session's tokens take between half and one and a half times as long."""
    user_delay: float = 0.0
    """Seconds of a user-model call."""
    spelling: float = 0.15
    mistakes: float = 0.0
    faults: float = 0.0
    """Share of calls that fail, of the policy and of the user model."""
    chatty: bool = False
    """One more turn at the beginning: episodes of the mock domain have three then."""
    seed: int = 0


class ChattyPolicy(GoldPolicy):
    """Gold after one turn of small talk."""

    def _due(self, position: ScriptPosition, routing_key: str) -> tuple[ScriptTurn, str]:
        turn, case = super()._due(position, routing_key)
        if position.reference is None:
            return turn, case
        if position.turn == 0:
            return ScriptTurn("ask", text="Thank you. One moment please, I am looking into your case right now."), case
        script = self._script(position.reference)
        return (turn if script is None else script.turn(position.turn - 1)), case


_pace: ContextVar[float] = ContextVar("pace", default=1.0)
_sampled_by: ContextVar[list[int]] = ContextVar("sampled_by")
"""Of this call, for each token: the version of the weights that sampled it."""


class JournalSampler(Sampler):
    """Remembers every call; between pause and continue nothing is sampled."""

    def __init__(self, policy: GoldPolicy, *, spread: float = 0.0, **options: Any) -> None:
        super().__init__(policy, **options)
        self.spread = spread
        self.version = 1
        self.weight_version = "1"
        self.journal: list[dict[str, Any]] = []
        self._open = asyncio.Event()
        self._open.set()
        self._held = asyncio.Event()

    async def pause(self, mode: str = "abort") -> None:
        self._open.clear()
        if mode != "abort":
            self._held.set()
            return
        while self.running:
            self.abort(None)
            await asyncio.sleep(0.005)

    def resume(self) -> None:
        self.version += 1
        self.weight_version = str(self.version)
        self._held.clear()
        self._open.set()

    async def generate(self, payload: dict[str, Any], routing_key: str = "") -> dict[str, Any]:
        await self._open.wait()
        sampled_by: list[int] = []
        _sampled_by.set(sampled_by)
        version = self.version
        _pace.set(1 + self.spread * (2 * draw("pace", routing_key) - 1))
        reply = await super().generate(payload, routing_key)
        meta, ids, asked = reply["meta_info"], reply["output_ids"], payload["input_ids"]
        # Other weights, another session: other probabilities, so that no output can pass for another one.
        shift = len(asked) + int(1e6 * draw("session", routing_key))
        by = [*sampled_by, *[version] * len(ids)][: len(ids)]
        log_probs = [log_prob(shift + 100_003 * by[i] + i, token) for i, token in enumerate(ids)]
        starts = [i for i in range(len(ids)) if not i or by[i] != by[i - 1]]
        spans = [(str(by[i]), i, stop) for i, stop in zip(starts, [*starts[1:], len(ids)], strict=True)]
        meta["weight_versions"] = [{"version": name, "start": i, "end": stop} for name, i, stop in spans]
        if "output_token_logprobs" in meta:
            entries = zip(log_probs, ids, strict=True)
            meta["output_token_logprobs"] = [[value, token, None] for value, token in entries]
        params = payload.get("sampling_params") or {}
        meta.update(_replay(payload, ids))
        self.journal.append(
            {
                "context": digest(asked),
                "length": len(asked),
                "ids": ids,
                "log_probs": log_probs,
                "versions": [name for name, _, _ in spans] or [str(version)],
                "key": routing_key,
                "finish": meta["finish_reason"]["type"],
                "sampling": [params.get(name) for name in ("temperature", "top_p", "top_k")],
                "answered": True,
            }
        )
        return reply

    async def _wait(self, tokens: int, aborted: asyncio.Event) -> int:
        latency, sampled_by = self.latency * _pace.get(), _sampled_by.get()
        while len(sampled_by) < tokens:
            await _first(self._open, aborted)
            if aborted.is_set():
                break
            left, version, begin = tokens - len(sampled_by), self.version, time.perf_counter()
            over = not await _first(aborted, self._held, within=left * latency)
            sampled_by += [version] * (left if over else min(left, int((time.perf_counter() - begin) / latency)))
        return len(sampled_by)


async def _first(*events: asyncio.Event, within: float | None = None) -> bool:
    """Waits for one of ``events``, not longer than ``within`` seconds. True if one is there."""
    if not any(event.is_set() for event in events):
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    return any(event.is_set() for event in events)


def _replay(payload: dict[str, Any], ids: list[int]) -> dict[str, str]:
    """What slime's patched engine adds on request: of each token a nucleus of two, and its two experts in two layers."""
    out, asked = {}, payload["input_ids"]
    if (payload["sampling_params"].get("custom_params") or {}).get("return_top_p_token_ids") and ids:
        out["top_p_token_ids"] = _int32(value for token in ids for value in kept_set(token))
        out["top_p_token_offsets"] = _int32(range(0, 2 * len(ids) + 1, 2))
    if payload.get("return_routed_experts"):
        read = [*asked, *ids][payload["routed_experts_start_len"] : -1]
        out["routed_experts"] = _int32(value for token in read for value in experts(token))
    return out


def _int32(values: Iterable[int]) -> str:
    return base64.b64encode(array("i", values).tobytes()).decode()


class RouterServer(PolicyServer):
    """Router and worker in one, as `slime` sees them."""

    def __init__(self, options: Options) -> None:
        super().__init__(
            options.checkpoint,
            latency=options.latency,
            spelling=options.spelling,
            mistakes=options.mistakes,
            seed=options.seed,
        )
        self.options = options
        self.requests = self.failed = self.updates = self.said = self.unsaid = 0

    def _load(self) -> GoldPolicy:
        if not self.options.chatty:
            return super()._load()
        from transformers import AutoTokenizer

        from tau2_slime.world import tau2_compat

        tau2_compat.load()
        tokenizer = AutoTokenizer.from_pretrained(str(self.checkpoint))
        return ChattyPolicy(tokenizer, spelling=self.spelling, mistakes=self.mistakes, seed=self.seed)

    async def start(self) -> None:
        await super().start()
        policy = self.sampler.policy
        self._sampler = JournalSampler(
            policy, context_length=self.context_length, latency=self.latency, spread=self.options.spread
        )

    @property
    def sampler(self) -> JournalSampler:
        return cast(JournalSampler, self._sampler)

    def _routes(self) -> list[Any]:
        from aiohttp import web

        return [
            web.post("/pause_generation", self._handle_pause),
            web.post("/continue_generation", self._handle_continue),
            web.get("/journal", self._handle_journal),
            web.post("/v1/chat/completions", self._handle_chat),
            *super()._routes(),
        ]

    async def _handle_pause(self, request: Any) -> Any:
        from aiohttp import web

        await self.sampler.pause((await request.json()).get("mode", "abort"))
        return web.json_response({})

    async def _handle_continue(self, _: Any) -> Any:
        from aiohttp import web

        self.sampler.resume()
        self.updates += 1
        return web.json_response({})

    async def _handle_journal(self, _: Any) -> Any:
        from aiohttp import web

        calls, self.sampler.journal = self.sampler.journal, []
        counts = {"requests": self.requests, "failed": self.failed, "updates": self.updates}
        return web.json_response({"calls": calls, **counts, "user_calls": self.said, "user_failed": self.unsaid})

    async def _handle_chat(self, request: Any) -> Any:
        from aiohttp import web

        self.said += 1
        await asyncio.sleep(self.options.user_delay)
        if draw(self.options.seed, "user", self.said) < self.options.faults:
            self.unsaid += 1
            return web.json_response({"error": {"message": "injected"}}, status=503)
        return web.json_response(await customer.reply(await request.json()))

    async def _handle_generate(self, request: Any) -> Any:
        from aiohttp import web

        self.requests += 1
        number, fault = self.requests, ""
        if draw(self.options.seed, "fault", number) < self.options.faults:
            self.failed += 1
            fault = FAULTS[int(draw(self.options.seed, "kind", number) * len(FAULTS))]
        if fault in ("500", "503"):
            return web.json_response({"error": {"message": "injected"}}, status=int(fault))
        if fault == "reset":
            return _hang_up(request)
        if fault == "garbage":
            return web.Response(text="<html>502 bad gateway</html>")
        if not fault:
            return await super()._handle_generate(request)
        payload = json.loads(await request.read())
        try:
            reply = await self.sampler.generate(payload, request.headers.get("X-SMG-Routing-Key", ""))
        except BadRequest as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        self.sampler.journal[-1]["answered"] = False  # nothing was awaited since it was written
        if fault == "lost":
            return _hang_up(request)
        text = json.dumps(reply)
        return web.Response(text=text[: len(text) // 2], content_type="application/json")


def _hang_up(request: Any) -> Any:
    from aiohttp import web

    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def serve(options: Options) -> None:
    async with RouterServer(options) as server:
        print(server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # whoever started it has gone


@contextlib.contextmanager
def serving(options: Options) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.slime_cpu.server", json.dumps(asdict(options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise RuntimeError("the policy server did not start")
        yield url
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(Options(**json.loads(sys.argv[1]))))
