"""`rollout` and `eval` take the same words for who plays and how it is sampled, and both keep them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tau2_slime.cli.commands import app
from tau2_slime.cli.help import _GROUPS
from tau2_slime.inspector.shown import only_placeholders
from tau2_slime.inspector.sources import read_episodes
from tests.evaluation.api_server import ApiServer, gold
from tests.test_cli import rows, tau2_slime

SAMPLING = ("--temperature", "0.3", "--top-p", "0.9", "--max-new-tokens", "200")
MOCK = ("-d", "mock", "--user-model", "scripted", "--task-ids", "create_task_1", "--max-turns", "200")


def options(command: str) -> dict[str, str]:
    """Option's name -> its help."""
    found = get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {parameter.name: parameter.help for parameter in found}


@pytest.mark.fast
def test_both_commands_have_the_same_options_for_agent_and_user() -> None:
    of_rollout, of_eval = options("rollout"), options("eval")
    about = {name for group in ("Agent", "User") for name in _GROUPS[group].split()} - {"seat", "user_model"}
    assert about - of_rollout.keys() == {"policy_name"}  # a rollout has no report
    assert about - of_eval.keys() == set()
    shared = about & of_rollout.keys()
    assert len(shared) > 20
    assert {name: of_rollout[name] for name in shared} == {name: of_eval[name] for name in shared}


async def played(folder: Path, *arguments: str) -> tuple[list[dict[str, Any]], Any]:
    """What an API that plays gold was asked for, and how the command ended."""
    async with ApiServer(gold) as server:
        policy = ("--policy-model", "openai/some-model", "--policy-base-url", server.url)
        done = await asyncio.to_thread(tau2_slime, *arguments, *policy, "-o", str(folder))
        return server.requests, done


@pytest.mark.parametrize("command", ["rollout", "eval"])
async def test_what_is_typed_reaches_the_model_and_the_records(tmp_path: Path, command: str) -> None:
    typed = (command, *MOCK, *SAMPLING, *(("--split", "base", "--attempts", "1") if command == "eval" else ()))
    requests, done = await played(tmp_path / "out", *typed)
    assert done.returncode == 0, done.stderr
    assert {(r["temperature"], r["top_p"], r["max_tokens"]) for r in requests} == {(0.3, 0.9, 200)}
    if command == "rollout":
        kept = json.loads((tmp_path / "out" / "rollout.json").read_text())["sampling"]
    else:
        (protocol,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["protocol"].values()
        kept = protocol["sampling"]
    assert (kept["temperature"], kept["top_p"], kept["max_new_tokens"]) == (0.3, 0.9, 200)
    other = tau2_slime(
        *typed[:-1], "1", *SAMPLING[:1], "0.4", "-o", str(tmp_path / "out"), "--policy-model", "openai/x"
    )
    assert other.returncode == 2 and "another" in other.stderr, other.stderr


async def test_a_rollout_of_a_model_behind_an_api_has_everything_but_tokens(tmp_path: Path) -> None:
    folder, names = tmp_path / "out", ("--task-ids", "create_task_1", "update_task_1", "--attempts", "2")
    seed = ("--policy-args", '{"seed": 5}')
    requests, done = await played(folder, "rollout", *MOCK[:4], *names, *seed, "--max-turns", "200")
    assert done.returncode == 0, done.stderr
    assert "mean reward 1.000, 0 failed" in done.stdout and "to see every message" in done.stdout
    assert len({request["seed"] for request in requests}) == 4, "attempts differ"
    found = read_episodes(folder)
    assert [one.reward for one in found.trajectories] == [1.0] * 4 and all(map(only_placeholders, found.trajectories))
    assert json.loads((folder / "rollout.json").read_text())["policy"]["model"] == "openai/some-model"
    assert len({row["stats"]["seeds"]["policy"] for row in rows(folder / "trajectories.jsonl")}) == 4
    other = tau2_slime("rollout", *MOCK[:4], *names, "--max-turns", "200", "-o", str(folder))
    assert other.returncode == 2 and "it differs in policy" in other.stderr
    # what a teacher said becomes examples
    shots = tau2_slime("export", str(folder), "--format", "examples", "--output-dir", str(tmp_path / "shots"))
    assert shots.returncode == 0, shots.stderr
    assert len(rows(tmp_path / "shots" / "examples.jsonl")) == 2


async def test_a_file_s_sampling_gives_way_to_what_is_typed(tmp_path: Path) -> None:
    row = {"prompt": "x", "metadata": {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "c.yaml").write_text(
        f"eval:\n  defaults: {{temperature: 0.9, top_p: 0.5}}\n  datasets:\n  - {{name: d, path: {tmp_path}/d.jsonl}}\n"
    )
    typed = ("eval", "--config", str(tmp_path / "c.yaml"), "--set", "user_model=scripted", "--temperature", "0.3")
    requests, done = await played(tmp_path / "out", *typed)
    assert done.returncode == 0, done.stderr
    assert {(r["temperature"], r["top_p"]) for r in requests} == {(0.3, 0.5)}


@pytest.mark.parametrize("command", ["rollout", "eval"])
@pytest.mark.parametrize("habit", [("--gold-rate", "0"), ("--mistakes", "1"), ("--policy-noise", "1")])
def test_the_embedded_policy_errs_in_both(tmp_path: Path, command: str, habit: tuple[str, str]) -> None:
    typed = ("-d", "retail", "--task-ids", "2", "3", "--split", "train", *habit, "-o", str(tmp_path / "out"))
    done = tau2_slime(command, *typed, *(("--user-model", "scripted") if command == "eval" else ()))
    assert done.returncode == 0, done.stderr
    if command == "rollout":
        earned = [row["reward"] for row in rows(tmp_path / "out" / "trajectories.jsonl")]
        kept = json.loads((tmp_path / "out" / "rollout.json").read_text())["policy"]
    else:
        earned = [row["reward"] for row in rows(tmp_path / "out" / "simulations.jsonl")]
        kept = json.loads((tmp_path / "out" / "manifest.json").read_text())["subject"]
    assert len(earned) >= 2 and 0.0 in earned
    assert habit[0] == "--policy-noise" or set(earned) == {0.0}  # some noise does no harm
    name = habit[0].removeprefix("--").replace("-", "_")
    assert kept["noise" if name == "policy_noise" else name] == float(habit[1])
