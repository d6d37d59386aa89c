"""What a curve says is what can be counted by hand."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from tau2_slime.evaluation.statistics.intervals import share_interval
from tau2_slime.inspector.curves import Curves
from tau2_slime.inspector.rows import EpisodeRow

pytestmark = pytest.mark.fast


def row(step: int = 0, reward: float | None = 1.0, **changes: Any) -> EpisodeRow:
    values: dict[str, Any] = {
        "name": "x",
        "run": "r",
        "series": "train",
        "step": step,
        "group": "g",
        "task_key": "t",
        "domain": "retail",
        "task": "t",
        "user": "u",
        "reward": reward,
        "excluded": reward is None,
        "ended": "user_stop",
        "blame": "agent",
        "turns": 4,
        "sampled": 100,
        "errors": 0,
        "faulty": False,
        "talk": True,
    }
    return EpisodeRow(**{**values, **changes})


def points(*rows: EpisodeRow, split: str = "all") -> list[dict[str, Any]]:
    curves = Curves(share_interval)
    curves.add(rows)
    return [point for curve in curves.shown()[split] for point in curve["points"]]


def test_excluded_episodes_enter_no_mean() -> None:
    (point,) = points(row(), row(reward=0.5, task_key="b"), row(reward=None, turns=40, faulty=True, blame="user"))
    assert (point["pass"], point["reward"], point["turns"], point["episodes"]) == (0.5, 0.75, 4, 3)
    assert point["excluded"] == point["faulty"] == pytest.approx(1 / 3)
    assert point["blame"] == {"agent": pytest.approx(2 / 3), "user": pytest.approx(1 / 3)}


def test_the_interval_counts_tasks_and_not_attempts() -> None:
    same = [row(reward=float(i % 2), task_key="one") for i in range(8)]
    other = [row(reward=float(i % 2), task_key=str(i)) for i in range(8)]
    (few,), (many,) = points(*same), points(*other)
    assert few["high"] - few["low"] > many["high"] - many["low"]
    assert many["low"] < many["pass"] < many["high"]


def test_off_policy_is_what_older_weights_sampled() -> None:
    """Newest so far: 1, then 2, and it stays 2 where only older weights answered."""
    found = points(
        row(0, versions={"1": 100}),
        row(1, versions={"1": 60, "2": 20}),
        row(1, versions={"2": 20}),
        row(2, versions={"0": 50, "1": 50}),
        row(3, versions={"default": 50}),
    )
    assert [point["stale"] for point in found] == [0, 0.6, 1, None]
    assert [point["lag"] for point in found] == [0, 0.6, 1.5, None]


def test_a_diagnosis_that_comes_later_is_counted() -> None:
    late = row(reward=0.0)
    curves = Curves(share_interval)
    curves.add([late, row(who="none", what="none"), row(0, 0.0, who="user", what="leak")])
    assert curves.shown()["all"][0]["points"][0]["failed_by"] == {"solved": 0.5, "user": 0.5}
    late.who, late.what = "agent", "wrong_argument"
    curves.changed(late)
    (point,) = curves.shown()["all"][0]["points"]
    assert point["diagnosed"] == 3
    assert point["failed_by"]["agent wrong_argument"] == pytest.approx(1 / 3)


def test_curves_are_taken_apart_by_domain_and_simulator() -> None:
    rows = [row(1), row(1, 0.0, domain="airline", user="v"), row(2, domain="airline")]
    curves = Curves(share_interval)
    curves.add(rows)
    shown = curves.shown()
    parts = {(c["part"], tuple((p["step"], p["pass"]) for p in c["points"])) for c in shown["domain"]}
    assert parts == {("retail", ((1, 1.0),)), ("airline", ((1, 0.0), (2, 1.0)))}
    assert {curve["part"] for curve in shown["simulator"]} == {"u", "v"}


def test_only_points_with_new_episodes_are_computed_again() -> None:
    asked: list[int] = []

    def interval(domains: Sequence[str], tasks: Sequence[Hashable], values: Sequence[float]) -> tuple[float, float]:
        asked.append(len(values))
        return 0.0, 1.0

    curves = Curves(interval)
    curves.add([row(0), row(1), row(1)])
    curves.shown()
    before = len(asked)
    curves.add([row(1)])
    curves.shown()
    assert asked[before:] == [3, 3, 3], "one step, in each of the three splits"
