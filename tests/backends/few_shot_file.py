"""A file of examples for the doors' tests, and what must be so of the prompt that shows them."""

from __future__ import annotations

import json
from pathlib import Path

from tau2_slime.world import domains

PLAYED = "create_task_1"
COUNT = 2


def write(path: Path) -> Path:
    """Three tasks of mock, the played one among them; each says its own id."""
    others = [task.id for task in domains.tasks("mock", "base") if task.id != PLAYED][:COUNT]
    rows = [
        {
            "domain": "mock",
            "task_split": "base",
            "task_id": task_id,
            "messages": [
                {"role": "user", "content": f"I want what {task_id!r} says."},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "get_users", "arguments": {"of": task_id}}}],
                },
                {"role": "tool", "content": "[]"},
                {"role": "assistant", "content": "Done."},
            ],
        }
        for task_id in [PLAYED, *others]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def assert_shown(prompt: str) -> None:
    """Both examples of other tasks, none of the task that is played."""
    assert prompt.count("## Example ") == COUNT and f"I want what {PLAYED!r} says." not in prompt
    assert prompt.count("I want what '") == COUNT and prompt.count("Result: []") == COUNT
    assert prompt.count('"get_users"') >= COUNT, "calls are told, too"
