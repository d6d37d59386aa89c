"""How often each task was solved, over any number of runs of any kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tau2_slime.config.task_split import names_a_file
from tau2_slime.inspector.changed_tasks import refuse_changed_tasks
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import SUCCESS

_Z = 1.959963984540054
"""Of a normal variable, 95 % lie within so many standard deviations."""


class TaskKey(NamedTuple):
    domain: str
    split: str
    """As the run recorded it; empty where it did not."""
    task_id: str


@dataclass
class Attempts:
    """What the runs say of one task."""

    rewards: list[float] = field(default_factory=list)
    """τ²'s, of the episodes that count."""
    excluded: int = 0
    """Episodes that the simulator or the infrastructure spoilt."""
    groups: dict[str, list[bool]] = field(default_factory=dict)
    """Run and group -> which of its episodes solved the task."""
    split: str = ""
    """The first that a run recorded for it."""

    @property
    def solved(self) -> int:
        return sum(reward >= SUCCESS for reward in self.rewards)

    @property
    def rate(self) -> float | None:
        """The share of episodes that solved the task; None without any."""
        return self.solved / len(self.rewards) if self.rewards else None

    @property
    def mixed(self) -> tuple[int, int]:
        """(groups in which some episodes solved it and some did not, groups of two episodes or more)."""
        several = [found for found in self.groups.values() if len(found) > 1]
        return sum(len(set(found)) > 1 for found in several), len(several)


def wilson(solved: int, count: int) -> tuple[float, float]:
    """The 95 % score interval (Wilson 1927) of a share; from 0 to 1 without any attempt.

    >>> [round(bound, 3) for bound in wilson(1, 2)]
    [0.095, 0.905]
    """
    if not count:
        return 0.0, 1.0
    share, square = solved / count, _Z * _Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def attempts_of(runs: Sequence[Path]) -> tuple[dict[TaskKey, Attempts], list[str]]:
    """Every task that the runs played, and one line for each row of theirs that cannot be read.

    Raises:
        ConfigError: a path holds no run, or one of tasks that have changed in their file since.
    """
    found: dict[TaskKey, Attempts] = {}
    unreadable: list[str] = []
    for run in runs:
        episodes = read_episodes(run)
        unreadable += [f"{run}: {line}" for line in episodes.unreadable]
        refuse_changed_tasks(run, episodes.trajectories, "or curate only runs over the file as it is")
        _count(found, run, episodes.trajectories)
    return by_recorded_split(found), unreadable


def attempts_at(found: dict[TaskKey, Attempts], domain: str, split: str, task_id: str) -> Attempts:
    """Those of one task in ``found``. A task of τ² is the same in all splits; one's own is another in each file."""
    task = found.setdefault(TaskKey(domain, split if names_a_file(split) else "", task_id), Attempts())
    task.split = task.split or split
    return task


def by_recorded_split(found: dict[TaskKey, Attempts]) -> dict[TaskKey, Attempts]:
    """``found`` of `attempts_at`, with the split by which each task is found again."""
    return {TaskKey(key.domain, task.split, key.task_id): task for key, task in found.items()}


def _count(found: dict[TaskKey, Attempts], run: Path, trajectories: Iterable[Trajectory]) -> None:
    for one in trajectories:
        if not one.task_id:
            continue  # it ended before its task was known
        task = attempts_at(found, one.domain, one.task_split, one.task_id)
        reward = one.counted_reward
        if reward is None:
            task.excluded += 1
            continue
        task.rewards.append(reward)
        if one.group:
            task.groups.setdefault(f"{run} {one.group}", []).append(reward >= SUCCESS)
