"""The 95 % intervals: what they cover, computed exactly, and what they are by definition, from scipy's own tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tau2_slime.evaluation.statistics.intervals import (
    Stratum,
    difference_interval,
    score_interval,
    share_interval,
    standard_error,
    strata_of,
)

SHAPES = ((0.3, 0.3), (0.5, 0.5), (1, 1), (2, 2), (5, 5), (0.5, 1.5), (1, 3), (3, 1))
"""Beta distributions of a task's chance of success: U-shaped, flat, bell-shaped, hard tasks, easy tasks."""


def stratum(values: Sequence[float], counts: Sequence[int] | None = None) -> Stratum:
    """A domain's tasks; ``counts``: how many values each has, all of them alike."""
    repeats = np.array(counts if counts is not None else [1] * len(values), dtype=float)
    return Stratum(np.array(values) * repeats, repeats)


# ---- by definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solved", "tasks"), [(1, 5), (3, 5), (9, 10), (20, 41), (1, 2000), (1999, 2000)])
@pytest.mark.filterwarnings("error")  # the user of an evaluation would read it on the terminal
def test_one_attempt_a_task_is_wilsons_interval(solved: int, tasks: int) -> None:
    wilson = stats.binomtest(solved, tasks).proportion_ci(method="wilson")
    values = [1.0] * solved + [0.0] * (tasks - solved)
    assert score_interval([stratum(values)]) == pytest.approx(tuple(wilson))
    twice = share_interval(["retail"] * 2 * tasks, [*range(tasks)] * 2, values * 2)  # each task met by two users
    assert twice == pytest.approx(tuple(wilson))


@pytest.mark.parametrize("tasks", [1, 2, 5, 30])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_where_nothing_or_everything_succeeds_it_is_the_exact_binomial(score: float, tasks: int) -> None:
    exact = stats.binomtest(round(score * tasks), tasks).proportion_ci(method="exact")
    assert score_interval([stratum([score] * tasks)]) == pytest.approx(tuple(exact))


@pytest.mark.parametrize("domains", [1, 2, 3])
def test_graded_scores_have_wilsons_interval_with_an_effective_number_of_tasks(domains: int) -> None:
    """Sum of squares 1/8 and a sixteenth a priori, of 5/4 and a sixteenth: a design effect of 1/7, so 35 coins.

    The limits solve Wilson's equation; its quantile is Student's with 4 / (1 - 1/7) degrees a domain. Domains that are alike
    share the deviation: each takes 1 / sqrt(domains) of it.
    """
    low, high = score_interval([stratum([0.25, 0.5, 0.5, 0.5, 0.75])] * domains)
    quantile = stats.t.ppf(0.975, domains * 4 / (1 - 1 / 7)) / math.sqrt(domains)
    for limit in (low, high):
        assert (limit - 0.5) ** 2 == pytest.approx(quantile**2 * limit * (1 - limit) / 35)
    assert low < 0.5 < high


def test_two_graded_tasks_have_wilsons_interval_too() -> None:
    """Squares of 1/8 and a sixteenth, of 1/2 and a sixteenth: a design effect of 1/3, so 6 coins and 1.5 degrees."""
    quantile = stats.t.ppf(0.975, 1 / (1 - 1 / 3))
    for limit in score_interval([stratum([0.25, 0.75])]):
        assert (limit - 0.5) ** 2 == pytest.approx(quantile**2 * limit * (1 - limit) / 6)


def test_domains_of_different_size_and_spread_share_the_deviation() -> None:
    """5 graded tasks that know as much as 35 coins, and 10 coins: each half solved, at 1/3 and 2/3 of the weight."""
    graded, coins = stratum([0.25, 0.5, 0.5, 0.5, 0.75]), stratum([1.0] * 5 + [0.0] * 5)
    one, other = 1 / 9 / 4 / 35, 4 / 9 / 4 / 10  # variances; Student's degrees are those of the first, 4 / (1 - 1/7)
    quantile = stats.t.ppf(0.975, (one + other) ** 2 / (one**2 * (1 - 1 / 7) / 4))
    quantile *= math.sqrt(one + other) / (math.sqrt(one) + math.sqrt(other))
    half = sum(weight * quantile / 2 / math.sqrt(n + quantile**2) for weight, n in ((1 / 3, 35), (2 / 3, 10)))
    assert score_interval([graded, coins]) == pytest.approx((0.5 - half, 0.5 + half))


def test_where_all_tasks_score_alike_the_interval_is_no_point() -> None:
    low, high = score_interval([stratum([0.5] * 3)])
    assert low < 0.3
    assert low + high == pytest.approx(1)


def test_where_a_tasks_many_values_agree_the_effective_number_of_tasks_is_smaller() -> None:
    """One task with 3 successes, 9 with one failure each: 12 squared over 18, so 8 coins of which a quarter succeeds."""
    z = stats.norm.ppf(0.975)
    for limit in score_interval([stratum([1.0] + [0.0] * 9, [3] + [1] * 9)]):
        assert (limit - 0.25) ** 2 == pytest.approx(z**2 * limit * (1 - limit) / 8)


def test_a_domain_without_spread_widens_the_whole() -> None:
    """5 of 5 in one domain: what that cannot exclude is still open when another domain is there, at half the weight."""
    mixed = stratum([0.0, 0.25, 0.75, 1.0, 0.5])
    low, high = score_interval([mixed, stratum([1.0] * 5)])
    alone = score_interval([mixed])
    assert low < (alone[0] + 1) / 2
    assert high <= (alone[1] + 1) / 2
    assert low > (alone[0] + 0.025**0.2) / 2  # both at their worst at once is less probable


def test_a_single_task_says_little() -> None:
    """Its spread is unknown: a graded score counts as one coin."""
    low, high = score_interval([stratum([0.5])])
    assert (low, high) == pytest.approx((0.5 - 0.4453, 0.5 + 0.4453), abs=1e-4)
    assert difference_interval([stratum([0.1])]) == (-1.0, 1.0)
    assert standard_error([stratum([0.5])]) == 0.0


scores_of_tasks = st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0]), min_size=1, max_size=6)


@given(st.lists(scores_of_tasks, min_size=1, max_size=3), st.integers(1, 4))
def test_what_every_interval_of_scores_keeps(domains: list[list[float]], users: int) -> None:
    strata = [stratum(values) for values in domains]
    low, high = score_interval(strata)
    mean = sum(map(sum, domains)) / sum(map(len, domains))
    assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1
    mirrored = score_interval([stratum([1 - v for v in values]) for values in domains])
    assert mirrored == pytest.approx((1 - high, 1 - low))
    assert score_interval(strata[::-1]) == pytest.approx((low, high))
    repeated = [stratum(values, [users] * len(values)) for values in domains]  # the same results with every user
    assert score_interval(repeated) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "values", [[0.2, -0.1, 0.3, 0.5, 0.0, 0.25], [0.25, 0.5], [0.5, 0.5, 0.5, 0.501]]
)  # fmt: skip
def test_differences_of_one_domain_have_students_interval(values: list[float]) -> None:
    student = stats.ttest_1samp(values, 0).confidence_interval()
    clipped = (max(-1.0, student.low), min(1.0, student.high))
    assert difference_interval([stratum(values)]) == pytest.approx(clipped)
    assert standard_error([stratum(values)]) == pytest.approx(stats.sem(values))


@pytest.mark.parametrize("one", [[0.2, -0.1, 0.3, 0.5], [0.1, 0.125]])
def test_differences_of_two_domains_have_welchs_interval(one: list[float]) -> None:
    """The mean over both, 4 tasks (or 2) and 6: the difference of the one, weighted, and the other, weighted and negated."""
    other = [0.0, 0.25, 0.0, -0.25, 0.1, 0.0]
    weight = len(one) / (len(one) + 6)
    mine, theirs = weight * np.array(one), (1 - weight) * np.array(other)
    welch = stats.ttest_ind(mine, -theirs, equal_var=False).confidence_interval()
    strata = [stratum(one), stratum(other)]
    assert difference_interval(strata) == pytest.approx(tuple(welch))
    assert standard_error(strata) == pytest.approx(math.hypot(stats.sem(mine), stats.sem(theirs)))


def test_equal_differences_exclude_what_so_many_tasks_can() -> None:
    """12 tasks that do not differ: as 12 failures of 12, they leave open what happens less often than 0.025 ** (1 / 12)."""
    half = stats.binomtest(0, 12).proportion_ci(method="exact").high
    assert difference_interval([stratum([0.0] * 5), stratum([0.0] * 7)]) == pytest.approx((-half, half))
    assert difference_interval([stratum([1.0] * 12)]) == pytest.approx((1 - half, 1.0))
    rounded = stratum([0.2] * 12)
    assert rounded.variance > 0  # the mean of twelve times 0.2 is not quite 0.2
    assert difference_interval([rounded]) == pytest.approx((0.2 - half, 0.2 + half))


def test_a_domain_of_one_task_counts_with_the_largest_variance() -> None:
    """Weights 1/5 and 4/5: variances 1/25, known, and 16/25 of the other domain's."""
    values = [0.5, 0.25, 0.5, 0.75]
    low, high = difference_interval([stratum([0.0]), stratum(values)])
    known, estimated = 0.04, 0.64 * float(np.var(values, ddof=1)) / 4
    quantile = stats.t.ppf(0.975, (known + estimated) ** 2 / (estimated**2 / 3))
    assert (high - low) / 2 == pytest.approx(quantile * math.sqrt(known + estimated))


def test_the_standard_error_with_different_numbers_of_values_is_that_of_a_ratio() -> None:
    """Cochran's ratio estimator: n / (n - 1) of the summed squares of sum - ratio x count, over the squared total."""
    sums, counts = [1.0, 0.5, 2.0, 0.0], [1.0, 2.0, 3.0, 1.0]
    ratio = 3.5 / 7
    squares = sum((s - ratio * c) ** 2 for s, c in zip(sums, counts, strict=True))
    strata = [Stratum(np.array(sums), np.array(counts))]
    assert standard_error(strata) == pytest.approx(math.sqrt(4 / 3 * squares) / 7)


def test_strata_are_domains_and_a_tasks_values_are_one_entry() -> None:
    found = strata_of(["a", "b", "a", "a"], ["t", "t", "u", "t"], [1.0, 0.5, 0.0, 0.25])
    assert [(s.sums.tolist(), s.counts.tolist()) for s in found] == [([1.25, 0.0], [2.0, 1.0]), ([0.5], [1.0])]
    assert [s.mean for s in found] == pytest.approx([1.25 / 3, 0.5])
    for sequences in (
        (["a"], ["t", "u"], [1.0, 0.0]),
        (["a", "a"], ["t"], [1.0, 0.0]),
        (["a", "a"], ["t", "u"], [1.0]),
    ):
        with pytest.raises(ValueError):
            strata_of(*sequences)


# ---- coverage --------------------------------------------------------------------------------------------------------


def results(tasks: int, attempts: int) -> list[tuple[int, ...]]:
    """Every result that ``tasks`` tasks can have: their numbers of successes, in order of size."""
    return list(itertools.combinations_with_replacement(range(attempts + 1), tasks))


def chances(tasks: int, attempts: int, a: float, b: float) -> np.ndarray:
    """The probability of each of `results`."""
    one = stats.betabinom.pmf(range(attempts + 1), attempts, a, b)
    counts = np.array([np.bincount(result, minlength=attempts + 1) for result in results(tasks, attempts)])
    orders = [math.factorial(tasks) / math.prod(map(math.factorial, row)) for row in counts]
    return np.array(orders) * np.prod(one**counts, axis=1)


def coverage(sizes: Sequence[int], attempts: int, k: int) -> list[float]:
    """The exact coverage of pass^k for each of `SHAPES`; several domains have different ones."""
    score = np.array([math.comb(c, k) / math.comb(attempts, k) for c in range(attempts + 1)])
    possible = [[stratum(score[list(result)]) for result in results(n, attempts)] for n in sizes]
    low, high = np.array([score_interval(combination) for combination in itertools.product(*possible)]).T
    found = []
    for first in range(len(SHAPES)):
        shapes = [SHAPES[(first + 3 * i) % len(SHAPES)] for i in range(len(sizes))]
        probability = np.ones(1)
        for n, (a, b) in zip(sizes, shapes, strict=True):
            probability = np.outer(probability, chances(n, attempts, a, b)).ravel()
        means = [math.prod((a + i) / (a + b + i) for i in range(k)) for a, b in shapes]
        truth = sum(n * mean for n, mean in zip(sizes, means, strict=True)) / sum(sizes)
        found.append(100 * float(probability[(low <= truth) & (truth <= high)].sum()))
    return found


@pytest.mark.parametrize(
    ("sizes", "attempts", "k", "least", "most"),
    [
        ((5,), 4, 1, 93.0, 98.0),
        ((6,), 4, 1, 94.0, 97.6),
        ((10,), 4, 1, 94.5, 95.5),
        ((5, 5), 4, 1, 93.5, 96.0),
        ((5, 5, 5), 2, 1, 93.5, 96.5),
        ((5,), 4, 2, 92.0, 98.7),
        ((6,), 8, 4, 90.0, 98.5),
    ],
)
def test_intervals_cover_what_they_promise(
    sizes: tuple[int, ...], attempts: int, k: int, least: float, most: float
) -> None:
    """93.5 to 96.5 % on average over the distributions of difficulty; ``least`` to ``most`` for each of them."""
    found = coverage(sizes, attempts, k)
    assert 93.5 <= np.mean(found) <= 96.5, found
    assert least <= min(found) <= max(found) <= most, found


def test_coverage_where_tasks_have_different_numbers_of_values() -> None:
    """8 tasks met by one to three users, 4 attempts each; 2,000 runs."""
    rng = np.random.default_rng(7)
    counts = np.array([1.0, 3, 2, 3, 1, 3, 2, 3])
    covered = 0
    for chance in rng.beta(1, 1, (2000, 8)):
        low, high = score_interval([Stratum(rng.binomial(4 * counts.astype(int), chance) / 4, counts)])
        covered += low <= 0.5 <= high
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.parametrize("domains", [1, 2])
def test_paired_differences_are_covered(domains: int) -> None:
    """The second policy solves 20 % of what the first would fail: 4,000 runs of 5 tasks a domain, 4 attempts each."""
    rng = np.random.default_rng(11)
    chance = rng.beta(1, 1, (4000, domains, 5))
    change = (rng.binomial(4, chance + 0.2 * (1 - chance)) - rng.binomial(4, chance)) / 4
    covered = [low <= 0.1 <= high for low, high in (difference_interval([stratum(d) for d in run]) for run in change)]
    assert 0.935 <= np.mean(covered) <= 0.965
