"""Episodes in worker processes: real processes, real sockets, the real `generate`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tau2_slime import generate_with_tau2, hooks
from tau2_slime.errors import ConfigError
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.runtime import run_stop
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.slime_adapter.workers import episodes, launch, pool
from tau2_slime.world.users import spending
from tests.faults.conftest import GOLD, PAID, PATIENCE, TASK, Flag, Status, check_sample, detail, outcome
from tests.faults.servers import Move, Router, UserModel, UserMove, after, hang
from tests.fresh import forget_users

PARAMS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 2048}
TASKS = ("create_task_1", "update_task_1", "impossible_task_1", "update_task_with_message_history")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_users()
    for name in [*os.environ]:
        if name.startswith("TAU2_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def workers() -> Iterator[int]:
    """Two workers for the whole module: they take seconds to start."""
    yield 2
    pool.close()


@pytest_asyncio.fixture
async def router(tokenizer: Any) -> AsyncIterator[Router]:
    server = Router(tokenizer)
    await server.start()
    yield server
    await server.close()


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
    found = re.search(r"process (\d+)", name)
    assert found is not None, name
    return int(found[1])


def facts(sample: Any) -> dict[str, Any]:
    """All that a sample holds but seconds."""
    told = {key: value for key, value in vars(sample).items() if key not in ("status", "non_generation_time")}
    told["status"] = sample.status.name
    tau2 = dict(sample.metadata["tau2"])
    tau2["stats"] = {k: v for k, v in tau2["stats"].items() if "time" not in k}
    return {**told, "metadata": {**sample.metadata, "tau2": tau2}}


async def test_a_worker_leaves_the_same_sample(checkpoint: Path, workers: int) -> None:
    async with PolicyServer(checkpoint, mistakes=0.4, spelling=0.3) as server:
        played = []
        for count in (0, workers):
            args = arguments(checkpoint, server.port, count)
            args.save_debug_rollout_data = "somewhere"  # the conversation, too
            samples = [new_sample(f"{task}-{i}", task) for i in range(3) for task in TASKS]
            played.append(await asyncio.gather(*(generate(args, sample) for sample in samples)))
    here, there = played
    assert {sample.reward for sample in here} == {0.0, 1.0}, "some episodes earn nothing"
    for one, other in zip(here, there, strict=True):
        trajectories = [s.metadata.pop("tau2_trajectory") for s in (one, other)]
        assert facts(other) == facts(one)
        words = [[(m["role"], m.get("content")) for m in t["messages"]] for t in trajectories]
        assert words[0] == words[1]
    assert len(the_pool().workers()) == 2


async def test_an_abort_reaches_a_worker_and_the_next_rollout_goes_on(
    checkpoint: Path, router: Router, workers: int
) -> None:
    args, flag = arguments(checkpoint, router.port, workers), Flag()
    args.tau2_aborted = flag
    router.script = [GOLD[0], after(flag.set, hang()), *GOLD[1:]]
    sample = await generate(args, new_sample())
    assert (sample.status, sample.reward) == (Status.ABORTED, 0.0)
    first = list(sample.tokens)
    assert flag.on and sum(sample.loss_mask) == sum(map(len, router.sent["episode"]))
    assert facts(await generate(args, sample))["tokens"] == first, "aborted before it went on: it keeps what it has"
    flag.on = False
    await generate(args, sample)
    assert outcome(sample) == PAID
    assert sample.metadata["tau2"]["stats"]["resumes"] == 1 and sample.metadata["tau2"]["restarted"] == ""
    assert sample.tokens[: len(first)] == first
    sampled = [
        token for token, mask in zip(sample.tokens[-sample.response_length :], sample.loss_mask, strict=True) if mask
    ]
    assert sampled == [token for ids in router.sent["episode"] for token in ids]


async def test_a_cancelled_caller_leaves_nothing_behind(checkpoint: Path, router: Router, workers: int) -> None:
    asked = asyncio.Event()
    router.script = [after(asked.set, hang())]
    args = arguments(checkpoint, router.port, workers)
    caller = asyncio.create_task(generate_with_tau2.generate(args, new_sample(), dict(PARAMS)))
    await asyncio.wait_for(asked.wait(), PATIENCE)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await until(lambda: not any(the_pool().workers().values()))


async def test_an_error_is_told_once_by_all_workers_together(
    checkpoint: Path, router: Router, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(checkpoint, router.port, workers)
    with caplog.at_level(logging.INFO):
        samples = [new_sample(str(i), "no such task") for i in range(6)]
        await asyncio.gather(*(generate(args, sample) for sample in samples))
        await asyncio.sleep(0.5)
    assert {outcome(sample) for sample in samples} == {(Status.FAILED, "config_error", "infrastructure")}
    told = [r for r in caplog.records if "no such task" in r.getMessage() and r.levelno == logging.ERROR]
    assert len(told) == 1
    assert told[0].name == "tau2_slime.generate_with_tau2"


async def test_one_budget_for_all_workers(checkpoint: Path, router: Router, workers: int) -> None:
    """Each of the two workers spends half of it."""
    user = UserModel()
    user.script = [UserMove(content="Please create the task."), UserMove(content="Thank you. ###STOP###")] * 50
    await user.start()
    router.script = GOLD
    price = {"input": 4000, "output": 6000}
    simulator = {"name": "dear", "model": "openai/x", "base_url": user.url, "price": price}
    settings = {"user_simulators": [simulator], "user_model": "dear", "user_budget": 0.2}
    args = arguments(checkpoint, router.port, workers, **settings)
    try:
        first = await asyncio.gather(*(generate(args, new_sample(f"first-{i}")) for i in range(2)))
        spent = sum(sample.metadata["tau2"]["stats"]["user_cost"] for sample in first)
        assert spent >= 0.2
        await until(lambda: spending.dollars == pytest.approx(spent))
        await until(lambda: run_stop.reason_to_stop() is not None or spending.dollars >= 0.2)
        await asyncio.sleep(0.6)  # the workers are told four times a second
        calls = len(user.prompts)
        later = await asyncio.gather(*(generate(args, new_sample(f"later-{i}")) for i in range(4)))
        assert {outcome(sample)[1] for sample in later} == {"config_error"}
        assert all("user_budget" in detail(sample) for sample in later)
        assert len(user.prompts) == calls, "nobody was asked any more"
        await until(lambda: run_stop.reason_to_stop() is not None)
        with pytest.raises(ConfigError, match="user_budget"):
            hooks.keep_informative_groups(args, list(later))
    finally:
        await user.close()
        pool.close()  # these workers know that the budget is spent


async def test_a_killed_worker_loses_nothing(
    checkpoint: Path, router: Router, workers: int, caplog: pytest.LogCaptureFixture
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
    assert "SIGKILL" in told
    await until(lambda: len(the_pool().workers()) == 2 and victim not in the_pool().workers())


async def test_an_episode_that_kills_its_workers_is_given_up(
    checkpoint: Path, router: Router, workers: int, monkeypatch: pytest.MonkeyPatch
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
    assert "killed by SIGKILL" in detail(sample)


async def test_workers_that_cannot_start_end_the_run(
    checkpoint: Path, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.close()
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
        assert "exit status 3" in detail(sample) and "rollout_workers: 0" in detail(sample)
    with pytest.raises(ConfigError, match="no worker process can be kept alive"):
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


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
