"""Failures of a run that are alike, how many there are, and whether other attempts of the same tasks do it right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tau2_slime.diagnosis.faults import rule_broken, tools_at_stake
from tau2_slime.diagnosis.findings import Diagnosis, Who
from tau2_slime.inspector.curves import Interval
from tau2_slime.outcome import SUCCESS

EXAMPLES = 5
"""Episodes that a cluster names."""


class Kind(NamedTuple):
    """What failures have in common. Sorting puts kinds in the order of a table."""

    domain: str
    who: str
    what: str
    tool: str
    about: str
    """The argument's path, or the policy's clause; empty if neither says more."""


@dataclass(frozen=True)
class Cluster:
    """Failures of one kind."""

    kind: Kind
    members: tuple[Diagnosis, ...]
    failures: int
    """Of the whole run."""
    low: float
    high: float
    """95 % limits of the share of all episodes that fail like this."""
    unreliable: tuple[str, ...]
    """Tasks that another attempt of the run does right: the skill is there, and not always used."""
    missing: tuple[str, ...]
    """Tasks that no attempt does right."""

    @property
    def count(self) -> int:
        return len(self.members)

    @property
    def share(self) -> float:
        """Of the run's failures."""
        return self.count / self.failures if self.failures else 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.key.task_id for one in self.members))


def kind_of(diagnosis: Diagnosis) -> Kind:
    """The cluster that a failure belongs to."""
    found = diagnosis.finding
    about = found.clause or ""
    if found.detail:
        field = next((one.name for one in found.evidence if one.name and "." in one.name), "")
        about = (field or "").split("[")[0] or found.detail
    return Kind(diagnosis.key.domain, found.who.value, str(found.what), found.tool, about)


def clusters_of(diagnoses: Sequence[Diagnosis], interval: Interval) -> list[Cluster]:
    """The failures of a run by kind, the largest first."""
    failed = [one for one in diagnoses if one.failed]
    solved = {_task(one) for one in diagnoses if one.reward is not None and one.reward >= SUCCESS}
    groups: dict[Kind, list[Diagnosis]] = defaultdict(list)
    for one in failed:
        groups[kind_of(one)].append(one)
    domains, tasks = [one.key.domain for one in diagnoses], [_task(one) for one in diagnoses]
    found = []
    for kind, members in groups.items():
        inside = set(map(id, members))
        low, high = interval(domains, tasks, [float(id(one) in inside) for one in diagnoses])
        own = list(dict.fromkeys(map(_task, members)))
        right = tuple(task[2] for task in own if task in solved)
        wrong = tuple(task[2] for task in own if task not in solved)
        found.append(Cluster(kind, tuple(members), len(failed), low, high, right, wrong))
    return sorted(found, key=lambda one: (-one.count, one.kind))


class Simulator(NamedTuple):
    """How the episodes with one user simulator ended."""

    model: str
    episodes: int
    failures: int
    users: int
    """Failures that are the simulator's fault."""
    low: float
    high: float
    """95 % limits of their share of all episodes with it."""


def by_simulator(diagnoses: Sequence[Diagnosis], interval: Interval) -> list[Simulator]:
    """A row for each user simulator, the one that spoils most first."""
    groups: dict[str, list[Diagnosis]] = defaultdict(list)
    for one in diagnoses:
        groups[one.user_model].append(one)
    found = []
    for model, members in groups.items():
        spoilt = [float(one.finding.who is Who.USER) for one in members]
        low, high = interval([one.key.domain for one in members], [_task(one) for one in members], spoilt)
        found.append(Simulator(model, len(members), sum(one.failed for one in members), int(sum(spoilt)), low, high))
    return sorted(found, key=lambda one: (-one.users / one.episodes, one.model))


def _task(diagnosis: Diagnosis) -> tuple[str, str, str]:
    return diagnosis.key.dataset, diagnosis.key.domain, diagnosis.key.task_id


class Change(NamedTuple):
    """One kind of failure in two runs."""

    kind: tuple[str, str, str]
    """(domain, who, what)"""
    before: int
    after: int
    cured: tuple[str, ...]
    """Tasks that fail like this in the first run, and in the second do not fail at all."""
    broken: tuple[str, ...]
    """Tasks that do not fail in the first run, and fail like this in the second."""


def of_shared_tasks(before: Sequence[Diagnosis], after: Sequence[Diagnosis]) -> tuple[list[Diagnosis], list[Diagnosis]]:
    """The episodes of two runs whose tasks both have."""
    shared = {_task(one) for one in before} & {_task(one) for one in after}
    return [one for one in before if _task(one) in shared], [one for one in after if _task(one) in shared]


def compare(before: Sequence[Diagnosis], after: Sequence[Diagnosis]) -> list[Change]:
    """What changed from one run to the next, among the tasks that both have; the largest change first."""
    runs = of_shared_tasks(before, after)
    failing = [{_task(one) for one in run if one.failed} for run in runs]
    kinds: dict[tuple[str, str, str], list[list[tuple[str, str, str]]]] = defaultdict(lambda: [[], []])
    for place, run in enumerate(runs):
        for one in run:
            if one.failed:
                kinds[one.key.domain, one.finding.who.value, str(one.finding.what)][place].append(_task(one))
    found = [
        Change(
            kind,
            len(first),
            len(second),
            tuple(sorted({task[2] for task in first if task not in failing[1]})),
            tuple(sorted({task[2] for task in second if task not in failing[0]})),
        )
        for kind, (first, second) in kinds.items()
    ]
    return sorted(found, key=lambda one: (-abs(one.after - one.before), one.kind))


def steer(clusters: Sequence[Cluster], held_out: Callable[[str, str], bool]) -> dict[str, object]:
    """``steer.json``: what to make tasks for and to sample, and what to repair or leave out.

    ``held_out``: (domain, task) -> True for a task of the test split, which is counted and never named as one to clone.
    """
    agents = [one for one in clusters if one.kind.who == Who.AGENT.value]
    total = sum(one.count for one in agents)
    return {
        "version": 1,
        "clusters": [
            {
                **_named(one),
                "weight": round(one.count / total, 6),
                "unreliable": [task for task in one.unreliable if not held_out(one.kind.domain, task)],
                "missing": [task for task in one.missing if not held_out(one.kind.domain, task)],
            }
            for one in agents
        ],
        "repair": [
            {**_named(one), "simulators": _simulators(one), "exclude": [vars_of(member) for member in one.members]}
            for one in clusters
            if one.kind.who != Who.AGENT.value
        ],
    }


def _simulators(cluster: Cluster) -> dict[str, int]:
    """User model -> failures with it, the most frequent first."""
    return dict(Counter(one.user_model or "unknown" for one in cluster.members).most_common())


def _named(cluster: Cluster) -> dict[str, object]:
    kind = cluster.kind
    first = cluster.members[0].finding
    lines = [member.to_dict() for member in cluster.members]
    return {
        "domain": kind.domain,
        "who": kind.who,
        "what": kind.what,
        "tools": list(dict.fromkeys(tool for line in lines for tool in tools_at_stake(line))),
        "argument": first.detail or None,
        "about": kind.about or None,
        "clause": first.clause,
        "rule": next(filter(None, map(rule_broken, lines)), None),
        "count": cluster.count,
        "tasks": len(cluster.tasks),
        "examples": [vars_of(member) for member in cluster.members[:EXAMPLES]],
    }


def vars_of(diagnosis: Diagnosis) -> dict[str, str]:
    """The key of an episode, as a line of ``diagnosis.jsonl`` has it."""
    key = diagnosis.key
    named = {"run": key.run, "dataset": key.dataset, "domain": key.domain, "task_id": key.task_id, "trial": key.trial}
    return {name: value for name, value in named.items() if value or name != "dataset"}
