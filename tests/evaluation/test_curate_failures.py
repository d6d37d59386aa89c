"""`curate --from-diagnosis`: the tasks at which the agent fails, those with the most frequent failures first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tau2_slime.cli.commands import app

TASKS = ("0", "2", "16", "30")
"""Retail's, of the training split, whose gold is paid and for which nothing is paid for nothing."""


def episode(task: str, trial: int, who: str = "none", what: str = "none", **more: Any) -> dict[str, Any]:
    key = {"run": "r", "domain": "retail", "task_id": task, "trial": trial, "reward": float(who == "none")}
    return {**key, "who": who, "what": what, "turn": 1, "evidence": [], **more}


def curate(tmp_path: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Task id -> its entry in the report."""
    result = CliRunner().invoke(app, ["curate", "--output-dir", str(tmp_path / "out"), "--force", *arguments])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    report = json.loads((tmp_path / "out" / "curation.json").read_text())
    return {one["task_id"]: one for one in report["tasks"]}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_most_frequent_failures_are_kept_first(tmp_path: Path) -> None:
    item = {"tool": "exchange_delivered_order_items", "detail": "item"}
    first, second, third, fourth = TASKS
    diagnosis = write(
        tmp_path / "d.jsonl",
        *(episode(first, 0, "agent", "wrong_tool", tool="cancel_pending_order"), episode(first, 1)),
        *(episode(second, 0, "agent", "wrong_argument", **item), episode(second, 1)),
        *(episode(third, 0, "agent", "wrong_argument", **item), episode(third, 1), episode(third, 2)),
        *(episode(fourth, 0, "user", "leak"), episode(fourth, 1), episode(fourth, 2)),
    )
    found = curate(tmp_path, "--from-diagnosis", diagnosis)
    assert [found[task]["reason"] for task in TASKS] == ["", "", "", "the agent does not fail at it"]
    assert [found[task]["failures"]["weight"] for task in TASKS] == [0.3333, 0.6667, 0.6667, 0.0]
    assert found[fourth]["excluded"] == 1  # the simulator's failure counts against nobody
    assert (found[third]["attempts"], found[third]["solved"]) == (3, 2)
    one = curate(tmp_path, "--from-diagnosis", diagnosis, "--per-domain", "1")
    # Equal weights: the rate that is nearest to one half.
    assert [task for task in TASKS if one[task]["kept"]] == [second]


def test_a_wrong_label_is_left_out_and_test_tasks_are_never_kept(tmp_path: Path) -> None:
    from tau2_slime.world import domains

    held_out = domains.splits("retail")["test"][0]
    wrong = {"tool": "cancel_pending_order"}
    diagnosis = write(
        tmp_path / "d.jsonl",
        *(episode(TASKS[0], 0, "agent", "wrong_tool", **wrong), episode(TASKS[0], 1)),
        *(
            episode(TASKS[1], n, *how, **wrong)
            for n, how in enumerate((("agent", "wrong_tool"), ("task", "gold_label")))
        ),
        *(episode(held_out, 0, "agent", "wrong_tool", **wrong), episode(held_out, 1)),
    )
    found = curate(tmp_path, "--from-diagnosis", diagnosis)
    assert found[TASKS[1]]["reason"] == "its label is at fault (gold_label)"
    assert found[held_out]["reason"].startswith("in the test split")
    assert found[TASKS[0]]["kept"]


def test_a_steering_file_needs_the_runs_attempts(tmp_path: Path) -> None:
    cluster = {"domain": "retail", "who": "agent", "what": "wrong_tool", "tools": ["cancel_pending_order"], "count": 2}
    steer = tmp_path / "steer.json"
    steer.write_text(json.dumps({"clusters": [{**cluster, "unreliable": [TASKS[0]], "missing": []}]}))
    alone = CliRunner().invoke(app, ["curate", "--from-diagnosis", str(steer), "--output-dir", str(tmp_path / "o")])
    assert "names no attempts: name the RUN" in str(alone.exception)
    nothing = CliRunner().invoke(app, ["curate", "--output-dir", str(tmp_path / "o")])
    assert "name a RUN, or a diagnosis" in str(nothing.exception)
    plays = [
        {
            "id": f"{t}-{r}",
            "task_id": t,
            "trial": int(r),
            "termination_reason": "user_stop",
            "reward_info": {"reward": r},
        }
        for t in TASKS[:2]
        for r in (0.0, 1.0)
    ]
    runs = tmp_path / "results.json"
    info = {"environment_info": {"domain_name": "retail"}}
    runs.write_text(json.dumps({"info": info, "tasks": [], "simulations": [{**one, "messages": []} for one in plays]}))
    found = curate(tmp_path, str(runs), "--from-diagnosis", str(steer))
    assert (found[TASKS[0]]["reason"], found[TASKS[1]]["reason"]) == ("", "the agent does not fail at it")


def test_a_task_is_one_task_whatever_split_named_it(tmp_path: Path) -> None:
    diagnosis = write(
        tmp_path / "d.jsonl",
        *(
            episode(TASKS[0], n, "agent", "wrong_tool", tool="cancel_pending_order", task_split="train")
            for n in range(2)
        ),
        *(episode(TASKS[0], n, task_split="base") for n in range(2, 4)),
    )
    found = curate(tmp_path, "--from-diagnosis", diagnosis)
    assert {task: (one["attempts"], one["solved"], one["split"]) for task, one in found.items()} == {
        TASKS[0]: (4, 2, "train")
    }
