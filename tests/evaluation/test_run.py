"""The runner: each episode once, failures of others tried again and never counted, endpoints that are down asked no more."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import EpisodeAborted
from tau2_slime.evaluation.plan.datasets import Plan
from tau2_slime.evaluation.runner import budget as budgets
from tau2_slime.evaluation.runner.budget import Budget, Ticket
from tau2_slime.evaluation.runner.run import End, Options, Progress, Runner
from tau2_slime.evaluation.store.records import Job, Record, Store, jobs
from tau2_slime.outcome import Termination
from tau2_slime.world.billing import PAYER
from tests.evaluation.fakes import FakePolicy, Script, plan

QUICK = {"pause": 0.0}


async def run(
    folder: Path, given: Plan, policy: FakePolicy, options: Options, budget: Budget | None = None
) -> tuple[End, Progress, Store]:
    with Store(folder).writing() as store:
        runner = Runner(jobs(given), policy, store, budget or Budget(None), options)
        end = await runner.run()
    return end, runner.progress, store


def always(termination: Termination, reward: float | None = None) -> Script:
    return lambda job, before: (termination, reward)


async def test_every_episode_once_and_never_more_than_allowed_at_a_time(tmp_path: Path) -> None:
    policy = FakePolicy(always(Termination.USER_STOP, 1.0), delay=0.002)
    end, progress, store = await run(tmp_path, plan(5, 4), policy, Options(concurrency=3))
    assert end is End.COMPLETE
    assert (progress.done, progress.scored, progress.successes, progress.running) == (20, 20, 20, 0)
    assert len(policy.played) == len(set(policy.played)) == len(store.records) == 20
    assert policy.most == 3


async def test_a_second_run_plays_nothing_again(tmp_path: Path) -> None:
    await run(tmp_path, plan(2, 2), FakePolicy(always(Termination.USER_STOP, 1.0)), Options())
    policy = FakePolicy(always(Termination.USER_STOP, 0.0))
    end, progress, _ = await run(tmp_path, plan(3, 3), policy, Options())
    assert end is End.COMPLETE
    assert len(policy.played) == 9 - 4
    assert (progress.done, progress.successes) == (9, 4)


async def test_a_failure_of_others_is_tried_again_and_the_reasons_are_kept(tmp_path: Path) -> None:
    def script(job: object, before: int) -> tuple[Termination, float | None]:
        return (Termination.USER_ERROR, None) if before < 2 else (Termination.USER_STOP, 0.0)

    end, progress, store = await run(tmp_path, plan(1, 1), FakePolicy(script), Options(retries=2, **QUICK))
    assert end is End.COMPLETE
    assert (progress.scored, progress.excluded, progress.retried) == (1, 0, 2)
    (record,) = store.records.values()
    assert [t["termination"] for t in record["tries"]] == ["user_error"] * 2


async def test_what_keeps_failing_is_excluded_with_its_reason_and_is_no_failure_of_the_agent(tmp_path: Path) -> None:
    def script(job: object, before: int) -> tuple[Termination, float | None]:
        bad = job.item.task_id == "t0"  # type: ignore[attr-defined]
        return (Termination.INFRASTRUCTURE_ERROR, None) if bad else (Termination.USER_STOP, 1.0)

    end, progress, store = await run(tmp_path, plan(3, 2), FakePolicy(script), Options(retries=1, **QUICK))
    assert end is End.COMPLETE
    assert (progress.scored, progress.successes, progress.excluded) == (4, 4, 2)
    bad = [r for r in store.records.values() if r["excluded"]]
    assert {r["detail"] for r in bad} == {"infrastructure_error happened"}
    assert all(r["reward"] is None and len(r["tries"]) == 1 for r in bad)
    policy = FakePolicy(always(Termination.USER_STOP, 1.0))
    with Store(tmp_path).writing(replay_excluded=True) as again:
        await Runner(jobs(plan(3, 2)), policy, again, Budget(None), Options()).run()
    assert len(policy.played) == 2
    assert not [r for r in again.records.values() if r["excluded"]]


async def test_limits_and_the_agents_own_errors_are_scored(tmp_path: Path) -> None:
    policy = FakePolicy(always(Termination.MAX_TURNS, 0.0))
    _, progress, _ = await run(tmp_path, plan(2, 2), policy, Options())
    assert (progress.scored, progress.excluded, progress.successes) == (4, 0, 0)


async def test_a_dead_policy_stops_the_run_and_nothing_is_recorded_that_was_not_played(tmp_path: Path) -> None:
    policy = FakePolicy(always(Termination.INFRASTRUCTURE_ERROR))
    options = Options(concurrency=4, retries=5, patience=6, **QUICK)
    end, progress, store = await run(tmp_path, plan(30, 4), policy, options)
    assert end is End.POLICY_DOWN
    assert not store.records
    assert len(policy.played) <= 6 + 4
    assert "infrastructure_error happened" in progress.notes[0]
    end, progress, _ = await run(tmp_path, plan(30, 4), FakePolicy(always(Termination.USER_STOP, 1.0)), options)
    assert (end, progress.done) == (End.COMPLETE, 120)


async def test_a_dead_user_model_is_left_alone_and_the_others_go_on(tmp_path: Path) -> None:
    def script(job: object, before: int) -> tuple[Termination, float | None]:
        dead = job.item.config.user_model == "dead"  # type: ignore[attr-defined]
        return (Termination.USER_ERROR, None) if dead else (Termination.USER_STOP, 1.0)

    policy = FakePolicy(script)
    options = Options(concurrency=2, retries=5, patience=6, **QUICK)
    end, progress, store = await run(tmp_path, plan(20, 2, ["dead", "alive"]), policy, options)
    assert end is End.USER_DOWN
    assert len(store.records) == 40
    assert {r["user_model"] for r in store.records.values()} == {"alive"}
    assert "dead failed 6 times in a row" in progress.notes[0]


async def test_a_wrong_setting_stops_at_once(tmp_path: Path) -> None:
    policy = FakePolicy(always(Termination.CONFIG_ERROR))
    end, progress, store = await run(tmp_path, plan(9, 2), policy, Options(concurrency=1))
    assert (end, len(policy.played), len(store.records)) == (End.CONFIG, 1, 0)
    assert progress.notes == ["config_error happened"]


async def test_a_user_model_that_dies_after_the_stop_sets_nothing_going(tmp_path: Path) -> None:
    class Policy(FakePolicy):
        async def play(self, job: Job, stopped: Callable[[], bool]) -> InteractionResult:
            if job.item.config.user_model == "dead" and job.item.task_id != "t0":
                await asyncio.sleep(0.1)
            return await super().play(job, stopped)

    def script(job: Job, before: int) -> tuple[Termination, float | None]:
        return (Termination.USER_ERROR if job.item.config.user_model == "dead" else Termination.CONFIG_ERROR), None

    policy = Policy(script)
    options = Options(concurrency=4, patience=4, retries=0, **QUICK)
    end, *_ = await run(tmp_path, plan(4, 1, ["dead", "wrong"]), policy, options)
    assert end is End.CONFIG
    assert len(policy.played) == 5, "nothing begins after the stop"


async def test_cancelling_keeps_what_is_finished(tmp_path: Path) -> None:
    policy = FakePolicy(always(Termination.USER_STOP, 1.0), delay=0.01)
    with Store(tmp_path).writing() as store:
        runner = Runner(jobs(plan(50, 4)), policy, store, Budget(None), Options(concurrency=2))
        task = asyncio.ensure_future(runner.run())
        while len(store.records) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        task.cancel()
        assert await task is End.INTERRUPTED
    kept = Store(tmp_path).read()
    assert len(kept.records) == len(store.records) >= 5
    assert policy.running == 0
    policy = FakePolicy(always(Termination.USER_STOP, 1.0))
    _, progress, _ = await run(tmp_path, plan(50, 4), policy, Options())
    assert progress.done == 200
    assert len(policy.played) == 200 - len(kept.records)


async def test_a_full_disk_stops_the_run_and_the_next_one_repairs_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Store.append

    def full(store: Store, record: dict) -> None:
        if len(store.records) == 3:
            with store.path.open("ab") as file:
                file.write(b'{"dataset": "mo')
            raise OSError(28, "No space left on device")
        append(store, record)

    monkeypatch.setattr(Store, "append", full)
    end, progress, _ = await run(tmp_path, plan(4, 2), FakePolicy(always(Termination.USER_STOP, 1.0)), Options())
    assert end is End.DISK
    assert "No space left on device" in progress.notes[0]
    monkeypatch.setattr(Store, "append", append)
    end, progress, _ = await run(tmp_path, plan(4, 2), FakePolicy(always(Termination.USER_STOP, 1.0)), Options())
    assert (end, progress.done, len(Store(tmp_path).read().records)) == (End.COMPLETE, 8, 8)


async def test_no_episode_waits_on_the_event_loop_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(threading.current_thread().name))
    end, _, _ = await run(tmp_path, plan(4, 2), FakePolicy(always(Termination.USER_STOP, 1.0)), Options())
    assert end is End.COMPLETE
    assert len(synced) == 8
    assert threading.current_thread().name not in synced


async def test_an_interruption_loses_no_episode_that_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, begun = Store.append, threading.Event()

    def slow(store: Store, record: Record) -> None:
        begun.set()
        time.sleep(0.1)
        append(store, record)

    monkeypatch.setattr(Store, "append", slow)
    policy = FakePolicy(always(Termination.USER_STOP, 1.0))
    with Store(tmp_path).writing() as store:
        runner = Runner(jobs(plan(3, 2)), policy, store, Budget(None), Options(concurrency=6))
        task = asyncio.ensure_future(runner.run())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        assert await task is End.INTERRUPTED
        assert runner.progress.done == len(policy.played) == 6
    assert len(Store(tmp_path).read().records) == 6


async def test_a_ledger_that_cannot_be_written_ends_the_run_and_blames_no_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has room for the records still: what was paid for is kept, and no further call is paid for."""
    append, room = budgets.append_line, [True]

    def full(path: Path, line: str, *, synced: bool = True) -> None:
        if not room[0]:
            raise OSError(28, "No space left on device")
        append(path, line, synced=synced)

    class Paid(FakePolicy):
        async def play(self, job: Job, stopped: Callable[[], bool]) -> InteractionResult:
            payer = PAYER.get()
            room[0] = len(self.played) != 2
            payer.after(payer.before("policy", "m", [], {}, own=False), None, unknown=False)
            return await super().play(job, stopped)

    monkeypatch.setattr(budgets, "append_line", full)
    budget = Budget(tmp_path / "costs.jsonl")
    policy = Paid(always(Termination.USER_STOP, 1.0))
    end, progress, store = await run(tmp_path, plan(3, 2), policy, Options(concurrency=1), budget)
    assert (end, len(policy.played), len(store.records)) == (End.DISK, 3, 3)
    assert not [r for r in store.records.values() if r["excluded"]]
    lacks = "cannot be written: No space left on device; it lacks the costs of 1 call"
    assert progress.notes == [f"{tmp_path / 'costs.jsonl'} {lacks}"]
    with pytest.raises(EpisodeAborted, match="lacks the costs of 1 call"):
        budget.reserve("policy", "m", [], {}, own=False)
    assert budget.bills["policy", "m"].calls == 3
    room[0] = True
    budget.settle(Ticket("policy", "m", 0.0, own=False), None)
    assert budget.unwritten == ""
    assert Budget(tmp_path / "costs.jsonl").bills["policy", "m"].calls == 4


async def test_what_nobody_foresaw_is_one_episodes_failure(tmp_path: Path) -> None:
    def script(job: object, before: int) -> tuple[Termination, float | None]:
        if job.item.task_id == "t0":  # type: ignore[attr-defined]
            raise KeyError("a bug")
        return Termination.USER_STOP, 1.0

    end, progress, store = await run(tmp_path, plan(3, 1), FakePolicy(script), Options(retries=1, **QUICK))
    assert (end, progress.scored, progress.excluded) == (End.COMPLETE, 2, 1)
    assert [r["detail"] for r in store.records.values() if r["excluded"]] == ["KeyError: 'a bug'"]
