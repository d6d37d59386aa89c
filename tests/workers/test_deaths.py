"""What a worker's end does: to its episodes, to the run, and slime's process to the workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import hooks
from tau2_slime.errors import ConfigError, Tau2SlimeError
from tau2_slime.slime_adapter.workers import episodes, launch, pool
from tests.faults.conftest import GOLD, PAID, PATIENCE, Status, detail, outcome
from tests.faults.servers import Move, Router, after, hang
from tests.workers.calls import (
    alive,
    arguments,
    awaits_what_it_cancelled,
    generate,
    new_sample,
    process_of,
    the_pool,
    until,
)

KILLED = {"process": "killed by SIGKILL", "actor": "its worker process has died"}
"""How a worker ends by ``kill -9``, in the words of the log."""


async def test_a_killed_worker_loses_nothing(
    checkpoint: Path, router: Router, workers: int, started_as: str, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(checkpoint, router.port, workers)
    busy, killed = asyncio.Event(), asyncio.Event()

    def choose(ask: Any) -> Move | None:
        if ask.ordinal > 0 and not killed.is_set():
            return after(busy.set, hang())
        # Some begin again and some go on: what to say depends on the conversation, not on how often it was asked.
        return GOLD["<tool_response>" in router.tokenizer.decode(ask.ids)]

    router.choose = choose
    samples = [new_sample(f"episode-{i}") for i in range(4)]
    playing = [asyncio.create_task(generate(args, sample)) for sample in samples]
    await asyncio.wait_for(busy.wait(), PATIENCE)
    await until(lambda: len(the_pool().workers()) == 2)
    victim = max(the_pool().workers().items(), key=lambda item: item[1])[0]
    killed.set()
    with caplog.at_level(logging.WARNING):
        os.kill(process_of(victim), signal.SIGKILL)
        await until(lambda: any("begin again elsewhere" in r.getMessage() for r in caplog.records))
        await router.stop()  # ends the calls that hang in the other worker, whose client asks again
        await router.start()
        await asyncio.gather(*playing)
    assert {outcome(sample) for sample in samples} == {PAID}
    assert [sample.reward for sample in samples] == [1.0] * 4
    (told,) = [r.getMessage() for r in caplog.records if "begin again elsewhere" in r.getMessage()]
    assert KILLED[started_as] in told
    await until(lambda: len(the_pool().workers()) == 2 and victim not in the_pool().workers())


async def test_an_episode_that_kills_its_workers_is_given_up(
    checkpoint: Path, router: Router, workers: int, started_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "MOST_DEATHS", 1)
    asked = asyncio.Event()
    router.script = [after(asked.set, hang())]
    episode = asyncio.create_task(generate(arguments(checkpoint, router.port, workers), new_sample()))
    await asyncio.wait_for(asked.wait(), PATIENCE)
    (name,) = [name for name, count in the_pool().workers().items() if count]
    os.kill(process_of(name), signal.SIGKILL)
    sample = await episode
    assert outcome(sample) == (Status.FAILED, "infrastructure_error", "infrastructure")
    assert KILLED[started_as] in detail(sample)


async def test_workers_that_cannot_start_end_the_run(
    checkpoint: Path, router: Router, started_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.close()
    why = {"process": "exit status 3", "actor": "No module named 'on_no_node'"}[started_as]
    here_alone: Any = types.ModuleType("on_no_node")
    monkeypatch.setitem(sys.modules, here_alone.__name__, here_alone)
    here_alone.RayWorker = type("RayWorker", (), {"__module__": here_alone.__name__, "run": launch.RayWorker.run})
    monkeypatch.setattr(launch, "RayWorker", here_alone.RayWorker)
    monkeypatch.setattr(launch, "PROGRAM", "raise SystemExit(3)")
    monkeypatch.setattr(pool, "PAUSE_FIRST", 0.0)
    args = arguments(checkpoint, router.port, 1)
    try:
        samples = await asyncio.gather(*(generate(args, new_sample(str(i))) for i in range(3)))
        samples.append(await generate(args, new_sample("later")))
    finally:
        pool.close()
    for sample in samples:
        assert outcome(sample) == (Status.FAILED, "infrastructure_error", "infrastructure")
        assert why in detail(sample) and "rollout_workers: 0" in detail(sample)
    with pytest.raises(ConfigError, match="no worker process can be kept alive"):
        hooks.post_process_rewards(args, samples)


async def test_a_pool_that_fails_ends_the_run(
    checkpoint: Path, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*_: object) -> None:
        raise LookupError("nobody foresaw this")

    pool.close()
    monkeypatch.setattr(launch, "start", start)
    args = arguments(checkpoint, router.port, 1)
    try:
        samples = [await generate(args, new_sample(str(i))) for i in range(2)]
    finally:
        pool.close()
    assert {outcome(sample)[1:] for sample in samples} == {("infrastructure_error", "infrastructure")}
    assert all("nobody foresaw this" in detail(sample) for sample in samples)
    with pytest.raises(ConfigError, match="nobody foresaw this"):
        hooks.post_process_rewards(args, samples)


def test_workers_die_with_a_parent_that_is_killed() -> None:
    program = """
        import time
        from tau2_slime.slime_adapter.workers import pool

        workers = pool.pool(2, "tau2_slime.generate_with_tau2.play")
        workers._running()
        while len(workers.workers()) < 2:
            time.sleep(0.05)
        print(*workers.workers(), sep="|", flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        children = [process_of(name) for name in parent.stdout.readline().split("|")]
        assert len(children) == 2 and all(alive(child) for child in children)
    finally:
        parent.kill()
        parent.wait(30)
    deadline = 60.0
    while any(alive(child) for child in children) and deadline > 0:
        deadline -= 0.1
        subprocess.run(["sleep", "0.1"], check=True)
    assert not any(alive(child) for child in children)


async def test_an_episode_that_ends_as_cancelled_is_told_as_a_failure() -> None:
    one = pool.Pool(1, f"{awaits_what_it_cancelled.__module__}.{awaits_what_it_cancelled.__name__}")
    try:
        args = types.SimpleNamespace(tau2={})
        playing = one.play(args, new_sample(), {}, evaluation=False, aborted=lambda: False)  # type: ignore[arg-type]
        with pytest.raises(Tau2SlimeError, match="CancelledError"):
            await asyncio.wait_for(playing, PATIENCE)
        assert list(one.workers().values()) == [0]
    finally:
        one.close()
