"""How sure a mean over tasks is: bootstrap intervals and standard errors, tasks as clusters, domains as strata."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000
_SEED = 20240601

Stratum = tuple[Any, Any]
"""Two arrays, one entry per task: the sum of its values, and how many they are."""


def strata_of(domains: Sequence[str], tasks: Sequence[Hashable], values: Sequence[float]) -> list[Stratum]:
    """One stratum per domain; all values of a task, which may have several rows, are one entry."""
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
