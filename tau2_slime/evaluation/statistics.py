"""pass@k and pass^k with error bars.

The unit is a task of a dataset; its attempts are repeats. What varies from task to task is what an evaluation of some tasks
says little about, so intervals and standard errors come from resampling tasks. A task that is met by several user simulators
is one task: its rows are resampled together. Domains are a fixed set: tasks are resampled within their domain.

Two things are called "pass@k" in the literature. `pass_at` is the unbiased one: the share of all k-subsets of the n attempts
that hold a success. `pass_first` is "any of the first k attempts", which depends on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from tau2_slime.observe.passk import ks_up_to, pass_at, pass_hat

CONFIDENCE = 0.95
RESAMPLES = 4000
_SEED = 20240601
SUCCESS = 1 - 1e-6
"""τ²'s own tolerance: a reward of 1, give or take a millionth."""


@dataclass(frozen=True)
class Unit:
    """One task of one dataset, and how its attempts went."""

    dataset: str
    domain: str
    task: Hashable
    """The task's name within its domain; equal in every dataset that plays it."""
    user_model: str
    outcomes: tuple[float | None, ...]
    """Reward by attempt, in order; None: excluded, or not played."""
    played: int | None = None
    """Attempts with an end, the excluded ones among them; None: all of `outcomes`."""

    @property
    def rewards(self) -> list[float]:
        return [reward for reward in self.outcomes if reward is not None]

    @property
    def successes(self) -> list[bool | None]:
        return [None if reward is None else reward >= SUCCESS for reward in self.outcomes]

    @property
    def n(self) -> int:
        return len(self.rewards)

    @property
    def c(self) -> int:
        return sum(success is True for success in self.successes)

    @property
    def excluded(self) -> int:
        return (len(self.outcomes) if self.played is None else self.played) - self.n


@dataclass(frozen=True)
class Estimate:
    """A score and how sure it is."""

    value: float
    low: float
    """Ends of the 95% interval."""
    high: float
    stderr: float
    tasks: int
    """Units that the value is the mean of."""
    left_out: int = 0
    """Units with too few usable attempts."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Scores:
    """Everything about one group of units."""

    pass_at: dict[int, Estimate]
    """k -> unbiased pass@k."""
    pass_hat: dict[int, Estimate]
    """k -> pass^k."""
    pass_first: dict[int, float]
    """k -> the share of tasks with a success among the first k attempts."""
    reward: Estimate | None
    """Mean of the tasks' mean rewards; None without a usable attempt."""
    failures_as_zero: float | None
    """pass^1 if every excluded attempt had been the agent's failure: the number the other way."""
    noise: Noise | None
    """None with fewer than two attempts a task."""
    units: int
    attempts: int
    """Usable ones."""
    excluded: int
    repeats: list[float] = field(default_factory=list)
    """pass^1 of the first attempts alone, of the second attempts alone, ..."""


@dataclass(frozen=True)
class Noise:
    """What repeating the run on the same tasks would change, estimated from its repeats."""

    one_attempt: float
    """Standard deviation of the score of one attempt a task."""
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


def scores(units: Sequence[Unit], largest: int | None = None) -> Scores:
    """Scores of ``units`` for every k up to ``largest`` (default: the most attempts that any of them has)."""
    ks = ks_up_to(largest or max((len(unit.outcomes) for unit in units), default=1))
    at, hat, first = {}, {}, {}
    for k in ks:
        enough = [unit for unit in units if unit.n >= k]
        if not enough:
            continue
        left_out = len(units) - len(enough)
        at[k] = estimate(enough, [pass_at(u.n, u.c, k) for u in enough], left_out)
        hat[k] = estimate(enough, [pass_hat(u.n, u.c, k) for u in enough], left_out)
        first[k] = _mean([pass_first(u.successes, k) or 0.0 for u in enough])
    usable = [unit for unit in units if unit.n]
    played = [unit for unit in units if unit.n + unit.excluded]
    return Scores(
        pass_at=at,
        pass_hat=hat,
        pass_first=first,
        reward=estimate(usable, [_mean(u.rewards) for u in usable], len(units) - len(usable)) if usable else None,
        failures_as_zero=_mean([u.c / (u.n + u.excluded) for u in played]) if played else None,
        noise=noise(units),
        units=len(units),
        attempts=sum(unit.n for unit in units),
        excluded=sum(unit.excluded for unit in units),
        repeats=_repeats(units),
    )


def estimate(units: Sequence[Unit], values: Sequence[float], left_out: int = 0) -> Estimate:
    """The mean of ``values`` (one per unit), with a bootstrap interval over tasks within domains.

    Raises ValueError for no units.
    """
    if not units:
        raise ValueError("no task, no estimate")
    strata = _strata([unit.domain for unit in units], [unit.task for unit in units], values)
    value = _mean(values)
    low, high = interval(strata, value)
    return Estimate(value, low, high, standard_error(strata), len(units), left_out)


Stratum = tuple[Any, Any]
"""Two arrays, one entry per task: the sum of its values, and how many they are."""


def _strata(domains: Sequence[str], tasks: Sequence[Hashable], values: Sequence[float]) -> list[Stratum]:
    grouped: dict[str, dict[Hashable, list[float]]] = {}
    for domain, task, value in zip(domains, tasks, values, strict=True):
        grouped.setdefault(domain, {}).setdefault(task, []).append(value)
    return [
        (np.array([math.fsum(v) for v in by_task.values()]), np.array([float(len(v)) for v in by_task.values()]))
        for by_task in grouped.values()
    ]


def standard_error(strata: Sequence[Stratum]) -> float:
    """Of the ratio sum/count with tasks as clusters, drawn within strata; 0.0 where a stratum has one task only."""
    total = sum(float(counts.sum()) for _, counts in strata)
    mean = sum(float(sums.sum()) for sums, _ in strata) / total
    variance = 0.0
    for sums, counts in strata:
        m = len(sums)
        if m > 1:
            residual = (sums - mean * counts) / total
            variance += m / (m - 1) * float(((residual - residual.mean()) ** 2).sum())
    return math.sqrt(variance)


def interval(strata: Sequence[Stratum], value: float) -> tuple[float, float]:
    """The 95% interval of a mean that lies in [0, 1].

    A percentile bootstrap over tasks, its percentiles moved outwards as far as Student's t is wider than the normal and the
    bootstrap's variance smaller than the sample's (without it, ten tasks would cover 90%). Where all tasks score the same,
    resampling sees no spread: then the binomial bound for that many tasks, exact at 0 and 1, Wilson's in between.
    """
    tasks = sum(len(sums) for sums, _ in strata)
    if value <= 1e-12:
        return 0.0, 1 - ((1 - CONFIDENCE) / 2) ** (1 / tasks)
    if value >= 1 - 1e-12:
        return ((1 - CONFIDENCE) / 2) ** (1 / tasks), 1.0
    if tasks < 2:
        return 0.0, 1.0
    if all(np.ptp(sums / counts) < 1e-12 for sums, counts in strata):
        return wilson(value, tasks)
    draws = resample(strata, _ratio)
    return percentiles(draws, tasks)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share of ``n``."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def percentiles(draws: Any, tasks: int) -> tuple[float, float]:
    """Ends of the expanded percentile interval of bootstrap ``draws`` that stem from ``tasks`` tasks."""
    t = student_quantile((1 + CONFIDENCE) / 2, tasks - 1)
    tail = NormalDist().cdf(-t * math.sqrt(tasks / (tasks - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def resample(strata: Sequence[Stratum], statistic: Callable[[Any, Any], Any], resamples: int = RESAMPLES) -> Any:
    """``statistic(sums, counts)`` of ``resamples`` draws of tasks with replacement, within strata; reproducible."""
    sums_total, counts_total = np.zeros(resamples), np.zeros(resamples)
    for i, (sums, counts) in enumerate(strata):
        drawn = _drawn(len(sums), i, resamples)
        sums_total += drawn @ sums
        counts_total += drawn @ counts
    return statistic(sums_total, counts_total)


@lru_cache(maxsize=16)
def _drawn(m: int, stratum: int, resamples: int) -> Any:
    """How often each of ``m`` tasks is drawn, resamples x m: the same for every score, so that scores can be compared."""
    rng = np.random.default_rng((_SEED, stratum, m))
    return rng.multinomial(m, np.full(m, 1 / m), size=resamples).astype(np.float64)


def _ratio(sums: Any, counts: Any) -> Any:
    return sums / counts


def noise(units: Sequence[Unit]) -> Noise | None:
    """The noise floor; None unless some task has two usable attempts. Tasks with one tell nothing and are left out."""
    repeated = [unit for unit in units if unit.n >= 2]
    if not repeated:
        return None
    # Unbiased variance of one attempt: c (n - c) / (n (n - 1)).
    variances = [u.c * (u.n - u.c) / (u.n * (u.n - 1)) for u in repeated]
    t = len(repeated)
    return Noise(
        one_attempt=math.sqrt(math.fsum(variances)) / t,
        run=math.sqrt(math.fsum(v / u.n for v, u in zip(variances, repeated, strict=True))) / t,
    )


def _repeats(units: Sequence[Unit]) -> list[float]:
    out = []
    for i in range(max((len(unit.outcomes) for unit in units), default=0)):
        column = [u.successes[i] for u in units if i < len(u.outcomes) and u.successes[i] is not None]
        if column:
            out.append(_mean([float(bool(s)) for s in column]))
    return out


def student_quantile(p: float, degrees: int) -> float:
    """Student's t quantile, p in (0.5, 1): by bisection on the regularised integral; exact to 1e-9."""
    low, high = 0.0, 1e6
    while high - low > 1e-9 * max(1.0, low):
        middle = (low + high) / 2
        if _student_cdf(middle, degrees) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(t: float, degrees: int) -> float:
    """Closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cos = math.cos(theta)
    if degrees % 2:
        total, term = 0.0, cos
        for j in range(3, degrees + 1, 2):
            total += term
            term *= cos * cos * (j - 1) / j
        area = 2 / math.pi * (theta + (math.sin(theta) * total if degrees > 1 else 0.0))
    else:
        total, term = 0.0, 1.0
        for j in range(2, degrees + 1, 2):
            total += term
            term *= cos * cos * (j - 1) / j
        area = math.sin(theta) * total
    return 0.5 + area / 2


def grouped(units: Iterable[Unit], key: Callable[[Unit], str]) -> dict[str, list[Unit]]:
    """Units by ``key``, in order of appearance."""
    out: dict[str, list[Unit]] = {}
    for unit in units:
        out.setdefault(key(unit), []).append(unit)
    return out


def domain_weighted(units: Sequence[Unit], k: int = 1) -> float | None:
    """pass^k with every domain counted once, instead of every task."""
    means = []
    for members in grouped(units, lambda u: u.domain).values():
        enough = [pass_hat(u.n, u.c, k) for u in members if u.n >= k]
        if enough:
            means.append(_mean(enough))
    return _mean(means) if means else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
