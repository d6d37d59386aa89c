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
    return math.sqrt(sum(w**2 * s.variance for w, s in zip(_weights(strata), strata, strict=True)))


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

    Raises:
        ZeroDivisionError: ``strata`` is empty.
    """
    from scipy.special import stdtrit

    weights = _weights(strata)
    effects = [_design_effect(stratum) for stratum in strata]
    sizes = [_kish_size(s) / effect for s, effect in zip(strata, effects, strict=True)]
    # Variances at Wilson's midpoint: at the observed mean they would be 0 where all tasks fail.
    variances = []
    for stratum, weight, size in zip(strata, weights, sizes, strict=True):
        middle = (stratum.mean * size + _Z**2 / 2) / (size + _Z**2)
        variances.append(weight**2 * middle * (1 - middle) / size)
    known = [
        (s.tasks - 1) / (1 - effect) if effect < 1 else math.inf for s, effect in zip(strata, effects, strict=True)
    ]
    # The limits of the domains add up to the whole's if each keeps its share of the whole's spread.
    share = math.sqrt(sum(variances)) / sum(math.sqrt(v) for v in variances)
    quantile = float(stdtrit(_degrees(variances, known), 1 - TAIL)) * share
    exact_tail = NormalDist().cdf(-_Z * share)
    low = high = 0.0
    for stratum, weight, size in zip(strata, weights, sizes, strict=True):
        ends = _wilson(stratum.mean, size, quantile, exact_tail ** (1 / stratum.tasks))
        low, high = low + weight * ends[0], high + weight * ends[1]
    return low, high


def difference_interval(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The 95 % interval of a mean of paired differences, which lie in [-1, 1].

    Student's t; over several domains Welch's with Satterthwaite's degrees of freedom. A domain with a single task counts
    with the largest variance that there is. Where all tasks differ by the same, no spread is seen: then the interval is as
    wide as what that many equal outcomes can exclude.
    """
    from scipy.special import stdtrit

    weights = _weights(strata)
    value = sum(w * s.mean for w, s in zip(weights, strata, strict=True))
    variances = [w**2 * (s.variance if s.tasks > 1 else 1.0) for w, s in zip(weights, strata, strict=True)]
    if sum(variances) < 1e-24:
        half = 1 - TAIL ** (1 / sum(s.tasks for s in strata))
    else:
        degrees = _degrees(variances, [s.tasks - 1 if s.tasks > 1 else math.inf for s in strata])
        half = float(stdtrit(degrees, 1 - TAIL)) * math.sqrt(sum(variances))
    return max(-1.0, value - half), min(1.0, value + half)


def _weights(strata: Sequence[Stratum]) -> list[float]:
    """The share that each stratum has of all values."""
    totals = [float(s.counts.sum()) for s in strata]
    return [total / sum(totals) for total in totals]


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


def _degrees(variances: Sequence[float], degrees: Sequence[float]) -> float:
    """Satterthwaite's degrees of freedom of a sum of estimates with these variances; infinite if all are known."""
    uncertain = sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    return sum(variances) ** 2 / uncertain if uncertain > 0 else math.inf


def _wilson(share: float, size: float, quantile: float, exact: float) -> tuple[float, float]:
    """Wilson's limits of a share of ``size`` (any positive number); at 0 and 1 the other limit is that of ``exact``.

    ``exact``: the chance of success at which as many successes as there are tasks are just improbable enough.
    """
    if share < 1e-12:
        return 0.0, 1 - exact
    if share > 1 - 1e-12:
        return exact, 1.0
    squared = quantile**2
    middle = (share + squared / (2 * size)) / (1 + squared / size)
    half = quantile / (1 + squared / size) * math.sqrt(share * (1 - share) / size + squared / (4 * size**2))
    return middle - half, middle + half
