"""`tau2-slime` as its user runs it: a process, its output, its exit status, the files that it leaves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import command_line


def tau2_slime(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_") and k != "OPENAI_API_KEY"}
    return command_line.run(*arguments, environ={**keep, "COLUMNS": "100", **environ})


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_embedded_rollout_plays_gold_and_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tau2_slime("rollout", "--domain", "mock", "--domain", "telecom", "--groups", "2", "--output-dir", str(out))
    assert done.returncode == 0, done.stderr
    assert "mean reward 1.000, 0 failed" in done.stdout
    assert str(out) in done.stdout.replace("\n", "")
    assert f"tau2-slime inspect {out}" in done.stdout  # the next step
    for word in ("domain", "task", "turns", "sampled", "context", "reward", "ended", "create_task_1", "user_stop"):
        assert word in done.stdout
    samples, trajectories = rows(out / "samples.jsonl"), rows(out / "trajectories.jsonl")
    assert len(samples) == len(trajectories) == 4
    for sample in samples:
        assert sample["status"] == "completed"
        assert sample["reward"] == 1.0
        assert len(sample["loss_mask"]) == len(sample["rollout_log_probs"]) == sample["response_length"]
    by_index = {row["index"]: row for row in trajectories}
    for sample in samples:
        row = by_index[sample["index"]]
        assert row["ledger"]["tokens"] == sample["tokens"]
        assert row["reward"] == 1.0
        assert row["stats"]["drift"]["environment_mismatches"] == 0
        assert [m["role"] for m in row["messages"]][:2] == ["assistant", "user"]
    assert json.loads((out / "summary.json").read_text())["episodes"] == 4


def test_mistakes_give_groups_with_spread(tmp_path: Path) -> None:
    done = tau2_slime(
        *("rollout", "--domain", "mock", "--task-id", "update_task_1", "--samples-per-prompt", "20"),
        *("--mistakes", "0.5", "--output-dir", str(tmp_path / "out")),
    )
    samples = rows(tmp_path / "out" / "samples.jsonl")
    assert len(samples) == 20, done.stderr
    assert {s["group_index"] for s in samples} == {0}
    assert {s["reward"] for s in samples if not s["remove_sample"]} == {0.0, 1.0}


def test_imperfect_data_is_made_on_purpose(tmp_path: Path) -> None:
    """Spelling 0: every sampled turn is what the tokenizer writes. Noise: some episodes recover, some don't."""
    done = tau2_slime(
        *("rollout", "--domain", "mock", "--task-id", "update_task_1", "--task-id", "impossible_task_1"),
        *(
            "--samples-per-prompt",
            "24",
            "--policy-noise",
            "0.8",
            "--spelling",
            "0",
            "--output-dir",
            str(tmp_path / "out"),
        ),
    )
    assert done.returncode == 0, done.stderr
    trajectories = rows(tmp_path / "out" / "trajectories.jsonl")
    assert {t["reward"] for t in trajectories} == {0.0, 1.0}
    assert any(t["reward"] == 1 and set(t["stats"]["tool_calls"]) - {"ok"} for t in trajectories)
    assert {t["stats"]["drift"]["retokenised_turns"] for t in trajectories} == {0}


def test_solo_and_gt_agents_play(tmp_path: Path) -> None:
    for agent_type in ("solo", "gt"):
        out = tmp_path / agent_type
        done = tau2_slime(
            *("rollout", "--domain", "mock", "--task-id", "create_task_1", "--agent-type", agent_type),
            *("--output-dir", str(out)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert rows(out / "samples.jsonl")[0]["reward"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["rollout", "--domain", "moc"], {}, ["domain='moc'", "airline", "retail"]),
        (["rollout", "--domain", "mock", "--split", "train"], {}, ["task_split='train'", "base"]),
        (
            ["rollout", "--domain", "mock", "--task-id", "create_tsk_1"],
            {},
            ["create_tsk_1", "did you mean", "create_task_1"],
        ),
        (["rollout", "--router", "http://127.0.0.1:9"], {}, ["--hf-checkpoint"]),
        (["rollout", "--router", "nonsense", "--hf-checkpoint", "x"], {}, ["http://host:port"]),
        (["rollout", "--hf-checkpoint", "/nowhere"], {}, ["/nowhere", "tokenizer"]),
        (["rollout"], {"TAU2_USER_MODELL": "x"}, ["TAU2_USER_MODELL", "user_model"]),
        (["rollout"], {"TAU2_MAX_STEPS": "many"}, ["TAU2_MAX_STEPS", "'many'"]),
        (["rollout", "--config", "/nowhere.yaml"], {}, ["/nowhere.yaml"]),
        (["rollout", "--user-model", "gpt-4o-mini"], {}, ["gpt-4o-mini", "OPENAI_API_KEY", "not set"]),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], words: list[str]
) -> None:
    out = tmp_path / "out"
    done = tau2_slime(*arguments, "--output-dir", str(out), **environ)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("tau2-slime: ")
    for word in words:
        assert word in message
    assert not out.exists()


def test_an_earlier_rollout_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("paid for\n")
    done = tau2_slime("rollout", "--domain", "mock", "--output-dir", str(tmp_path))
    assert done.returncode == 2
    assert "holds a rollout already" in done.stderr and "--output-dir" in done.stderr
    assert (tmp_path / "samples.jsonl").read_text() == "paid for\n"


def test_a_log_file_is_wide_enough_for_names(tmp_path: Path) -> None:
    """Where no terminal says how wide it is, telecom's names still differ."""
    environ = {"COLUMNS": "", "TERM": "dumb"}
    done = tau2_slime("rollout", "--domain", "telecom", "--output-dir", str(tmp_path / "out"), **environ)
    names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("telecom")]
    assert len(set(names)) == 3, done.stdout


def test_config_file_with_an_unknown_key_names_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("tau2:\n  max_turn: 3\n")
    done = tau2_slime("rollout", "--config", str(path))
    assert done.returncode == 2
    assert "max_turn" in done.stderr
    assert "did you mean 'max_turns'" in done.stderr


def test_what_the_settings_say_counts_with_the_embedded_policy(tmp_path: Path) -> None:
    """TAU2_DOMAIN and the file's max_turns were ignored there once."""
    path, out = tmp_path / "c.yaml", tmp_path / "out"
    path.write_text("tau2: {max_turns: 2, user_model: scripted-terse}\n")
    options = ("--config", str(path), "--groups", "1", "--output-dir", str(out))
    done = tau2_slime("rollout", *options, TAU2_DOMAIN="mock")
    (played,) = rows(out / "trajectories.jsonl")
    assert (played["domain"], played["termination"], played["user_model"]) == ("mock", "max_turns", "scripted-terse")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["tasks"]])
def test_no_arguments_show_the_help_as_it_is_meant(arguments: list[str]) -> None:
    done = tau2_slime(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: tau2-slime") and "\n\n" in done.stderr and "\\n" not in done.stderr
