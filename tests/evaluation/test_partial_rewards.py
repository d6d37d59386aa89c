"""τ² pays parts of 1. Only the full reward, give or take a millionth, is a success in every number that counts successes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.evaluation.compare import compare
from tau2_slime.evaluation.plan.datasets import Item
from tau2_slime.evaluation.report.output import summary_json
from tau2_slime.evaluation.report.wandb_log import metrics
from tau2_slime.evaluation.runner.budget import Budget
from tau2_slime.evaluation.runner.run import Options, Runner
from tau2_slime.evaluation.statistics.baselines import NOTHING, TRANSFER, score_baselines, solved_share
from tau2_slime.evaluation.statistics.estimates import scores
from tau2_slime.evaluation.statistics.summary import outcome_of, read_folder
from tau2_slime.evaluation.store.records import Store, jobs
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.evaluation.taubench_v1 import command
from tau2_slime.evaluation.taubench_v1.recorded import V1Run
from tau2_slime.evaluation.taubench_v1.replay import Replayed
from tau2_slime.outcome import Termination
from tau2_slime.world import domains
from tests.evaluation.fakes import FakePolicy, plan
from tests.evaluation.folders import write_folder

REWARDS = (1.0, 0.75, 0.9999, 1 - 1e-7)
"""Two successes and two partial rewards above one half."""


def by_attempt(dataset: str, task: int, attempt: int) -> float:
    return REWARDS[attempt]


def test_in_pass_at_k_and_pass_hat_k() -> None:
    got = scores([Unit("d", "mock", "t", "user", REWARDS)])
    assert got.pass_hat[1].value == 0.5
    assert got.pass_hat[2].value == pytest.approx(1 / 6)  # one of six pairs
    assert got.pass_at[2].value == pytest.approx(5 / 6)
    assert got.pass_first == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}
    assert got.failures_as_zero == 0.5
    assert got.repeats == [1.0, 0.0, 0.0, 1.0]
    assert got.reward is not None
    assert got.reward.value == pytest.approx(sum(REWARDS) / 4)


def test_in_the_tables_the_summary_and_wandb(tmp_path: Path) -> None:
    summary = read_folder(write_folder(tmp_path / "run", by_attempt, tasks=3))
    assert [outcome_of(record) for record in summary.played[:4]] == ["solved", "failed", "failed", "solved"]
    assert {outcome: count for (outcome, _, _), count in summary.endings().items()} == {"solved": 6, "failed": 6}
    assert summary_json(summary)["groups"][-1]["pass_hat"]["1"]["value"] == 0.5
    assert metrics(summary)["eval/overall/pass^1"] == 0.5
    assert metrics(summary)["eval/overall/reward"] == pytest.approx(sum(REWARDS) / 4)


def test_in_a_comparison(tmp_path: Path) -> None:
    partial = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 0.75, tasks=12))
    full = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1 - 1e-7, tasks=12))
    overall = compare(partial, full).overall
    assert (overall.first, overall.second, overall.words) == (0.0, 1.0, "better")


def test_of_a_baseline() -> None:
    rewards = {"a": {NOTHING: 0.75}, "b": {NOTHING: 1 - 1e-7}, "c": {NOTHING: None}}
    assert solved_share(["a", "b", "b#2", "c"], rewards, NOTHING) == pytest.approx(2 / 3)
    assert solved_share(["c", "d"], rewards, NOTHING) is None


async def test_on_the_progress_bar(tmp_path: Path) -> None:
    policy = FakePolicy(lambda job, before: (Termination.USER_STOP, REWARDS[job.attempt]))
    with Store(tmp_path).writing() as store:
        runner = Runner(jobs(plan(1, 4)), policy, store, Budget(None), Options())
        await runner.run()
    assert (runner.progress.scored, runner.progress.successes) == (4, 2)
    with Store(tmp_path).writing() as store:
        assert Runner(jobs(plan(1, 4)), policy, store, Budget(None), Options()).progress.successes == 2


def test_in_recorded_results_of_tau_bench_v1() -> None:
    runs = [V1Run(task_id=0, trial=i, reward=reward, info={}, traj=[]) for i, reward in enumerate(REWARDS)]
    replayed = [Replayed(run, Termination.USER_STOP) for run in runs]
    (unit,) = command.units(replayed, [run.reward for run in runs], "retail")
    assert (unit.n, unit.c) == (4, 2)


async def test_a_number_sign_in_a_tasks_id_is_no_repetition(tmp_path: Path) -> None:
    named = {"v#1": "create_task_1", "v#2": "update_task_1", "v": "impossible_task_1"}
    tasks = {str(task.id): task for task in domains.tasks("mock", "base")}
    rows = [tasks[old].model_dump(mode="json") | {"id": new} for new, old in named.items()]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    config = Tau2Config(domain="mock", task_split=f"file:{tmp_path / 'own.json'}")
    items = [*(Item(config, {}, new) for new in named), Item(config, {}, "v#1", repeat=1)]
    rewards = await score_baselines(items, cache=tmp_path / "cache")
    assert len(rewards) == len(named)
    for item in items:
        plain = Item(Tau2Config(domain="mock", task_split="base"), {}, named[item.task_id])
        (known,) = (await score_baselines([plain], cache=tmp_path / "cache")).values()
        assert solved_share([item.name], rewards, TRANSFER) == float(known[TRANSFER] == 1.0)
