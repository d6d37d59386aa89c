"""`export --format leaderboard`: what τ²'s own `submit` tools accept, and what does not compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tau2_slime.cli.commands import app
from tau2_slime.evaluation.report.leaderboard import DOMAINS
from tau2_slime.world import domains
from tests.evaluation.folders import PART

HELLO = [{"role": "assistant", "content": "Hi! How can I help you today?"}, {"role": "user", "content": "###STOP###"}]


def record(domain: str, task_id: str, attempt: int, reward: float) -> dict[str, Any]:
    return {
        **{
            "dataset": domain,
            "item": f"{domain}/base/{task_id}",
            "attempt": attempt,
            "domain": domain,
            "task_split": "base",
        },
        **{"task_id": task_id, "repeat": 0, "agent_type": "llm", "user_model": "gpt-4.1", "status": "completed"},
        **{"termination": "user_stop", "blame": "agent", "detail": "", "excluded": False, "reward": reward},
        "reward_info": {"reward": reward, "reward_breakdown": {"DB": reward}},
        "tokens": {"prompt": 4000, "sampled": 150, "context": 700},
        "cost": {"policy": 0.5, "user": 0.002},
        **{"tries": [], "stats": {}, "rejected_calls": {}, "messages": HELLO},
        "clock": {"total_time": 1.5, "messages": ["2026-01-01T00:00:00"] * len(HELLO)},
    }


def evaluation(
    folder: Path,
    change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda one: one,
    subject: dict[str, Any] | None = None,
    **part: Any,
) -> Path:
    """All base tasks of all domains, four attempts; the first is solved. ``change``: another record, or None for none."""
    items = {d: [f"{d}/base/{task.id}" for task in domains.tasks(d, "base")] for d in DOMAINS}
    manifest = {
        "format": 1,
        "subject": subject or {"kind": "litellm", "name": "gpt-x", "model": "openai/gpt-x"},
        "protocol": {
            d: {**PART, "domains": [f"{d}/base"], "user_model": "gpt-4.1", "tasks": names, "attempts": 4, **part}
            for d, names in items.items()
        },
        **{"software": {"tau2_slime": "0"}, "source": "test"},
    }
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = (
        change(record(d, task.id, attempt, float(attempt == 0)))
        for d in DOMAINS
        for task in domains.tasks(d, "base")
        for attempt in range(4)
    )
    lines = (json.dumps(one) + "\n" for one in made if one is not None)
    (folder / "simulations.jsonl").write_text("".join(lines))
    return folder


def submit(folder: Path, out: Path) -> Any:
    who = ["--organization", "A lab", "--email", "a@b.org"]
    return CliRunner().invoke(app, ["export", str(folder), "--format", "leaderboard", "--output-dir", str(out), *who])


def test_tau2s_own_tools_accept_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tau2.scripts.leaderboard.prepare_submission import validate_submission

    result = submit(evaluation(tmp_path / "run"), tmp_path / "out")
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    validate_submission(str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert "All files passed all checks" in said
    assert "Submission metrics validation successful" in said
    assert "❌" not in said
    submission = json.loads((tmp_path / "out" / "submission.json").read_text())
    for domain in DOMAINS:  # one of four attempts solves each task: pass^1 is a quarter, pass^2 nothing
        assert (submission["results"][domain]["pass_1"], submission["results"][domain]["pass_2"]) == (25.0, 0.0)
        assert submission["results"][domain]["cost"] == 0.5
    assert submission["methodology"]["notes"].startswith("standard")
    assert submission["methodology"]["user_simulator"] == "gpt-4.1"


def test_trained_weights_are_custom_and_everything_that_does_not_compare_is_named(tmp_path: Path) -> None:
    def spoilt(one: dict[str, Any]) -> dict[str, Any] | None:
        if one["domain"] == "telecom":
            return None
        if one["task_id"] == "3" and one["domain"] == "retail":
            return {**one, "excluded": True, "blame": "user", "reward": None, "reward_info": None}
        return {**one, "termination": "max_turns"} if one["task_id"] == "4" and one["attempt"] == 0 else one

    own = {"kind": "sglang", "name": "mine", "checkpoint": "/ckpt/mine"}
    result = submit(evaluation(tmp_path / "run", spoilt, own, user_model="scripted", attempts=3), tmp_path / "out")
    said = str(result.exception)
    for words in (
        *("there are no episodes of telecom", "run retail retail: spoilt episodes: 3 by the user"),
        *(
            "run airline airline: episodes cut off by max_turns, which τ² does not have: 1",
            "3 attempts a task; pass^4 needs 4",
        ),
        *("the user 'scripted' is not a model", "run retail retail: Missing tasks: {'3'}"),
    ):
        assert words in said
    assert not (tmp_path / "out").exists()
    fine = submit(evaluation(tmp_path / "custom", subject=own), tmp_path / "made")
    assert "custom submission" in fine.output, fine.exception
    notes = json.loads((tmp_path / "made" / "submission.json").read_text())["methodology"]["notes"]
    assert notes.startswith("custom: weights served by sglang (/ckpt/mine)")


def test_what_is_missing_on_the_command_line_is_named(tmp_path: Path) -> None:
    arguments = ["export", str(tmp_path), "--format", "leaderboard", "--output-dir", str(tmp_path / "o")]
    assert "needs --organization and --email" in str(CliRunner().invoke(app, arguments).exception)
    filtered = CliRunner().invoke(app, [*arguments, "--only", "none"])
    assert "a submission is whole" in str(filtered.exception)
