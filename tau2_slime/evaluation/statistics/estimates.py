"""pass@k and pass^k with error bars (`intervals` has the arithmetic behind the bars).

The unit is a task of a dataset; its attempts are repeats. Scores vary mostly from task to task, so intervals and standard
errors treat the tasks as a random sample of a domain's tasks. A task that several user simulators meet is one task: all its
rows count as one draw. The domains themselves are fixed.

Two things are called "pass@k" in the literature. `pass_at` is the unbiased one: the share of all k-subsets of the n attempts
that hold a success. `pass_first` is "any of the first k attempts", which depends on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import NormalDist, fmean

from tau2_slime.evaluation.statistics.intervals import score_interval, standard_error, strata_of
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.observe.passk import ks_up_to, pass_at, pass_hat


@dataclass(frozen=True)
class Estimate:
    """A score with its uncertainty."""

    value: float
    """Mean over the units."""
    low: float
    """Ends of the 95% interval."""
    high: float
    stderr: float
    """Standard error, tasks as clusters."""
    tasks: int
    """Units in the mean: a task counts once for each dataset that plays it."""
    left_out: int = 0
    """Units with too few usable attempts."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Scores:
    """All scores of one group of units."""

    pass_at: dict[int, Estimate]
    """k -> unbiased pass@k."""
    pass_hat: dict[int, Estimate]
    """k -> pass^k."""
    pass_first: dict[int, float]
    """k -> the share of tasks with a success among the first k attempts."""
    reward: Estimate | None
    """Mean of the tasks' mean rewards; None without a usable attempt."""
    failures_as_zero: float | None
    """pass^1 if every excluded attempt counted as a failure of the agent."""
    noise: Noise | None
    """None with fewer than two attempts a task."""
    units: int
    excluded: int
    """Attempts that ended without saying anything about the agent."""
    repeats: list[float] = field(default_factory=list)
    """pass^1 of the first attempts alone, of the second attempts alone, ..."""


@dataclass(frozen=True)
class Noise:
    """What repeating the run on the same tasks would change, estimated from its repeats."""

    run: float
    """Standard deviation of this run's score, the mean over its attempts."""

    @property
    def floor(self) -> float:
        """Two identical runs differ by less than this in 95% of cases."""
        return NormalDist().inv_cdf(0.975) * math.sqrt(2) * self.run


def pass_first(successes: Sequence[bool | None], k: int) -> float | None:
    """1.0 if any of the first k usable attempts succeeded, 0.0 if none; None if there are fewer than k."""
    usable = [success for success in successes if success is not None]
    return float(any(usable[:k])) if len(usable) >= k else None


def scores(units: Sequence[Unit]) -> Scores:
    """Scores of ``units`` for every k up to the most attempts that any of them has."""
    at, hat, first = {}, {}, {}
    columns = list(zip_longest(*(unit.successes for unit in units)))
    for k in ks_up_to(len(columns)):
        enough = [unit for unit in units if unit.n >= k]
        if not enough:
            break
        left_out = len(units) - len(enough)
        at[k] = estimate(enough, [pass_at(u.n, u.c, k) for u in enough], left_out)
        hat[k] = estimate(enough, [pass_hat(u.n, u.c, k) for u in enough], left_out)
        first[k] = fmean([pass_first(u.successes, k) or 0.0 for u in enough])
    usable = [unit for unit in units if unit.n]
    played = [unit for unit in units if unit.n + unit.excluded]
    return Scores(
        pass_at=at,
        pass_hat=hat,
        pass_first=first,
        reward=estimate(usable, [fmean(u.rewards) for u in usable], len(units) - len(usable)) if usable else None,
        failures_as_zero=fmean([u.c / (u.n + u.excluded) for u in played]) if played else None,
        noise=noise(units),
        units=len(units),
        excluded=sum(unit.excluded for unit in units),
        repeats=[fmean(known) for column in columns if (known := [s for s in column if s is not None])],
    )


def estimate(units: Sequence[Unit], values: Sequence[float], left_out: int = 0) -> Estimate:
    """The mean of ``values`` (one per unit, each in [0, 1]) with its interval and standard error.

    Raises:
        ValueError: ``units`` is empty.
    """
    if not units:
        raise ValueError("an estimate needs at least one task")
    strata = strata_of([unit.domain for unit in units], [unit.task for unit in units], values)
    low, high = score_interval(strata)
    return Estimate(fmean(values), low, high, standard_error(strata), len(units), left_out)


def noise(units: Sequence[Unit]) -> Noise | None:
    """The noise floor; None unless some task has two usable attempts. Tasks with one attempt are left out."""
    repeated = [unit for unit in units if unit.n >= 2]
    if not repeated:
        return None
    # Unbiased variance of one attempt: c (n - c) / (n (n - 1)); of the mean of n attempts: that over n.
    variances = [u.c * (u.n - u.c) / (u.n**2 * (u.n - 1)) for u in repeated]
    return Noise(math.sqrt(math.fsum(variances)) / len(repeated))


def grouped(units: Iterable[Unit], key: Callable[[Unit], str]) -> dict[str, list[Unit]]:
    """Units by ``key``, in order of appearance."""
    out: dict[str, list[Unit]] = {}
    for unit in units:
        out.setdefault(key(unit), []).append(unit)
    return out


def domain_weighted(units: Sequence[Unit]) -> float | None:
    """pass^1 with every domain counted once, instead of every task; None without a usable attempt."""
    means = []
    for members in grouped(units, lambda u: u.domain).values():
        rates = [u.c / u.n for u in members if u.n]
        if rates:
            means.append(fmean(rates))
    return fmean(means) if means else None
