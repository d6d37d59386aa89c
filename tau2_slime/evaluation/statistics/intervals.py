"""95 % intervals and standard errors of a mean over tasks: tasks are drawn at random, within domains that are fixed.

All values of a task, which several user simulators may meet, count as one draw. What the intervals cover was measured with
`benchmarks/interval_coverage.py`; its table stands there.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TAIL = 0.025
"""Chance of missing the true value on either side."""
_Z = NormalDist().inv_cdf(1 - TAIL)
PRIOR_SQUARES = 1 / 16
"""Sum of squares that `_design_effect` adds as if one more task had shown it: a quarter of what one fair coin would show."""


class Stratum(NamedTuple):
    """The tasks of one domain. Both arrays have the shape (n_tasks,)."""

    sums: FloatArray
    """Sum of a task's values."""
    counts: FloatArray
    """How many values a task has."""

    @property
    def tasks(self) -> int:
        return len(self.sums)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def deviations(self) -> FloatArray:
        """Shape (n_tasks,): by how much a task's sum differs from what the mean predicts. They add up to 0."""
        return self.sums - self.mean * self.counts

    @property
    def variance(self) -> float:
        """Unbiased variance of `mean`, tasks as clusters; 0.0 for a single task, whose variance nothing shows."""
        n = self.tasks
        return float(n / (n - 1) * (self.deviations**2).sum() / self.counts.sum() ** 2) if n > 1 else 0.0


def strata_of(domains: Sequence[str], tasks: Sequence[Hashable], values: Sequence[float]) -> list[Stratum]:
    """One `Stratum` per domain. The three sequences have one entry per value: its domain, its task, the value."""
    by_domain: dict[str, dict[Hashable, list[float]]] = {}
    for domain, task, value in zip(domains, tasks, values, strict=True):
        by_domain.setdefault(domain, {}).setdefault(task, []).append(value)
    return [
        Stratum(np.array([math.fsum(v) for v in by_task.values()]), np.array([float(len(v)) for v in by_task.values()]))
        for by_task in by_domain.values()
    ]


def standard_error(strata: Sequence[Stratum]) -> float:
    """Of the mean of all values. A domain with a single task adds nothing, since its variance cannot be estimated."""
    return math.sqrt((_weights(strata) ** 2 * [s.variance for s in strata]).sum())


def score_interval(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The 95 % interval of a mean of values in [0, 1], such as pass^k. It always holds the observed mean.

    The method is Wilson's score interval with an effective number of tasks, as survey statistics uses it for proportions
    of clusters (Korn and Graubard 1998), and stratified by domain (Yan and Su 2010). `_design_effect` is how much less
    than 0/1 outcomes the tasks' scores vary: n tasks know as much as n / design effect coins. Where it is below 1 it is
    itself an estimate, for which Student's t stands in for the normal quantile. A domain in which all tasks score 0, or
    all score 1, has the exact binomial bound on its open side.

    Coverage, averaged over distributions of task difficulty from U-shaped to bell-shaped (Beta distributions) and with two
    attempts a task or more, from 5 tasks on and for one domain or several: 93.8 % to 96.5 % for pass^1, 93 % to 97 % for
    pass^2 and pass^4. For one given distribution it is 93 % to 98.7 % for pass^1: few tasks have few possible results, and
    the coverage of every interval jumps as the true score passes one of them. pass^k of k > 1 is more skewed: where its true
    value is near 0 it is 85 % at worst. One attempt a task is a binomial share, whose intervals cover 92 % to 100 %.

    What no method can do: 5 successes of 5 tasks exclude only scores below 0.48, however many attempts each task had; and
    a kind of task that is too rare to be among those that were drawn leaves no trace in the interval.
    """
    from scipy.special import stdtrit

    weights, means, tasks = _weights(strata), np.array([s.mean for s in strata]), np.array([s.tasks for s in strata])
    effects = np.array([_design_effect(s) for s in strata])
    sizes = np.array([_kish_size(s) for s in strata]) / effects
    # Variances at Wilson's midpoint: at the observed mean they would be 0 where all tasks fail.
    middles = (means * sizes + _Z**2 / 2) / (sizes + _Z**2)
    variances = weights**2 * middles * (1 - middles) / sizes
    degrees = _degrees(variances, (1 - effects) / np.maximum(tasks - 1, 1))
    # The limits of the domains add up to the whole's if each keeps its share of the whole's spread.
    share = math.sqrt(variances.sum()) / np.sqrt(variances).sum()
    exact = NormalDist().cdf(-_Z * share) ** (1 / tasks)
    lows, highs = _wilson(means, sizes, float(stdtrit(degrees, 1 - TAIL)) * share, exact)
    return float(weights @ lows), float(weights @ highs)


def share_interval(domains: Sequence[str], tasks: Sequence[Hashable], values: Sequence[float]) -> tuple[float, float]:
    """`score_interval` of values with their domains and tasks, as `strata_of` takes them."""
    return score_interval(strata_of(domains, tasks, values))


def difference_interval(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The 95 % interval of a mean of paired differences, which lie in [-1, 1].

    Student's t; over several domains Welch's with Satterthwaite's degrees of freedom. A domain with a single task counts
    with the largest variance that there is. Where all tasks differ by the same, no spread is seen: then the interval is as
    wide as what that many equal outcomes can exclude.
    """
    from scipy.special import stdtrit

    weights, tasks = _weights(strata), np.array([s.tasks for s in strata])
    value = float(weights @ [s.mean for s in strata])
    variances = weights**2 * [s.variance if s.tasks > 1 else 1.0 for s in strata]
    if math.isclose(variances.sum(), 0.0, abs_tol=1e-24):
        half = float(1 - TAIL ** (1 / tasks.sum()))
    else:
        degrees = _degrees(variances, (tasks > 1) / np.maximum(tasks - 1, 1))
        half = float(stdtrit(degrees, 1 - TAIL)) * math.sqrt(variances.sum())
    return max(-1.0, value - half), min(1.0, value + half)


def _weights(strata: Sequence[Stratum]) -> FloatArray:
    """The share that each stratum has of all values, shape (n_strata,)."""
    totals: FloatArray = np.array([s.counts.sum() for s in strata])
    return totals / float(totals.sum())


def _kish_size(stratum: Stratum) -> float:
    """The number of tasks, less where some have more values than others (Kish's effective sample size)."""
    return float(stratum.counts.sum() ** 2 / (stratum.counts**2).sum())


def _design_effect(stratum: Stratum) -> float:
    """How much the tasks' mean varies relative to as many 0/1 outcomes of the same mean: above 0, at most 1.

    The smaller the mean or the number of tasks, the less does a small spread prove: a 1 among the next tasks would change
    it. Therefore `PRIOR_SQUARES` of 0/1 outcomes are added to what was seen. A single task shows no spread: 1.
    """
    if stratum.tasks == 1:
        return 1.0
    mean, scale = stratum.mean, float((stratum.counts**2).sum()) / _kish_size(stratum)
    squares = float((stratum.deviations**2).sum()) / scale
    largest = _kish_size(stratum) * mean * (1 - mean)
    return min(1.0, (squares + PRIOR_SQUARES) / (largest + PRIOR_SQUARES))


def _degrees(variances: FloatArray, doubts: FloatArray) -> float:
    """Satterthwaite's degrees of freedom of a sum of estimates with these variances; infinite if all are known.

    ``doubts``: one over the degrees of freedom of each, 0 for one that is known. All have the shape (n_strata,).
    """
    uncertain = (variances**2 * doubts).sum()
    return float(variances.sum() ** 2 / uncertain) if uncertain else math.inf


def _wilson(shares: FloatArray, sizes: FloatArray, quantile: float, exact: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Wilson's limits of shares of ``sizes`` (any positive numbers); at 0 and 1 the other limit is that of ``exact``.

    ``exact``: the chance of success at which as many successes as there are tasks are just improbable enough. All arrays
    have the shape (n_strata,).
    """
    stretch = 1 + quantile**2 / sizes
    middles = (shares + quantile**2 / (2 * sizes)) / stretch
    halves = quantile / stretch * np.sqrt(shares * (1 - shares) / sizes + quantile**2 / (4 * sizes**2))
    lows = np.where(shares == 0, 0.0, np.where(shares == 1, exact, middles - halves))
    highs = np.where(shares == 1, 1.0, np.where(shares == 0, 1 - exact, middles + halves))
    return lows, highs
