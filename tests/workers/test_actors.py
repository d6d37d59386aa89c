"""What holds of workers that are Ray actors only: which CPUs they take, and what ends them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.slime_adapter.workers import pool
from tests.faults.conftest import detail, outcome
from tests.workers.calls import alive, arguments, generate, new_sample, process_of, until


class Slime:
    """In the place of slime's rollout process, which is an actor as well."""

    def start(self, workers: int) -> int:
        self._workers = pool.pool(workers, "tau2_slime.generate_with_tau2.play")
        self._workers._running()
        return os.getpid()

    def workers(self) -> list[str]:
        return list(self._workers.workers())


async def test_actors_take_one_cpu_each_of_any_node_and_end_with_slimes_process(ray: Any) -> None:
    from ray._private.state import actors

    slime = ray.remote(num_cpus=0)(Slime).remote()
    own = ray.get(slime.start.remote(2))
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
