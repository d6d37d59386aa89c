"""Which of the played tasks are worth training on: the verdict on each, with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import names_a_file
from tau2_slime.data.selection import TEST
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.curation.attempts import Attempts, TaskKey, wilson
from tau2_slime.evaluation.curation.failures import Failures
from tau2_slime.tasks.facts import TaskFacts, all_facts
from tau2_slime.world import domains

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


@dataclass(frozen=True)
class Wanted:
    """What a task must be like."""

    above: float = 0.0
    """Its pass rate is greater than this,"""
    below: float = 1.0
    """and less than this."""
    min_attempts: int = 2
    """Episodes that count."""
    min_mixed: float = 0.0
    """Share of its groups of two or more in which some episodes solve it and some do not."""
    keep_trivial: bool = False
    keep_unpaid: bool = False
    """Keep tasks whose gold actions τ² does not pay."""
    drop_order_dependent: bool = False
    allow_test_tasks: bool = False
    per_domain: int | None = None
    """At most so many of each domain: those that fail like most failures, then those whose rate is nearest to one half."""
    failures: Mapping[tuple[str, str], Failures] | None = None
    """(domain, task) -> what a diagnosis says; then only tasks at which the agent fails stay in. None: not asked."""


@dataclass(frozen=True)
class Verdict:
    """One task, and whether it stays in."""

    key: TaskKey
    attempts: Attempts
    reason: str
    """Why it was left out; empty if it stays in."""
    task: Task | None = None
    facts: TaskFacts | None = None
    failures: Failures | None = None

    def plain(self) -> dict[str, object]:
        """As the report has it."""
        low, high = wilson(self.attempts.solved, len(self.attempts.rewards))
        mixed, groups = self.attempts.mixed
        return {
            **self.key._asdict(),
            "kept": not self.reason,
            "reason": self.reason,
            "attempts": len(self.attempts.rewards),
            "solved": self.attempts.solved,
            "rate": self.attempts.rate,
            "interval": [low, high],
            "excluded": self.attempts.excluded,
            "groups": groups,
            "mixed_groups": mixed,
            **({} if self.failures is None else {"failures": self.failures.plain()}),
            "facts": None if self.facts is None else self.facts.plain(),
        }


def judge(
    found: Mapping[TaskKey, Attempts],
    wanted: Wanted,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """A verdict on every task, in the order in which the runs name them. ``advance``: how many are judged, of how many."""
    verdicts = []
    for number, (key, attempts) in enumerate(found.items(), 1):
        verdicts.append(_verdict(key, attempts, wanted))
        advance(number, len(found))
    return _within_quotas(verdicts, wanted.per_domain)


def _verdict(key: TaskKey, attempts: Attempts, wanted: Wanted) -> Verdict:
    failures = None if wanted.failures is None else wanted.failures.get((key.domain, key.task_id), Failures())
    reason = _by_failures(failures) or _by_attempts(attempts, wanted)
    if reason:
        return Verdict(key, attempts, reason, failures=failures)
    try:
        split = key.split or _split_of(key)
        task = domains.find_task(key.domain, split, task_id=key.task_id)
    except ConfigError as error:
        return Verdict(key, attempts, f"its task is not found: {error}")
    if (
        not wanted.allow_test_tasks
        and not names_a_file(split)
        and key.task_id in domains.splits(key.domain).get(TEST, ())
    ):
        return Verdict(key, attempts, "in the test split (--allow-test-tasks keeps them)", task)
    config = Tau2Config(domain=key.domain, task_split=split)
    facts = next(all_facts(config, [task], order=wanted.drop_order_dependent))
    if not wanted.keep_trivial and facts.trivial:
        reason = "paid for doing nothing or transferring at once"
    elif not wanted.keep_unpaid and not facts.gold_pays:
        reason = "its gold actions are not paid"
    elif wanted.drop_order_dependent and facts.order:
        reason = "decided by the order of its writes or lists"
    return Verdict(TaskKey(key.domain, split, key.task_id), attempts, reason, task, facts, failures)


def _by_failures(failures: Failures | None) -> str:
    if failures is None:
        return ""
    if failures.label:
        return f"its label is at fault ({failures.label})"
    return "" if failures.weight else "the agent does not fail at it"


def _by_attempts(attempts: Attempts, wanted: Wanted) -> str:
    rate, (mixed, groups) = attempts.rate, attempts.mixed
    if rate is None or len(attempts.rewards) < wanted.min_attempts:
        return f"fewer than {wanted.min_attempts} attempts that count"
    if rate <= wanted.above:
        return f"pass rate not above {wanted.above:g}"
    if rate >= wanted.below:
        return f"pass rate not below {wanted.below:g}"
    if wanted.min_mixed and (not groups or mixed / groups < wanted.min_mixed):
        return f"fewer than {wanted.min_mixed:.0%} of its groups are mixed"
    return ""


def _split_of(key: TaskKey) -> str:
    """A split of τ² that has the task, where the run did not record one."""
    return next((name for name, ids in domains.splits(key.domain).items() if key.task_id in ids), "base")


def _within_quotas(verdicts: list[Verdict], most: int | None) -> list[Verdict]:
    if most is None:
        return verdicts
    best = sorted((v for v in verdicts if not v.reason), key=_rank)
    taken: Counter[str] = Counter()
    kept = set()
    for verdict in best:
        taken[verdict.key.domain] += 1
        if taken[verdict.key.domain] <= most:
            kept.add(verdict.key)
    return [v if v.reason or v.key in kept else replace(v, reason=f"beyond {most} of its domain") for v in verdicts]


def _rank(verdict: Verdict) -> tuple[float, float, TaskKey]:
    weight = verdict.failures.weight if verdict.failures is not None else 0.0
    return -weight, abs((verdict.attempts.rate or 0) - 0.5), verdict.key
