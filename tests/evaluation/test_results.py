"""What τ² itself makes of a run: its own model reads the files, its own metrics agree, its own viewer opens them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_slime.evaluation.plan.datasets import default_plan
from tau2_slime.evaluation.request import Request, make_policy
from tau2_slime.evaluation.runner.policies import EmbeddedPolicy
from tau2_slime.evaluation.statistics.baselines import NOTHING, TRANSFER, score_baselines
from tau2_slime.evaluation.statistics.summary import read_folder
from tau2_slime.evaluation.store.records import jobs
from tau2_slime.outcome import Termination
from tau2_slime.world import tau2_compat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 users x 2 domains x 5 tasks x 4 attempts, played for real, gold in 60% of the episodes."""
    from rich.console import Console

    from tau2_slime.evaluation.command import evaluate

    out = tmp_path_factory.mktemp("run") / "out"
    request = Request(out, domains=["mock", "telecom"], tasks=5, attempts=4, gold_rate=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        assert evaluate(request, Console(quiet=True)) == 0
    return out


def test_tau2s_metrics_are_equal(folder: Path) -> None:
    t = tau2_compat.load()
    metrics = importlib.import_module("tau2.metrics.agent_metrics")
    summary = read_folder(folder)
    datasets = [group for group in summary.groups if group.kind == "dataset"]
    assert len(datasets) == 6
    for group in datasets:
        results = t.Results.load(folder / "results" / f"{group.name}.json")
        assert len(results.simulations) == 20
        theirs = metrics.compute_metrics(results)
        assert set(theirs.pass_hat_ks) == {1, 2, 3, 4}
        for k, value in theirs.pass_hat_ks.items():
            assert group.scores.pass_hat[k].value == pytest.approx(value, abs=1e-12)
        assert group.scores.reward is not None
        assert group.scores.reward.value == pytest.approx(theirs.avg_reward, abs=1e-12)


def test_the_scores_are_the_closed_form(folder: Path) -> None:
    """Gold with probability 0.6, independently: pass^k = 0.6^k, pass@k = 1 - 0.4^k, whatever the task."""
    scores = read_folder(folder).overall.scores
    for k in (1, 2, 3, 4):
        hat, at = scores.pass_hat[k], scores.pass_at[k]
        assert hat.low <= 0.6**k <= hat.high
        assert at.low <= 1 - 0.4**k <= at.high


def test_tau2s_viewer_opens_a_file(folder: Path) -> None:
    path = next((folder / "results").glob("telecom*.json"))
    code = "import sys; from tau2.cli import main; sys.argv = ['tau2', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "view", "--file", str(path)],
        input="1\n\n\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Available Simulations" in done.stdout, done.stderr
    assert "Error loading results" not in done.stdout


def test_messages_keep_their_order_and_scores(folder: Path) -> None:
    """τ² scores the written simulations again and pays the same."""
    t = tau2_compat.load()
    results = t.Results.load(folder / "results" / "mock-base-scripted.json")
    tasks = {task.id: task for task in results.tasks}
    for simulation in results.simulations[:8]:
        again = t.evaluate_simulation(
            simulation=simulation,
            task=tasks[simulation.task_id],
            evaluation_type=t.EvaluationType.ALL,
            solo_mode=False,
            domain="mock",
        )
        assert again.reward == simulation.reward_info.reward


async def test_degenerate_policies_score_what_they_are_known_to(tmp_path: Path) -> None:
    """Of telecom's 114 tasks doing nothing solves none and transferring at once solves 20; of airline's first ones some."""
    items = default_plan(["telecom"], ["scripted"], split="base", tasks=None, attempts=1).datasets[0].items
    known = await score_baselines(items, cache=tmp_path)
    assert len(known) == 114
    assert sum(value[NOTHING] == 1 for value in known.values()) == 0
    assert sum(value[TRANSFER] == 1 for value in known.values()) == 20
    (file,) = tmp_path.iterdir()  # noqa: ASYNC240
    remembered = json.loads(file.read_text())
    entry = next(iter(remembered))
    file.write_text(json.dumps({**remembered, entry: 0.25}))  # a mark: what is remembered is not played again
    name, _, kind = entry.partition(" ")
    assert await score_baselines(items, cache=tmp_path) == {**known, name: {**known[name], kind: 0.25}}


async def test_airline_and_retail_pay_for_nothing(tmp_path: Path) -> None:
    for domain, tasks, wanted in (("airline", 50, 19), ("retail", 114, 7)):
        items = default_plan([domain], ["scripted"], split="base", tasks=None, attempts=1).datasets[0].items
        assert len(items) == tasks
        known = await score_baselines(items, cache=tmp_path)
        for kind in (NOTHING, TRANSFER):
            assert sum(value[kind] == 1 for value in known.values()) == wanted


async def test_tasks_without_solo_play_have_no_degenerate_score(tmp_path: Path) -> None:
    """In mock three tasks have no ticket: nobody can play them alone, and that is no reason to lose the report."""
    plan = default_plan(["mock"], ["scripted"], split="base", tasks=None, attempts=1)
    solo = {"agent_type": "solo"}
    items = [dataclasses.replace(item, config=item.config.model_copy(update=solo)) for item in plan.datasets[0].items]
    known = {name.rpartition("/")[2]: value for name, value in (await score_baselines(items, cache=tmp_path)).items()}
    assert known["create_task_1"] == {NOTHING: 0.0, TRANSFER: 0.0}
    assert known["update_task_with_message_history"] == {NOTHING: None, TRANSFER: None}


async def test_the_embedded_policy_keeps_to_the_context_that_is_asked_for(tmp_path: Path) -> None:
    plan = default_plan(["mock"], ["scripted"], split="base", tasks=1, attempts=1)
    for room, end in ((None, Termination.USER_STOP), (100, Termination.CONFIG_ERROR)):
        async with make_policy(Request(tmp_path, max_context_len=room), plan) as policy:
            assert (await policy.play(jobs(plan)[0], lambda: False)).termination is end


def test_the_embedded_policy_says_what_it_is() -> None:
    config = default_plan(["mock"], ["scripted"], tasks=1).datasets[0].config
    assert "0.25" in EmbeddedPolicy(config, gold_rate=0.25).name
