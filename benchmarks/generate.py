"""Where does the CPU time of a whole `generate` go?  ``python benchmarks/generate.py [--domain retail ...]``

Real `generate` calls, 64 at once, zero latency: the embedded policy answers HTTP in a process of its own, the user is
scripted. This process is sampled every 2 ms of its CPU time, and each sample is booked to the innermost function of this
package on the stack, or to what runs without one (asyncio, aiohttp). ``--user-calls N`` measures the simulator beside it:
N calls against a local OpenAI-compatible endpoint, 256 at once.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.rollout import RolloutPlan, plan_jobs, run
from tau2_slime.world import tau2_compat

PACKAGE = str(Path(tau2_compat.__file__).parent.parent)
INTERVAL = 0.002
PARTS = [
    ("policy: HTTP and its JSON", ("tokens/engine.py",)),
    (
        "chat template",
        (
            *("tokens/template/chat_template.py:render", "tokens/template/chat_template.py:after"),
            "tokens/template/chat_delta.py",
        ),
    ),
    (
        "tokenising and decoding",
        ("tokens/template/chat_template.py", "tokens/template/control_tokens.py", "tokens/template/retokenisation.py"),
    ),
    ("reading the reply", ("tokens/calls/",)),
    ("ledger, samples", ("tokens/ledger.py", "tokens/replay.py", "slime_adapter/", "policy/")),
    ("scoring", ("world/scoring.py", "world/fast/evaluation.py")),
    ("environment and tools", ("world/",)),
    ("scripted user", ("local/",)),
    ("writing the files", ("rollout.py", "episode/result.py")),
    ("agent, loop, configuration", ("",)),
]


class Sampler:
    """Books this process's CPU time to parts of the package."""

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        innermost = frame
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(PACKAGE):
                self.functions[f"{code.co_filename[len(PACKAGE) + 1 :]}:{code.co_name}"] += 1
                return
            frame = frame.f_back
        if innermost is not None:
            file = innermost.f_code.co_filename
            package = file.partition("site-packages/")[2].partition("/")[0] or Path(file).parent.name
            self.functions[f"[{package}]"] += 1

    def parts(self) -> dict[str, int]:
        booked: Counter[str] = Counter()
        for function, count in self.functions.items():
            if function.startswith("["):
                booked["event loop and HTTP client"] += count
                continue
            name = next(name for name, prefixes in PARTS if any(function.startswith(p) for p in prefixes))
            booked[name] += count
        return dict(booked.most_common())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": os.path.dirname(PACKAGE)})


async def until_open(port: int) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise TimeoutError(f"nothing listens on port {port}")


async def measure(domain: str, episodes: int, url: str, checkpoint: str, *, show: int) -> None:
    tasks = plan_jobs([domain], None, [], 1000, 1)
    jobs = plan_jobs([domain], None, [], 1000, -(-episodes // len(tasks)))[:episodes]
    with tempfile.TemporaryDirectory() as folder:
        plan = RolloutPlan(
            jobs=jobs,
            output_dir=Path(folder) / "warm",
            router=url,
            hf_checkpoint=checkpoint,
            overrides={"user_model": "scripted", "max_turns": 200},
            sampling_params={"temperature": 1.0, "max_new_tokens": 4096},
            concurrency=64,
        )
        await run(plan)  # imports, the tokenizer, the domain, gold end states
        cpu, begin = time.process_time(), time.perf_counter()
        with Sampler() as sampler:
            played = await run(dataclasses.replace(plan, output_dir=Path(folder) / "measured"))
        spent, took = time.process_time() - cpu, time.perf_counter() - begin
    turns = sum(p.agent_turns for p in played) / len(played)
    each = 1000 * spent / len(played)
    print(
        f"\n{domain}: {each:.1f} ms CPU an episode ({turns:.1f} turns of the policy), {len(played) / took:.0f} episodes a "
        f"second in this process; mean reward {sum(p.reward or 0 for p in played) / len(played):.2f}"
    )
    total = sum(sampler.functions.values())
    for name, count in sampler.parts().items():
        print(f"  {name:28} {each * count / total:7.2f} ms  {count / total:5.1%}")
    for function, count in sampler.functions.most_common(show):
        print(f"      {function:60} {each * count / total:7.2f} ms")


USER_ENDPOINT = """
import json, sys
from aiohttp import web
answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "local", "choices": [{"index": 0,
    "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes, please go ahead."}}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 6, "total_tokens": 906}}
async def chat(request):
    await request.read()
    return web.json_response(answer)
app = web.Application(client_max_size=2**26)
app.router.add_post("/v1/chat/completions", chat)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


async def measure_users(calls: int) -> None:
    """CPU time of one call of the user simulator, by the way it is called."""
    from tau2_slime.world import domains, users

    port = free_port()
    server = start("-c", USER_ENDPOINT, str(port))
    try:
        await until_open(port)
        task = domains.tasks("retail", "base")[0]
        print("\nuser simulator, one call against a local endpoint, 256 at once:")
        # An argument that litellm has a meaning of its own for sends a call through it.
        for name, args in (("litellm", {"extra_headers": {"X-Benchmark": "litellm"}}), ("asked directly", {})):
            spec = users.UserSpec(
                model="openai/local", base_url=f"http://127.0.0.1:{port}/v1", concurrency=256, args=args
            )

            async def talk(spec: Any = spec) -> None:
                user = users.LitellmUser(spec, tools=None, instructions=str(task.user_scenario))
                user.start([])
                for _ in range(5):
                    said = tau2_compat.load().AssistantMessage(role="assistant", content="How can I help you? " * 10)
                    await user.reply(said)

            await asyncio.gather(*(talk() for _ in range(8)))
            cpu, begin = time.process_time(), time.perf_counter()
            for _ in range(max(1, calls // 1280)):
                await asyncio.gather(*(talk() for _ in range(256)))
            count = max(1, calls // 1280) * 1280
            print(
                f"  {name:24} {1000 * (time.process_time() - cpu) / count:6.2f} ms CPU a call, "
                f"{count / (time.perf_counter() - begin):.0f} calls a second"
            )
    finally:
        server.terminate()
        server.wait(30)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--domain", nargs="+", default=["airline", "retail", "telecom"])
    parser.add_argument("--functions", type=int, default=0, help="also print that many functions")
    parser.add_argument("--user-calls", type=int, default=2560)
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), Python "
        f"{platform.python_version()}, {tau2_compat.version()}"
    )
    checkpoint, port = str(local_checkpoint()), free_port()
    server = start("-m", "tau2_slime.local.policy_server", "--hf-checkpoint", checkpoint, "--port", str(port))
    try:
        await until_open(port)
        for domain in options.domain:
            await measure(domain, options.episodes, f"http://127.0.0.1:{port}", checkpoint, show=options.functions)
    finally:
        server.terminate()
        server.wait(30)
    if options.user_calls:
        await measure_users(options.user_calls)


if __name__ == "__main__":
    asyncio.run(main())
