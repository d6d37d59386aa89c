"""The folder of a rollout: one writer, no line lost or broken, and the same rollout goes on where it stopped."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import rollout
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.rollout import Played, RolloutPlan, plan_jobs, run, summarise
from tau2_slime.runtime.files import hold_folder
from tau2_slime.world import scoring
from tests.test_cli import rows, tau2_slime


@pytest.fixture
def plan(tmp_path: Path) -> RolloutPlan:
    jobs = plan_jobs(["mock"], None, ["create_task_1", "update_task_1"], None, 3)
    return RolloutPlan(jobs, tmp_path / "out", overrides={"user_model": "scripted", "max_turns": 200}, concurrency=2)


def play(plan: RolloutPlan) -> tuple[list[Played], list[int]]:
    """What `run` returns, and the indices that it played now."""
    fresh: list[int] = []
    append = rollout.append_line

    def watching(path: Path, line: str) -> None:
        append(path, line)
        if path.name == "samples.jsonl":
            fresh.append(json.loads(line)["index"])

    rollout.append_line = watching
    try:
        return asyncio.run(run(plan)), fresh
    finally:
        rollout.append_line = append


def test_what_is_there_is_not_played_again(plan: RolloutPlan) -> None:
    first, fresh = play(plan)
    assert sorted(fresh) == [0, 1, 2, 3, 4, 5]
    before = (plan.output_dir / "samples.jsonl").read_bytes()
    second, fresh = play(plan)
    assert fresh == [] and second == first
    assert (plan.output_dir / "samples.jsonl").read_bytes() == before
    assert summarise(second, 1.0)["mean_reward"] == summarise(first, 1.0)["mean_reward"] == 1.0


def cut_in_half(folder: Path) -> None:
    """As a kill leaves it: the last sample is half a line, and its trajectory is missing."""
    for name in ("samples.jsonl", "trajectories.jsonl"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines[:-2]) + (lines[-2][:40] if name == "samples.jsonl" else b""))


def damage_a_line(folder: Path) -> None:
    lines = (folder / "trajectories.jsonl").read_text().splitlines(keepends=True)
    (folder / "trajectories.jsonl").write_text("".join([lines[0], '{"index": 1}\n', *lines[2:], "[1]\n", lines[3]]))


def fail_one(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]
    lines[2] |= {"status": "failed", "reward": None}
    (folder / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("harm", [cut_in_half, damage_a_line, fail_one])
def test_what_is_missing_or_has_failed_is_played(plan: RolloutPlan, harm: Any) -> None:
    play(plan)
    harm(plan.output_dir)
    again, fresh = play(plan)
    assert 1 <= len(fresh) <= 2
    assert [one.job for one in again] == plan.jobs
    for name in ("samples.jsonl", "trajectories.jsonl"):
        assert sorted(row["index"] for row in rows(plan.output_dir / name)) == [0, 1, 2, 3, 4, 5]
    done = tau2_slime("inspect", "--check", str(plan.output_dir))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling_params": {"temperature": 0.5}}, "sampling.temperature"),
        ({"overrides": {"user_model": "scripted", "max_turns": 9}}, "settings.max_turns"),
        ({"yaml_mapping": {"max_errors": 3}}, "settings.max_errors"),
        ({"mistakes": 0.5}, "policy.mistakes"),
        ({"policy_noise": 0.5}, "policy.noise"),
        ({"spelling": 0.0}, "policy.spelling"),
        ({"max_context_len": 9000}, "max_context_len"),
        ({"jobs": []}, "episodes"),
    ],
)
def test_another_rollout_is_refused_by_what_differs(plan: RolloutPlan, change: dict[str, Any], named: str) -> None:
    plan = replace(plan, sampling_params={"temperature": 1.0}, jobs=plan.jobs[:1])
    play(plan)
    with pytest.raises(ConfigError, match=f"differs in .*{named}"):
        play(replace(plan, **change))


def test_settings_that_change_no_episode_may_change(plan: RolloutPlan) -> None:
    plan = replace(plan, jobs=plan.jobs[:1])
    play(plan)
    _, fresh = play(replace(plan, concurrency=7, overrides={**plan.overrides, "user_timeout": 5}))
    assert fresh == []


def test_a_second_process_is_refused(plan: RolloutPlan) -> None:
    with hold_folder(plan.output_dir, "rollout"), pytest.raises(ConfigError, match="another rollout is writing"):
        play(plan)


def test_a_full_disk_ends_the_rollout_and_keeps_what_is_there(
    plan: RolloutPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, written = rollout.append_line, 0

    def full(path: Path, line: str) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(path, line)

    monkeypatch.setattr(rollout, "append_line", full)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(run(plan))
    monkeypatch.setattr(rollout, "append_line", append)
    again, fresh = play(plan)
    assert len(again) == 6 and len(fresh) == 4


DISK = """
import errno, os
from tau2_slime import rollout
from tau2_slime.config.settings import Tau2Config
from tau2_slime.cli.main import main
append = rollout.append_line
def full(path, line):
    if path.exists() and path.read_bytes().count(b"\\n") >= LIMIT:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    append(path, line)
rollout.append_line = full
main()
"""
STOP = """
import os, signal
from tau2_slime import rollout
from tau2_slime.config.settings import Tau2Config
from tau2_slime.cli.main import main
append = rollout.append_line
def stop(path, line):
    append(path, line)
    if path.name == "trajectories.jsonl" and path.read_bytes().count(b"\\n") == 2:
        os.kill(os.getpid(), signal.SIGINT)
rollout.append_line = stop
main()
"""


def command(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    options = f"--domain mock --groups 2 --samples-per-prompt 2 --concurrency 1 --output-dir {folder}".split()
    return subprocess.run(
        [sys.executable, "-c", code, "rollout", *options], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("code", "said", "kept"),
    [
        (DISK.replace("LIMIT", "1"), "No space left on device", 1),
        (DISK.replace("LIMIT", "0"), "", 0),
        (STOP, "", 2),
        (STOP.replace("SIGINT", "SIGTERM"), "", 2),
    ],
    ids=["full", "full at once", "ctrl-c", "SIGTERM"],
)
def test_the_command_says_in_a_line_how_to_go_on(tmp_path: Path, code: str, said: str, kept: int) -> None:
    folder = tmp_path / "out"
    done = command(code, folder)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    _loading, line = done.stderr.strip().splitlines()
    assert said in line and "tau2-slime" in line
    if kept:
        assert f"--output-dir {folder}" in line
        found = len(rows(folder / "samples.jsonl"))
        assert found == len(rows(folder / "trajectories.jsonl"))
        # Ctrl-C: what was played by then and waits for the disk is written, too.
        assert found == kept or (not said and found > kept)
    done = command("from tau2_slime.cli.main import main; main()", folder)
    assert done.returncode == 0, done.stderr
    assert len(rows(folder / "samples.jsonl")) == 4


@pytest.mark.parametrize("arguments", [["doctor"], ["rollout"], ["eval", "--output-dir", "never"], ["inspect", "."]])
def test_ctrl_c_while_it_loads_is_a_line(tmp_path: Path, arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tau2_slime.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith(f"tau2-slime {arguments[0]}: ")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    if arguments[0] != "inspect":  # which may be done already
        assert (process.returncode, rest) == (130, "tau2-slime: interrupted\n")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "Traceback" not in rest


# ---- which tasks -------------------------------------------------------------------------------------------------------


def test_tasks_that_the_agent_cannot_play_are_passed_over() -> None:
    solo = plan_jobs(["airline", "mock"], None, [], 4, 1, Tau2Config(agent_type="solo"))
    assert solo and {job.domain for job in solo} == {"mock"}  # airline has no solo mode
    with pytest.raises(ConfigError, match="no task that --agent-type solo can play"):
        plan_jobs(["airline"], None, [], 4, 1, Tau2Config(agent_type="solo"))
    with pytest.raises(ConfigError, match="--task-id 0: not playable by --agent-type solo"):
        plan_jobs(["airline"], None, ["0"], None, 1, Tau2Config(agent_type="solo"))


def test_tasks_that_only_a_judge_can_score_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "needs_judge", lambda task: task.id == "create_task_1")
    assert "create_task_1" not in {job.task_id for job in plan_jobs(["mock"], None, [], 50, 1)}
    with pytest.raises(ConfigError, match="--task-id create_task_1: graded by an LLM judge"):
        plan_jobs(["mock"], None, ["create_task_1"], None, 1)
    allowed = plan_jobs(["mock"], None, [], 50, 1, Tau2Config(allow_llm_judge=True))
    assert "create_task_1" in {job.task_id for job in allowed}
