"""Does a process stay small?  ``python benchmarks/endurance.py [--episodes 20000] [--faults 0.05] [--domain mock ...]``

Real `generate` calls in a fresh process, 256 at once, the domains in turn. Policy and user answer HTTP in processes of their
own, and that share of their requests fails: a 500, a 400, a broken connection, an answer that is not JSON. After every tenth
of the episodes it prints memory, CPU time of an episode, how the episodes ended, and what is still open. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from generate import free_port, start, until_open

from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.world import domains, tau2_compat

AT_ONCE = 256
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def failing(handler: Handler, share: float) -> Handler:
    """``handler``, where that share of the requests fails in one of four ways."""
    chance = random.Random(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        kind = chance.random() / share if share else 1.0
        if kind >= 1:
            return await handler(request)
        await request.read()
        if kind < 0.4:
            return web.Response(status=500, text="out of order")
        if kind < 0.5:
            return web.Response(status=400, text="no")
        if kind < 0.75:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="<html>", content_type="text/html")

    return answer


class FailingPolicy(PolicyServer):
    share = 0.0

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/generate", failing(self._handle_generate, self.share)), *super()._routes()[1:]]


async def serve(kind: str, port: int, share: float) -> None:
    if kind == "policy":
        FailingPolicy.share = share
        await FailingPolicy(local_checkpoint(), port=port).start()
    else:
        import scripted_endpoint

        tau2_compat.load()
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", failing(scripted_endpoint.chat, share))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def memory() -> float:
    """GB that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30


async def play(options: argparse.Namespace, policy: int, user: int) -> None:
    from tau2_slime.generate_with_tau2 import generate
    from tau2_slime.slime_adapter.sample import StandaloneSample

    args: Any = SimpleNamespace(
        hf_checkpoint=str(local_checkpoint()), sglang_router_ip="127.0.0.1", sglang_router_port=policy, tau2={}
    )
    ids = {domain: [task.id for task in domains.tasks(domain, "base")] for domain in options.domain}
    ended: Counter[str] = Counter()
    episodes, each = iter(range(options.episodes)), options.episodes // 10
    begin, cpu = time.perf_counter(), time.process_time()

    async def one_after_another() -> None:
        nonlocal begin, cpu
        for index in episodes:
            domain = options.domain[index % len(options.domain)]
            position = index // len(options.domain) % len(ids[domain])
            row = {"domain": domain, "task_split": "base", "task_id": ids[domain][position], "max_turns": 200}
            row |= {"user_model": f"openai/{domain}@{position}", "user_base_url": f"http://127.0.0.1:{user}/v1"}
            sample = StandaloneSample(index=index, group_index=index, session_id=f"s{index}", metadata=row)
            await generate(args, sample, {"temperature": 1.0, "max_new_tokens": 4096})
            told = sample.metadata["tau2"]
            ended[str(told["termination"]) if sample.remove_sample else sample.status.name] += 1
            if ended.total() % each == 0:
                now, used = time.perf_counter(), time.process_time()
                files = len(os.listdir("/proc/self/fd"))
                print(
                    f"{ended.total():6} episodes: {memory():.2f} GB, {1000 * (used - cpu) / each:.1f} ms CPU an episode, "
                    f"{each / (now - begin):.0f} a second, {files} open files, {len(asyncio.all_tasks())} tasks; "
                    f"{dict(ended.most_common())}",
                    flush=True,
                )
                begin, cpu = now, used

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{ended.total()} of {options.episodes} episodes ended; at most {peak:.2f} GB")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--faults", type=float, default=0.05, help="share of the requests")
    parser.add_argument("--domain", nargs="+", default=["mock", "airline", "retail", "telecom"])
    options = parser.parse_args()
    if options.episodes < 10:
        parser.error("--episodes: at least 10")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    ports = {kind: free_port() for kind in ("policy", "user")}
    serving = [start(__file__, "--serve", kind, str(port), str(options.faults)) for kind, port in ports.items()]
    try:
        for port in ports.values():
            await until_open(port)
        await play(options, ports["policy"], ports["user"])
    finally:
        for server in serving:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        asyncio.run(main())
