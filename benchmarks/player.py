"""One process that plays blocks of `generate` calls on command, with the package that its PYTHONPATH names.

Started by `benchmarks/generate.py`. A line on standard input is one block, as JSON: the domain, how many episodes, how many
at once, whether to sample where the CPU time goes, and the tasks' ids if the domain is not to be read for them. A line on
standard output is what it cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import tau2_slime

PACKAGE = str(Path(tau2_slime.__file__).parent)
INTERVAL = 0.002
"""Seconds of CPU time between two samples of the stack."""
TIMES = ("generation_time", "user_time", "total_time", "user_waited")


class Sampler:
    """Books this process's CPU time to the innermost function of the package on the stack, or to what runs without one."""

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


def trained(sample: Any) -> str:
    """Everything of a filled sample that the trainer reads."""
    parts = [sample.tokens, sample.loss_mask, sample.rollout_log_probs, sample.reward, sample.response]
    return json.dumps([*parts, sample.status.name, sample.remove_sample])


def told(sample: Any) -> str:
    """The metadata, for readers: all but the times, and the hash of what is here."""
    about = {**sample.metadata["tau2"]}
    del about["fingerprint"]
    about["stats"] = {name: value for name, value in about["stats"].items() if name not in TIMES}
    return json.dumps(about, sort_keys=True, default=str)


def digest(samples: list[Any], part: Callable[[Any], str]) -> str:
    return hashlib.sha256("\n".join(map(part, samples)).encode()).hexdigest()


async def played(block: dict[str, Any], servers: SimpleNamespace) -> list[Any]:
    """The samples of the block's episodes, filled."""
    from tau2_slime.generate_with_tau2 import generate
    from tau2_slime.slime_adapter.sample import StandaloneSample
    from tau2_slime.world import domains

    domain, episodes, gate = block["domain"], block["episodes"], asyncio.Semaphore(block["at_once"])
    ids = block.get("tasks") or [task.id for task in domains.tasks(domain, "base")]
    args = SimpleNamespace(
        hf_checkpoint=servers.checkpoint,
        sglang_router_ip="127.0.0.1",
        sglang_router_port=servers.policy,
        rollout_max_context_len=None,
        tau2={},
    )

    async def one(index: int) -> Any:
        position = index * len(ids) // episodes if len(ids) > episodes else index % len(ids)
        user = {"user_model": f"openai/{domain}@{position}", "user_base_url": f"http://127.0.0.1:{servers.user}/v1"}
        about = {"domain": domain, "task_split": "base", "task_id": ids[position], "max_turns": 200, **user}
        sample = StandaloneSample(index=index, group_index=index, session_id=f"s{index}", metadata=about)
        async with gate:
            return await generate(args, sample, {"temperature": 1.0, "max_new_tokens": 4096})

    return await asyncio.gather(*map(one, range(episodes)))


async def play(block: dict[str, Any], servers: SimpleNamespace) -> dict[str, Any]:
    episodes = block["episodes"]
    sampler = Sampler()
    if block["sampled"]:
        sampler.__enter__()
    cpu, begin = time.process_time(), time.perf_counter()
    samples = await played(block, servers)
    spent, took = time.process_time() - cpu, time.perf_counter() - begin
    if block["sampled"]:
        sampler.__exit__()
    return {
        "cpu": spent / episodes,
        "wall": took,
        "rewards": sum(sample.reward for sample in samples) / episodes,
        "turns": sum(sample.metadata["tau2"]["stats"]["agent_turns"] for sample in samples) / episodes,
        "trained": digest(samples, trained),
        "told": digest(samples, told),
        "functions": dict(sampler.functions),
    }


async def main() -> None:
    servers = SimpleNamespace(**json.loads(sys.argv[1]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await play(json.loads(line), servers)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
