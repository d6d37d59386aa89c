"""What holds of workers that are Ray actors only: which CPUs they take, what they can import, and what ends them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.slime_adapter.workers import pool
from tests.backends.setup_env import REPOSITORY
from tests.faults.conftest import detail, outcome
from tests.workers.calls import alive, arguments, generate, new_sample, process_of, until


class Slime:
    """In the place of slime's rollout process, which is an actor as well."""

    def start(self, workers: int, play: str) -> int:
        self._workers = pool.pool(workers, play)
        self._workers._running()
        return os.getpid()

    def workers(self) -> list[str]:
        return list(self._workers.workers())

    def play(self) -> str:
        """The response of one sample."""
        sample = StandaloneSample()
        args: Any = SimpleNamespace()
        asyncio.run(self._workers.play(args, sample, {}, evaluation=False, aborted=lambda: False))
        return sample.response


async def test_actors_take_one_cpu_each_of_any_node_and_end_with_slimes_process(ray: Any, tmp_path: Path) -> None:
    """What slime's process can import, as the job's PYTHONPATH has it, they can."""
    from ray._private.state import actors

    own_part = tmp_path / "own_part.py"
    own_part.write_text("async def play(args, sample, params, *, evaluation):\n    sample.response = __file__\n")
    job = {"env_vars": {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}}
    slime = ray.remote(num_cpus=0, runtime_env=job)(Slime).remote()
    own = ray.get(slime.start.remote(2, "own_part.play"))
    assert ray.get(slime.play.remote()) == str(own_part)
    await until(lambda: len(ray.get(slime.workers.remote())) == 2)
    workers = [process_of(name) for name in ray.get(slime.workers.remote())]
    nodes = {one["Pid"]: one["Address"]["NodeID"] for one in actors().values()}
    assert {nodes[worker] for worker in workers} == {node["NodeID"] for node in ray.nodes()}
    await until(lambda: ray.available_resources().get("CPU", 0.0) == 0.0)
    os.kill(own, signal.SIGKILL)
    await until(lambda: not any(map(alive, workers)))
    await until(lambda: ray.available_resources().get("CPU", 0.0) == 2.0)


async def test_a_worker_without_a_cpu_is_told(ray: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "START_PATIENCE", 1.0)
    monkeypatch.setattr(pool, "MOST_FAILURES", 1)
    others = [ray.remote(num_cpus=1)(Slime).remote() for _ in range(2)]
    try:
        await until(lambda: ray.available_resources().get("CPU", 0.0) == 0.0)
        sample = await generate(arguments(checkpoint, 9, 1), new_sample())
    finally:
        pool.close()
        for other in others:
            ray.kill(other)
    assert outcome(sample)[1:] == ("infrastructure_error", "infrastructure")
    assert "is a CPU free for it?" in detail(sample)
