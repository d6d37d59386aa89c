"""Official and self-made tasks for the tests of `tau2_slime.synth`."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.world import domains, tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

NEWER = os.environ.get("TAU2_SLIME_NEWER_TAU2_DATA")
"""``data/tau2/domains`` of a newer τ², for the tests over upstream's corrected task files."""


@cache
def official(domain: str) -> dict[str, Task]:
    """Every task of the installed τ², by id."""
    return {task.id: task for split in domains.splits(domain) for task in domains.tasks(domain, split)}


@cache
def newer(domain: str) -> dict[str, Task]:
    """Every task of upstream's newer files, by id."""
    assert NEWER is not None
    rows = json.loads((Path(NEWER) / domain / "tasks.json").read_text(encoding="utf-8"))
    validate = tau2_compat.load().Task.model_validate
    return {task.id: task for task in map(validate, rows)}


def row_of(task: Task) -> dict[str, Any]:
    """The task as a row of a task file."""
    row: dict[str, Any] = json.loads(task.model_dump_json())
    return row


def make_row(
    domain: str, task_id: str, reason: str, known: str, actions: list[tuple[str, dict[str, Any]]], **more: Any
) -> dict[str, Any]:
    """A native row with text and gold; ``more``: communicate_info, task_instructions, initial_state."""
    return {
        "id": task_id,
        "user_scenario": {
            "instructions": {
                "domain": domain,
                "reason_for_call": reason,
                "known_info": known,
                "unknown_info": None,
                "task_instructions": more.get("task_instructions", "You are brief."),
            }
        },
        "initial_state": more.get("initial_state"),
        "evaluation_criteria": {
            "actions": [
                {"action_id": f"{task_id}_{i}", "requestor": "assistant", "name": name, "arguments": arguments}
                for i, (name, arguments) in enumerate(actions)
            ],
            "communicate_info": more.get("communicate_info", []),
            "reward_basis": ["DB", "COMMUNICATE"],
        },
    }
