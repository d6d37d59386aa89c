"""Calls of `generate` that workers answer, and what a test asks about the workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tau2_slime import generate_with_tau2
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.slime_adapter.workers import pool
from tests.faults.conftest import PATIENCE, TASK, check_sample

PARAMS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 2048}


def arguments(checkpoint: Path, port: int, workers: int, **tau2: Any) -> SimpleNamespace:
    settings = {**TASK, "user_model": "scripted", "drift_rate": 1.0, "request_timeout": 60, "rollout_workers": workers}
    return SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip="127.0.0.1",
        sglang_router_port=port,
        rollout_max_context_len=100_000,
        tau2={key: value for key, value in {**settings, **tau2}.items() if key != "task_id"},
    )


def new_sample(name: str = "episode", task: str = "create_task_1", **fields: Any) -> StandaloneSample:
    return StandaloneSample(index=5, group_index=2, session_id=name, metadata={"task_id": task}, **fields)


async def generate(args: Any, sample: Any, **more: Any) -> Any:
    played = await asyncio.wait_for(generate_with_tau2.generate(args, sample, dict(PARAMS), **more), PATIENCE)
    assert played is sample
    check_sample(sample)
    return sample


def the_pool() -> pool.Pool:
    (only,) = pool._pools.values()
    return only


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


def process_of(name: str) -> int:
    """The process id of a worker, by its name in the log."""
    found = re.search(r"(process|actor) (\w+)", name)
    assert found is not None, name
    if found[1] == "process":
        return int(found[2])
    from ray._private.state import actors  # what is public asks the dashboard

    (process,) = {one["Pid"] for number, one in actors().items() if number.startswith(found[2])}
    return int(process)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


async def awaits_what_it_cancelled(args: Any, sample: Any, params: Any, evaluation: bool = False) -> None:
    """What a worker may be told to play: it ends with a CancelledError that nobody asked for."""
    helper = asyncio.ensure_future(asyncio.sleep(60))
    helper.cancel()
    await helper
