"""`tau2-slime eval` as its user runs it: kill it, run it again, read what it wrote."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.command import check_thresholds
from tau2_slime.evaluation.request import Request, make_plan, make_policy, parse_threshold
from tau2_slime.evaluation.statistics.estimates import scores
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.observe.passk import pass_at
from tests import command_line

MATRIX = ("--domain", "mock", "--domain", "telecom", "--tasks", "3", "--attempts", "2", "--gold-rate", "0.6")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tau2_slime.cli", "eval", *arguments]


def environment(cache: str, **more: str) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_") and not k.endswith("_API_KEY")}
    return {**keep, "XDG_CACHE_HOME": cache, "COLUMNS": "140", **more}


def evaluate(cache: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return command_line.run("eval", *arguments, environ=environment(cache, **more))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every record but for when it was played, in an order of its own."""
    rows = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("clock")
    return sorted(rows, key=lambda r: (r["dataset"], r["item"], r["attempt"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: str) -> Path:
    """An uninterrupted run: 3 users x 2 domains x 3 tasks x 2 attempts."""
    folder = tmp_path_factory.mktemp("whole")
    done = evaluate(cache, *MATRIX, "--output-dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def test_the_tables_are_printed_and_written(whole: Path) -> None:
    said = (whole / "stdout").read_text()
    for words in (
        "pass^1",
        "pass@2",
        "nothing",
        "transfer",
        "mock-base-scripted-chatty",
        "overall: all tasks",
        "Noise:",
    ):
        assert words in said
        assert words in (whole / "report.md").read_text()
    summary = json.loads((whole / "summary.json").read_text())
    overall = summary["groups"][-1]
    assert (overall["tasks"], overall["planned"], overall["played"]) == (18, 36, 36)
    rows = lines(whole)
    rewards = [row["reward"] for row in rows]
    assert len(rewards) == 36
    assert overall["pass_hat"]["1"]["value"] == pytest.approx(sum(rewards) / 36)
    assert 0 < sum(rewards) < 36
    for row in rows:
        assert row["termination"] == ("user_stop" if row["reward"] else "agent_error")


def test_the_manifest_names_everything_that_the_numbers_depend_on(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    part = manifest["protocol"]["telecom-test-scripted"]
    assert part["tau2"]["version"]
    assert any(name.endswith("tasks.json") for name in part["task_files"])
    assert len(part["reward_basis"]) == len(part["policy_prompt"]) == len(part["user_prompt"]) == 64
    assert part["user_model"] == "scripted"
    assert part["sampling"]["temperature"] == 1.0
    assert part["limits"]["max_turns"] == 200
    assert manifest["subject"]["kind"] == "embedded"
    assert manifest["software"]["tau2_slime"]


def test_a_run_killed_five_times_equals_an_uninterrupted_one(whole: Path, tmp_path: Path, cache: str) -> None:
    folder = tmp_path / "killed"
    rng = random.Random(11)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(
            command(*MATRIX, "--output-dir", str(folder), "--concurrency", "2"),
            env=environment(cache),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        path, wanted = folder / "simulations.jsonl", 36 * (kills + 1) // 7
        while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < wanted):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        kills += 1
    with path.open("ab") as file:  # and a line that a full disk cut in half
        file.write(b'{"dataset": "mock-base-scripted", "item": "mock/ba')
    done = evaluate(cache, *MATRIX, "--output-dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "episodes are there already" in done.stdout
    assert lines(folder) == lines(whole)


CTRL_C = """
import os, signal
from tau2_slime.cli.main import main as cli
from tau2_slime.evaluation.store.records import Store

append = Store.append

def append_and_interrupt(store, record):
    append(store, record)
    if len(store.records) == 3:
        os.kill(os.getpid(), signal.SIGINT)

Store.append = append_and_interrupt
cli()
"""
"""The command, interrupted with its third episode: whoever watches the file from outside may come too late."""


def test_ctrl_c_is_clean_and_says_how_to_go_on(whole: Path, tmp_path: Path, cache: str) -> None:
    folder = tmp_path / "stopped"
    arguments = (*MATRIX, "--output-dir", str(folder), "--concurrency", "1")
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C, "eval", *arguments],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "NOT COMPLETE" in done.stdout
    assert f"--output-dir {folder}" in done.stdout
    assert (folder / "report.md").exists()
    assert 3 <= len(lines(folder)) < 36
    assert evaluate(cache, *MATRIX, "--output-dir", str(folder)).returncode == 0
    assert lines(folder) == lines(whole)


def test_more_attempts_are_added_and_another_run_is_refused(whole: Path, tmp_path: Path, cache: str) -> None:
    small = ("--domain", "mock", "--tasks", "2", "--user-model", "scripted", "--no-baselines")
    folder = str(tmp_path / "x")
    assert evaluate(cache, *small, "--attempts", "1", "--output-dir", folder).returncode == 0
    done = evaluate(cache, *small, "--attempts", "3", "--output-dir", folder)
    assert done.returncode == 0
    assert len(lines(Path(folder))) == 6
    done = evaluate(cache, *small, "--set", "max_steps=7", "--output-dir", folder)
    assert done.returncode == 2
    assert "mock-base-scripted.limits.max_steps: 200 there, 7 now" in done.stderr.replace("\n", " ")


def test_a_folder_takes_in_another_dataset_and_each_command_is_complete_for_itself(tmp_path: Path, cache: str) -> None:
    folder = tmp_path / "x"
    first, second = (
        ("--domain", domain, "--tasks", "3", "--user-model", "scripted", "--attempts", "1", "--output-dir", str(folder))
        for domain in ("mock", "telecom")
    )
    assert evaluate(cache, *first).returncode == 0
    alone = json.loads((folder / "baselines.json").read_text())
    assert evaluate(cache, *second).returncode == 0
    both = json.loads((folder / "baselines.json").read_text())
    assert len(both) == 6 and both.items() >= alone.items()
    records = (folder / "simulations.jsonl").read_text().splitlines(keepends=True)
    (folder / "simulations.jsonl").write_text("".join(line for line in records if '"domain": "telecom"' in line))
    done = evaluate(cache, *second, "--fail-under", "0.5")
    assert done.returncode == 0, done.stdout
    assert "mock-base-scripted: 0 of 3 episodes; the command that played it goes on with it" in done.stdout
    assert evaluate(cache, *first).returncode == 0


def test_a_score_at_the_limit_passes() -> None:
    attempts = {0: 0, 1: 1, 2: 5}  # 6 of 15
    units = [Unit("d", "m", f"m/b/{task}", "u", (1.0,) * c + (0.0,) * (5 - c)) for task, c in attempts.items()]
    summary: Any = SimpleNamespace(overall=SimpleNamespace(scores=scores(units)))
    for limit, status in (("0.4", 0), ("pass@1=0.4", 0), ("0.4001", 1)):
        assert check_thresholds(summary, [parse_threshold(limit)], Console(quiet=True)) == status
    assert pass_at(5, 1, 1) == 0.2


def test_exit_status_for_ci(tmp_path: Path, cache: str) -> None:
    small = ("--domain", "mock", "--tasks", "2", "--attempts", "2", "--user-model", "scripted")
    folder = str(tmp_path / "x")
    assert evaluate(cache, *small, "--output-dir", folder, "--fail-under", "1.0").returncode == 0
    low = ("--gold-rate", "0", "--output-dir", str(tmp_path / "y"))
    done = evaluate(cache, *small, *low, "--fail-under", "pass@2=0.1")
    assert done.returncode == 1
    assert "pass@2 is 0.000, below 0.1" in done.stdout
    assert evaluate(cache, "--fail-under", "much").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "airlin"), "domain='airlin' is unknown"),
        (("--router", "http://127.0.0.1:9", "--hf-checkpoint", "/nowhere", "--domain", "mock"), "/nowhere"),
        (("--router", "http://127.0.0.1:9", "--domain", "mock"), "--hf-checkpoint"),
        (("--domain", "mock", "--user-model", "scripted-loud"), "scripted-terse"),
        (("--domain", "mock", "--user-model", "gpt-4o-mini"), "--set user_model=scripted"),
        (("--policy-model", "gpt-4o-mini", "--domain", "mock"), "policy model 'gpt-4o-mini' needs its key"),
        (("--domain", "mock", "--set", "max_turn=3"), "did you mean 'max_turns'"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--config", "x.yaml", "--domain", "mock"), "the config file's business"),
        (("--policy-model", "m", "--policy-args", "{x"), "--policy-args is not JSON"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, cache: str, arguments: tuple[str, ...], said: str) -> None:
    done = evaluate(cache, *arguments, "--output-dir", str(tmp_path / "x"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--policy-args", '{"extra_headers": {"Authorization": "Bearer sk-secret"}}'),
        ("--policy-base-url", "http://me:sk-secret@127.0.0.1:9/v1"),
        ("--policy-api-key-var", "sk-secret"),
    ],
)
def test_a_policys_key_is_refused_and_not_repeated(tmp_path: Path, option: str, value: str) -> None:
    request = Request(tmp_path / "x", domains=["mock"], policy_model="openai/m")
    name = option.removeprefix("--").replace("-", "_")
    setattr(request, name, json.loads(value) if name == "policy_args" else value)
    with pytest.raises(ConfigError, match="variable") as caught:
        make_policy(request, make_plan(request))
    assert "sk-secret" not in str(caught.value)


def test_a_dead_router_is_told_before_anything_is_played(tmp_path: Path, cache: str) -> None:
    from tau2_slime.local.tokenizer import local_checkpoint

    checkpoint = str(local_checkpoint())
    done = evaluate(
        cache,
        *("--router", "http://127.0.0.1:9", "--hf-checkpoint", checkpoint, "--domain", "mock"),
        *("--output-dir", str(tmp_path / "x")),
    )
    assert done.returncode == 2
    assert "nothing answers at http://127.0.0.1:9" in done.stderr.replace("\n", " ")
