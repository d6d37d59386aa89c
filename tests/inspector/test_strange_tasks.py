"""Files that bring tasks of their own, names of 200 characters, checks that a failed call meets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.inspector import terminal
from tau2_slime.inspector.database_diff import compare_with_gold
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.world import domains


def results(task_id: str) -> dict[str, Any]:
    """One run of a task of mock that no release of τ² has."""
    task = domains.tasks("mock", "base")[0].model_dump(mode="json") | {"id": task_id}
    call = {
        "id": "1",
        "name": "create_task",
        "arguments": {"user_id": "user_1", "title": "Another"},
        "requestor": "assistant",
    }
    run = {
        "id": "x",
        "task_id": task_id,
        "trial": 0,
        "termination_reason": "user_stop",
        "reward_info": {"reward": 0.0, "action_checks": [{"action_match": True}]},
        "messages": [
            {"role": "assistant", "content": "Hi!"},
            {"role": "user", "content": "Create a task."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "id": "1", "content": "{}", "requestor": "assistant", "error": False},
            {"role": "user", "content": "###STOP###"},
        ],
    }
    info = {"environment_info": {"domain_name": "mock"}}
    return {"info": info, "tasks": [task], "simulations": [run]}


def test_the_database_is_compared_by_the_files_own_task(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results("only in this file")))
    diff = compare_with_gold(read_episodes(path).trajectories[0])
    titles = [(change.here, change.gold) for change in diff.changes if change.path.endswith("title")]
    assert any("Another" in here and "Another" not in gold for here, gold in titles), diff.note


def test_a_name_of_200_characters_leaves_room_for_the_other_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results("[mms_issue]" + "airplane_mode_on|" * 12)))
    monkeypatch.setenv("COLUMNS", "100")
    terminal.show_list(read_episodes(path).trajectories)
    head, line, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["episode", "domain", "task", "msgs", "sampled", "errors", "reward", "ended"]
    assert "mock" in line and line.rstrip().endswith("user_stop")
    assert any("checks/actions (calls made, also those that failed)" in each for each in rest)
