"""The command line as people of τ-bench and τ² write it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tau2_slime.cli.options import spread_lists
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.estimate import dollars
from tau2_slime.evaluation.request import Request, make_plan
from tau2_slime.rollout import plan_jobs
from tests import command_line


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    return command_line.run(*words, environ=env, folder=folder)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("--task-ids 2 4 6 -d mock", "--task-ids 2 --task-ids 4 --task-ids 6 -d mock"),
        ("--task-ids 2 --task-ids 4", "--task-ids 2 --task-ids 4"),
        ("--task-id -1 4 --attempts 2", "--task-id -1 --task-id 4 --attempts 2"),
        ("--domain mock telecom", "--domain mock telecom"),
    ],
)
def test_a_list_after_one_option_is_spread(typed: str, read: str) -> None:
    assert spread_lists(typed.split()) == read.split()


def test_the_price_is_calls_times_tokens_times_price() -> None:
    # 20 calls in 2 conversations: ten each, whose prompts grow by 150 tokens a turn from 6,000; 120 tokens of answer
    assert dollars(20, 2, 6000, (1e-6, 2e-6)) == pytest.approx(20 * ((6000 + 150 * 5) * 1e-6 + 120 * 2e-6))
    assert dollars(20, 2, 6000, None) is None


def test_rollout_and_eval_understand_the_ancestors_names(tmp_path: Path) -> None:
    names = ["--task-ids", "create_task_1", "update_task_1", "--num-trials", "2", "--max-concurrency", "4"]
    done = command(
        "rollout",
        "-d",
        "mock",
        "--task-split",
        "base",
        *names,
        "--agent-strategy",
        "react",
        "-o",
        "out",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    assert sorted((row["task_id"], row["agent_strategy"], row["reward"]) for row in rows) == [
        *[("create_task_1", "react", 1.0)] * 2,
        *[("update_task_1", "react", 1.0)] * 2,
    ]
    model = ["--user-model", "gpt-4o-mini", "--user-strategy", "verify", "--policy-model", "gpt-4o-mini"]
    planned = command("eval", "-d", "mock", "--task-split", "base", *names, *model, "--dry-run", folder=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "4 episodes" in planned.stdout and "verify" in planned.stdout and "Nothing was asked" in planned.stdout
    assert not (tmp_path / "runs").exists()


def test_who_names_tasks_need_not_know_their_split() -> None:
    """τ-bench has one split: `--task-ids 2 4 6` alone, of which τ² trains on some and tests on others."""
    request = Request(Path("out"), task_ids=["2", "4", "6"], overrides={}, users=["scripted"])
    played = {(d.config.domain, d.config.task_split): [i.task_id for i in d.items] for d in make_plan(request).datasets}
    assert played == {("airline", "base"): ["2", "4", "6"], ("retail", "base"): ["2", "4", "6"]}
    assert {job.split for job in plan_jobs(["retail"], None, ["2", "5"], None, 1)} == {"base"}
    assert {job.split for job in plan_jobs(["retail"], None, ["2"], None, 1)} == {"train"}
    with pytest.raises(ConfigError, match="no task 'nope' in retail/base"):
        plan_jobs(["retail"], None, ["nope"], None, 1)


def test_what_would_change_nothing_is_refused(tmp_path: Path) -> None:
    refused = command("rollout", "-d", "mock", "--user-strategy", "verify", folder=tmp_path)
    assert refused.returncode == 2 and "--user-strategy would change nothing" in refused.stderr
    scripted = command("eval", "-d", "mock", "--user-strategy", "verify", folder=tmp_path)
    assert scripted.returncode == 2 and "--user-strategy would change nothing: no model plays" in scripted.stderr
    unknown = command("rollout", "-d", "mock", "--set", "max_stepz=3", folder=tmp_path)
    assert unknown.returncode == 2 and "--set: unknown key 'max_stepz'" in unknown.stderr
    many = command("rollout", "-d", "mock", "--set", "max_steps=many", folder=tmp_path)
    assert many.returncode == 2 and "--set max_steps = 'many'" in many.stderr
    wrong = command("rollout", "-d", "mock", "--agent-strategy", "reakt", folder=tmp_path)
    assert (
        wrong.returncode == 2
        and "--agent-strategy = 'reakt'" in wrong.stderr
        and "native, act, react, few-shot" in wrong.stderr
    )


@pytest.mark.parametrize("words", [("--version",), ("-h",), ("eval", "-h")])
def test_help_and_version(words: tuple[str, ...], tmp_path: Path) -> None:
    shown = command(*words, folder=tmp_path)
    assert (shown.returncode == 0 and "tau2-slime" in shown.stdout + shown.stderr) or "Usage" in shown.stdout
