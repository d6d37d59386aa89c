"""pass@k and pass^k against their definitions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.observe.passk import Tally, ks_up_to, pass_at, pass_hat, pass_metrics

outcomes = st.lists(st.booleans(), min_size=1, max_size=8)


@given(outcomes, st.data())
def test_both_are_averages_over_all_subsets(results: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(results)))
    subsets = list(itertools.combinations(results, k))
    n, c = len(results), sum(results)
    assert pass_at(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    assert pass_hat(n, c, k) == pytest.approx(sum(all(s) for s in subsets) / len(subsets))


@given(outcomes)
def test_one_sample_is_one_sample(results: list[bool]) -> None:
    n, c = len(results), sum(results)
    assert pass_at(n, c, 1) == pytest.approx(pass_hat(n, c, 1)) == pytest.approx(c / n)


def test_pass_hat_k_is_tau2s_own() -> None:
    from tau2.metrics.agent_metrics import pass_hat_k

    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c <= n and k <= n:
            assert pass_hat(n, c, k) == pass_hat_k(n, c, k)


@given(st.lists(outcomes, min_size=1, max_size=6))
def test_a_k_is_an_average_over_the_tasks_that_reach_it(tasks: list[list[bool]]) -> None:
    tallies = [Tally("d", "u", len(r), len(r), sum(r)) for r in tasks]
    metrics = pass_metrics(tallies, 8)
    for k in range(1, 9):
        reach = [r for r in tasks if len(r) >= k]
        assert metrics[f"tasks_below_{k}"] == len(tasks) - len(reach)
        assert (f"pass@{k}" in metrics) is bool(reach)
        if reach:
            assert 0 <= metrics[f"pass_hat_{k}"] <= metrics[f"pass@{k}"] + 1e-12 <= 1 + 1e-9


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    for estimate in (pass_at, pass_hat):
        with pytest.raises(ValueError, match="must hold"):
            estimate(n, c, k)


def test_every_k_up_to_sixteen_then_powers_of_two() -> None:
    for largest in range(1, 17):
        assert ks_up_to(largest) == list(range(1, largest + 1))
    assert ks_up_to(17) == [1, 2, 4, 8, 16, 17]
    assert ks_up_to(48) == [1, 2, 4, 8, 16, 32, 48]
    assert ks_up_to(64) == [1, 2, 4, 8, 16, 32, 64]


def test_the_standard_error_is_that_of_the_tasks_mean() -> None:
    metrics = pass_metrics([Tally("d", "u", 2, 2, 2), Tally("d", "u", 2, 2, 0)], 2)
    assert metrics["pass@1_stderr"] == pytest.approx(0.5)  # sd of (1, 0) is 0.7071, over the root of 2
    three = [Tally("d", "u", 4, 4, c) for c in (4, 2, 0)]
    assert pass_metrics(three, 4)["pass@1_stderr"] == pytest.approx(0.5 / 3**0.5), "sd of (1, 1/2, 0) is 1/2"


def test_tasks_with_nothing_usable_are_counted_and_take_no_part() -> None:
    gone = Tally("d", "u", 2, 0, 0)
    metrics = pass_metrics([Tally("d", "u", 2, 2, 1), gone], 2)
    assert (metrics["tasks"], metrics["tasks_below_1"], metrics["pass@1"]) == (2, 1, 0.5)
    assert "pass@1_stderr" not in metrics, "one task has no spread"
    assert pass_metrics([gone], 1) == {"tasks": 1.0, "tasks_below_1": 1.0}
    assert pass_metrics([Tally("d", "u")], 1) == {"tasks": 1.0, "tasks_below_1": 1.0}
