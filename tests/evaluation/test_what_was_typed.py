"""`tau2-slime eval`: every setting counts or is refused, in the words that were typed, before anything is played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.command import check_attempts
from tau2_slime.evaluation.report.tau2_results import file_names
from tau2_slime.evaluation.request import Request, make_plan, parse_settings, parse_threshold


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAU2_DOMAIN", "TAU2_USER_MODEL", "TAU2_MAX_TURNS", "TAU2_TASK_SPLIT"):
        monkeypatch.delenv(name, raising=False)


def request(**more: Any) -> Request:
    return Request(Path("never"), **{"domains": ["mock"], "tasks": 2, "attempts": 2, **more})


def test_what_the_environment_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU2_DOMAIN", "mock")
    monkeypatch.setenv("TAU2_USER_MODEL", "scripted-terse")
    monkeypatch.setenv("TAU2_MAX_TURNS", "7")
    plan = make_plan(request(domains=[]))
    assert [dataset.name for dataset in plan.datasets] == ["mock-base-scripted-terse"]
    assert plan.datasets[0].config.max_turns == 7
    plan = make_plan(request(users=["scripted"], overrides={"max_turns": 9}))  # the command line wins
    assert [(d.config.user_model, d.config.max_turns) for d in plan.datasets] == [("scripted", 9)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["max_turnz=3"], "--set: unknown key 'max_turnz'.*did you mean 'max_turns'"),
        (["nonsense=3"], "--set: unknown key 'nonsense'"),
        (["max_turns=many"], "--set max_turns = 'many'"),
        (["user_budget=3"], "'user_budget' changes nothing here: training only"),
        (["domain=retail"], "--set domain .*--domain"),
    ],
)
def test_a_wrong_setting_is_told_as_it_was_typed(tmp_path: Path, given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        make_plan(request(overrides=parse_settings(given)))
    assert "sample.metadata" not in str(raised.value)


def test_so_it_is_with_a_file(tmp_path: Path) -> None:
    row = {"prompt": "x", "metadata": {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "c.yaml").write_text(f"eval:\n  datasets:\n  - {{name: d, path: {tmp_path}/d.jsonl}}\n")
    with pytest.raises(ConfigError, match="--set max_turns = 'many'"):
        make_plan(Request(Path("never"), config=tmp_path / "c.yaml", overrides={"max_turns": "many"}))


def test_two_users_of_one_name_are_two_datasets() -> None:
    plan = make_plan(request(users=["openai/m", "azure/m", "openai/other", "openai/m"]))
    names = [dataset.name for dataset in plan.datasets]
    assert names == ["mock-base-openai/m", "mock-base-azure/m", "mock-base-other"]


def test_only_tasks_that_the_agent_can_play_are_planned() -> None:
    solo = make_plan(request(tasks=5, overrides={"agent_type": "solo"}))
    assert {item.task_id for dataset in solo.datasets for item in dataset.items} == {"create_task_1"} | {
        item.task_id for item in solo.datasets[0].items
    }
    with pytest.raises(ConfigError, match="no task that agent_type=solo can play"):
        make_plan(request(domains=["airline"], overrides={"agent_type": "solo"}))


@pytest.mark.parametrize("text", ["pass^3=0.5", "pass@4=0.5"])
def test_a_limit_on_attempts_that_nobody_plays_is_refused_at_once(text: str) -> None:
    plan = make_plan(request())
    check_attempts([parse_threshold("pass^2=0.5")], plan)
    with pytest.raises(ConfigError, match=r"--fail-under .*: at most 2 attempts .* --attempts [34]"):
        check_attempts([parse_threshold(text)], plan)


@pytest.mark.parametrize(
    "wanted",
    [
        ["retail/gpt-4o", "retail gpt-4o"],
        ["a", "A"],
        ["é", "e\u0301"],
        ["x" * 300, "x" * 301],
        [".hidden", "hidden"],
        ["..", "."],
        ["a/b", "a_b", "a_b-d4735e3a"],
        ["-rf", "rf"],
    ],
)
def test_no_two_datasets_share_a_file(tmp_path: Path, wanted: list[str]) -> None:
    names = file_names(wanted, wanted)
    assert len({name.casefold() for name in names}) == len(wanted)
    for name in names:
        (tmp_path / f"{name}.json").write_text("x")
        assert not name.startswith((".", "-")) and "/" not in name
    assert len(list(tmp_path.iterdir())) == len(wanted)
    assert file_names(["mock-base-scripted", "a b"], [1, 2])[0] == "mock-base-scripted"
