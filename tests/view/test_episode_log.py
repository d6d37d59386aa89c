"""The hooks' episodes.jsonl: what it keeps, what bounds it, and that it stops nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tau2_slime import hooks
from tau2_slime.observe import episode_log
from tau2_slime.outcome import Termination
from tau2_slime.view.runs import Runs
from tests.hook_samples import failed, played, slime_args

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_log, "_written", {})


def train(folder: Path, step: int, *samples: Any) -> dict[str, float]:
    record: dict[str, float] = {}
    assert hooks.log_train_rollout(step, slime_args(tau2={"episode_log": str(folder)}), samples, record, 1.0) is False
    return record


def shown(folder: Path) -> Runs:
    runs = Runs([folder])
    runs.refresh()
    assert runs.problems == []
    return runs


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hooks.log_train_rollout(0, slime_args(), [played()], {}, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_the_viewer_reads_what_the_hooks_have_seen(tmp_path: Path) -> None:
    lost = failed(Termination.USER_ERROR, group=1)
    train(tmp_path, 3, played(1.0, group=1, versions=("7", "8"), user_flaws={"role_flip": 1}), lost)
    data = {"airline": {"rewards": [0.0], "samples": [played(0.0, domain="airline")]}}
    hooks.log_eval_rollout(3, slime_args(tau2={"episode_log": str(tmp_path)}), data, {})
    first, second, third = shown(tmp_path).rows
    assert (first.series, first.step, first.group, first.reward, first.turns) == ("train", 3, "1", 1.0, 3)
    assert first.versions == {"7": 3, "8": 3}
    assert (first.sampled, first.faulty, first.talk) == (6, True, False)
    assert (second.excluded, second.reward, second.ended, second.blame) == (True, None, "user_error", "user")
    assert (third.series, third.domain, third.reward) == ("airline", "airline", 0.0)


def test_causes_that_the_run_measured_are_in_it(tmp_path: Path) -> None:
    sample = played(0.0)
    names = ("agent", "user", "agent/wrong_tool", "agent/other")
    sample.metadata["tau2"]["telemetry"] = {f"custom/failed_by/{name}": float("user" not in name) for name in names}
    sample.metadata["tau2"]["telemetry"]["custom/failed_by/agent/other"] = 0.0
    solved = played(1.0)
    solved.metadata["tau2"]["telemetry"] = {f"custom/failed_by/{name}": 0.0 for name in names}
    train(tmp_path, 0, sample, solved)
    assert [(row.who, row.what) for row in shown(tmp_path).rows] == [("agent", "wrong_tool"), ("none", "none")]


def test_a_job_that_goes_on_from_an_earlier_step_replaces_what_it_plays_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(4):
        train(tmp_path, step, played(0.0))
    monkeypatch.setattr(episode_log, "_written", {})
    train(tmp_path, 2, played(1.0), played(1.0))
    assert [(row.step, row.reward) for row in shown(tmp_path).rows] == [(0, 0), (1, 0), (2, 1), (2, 1)]


def test_half_a_line_of_a_killed_job_costs_only_itself(tmp_path: Path) -> None:
    train(tmp_path, 0, played())
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"step": 1, "kind"')
    train(tmp_path, 1, played())
    runs = Runs([tmp_path])
    runs.refresh()
    assert [row.step for row in runs.rows] == [0, 1]
    assert len(runs.problems) == 1


def test_the_file_is_bounded_and_the_newest_steps_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_log, "LARGEST", 20_000)
    for step in range(100):
        train(tmp_path, step, played())
        assert (tmp_path / "episodes.jsonl").stat().st_size <= 20_000
    steps = [row.step for row in shown(tmp_path).rows]
    assert steps == list(range(steps[0], 100))
    assert len(steps) > 10


def test_a_full_disk_costs_the_log_and_not_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert train(tmp_path / "file", 0, played())["rollout/tau2/samples"] == 1


def test_an_evaluation_called_train_takes_no_training_episode_away(tmp_path: Path) -> None:
    for step in range(3):
        train(tmp_path, step, played(1.0), played(0.0))
        data = {"train": {"rewards": [0.0], "samples": [played(0.0, domain="airline")]}}
        hooks.log_eval_rollout(step, slime_args(tau2={"episode_log": str(tmp_path)}), data, {})
    series = [row.series for row in shown(tmp_path).rows]
    assert (series.count("train"), series.count("eval train")) == (6, 3)
