"""How long does the event loop stand still?  ``python benchmarks/event_loop.py [--episodes 128] [--domain mock ...]``

Plays that many embedded episodes at once (real τ² tasks, real `generate`, HTTP to the embedded policy in the same
process) while a ticker asks the loop for the time every 5 ms, and prints the longest gap. The first line is the same loop
with nothing to do: what this machine's scheduler alone costs. Everything runs in one process, the policy's server and τ²'s
scoring threads included, so that a real deployment (policy and simulator elsewhere) stands still less than this.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from tau2_slime.rollout import RolloutPlan, plan_jobs, run

TICK = 0.005


class Ticker:
    """Delay of a 5 ms timer beyond its due time, in seconds."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(TICK)
            self.delays.append(time.perf_counter() - begin - TICK)

    def line(self, name: str) -> str:
        ordered = sorted(self.delays)
        p99 = ordered[int(len(ordered) * 0.99)]
        return (
            f"{name:28} longest {1000 * ordered[-1]:8.1f} ms   p99 {1000 * p99:7.1f} ms   "
            f"median {1000 * statistics.median(ordered):6.2f} ms   {len(ordered)} ticks"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--domain", nargs="+", default=["mock", "telecom", "retail"])
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    async with Ticker() as idle:
        await asyncio.sleep(2)
    print(idle.line("idle loop"))
    for domain in options.domain:
        tasks = plan_jobs([domain], None, [], 1000, 1)
        copies = -(-options.episodes // len(tasks))
        jobs = plan_jobs([domain], None, [], 1000, copies)[: options.episodes]
        with tempfile.TemporaryDirectory() as folder:
            plan = RolloutPlan(
                jobs=jobs,
                output_dir=Path(folder),
                overrides={"user_model": "scripted", "max_turns": 200},
                sampling_params={"temperature": 1.0, "max_new_tokens": 4096},
                concurrency=options.episodes,
            )
            # The first episode pays for imports, the tokenizer and the domain's files.
            await run(RolloutPlan(**{**vars(plan), "jobs": jobs[:1]}))
            async with Ticker() as busy:
                begin = time.perf_counter()
                played = await run(plan)
                took = time.perf_counter() - begin
        mean = statistics.fmean(p.reward or 0.0 for p in played)
        print(busy.line(f"{domain}, {len(played)} at once") + f"   {took:.1f} s, mean reward {mean:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
