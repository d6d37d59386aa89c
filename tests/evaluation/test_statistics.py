"""pass@k, pass^k, standard errors and the noise floor against closed forms and simulation."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.evaluation.statistics.estimates import domain_weighted, estimate, noise, pass_first, scores
from tau2_slime.evaluation.store.unit import Unit


def unit(outcomes: list[float | None], task: object = 0, dataset: str = "d", domain: str = "x", **more: int) -> Unit:
    return Unit(dataset, domain, str(task), "user", tuple(outcomes), **more)


outcome_lists = st.lists(st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=5), min_size=1, max_size=6)


@given(outcome_lists)
def test_both_families_are_averages_over_all_subsets(rows: list[list[float | None]]) -> None:
    units = [unit(row, i) for i, row in enumerate(rows)]
    got = scores(units)
    for k in range(1, max(map(len, rows)) + 1):
        any_of, all_of = [], []
        for row in rows:
            usable = [r for r in row if r is not None]
            if len(usable) >= k:
                subsets = list(itertools.combinations(usable, k))
                any_of.append(sum(max(s) for s in subsets) / len(subsets))
                all_of.append(sum(min(s) for s in subsets) / len(subsets))
        if not any_of:
            assert k not in got.pass_at
            continue
        assert got.pass_at[k].value == pytest.approx(sum(any_of) / len(any_of))
        assert got.pass_hat[k].value == pytest.approx(sum(all_of) / len(all_of))
        assert got.pass_at[k].tasks + got.pass_at[k].left_out == len(rows)


@given(outcome_lists)
def test_what_must_always_hold(rows: list[list[float | None]]) -> None:
    got = scores([unit(row, i) for i, row in enumerate(rows)])
    for estimates in (got.pass_at, got.pass_hat):
        for one in estimates.values():
            assert 0 <= one.low <= one.value + 1e-12
            assert one.value - 1e-12 <= one.high <= 1
    assert got.excluded == sum(reward is None for row in rows for reward in row)
    if got.pass_hat:
        assert got.failures_as_zero is not None
        assert got.pass_hat[1].value == pytest.approx(got.pass_at[1].value)


def test_excluded_attempts_never_count_and_both_numbers_are_there() -> None:
    got = scores([unit([1.0, None, None, 1.0], 1), unit([0.0, 0.0, None, 1.0], 2)])
    assert got.pass_hat[1].value == pytest.approx((1 + 1 / 3) / 2)
    assert got.failures_as_zero == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert got.excluded == 3
    assert (got.pass_hat[3].tasks, got.pass_hat[3].left_out) == (1, 1)


def test_attempts_that_were_not_played_are_no_exclusions() -> None:
    got = scores([unit([1.0, None, None, None], played=1)])
    assert (got.excluded, got.failures_as_zero) == (0, 1.0)


def test_where_nothing_is_usable_nothing_is_known() -> None:
    nothing = scores([])
    assert (nothing.pass_at, nothing.pass_hat, nothing.pass_first, nothing.repeats) == ({}, {}, {}, [])
    assert (nothing.reward, nothing.failures_as_zero, nothing.noise, nothing.units) == (None, None, None, 0)
    not_played = scores([unit([None, None], played=0)])
    assert (not_played.pass_hat, not_played.reward, not_played.failures_as_zero) == ({}, None, None)
    excluded = scores([unit([None, None])])
    assert (excluded.reward, excluded.failures_as_zero, excluded.excluded) == (None, 0.0, 2)
    assert domain_weighted([]) is domain_weighted([unit([None])]) is None


def test_the_mean_reward_is_of_tasks_and_counts_partial_rewards() -> None:
    """Tasks of mean 0.25 and 1, whatever their numbers of attempts; a third one has no reward at all."""
    got = scores([unit([0.5, 0.0], 1), unit([1.0, None, None, None], 2), unit([None], 3)])
    assert got.reward is not None
    assert (got.reward.value, got.reward.tasks, got.reward.left_out) == (0.625, 2, 1)
    assert got.reward.low < 0.625 < got.reward.high


def test_repeats_are_the_shares_of_the_attempts_of_one_number() -> None:
    """Of the first attempts one in three succeeds, of the second one in two; the third ones are all excluded."""
    got = scores([unit([1.0, 1.0, None, 1.0], 1), unit([0.0, 0.99, None], 2), unit([0.5], 3)])
    assert got.repeats == pytest.approx([1 / 3, 1 / 2, 1])


def test_the_two_meanings_of_pass_at_k() -> None:
    """One success, in the last of four attempts: 'any of the first 2' does not see it, the unbiased estimate does."""
    got = scores([unit([0.0, 0.0, 0.0, 1.0])])
    assert got.pass_first[2] == 0.0
    assert got.pass_at[2].value == pytest.approx(1 - math.comb(3, 2) / math.comb(4, 2))
    assert got.pass_first[4] == got.pass_at[4].value == 1.0
    assert pass_first([None, True], 1) == 1.0
    assert pass_first([None, True], 2) is None


def test_standard_error_is_the_textbooks() -> None:
    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.75]
    got = estimate([unit([1.0], i) for i in range(6)], values)
    mean = sum(values) / 6
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / 5)
    assert got.stderr == pytest.approx(sd / math.sqrt(6))
    assert (got.value, got.tasks, got.left_out) == (pytest.approx(mean), 6, 0)


def test_a_task_met_by_three_users_is_one_task() -> None:
    """Three copies of the same results know no more than one: the interval must not shrink."""
    rng = random.Random(5)
    rows = [[float(rng.random() < 0.5) for _ in range(4)] for _ in range(12)]
    once = scores([unit(row, i) for i, row in enumerate(rows)])
    thrice = scores([unit(row, i, dataset) for dataset in "abc" for i, row in enumerate(rows)])
    assert thrice.pass_hat[1].value == pytest.approx(once.pass_hat[1].value)
    assert thrice.pass_hat[1].stderr == pytest.approx(once.pass_hat[1].stderr)
    assert thrice.pass_hat[1].low == pytest.approx(once.pass_hat[1].low)
    assert thrice.pass_hat[1].high == pytest.approx(once.pass_hat[1].high)


def test_domains_are_fixed() -> None:
    """Two domains that differ only from each other, not within: another draw of tasks would score the same."""
    units = [unit([1.0, 1.0], i, domain="good") for i in range(5)] + [
        unit([0.0, 0.0], i, domain="bad") for i in range(15)
    ]
    got = scores(units)
    assert got.pass_hat[1].value == 0.25
    assert got.pass_hat[1].stderr == pytest.approx(0, abs=1e-12)
    assert domain_weighted(units) == 0.5


def test_where_nothing_or_everything_succeeds_the_interval_is_the_exact_binomial() -> None:
    none = scores([unit([0.0] * 4, i) for i in range(10)]).pass_hat[1]
    every = scores([unit([1.0] * 4, i) for i in range(10)]).pass_hat[1]
    assert none.low == 0
    assert (1 - none.high) ** 10 == pytest.approx(0.025)
    assert every.high == 1
    assert every.low**10 == pytest.approx(0.025)


def test_the_noise_floor_is_what_repetitions_differ_by() -> None:
    """Two runs on the same tasks differ by less than the floor in about 95% of 1,000 pairs."""
    rng = np.random.default_rng(3)
    chances = rng.beta(1, 1, 40)

    def run() -> list[Unit]:
        return [unit([float(x) for x in rng.random(4) < p], i) for i, p in enumerate(chances)]

    within = 0
    for _ in range(1000):
        first, second = run(), run()
        means = [sum(u.c for u in units) / 160 for units in (first, second)]
        floor = noise(first)
        assert floor is not None
        within += abs(means[0] - means[1]) <= floor.floor
    assert 0.92 <= within / 1000 <= 0.98
    assert noise([unit([1.0])]) is None


def test_the_noise_is_that_of_the_tasks_with_several_attempts() -> None:
    """1 of 2 and 1 of 4 succeed: attempts vary by 1/2 and 1/4, means of 2 and of 4 by 1/4 and 1/16."""
    units = [unit([1.0, 0.0, None], 1), unit([0.0, 0.0, 1.0, 0.0], 2), unit([1.0], 3), unit([None], 4)]
    found = noise(units)
    assert found is not None and scores(units).noise == found
    assert found.run == pytest.approx(math.sqrt(1 / 4 + 1 / 16) / 2)
    assert found.floor == pytest.approx(1.959964 * math.sqrt(2) * found.run)
