"""Metrics of one's own in an evaluation: a module outside the package, then every report that shows its numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tau2_slime.evaluation.report import wandb_log
from tau2_slime.evaluation.report.tables import all_tables, metric_table
from tau2_slime.evaluation.statistics.summary import read_folder
from tests import command_line
from tests.evaluation.folders import write_folder

METRICS = """
def shape(result):
    numbers = {"messages": len(result.messages)}
    if result.task_id == "create_task_1":
        numbers["first|task"] = 0.25
    return numbers
"""
TITLE = "Your own metrics, mean per episode"


def evaluate(folder: Path, modules: Path, *arguments: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_")}
    environment = {**kept, "PYTHONPATH": str(modules), "XDG_CACHE_HOME": str(modules), "COLUMNS": "80"}
    command = ["eval", "--domain", "mock", "--user-model", "scripted", "--tasks", "2", "--attempts", "2"]
    command += ["--no-baselines", "--output-dir", str(folder), *arguments]
    done = command_line.run(*command, environ=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_evaluation_shows_metrics_from_outside_the_package_everywhere(tmp_path: Path) -> None:
    (tmp_path / "measures.py").write_text(METRICS)
    folder = tmp_path / "run"
    printed = evaluate(folder, tmp_path, "--set", "metrics=[measures.shape]")
    records = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    mean = sum(len(record["messages"]) for record in records) / 4
    table = metric_table(read_folder(folder))
    assert table is not None
    assert table.rows == [
        *(["mock-base-scripted", "first|task", "0.25", "2"], ["", "messages", f"{mean:.4g}", "4"]),
        *(["overall: all tasks", "first|task", "0.25", "2"], ["", "messages", f"{mean:.4g}", "4"]),
    ]
    assert TITLE in printed
    assert ["messages", f"{mean:.4g}", "4"] in [line.split() for line in printed.splitlines()]
    assert table.markdown() in (folder / "report.md").read_text()
    assert TITLE in (folder / "report.html").read_text()
    overall = json.loads((folder / "summary.json").read_text())["groups"][-1]
    assert overall["metrics"] == {
        "custom/first|task": {"mean": 0.25, "episodes": 2},
        "custom/messages": {"mean": mean, "episodes": 4},
    }
    logged = wandb_log.metrics(read_folder(folder))
    assert logged["eval/mock-base-scripted/custom/messages"] == logged["eval/overall/custom/messages"] == mean


def test_each_row_has_the_mean_of_its_own_episodes_and_excluded_ones_are_left_out(tmp_path: Path) -> None:
    users = {"one": "user/one", "two": "user/two"}
    folder = write_folder(
        tmp_path / "run", lambda d, t, i: None if t == 2 else 1.0, datasets=users, tasks=3, attempts=1
    )
    numbers = iter((1.0, 3.0, 100.0, 5.0, None, 100.0))

    def measured(line: str) -> dict[str, Any]:
        number = next(numbers)
        telemetry = {"loops": 7.0} if number is None else {"loops": 7.0, "custom/depth": number}
        return {**json.loads(line), "telemetry": telemetry}

    path = folder / "simulations.jsonl"
    path.write_text("".join(json.dumps(measured(line)) + "\n" for line in path.read_text().splitlines()))
    table = metric_table(read_folder(folder))
    assert table is not None
    assert table.rows == [
        *(["one", "depth", "2", "2"], ["two", "depth", "5", "1"]),
        *(["user: user/one", "depth", "2", "2"], ["user: user/two", "depth", "5", "1"]),
        ["overall: all tasks", "depth", "3", "3"],
    ]


def test_without_metrics_nothing_is_shown(tmp_path: Path) -> None:
    summary = read_folder(write_folder(tmp_path / "run", lambda d, t, i: 1.0))
    assert metric_table(summary) is None
    assert TITLE not in [table.title for table in all_tables(summary)]
    assert not [name for name in wandb_log.metrics(summary) if "custom" in name]
