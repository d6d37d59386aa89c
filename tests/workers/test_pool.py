"""Episodes in worker processes: real processes or real Ray actors, real sockets, the real `generate`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import generate_with_tau2, hooks
from tau2_slime.errors import ConfigError
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.runtime import run_stop
from tau2_slime.slime_adapter.workers import pool
from tau2_slime.world.users import spending
from tests.faults.conftest import GOLD, PAID, PATIENCE, Flag, Status, detail, outcome
from tests.faults.servers import Router, UserModel, UserMove, after, hang
from tests.workers.calls import PARAMS, arguments, generate, new_sample, the_pool, until

TASKS = ("create_task_1", "update_task_1", "impossible_task_1", "update_task_with_message_history")


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
