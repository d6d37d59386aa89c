"""The embedded policy as a server: sglang's native protocol on a local port, in the caller's event loop or on its own.

    async with PolicyServer(checkpoint_dir) as server:
        ...  # POST {server.url}/generate

    python -m tau2_slime.local.policy_server --hf-checkpoint DIR --port 30000

It answers as an sglang worker does, and for ``/workers`` as a router with one worker does. It generates each task's gold
play (`policy.GoldPolicy`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tau2_slime.local.policy import GoldPolicy
from tau2_slime.local.sampler import BadRequest, Sampler

if TYPE_CHECKING:
    from aiohttp import web

    from tau2_slime.tokens.tokenizer import Tokenizer

DEFAULT_CONTEXT = 32768
"""Tokens, for a checkpoint that does not say."""
_MAX_BODY = 64 * 2**20
"""Bytes of a request."""


class PolicyServer:
    """An aiohttp server on ``host``; an asynchronous context manager."""

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: float = 0.0,
        spelling: float = 0.1,
        mistakes: float = 0.0,
        noise: float = 0.0,
        gives_up: float = 0.0,
        seed: int = 0,
        played: Iterable[tuple[str, str]] = (),
        context_length: int | None = None,
    ) -> None:
        """A server that `start`, or the context, will start.

        Args:
            checkpoint: a Hugging Face folder with a tokenizer and a chat template. It needs no weights.
            host: the address to listen on.
            port: 0 takes a free one.
            latency: seconds per sampled token.
            spelling: share of tokens that are sampled in another way than the tokenizer would write them.
            mistakes: share of episodes with one wrong move at the end. The routing key decides which, so the samples of a
                group differ.
            noise: share of steps with another move than gold's; some of them cost the reward.
            gives_up: share of episodes in which the policy falls silent; they earn nothing.
            seed: decides which tokens and episodes these are.
            played: domains and splits (or task files) of solo episodes beside ``base``; see `GoldPolicy`.
            context_length: tokens; None takes the checkpoint's own.
        """
        self.checkpoint = Path(checkpoint)
        self.host, self.port = host, port
        self.latency, self.spelling, self.seed = latency, spelling, seed
        self.mistakes, self.noise, self.gives_up = mistakes, noise, gives_up
        self.played = frozenset(played)
        self.context_length = context_length or _context_length(self.checkpoint)
        self._sampler: Sampler | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """``http://host:port``, known once the server runs."""
        return f"http://{self.host}:{self.port}"

    @property
    def sampler(self) -> Sampler:
        """What answers /generate. Raises RuntimeError before `start`."""
        if self._sampler is None:
            raise RuntimeError("the embedded policy server has not been started")
        return self._sampler

    def _load(self) -> GoldPolicy:
        from transformers import AutoTokenizer

        from tau2_slime.world import tau2_compat

        tau2_compat.load()  # takes seconds the first time, so not while a request waits
        # A cast, because transformers' annotations allow less than its code does.
        tokenizer = cast("Tokenizer", AutoTokenizer.from_pretrained(str(self.checkpoint)))
        return GoldPolicy(
            tokenizer,
            spelling=self.spelling,
            mistakes=self.mistakes,
            noise=self.noise,
            gives_up=self.gives_up,
            seed=self.seed,
            played=self.played,
        )

    async def __aenter__(self) -> PolicyServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Load the tokenizer and listen.

        Raises:
            OSError: the port is taken.
            ValueError: the checkpoint's chat template cannot be used.
        """
        from aiohttp import web

        policy = await asyncio.to_thread(self._load)
        self._sampler = Sampler(policy, context_length=self.context_length, latency=self.latency)
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Abort what is pending and stop listening."""
        if self._sampler is not None:
            self._sampler.abort(None)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ---- endpoints ---------------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        from aiohttp import web

        def answer(build: Callable[[], dict[str, Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
            async def handler(_: web.Request) -> web.Response:
                return web.json_response(build())

            return handler

        routes = [
            web.post("/generate", self._handle_generate),
            web.post("/abort_request", self._handle_abort),
            web.post("/flush_cache", answer(lambda: {"success": True})),
        ]
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "/health": lambda: {"status": "ok"},
            "/health_generate": lambda: {"status": "ok"},
            "/flush_cache": lambda: {"success": True},
            "/workers": self._workers,
            "/list_workers": lambda: {"urls": [self.url]},
            "/model_info": self._model_info,
            "/get_model_info": self._model_info,
            "/server_info": self._server_info,
            "/get_server_info": self._server_info,
            "/v1/loads": lambda: {"loads": [{"num_running_reqs": self.sampler.running, "num_waiting_reqs": 0}]},
            "/v1/models": lambda: {"object": "list", "data": [{"id": str(self.checkpoint), "object": "model"}]},
        }
        return [*routes, *(web.get(path, answer(build)) for path, build in answers.items())]

    async def _handle_generate(self, request: web.Request) -> web.Response:
        from aiohttp import web

        try:
            payload = json.loads(await request.read())
            if not isinstance(payload, dict):
                raise BadRequest("the body must be a JSON object")
            reply = await self.sampler.generate(payload, request.headers.get("X-SMG-Routing-Key", ""))
        except ValueError as error:
            return web.json_response({"error": {"message": f"the body is not JSON: {error}"}}, status=400)
        except BadRequest as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        return web.json_response(reply)

    async def _handle_abort(self, request: web.Request) -> web.Response:
        from aiohttp import web

        try:
            payload = json.loads(await request.read() or b"{}")
        except ValueError:
            payload = {}
        if isinstance(payload, dict):
            self.sampler.abort(None if payload.get("abort_all") else str(payload.get("rid", "")))
        return web.Response()  # sglang answers 200, whether or not there is such a call

    def _workers(self) -> dict[str, Any]:
        worker = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.url)),
            "url": self.url,
            "model_id": str(self.checkpoint),
            "worker_type": "regular",
            "is_healthy": True,
            "load": self.sampler.running,
            "connection_mode": "http",
            "priority": 50,
            "cost": 1.0,
        }
        stats = {"prefill_count": 0, "decode_count": 0, "regular_count": 1}
        return {"workers": [worker], "total": 1, "stats": stats}

    def _model_info(self) -> dict[str, Any]:
        return {
            "model_path": str(self.checkpoint),
            "tokenizer_path": str(self.checkpoint),
            "is_generation": True,
            "weight_version": self.sampler.weight_version,
        }

    def _server_info(self) -> dict[str, Any]:
        return {
            **self._model_info(),
            "context_length": self.context_length,
            "version": "tau2_slime.local",
            "internal_states": [{"num_running_reqs": self.sampler.running}],
        }


def _context_length(checkpoint: Path) -> int:
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return DEFAULT_CONTEXT
    return int(config.get("max_position_embeddings") or DEFAULT_CONTEXT)


async def _serve(server: PolicyServer) -> None:
    async with server:
        print(f"embedded policy for {server.checkpoint} at {server.url}", flush=True)
        await asyncio.Event().wait()


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted. ``argv``: the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        description="A policy that plays tau2-bench's gold actions over sglang's protocol."
    )
    parser.add_argument("--hf-checkpoint", required=True, help="folder with a tokenizer and a chat template")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per token")
    parser.add_argument("--spelling", type=float, default=0.1, help="share of tokens spelled in another way")
    parser.add_argument("--mistakes", type=float, default=0.0, help="share of episodes with one wrong move")
    parser.add_argument("--noise", type=float, default=0.0, help="share of steps with another move than gold's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context-length", type=int)
    options = vars(parser.parse_args(argv))
    server = PolicyServer(options.pop("hf_checkpoint"), **options)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(server))


if __name__ == "__main__":
    main()
