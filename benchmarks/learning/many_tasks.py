"""The same policy on tasks in number, and on tasks that nobody trained on: a task file of `tau2-slime synth`.

Each task is to create one task of mock with a title that the user says. Verb, thing and date of the titles come back in
other combinations, so a title that no episode has shown can be copied but not remembered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.learning.settings import Settings, WarmStart

TASKS = 144
UNSEEN = 48
"""So many of them are in neither the warm start nor reinforcement learning."""


def tasks(cache: Path) -> tuple[str, list[str]]:
    """The split of the task file, made only if ``cache`` does not hold it, and the ids of its tasks."""
    folder = cache / "tasks"
    if not (folder / "tasks.json").is_file():
        command = [sys.executable, "-m", "tau2_slime.cli", "synth", "--domain", "mock", "--difficulty", "easy"]
        command += ["--num-samples", str(TASKS), "--output-dir", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    path = folder / "tasks.json"
    return f"file:{path}", [str(task["id"]) for task in json.loads(path.read_text(encoding="utf-8"))]


def warm_start(split: str, ids: list[str]) -> WarmStart:
    """Fewer episodes of each task than with four tasks, and more steps: copying takes longer to learn than four answers."""
    return WarmStart(task_split=split, tasks=tuple(ids[:-UNSEEN]), attempts=8, steps=1200)


def settings(split: str, ids: list[str], base: Settings) -> Settings:
    """``base`` on these tasks. Groups are of other tasks in every step."""
    given = {"task_split": split, "train_tasks": tuple(ids[:-UNSEEN]), "held_out": tuple(ids[-UNSEEN:])}
    return Settings(**{**vars(base), **given, "eval_attempts": 1, "final_attempts": 4})
