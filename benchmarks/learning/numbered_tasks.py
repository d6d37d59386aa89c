"""Tasks of one kind in number: "mark task_417 as completed", each with its own world. Some are kept out of all training.

A policy that has learned answers by heart earns nothing on those. One that copies the number out of the conversation does.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SEEN, UNSEEN = 300, 200
"""Tasks for the warm start and reinforcement learning, and tasks that neither sees."""


def write(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write the task file. The ids of the seen and of the unseen tasks; they are the same in every call."""
    numbers = random.Random(0).sample(range(100, 1000), SEEN + UNSEEN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([_task(number) for number in sorted(numbers)]), encoding="utf-8")
    ids = tuple(f"update_{number}" for number in numbers)
    return ids[:SEEN], ids[SEEN:]


def _task(number: int) -> dict[str, Any]:
    others = {number, 100 + (number + 1) % 900, 100 + (number + 10) % 900, 100 + (number + 100) % 900}
    tasks = {
        f"task_{other}": {"task_id": f"task_{other}", "title": "A task", "description": None, "status": "pending"}
        for other in sorted(others)
    }
    words = f"You have done a task and want to update its status. Request that task_{number} be marked as completed."
    arguments = {"task_id": f"task_{number}", "status": "completed"}
    return {
        "id": f"update_{number}",
        "user_scenario": {"instructions": words},
        "initial_state": {
            "initialization_data": {
                "agent_data": {"tasks": tasks, "users": {"user_1": {"tasks": ["task_1", *tasks]}}},
            }
        },
        "evaluation_criteria": {
            "actions": [{"action_id": "update", "name": "update_task_status", "arguments": arguments}]
        },
    }
