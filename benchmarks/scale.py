"""What is left for slime's process when workers play?  ``python benchmarks/scale.py [--workers 0 1 2 4] [--episodes 512]``

Real `generate` calls, all at once, against the embedded policy in a process of its own, which takes ``--latency`` seconds a
token as an engine does. For each number of workers it prints the CPU time of an episode in slime's process and in the
workers, the episodes a second, and the longest gap of slime's event loop, also by the CPU time that slime's process used in
it. The CPU time in slime's process is the limit of a whole run: a machine with too few cores shows it all the same. Linux
only (it reads /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import re
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import event_loop
from generate import free_port, start, until_open

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.rollout import plan_jobs
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.slime_adapter.workers import pool

event_loop.TICK = 0.05  # a finer one would be the largest part of what slime's process does
PARAMS = {"temperature": 1.0, "max_new_tokens": 4096}


def samples(domain: str, count: int) -> list[StandaloneSample]:
    tasks = plan_jobs([domain], None, [], 1000, 1)
    jobs = plan_jobs([domain], None, [], 1000, -(-count // len(tasks)))[:count]
    rows = [{"domain": job.domain, "task_split": job.split, "task_id": job.task_id} for job in jobs]
    return [StandaloneSample(index=i, group_index=i, session_id=f"s{i}", metadata=row) for i, row in enumerate(rows)]


def cpu_of_workers() -> float:
    """Seconds of CPU time that the workers have used so far."""
    total = 0
    for name in (name for one in pool._pools.values() for name in one.workers()):
        found = re.search(r"process (\d+)", name)
        assert found is not None, name
        fields = Path(f"/proc/{found[1]}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def measure(domain: str, workers: int, episodes: int, port: int, checkpoint: str) -> None:
    args: Any = SimpleNamespace(
        hf_checkpoint=checkpoint,
        sglang_router_ip="127.0.0.1",
        sglang_router_port=port,
        tau2={"user_model": "scripted", "max_turns": 200, "rollout_workers": workers},
    )

    async def play(played: list[StandaloneSample]) -> None:
        await asyncio.gather(*(generate(args, sample, PARAMS) for sample in played))

    await play(samples(domain, 4 * max(1, workers)))  # imports, the tokenizer, the domain
    while workers and sum(len(one.workers()) for one in pool._pools.values()) < workers:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    await play(samples(domain, 4 * max(1, workers)))
    asked = samples(domain, episodes)
    gc.freeze()  # τ² is here for the plan only: in slime's process the workers keep it away from the collector
    begin, own, theirs = time.perf_counter(), time.process_time(), cpu_of_workers()
    async with event_loop.Ticker() as ticker:
        await play(asked)
    took, own, theirs = time.perf_counter() - begin, time.process_time() - own, cpu_of_workers() - theirs
    reward = statistics.fmean(float(sample.reward or 0.0) for sample in asked)  # type: ignore[arg-type]
    print(
        f"{domain:8} {workers:2} workers   slime's process {1000 * own / episodes:7.2f} ms CPU an episode   workers "
        f"{1000 * theirs / episodes:6.2f} ms   {episodes / took:6.1f} episodes a second   longest stall "
        f"{1000 * max(ticker.delays):6.0f} ms (own {1000 * max(ticker.own):.0f})   mean reward {reward:.2f}",
        flush=True,
    )
    pool.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--episodes", type=int, default=512, help="all of them at once")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds of the engine for each token")
    parser.add_argument("--domain", nargs="+", default=["retail"])
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), {options.episodes} at once")
    checkpoint, port = str(local_checkpoint()), free_port()
    policy = ("-m", "tau2_slime.local.policy_server", "--hf-checkpoint", checkpoint)
    server = start(*policy, "--port", str(port), "--latency", str(options.latency))
    try:
        await until_open(port)
        for domain in options.domain:
            for workers in options.workers:
                await measure(domain, workers, options.episodes, port, checkpoint)
    finally:
        pool.close()
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    asyncio.run(main())
