"""What a diagnosis says of each task: how the agent fails at it, and whether its label is to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tau2_slime.diagnosis.faults import Judged, read_judged
from tau2_slime.diagnosis.findings import Who
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.curation.attempts import Attempts, TaskKey, attempts_at, by_recorded_split
from tau2_slime.outcome import SUCCESS


class Kind(NamedTuple):
    """What failures of the agent have in common."""

    what: str
    tool: str
    argument: str


@dataclass
class Failures:
    """Of one task."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    """The agent's, each with its episodes."""
    label: str = ""
    """What is wrong with the task itself; empty if nothing is."""
    weight: float = 0.0
    """Share of all failures of the agent in the domain that are of the kinds at which this task fails, 0 to 1."""

    def plain(self) -> dict[str, object]:
        """As the report has it."""
        named = (" ".join(filter(None, kind)) for kind, _ in self.kinds.most_common())
        return {"weight": round(self.weight, 4), "kinds": list(named)}


def failures_of(paths: Sequence[Path]) -> tuple[dict[tuple[str, str], Failures], dict[TaskKey, Attempts]]:
    """(domain, task) -> how the agent fails at it; and how often each task was solved, as far as ``paths`` say it.

    Args:
        paths: runs, ``diagnosis.jsonl``, ``steer.json``; a steering file names tasks and no attempts.

    Raises:
        ConfigError: a file is none of these, or the agent fails nowhere in them.
    """
    found: dict[tuple[str, str], Failures] = {}
    attempts: dict[TaskKey, Attempts] = {}
    totals: dict[str, dict[Kind, float]] = {}
    for path in paths:
        for one in read_judged(path):
            kind = Kind(one.what, one.tools[0] if one.tools else "", one.argument)
            if one.steers:
                of_domain = totals.setdefault(one.domain, {})
                of_domain[kind] = of_domain.get(kind, 0.0) + one.count
            for task in one.tasks:
                failures = found.setdefault((one.domain, task), Failures())
                if one.steers:
                    failures.kinds[kind] += 1
                elif one.who == Who.TASK.value:
                    failures.label = one.what
            if not one.is_cluster:
                _count(attempts, one, str(path))
    if not totals:
        raise ConfigError(f"--from-diagnosis {', '.join(map(str, paths))}: no failure of the agent in it")
    for (domain, _), failures in found.items():
        of_domain = totals.get(domain, {})
        failures.weight = sum(of_domain[kind] for kind in failures.kinds) / (sum(of_domain.values()) or 1)
    return found, by_recorded_split(attempts)


def _count(attempts: dict[TaskKey, Attempts], one: Judged, run: str) -> None:
    """Add an episode; one that somebody else spoilt does not count."""
    task = attempts_at(attempts, one.domain, one.split, one.tasks[0])
    if one.reward is None or one.who not in (Who.NONE.value, Who.AGENT.value):
        task.excluded += 1
        return
    task.rewards.append(one.reward)
    task.groups.setdefault(run, []).append(one.reward >= SUCCESS)
