"""Failure telemetry: each name counted on a conversation that was written for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.episode.telemetry import telemetry, telemetry_metrics
from tau2_slime.observe.episodes import episodes_of
from tau2_slime.observe.metrics import episode_metrics
from tests.test_cli import tau2_slime


def ask(*calls: tuple[str, dict[str, Any]], role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "tool_calls": [{"name": name, "arguments": arguments} for name, arguments in calls]}


def answer(content: str, *, error: bool = False, requestor: str = "assistant") -> dict[str, Any]:
    return {"role": "tool", "content": content, "error": error, "requestor": requestor}


def test_accuracy_by_tool_loops_and_repeated_errors() -> None:
    messages = [
        ask(("find", {"a": 1, "b": 2}), ("book", {})),
        *(answer("x"), answer("Error: no", error=True)),
        ask(("find", {"b": 2, "a": 1})),
        answer("x"),
        ask(("find", {"a": 1, "b": 2})),
        answer("x"),
        ask(("book", {"id": 3})),
        answer("Error: no", error=True),
        ask(("toggle", {}), role="user"),
        answer("Error: user's", error=True, requestor="user"),
        ask(("book", {"id": 4})),
        answer("done"),
    ]
    counted = telemetry(messages, None, [{"finish_reason": {"type": "length"}}, {"finish_reason": {"type": "stop"}}])
    assert counted == {
        "tool/find/calls": 3,
        "tool/book/calls": 3,
        "tool/book/errors": 2,
        "loops": 1,
        "repeated_errors": 1,
        "cut_turns": 1,
    }


def test_a_call_whose_answer_changes_is_no_loop() -> None:
    messages = [part for n in range(4) for part in (ask(("status", {})), answer(f"{n} minutes"))]
    assert telemetry(messages, None, [])["loops"] == 0


def test_checks_and_the_first_divergence_from_gold() -> None:
    info = {
        "db_check": {"db_match": False},
        "action_checks": [
            {"action_match": True},
            {"action_match": False},
            {"action_match": False},
            {"action_match": True},
        ],
        "communicate_checks": [{"met": True}, {"met": False}],
        "nl_assertions": None,
    }
    counted = telemetry([], info, [])
    assert counted["checks/db"] == 0
    assert counted["checks/actions"] == counted["gold/done"] == counted["checks/communicate"] == 0.5
    assert counted["gold/first_divergence"] == 1
    assert "checks/nl_assertions" not in counted
    assert "gold/first_divergence" not in telemetry([], {"action_checks": [{"action_match": True}]}, [])


def words(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


NUMBERS = words(" ".join(map(str, range(250))))


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([words("Bye.")], {"nothing"}),
        ([ask(("transfer_to_human_agents", {"summary": "x"})), answer("done")], {"transfer"}),
        ([ask(("find", {}), ("transfer_to_human_agents", {})), answer("1"), answer("done")], set()),
        ([ask(("find", {})), answer("1"), NUMBERS], {"recitation"}),
        ([ask(("find", {})), answer(NUMBERS["content"]), words("It costs 3.")], set()),
        ([ask(("find", {})), answer("1"), {**NUMBERS, "role": "user"}], set()),
    ],
)
def test_reward_for_words_or_for_nothing_is_counted_where_it_was_paid(messages: list[Any], found: set[str]) -> None:
    paid = telemetry(messages, {"reward": 1.0}, [])
    assert {name.removeprefix("unearned/") for name, value in paid.items() if "unearned" in name and value} == found
    assert not [name for name in telemetry(messages, {"reward": 0.0}, []) if "unearned" in name]
    assert not [name for name in telemetry(messages, None, []) if "unearned" in name]


def test_over_episodes_invented_tools_are_one() -> None:
    first = {"tool/find/calls": 3.0, "tool/find/errors": 1.0, "tool/made_up/calls": 1.0, "tool/made_up/errors": 1.0}
    second = {"tool/find/calls": 1.0, "tool/other/calls": 2.0, "tool/other/errors": 2.0, "gold/done": 1.0, "loops": 2.0}
    third = {"gold/done": 0.5, "gold/first_divergence": 3.0, "loops": 0.0}
    assert telemetry_metrics([first, second, third]) == {
        "gold/diverged": 0.5,
        "gold/done": 0.75,
        "gold/first_divergence": 3.0,
        "loops": 1.0,
        "tool/find/accuracy": 0.75,
        "tool/find/calls": 4.0,
        "tool/never_answered/calls": 3.0,
    }
    assert telemetry_metrics([]) == {}


def test_samples_metrics_report_and_inspector_have_the_same_names(rollout: Path) -> None:
    """From the samples' metadata (metrics) and from the messages (inspector): the same names, the same values."""
    from types import SimpleNamespace

    from tau2_slime.inspector.sources import read_episodes

    samples = [SimpleNamespace(**json.loads(line)) for line in (rollout / "samples.jsonl").read_text().splitlines()]
    metrics = episode_metrics(episodes_of(samples)[0])
    seen = telemetry_metrics(one.telemetry for one in read_episodes(rollout).trajectories if not one.excluded)
    assert seen
    assert {name: metrics[name] for name in seen} == pytest.approx(seen)  # added up in another order
    assert "tool/find_user_id_by_name_zip/accuracy" in seen
    assert 0 < seen["gold/done"] <= 1


def test_a_rollout_writes_it_down(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tau2_slime("rollout", "--domain", "mock", "--task-id", "create_task_1", "--output-dir", str(out))
    known = json.loads((out / "summary.json").read_text())
    assert known["telemetry"]["tool/create_task/accuracy"] == 1
    assert known["embedded"] is True
