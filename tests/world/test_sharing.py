"""What the processes of one run tell each other about the simulators."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.errors import BudgetSpent, UserAuthenticationError
from tau2_slime.runtime import run_stop
from tau2_slime.world.users import endpoints, sharing, spending
from tau2_slime.world.users.endpoints import THRESHOLD, Endpoint
from tau2_slime.world.users.spending import Account
from tests.fresh import forget_users

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    forget_users()
    yield
    forget_users()


def at(seconds: float = 100.0) -> Endpoint:
    """An endpoint whose process's clock shows that."""
    return Endpoint(clock=lambda: seconds)


def tell(source: Endpoint, *others: Endpoint) -> None:
    news = source.news()
    if news is not None:
        for other in others:
            other.learn(pickle.loads(pickle.dumps(news)))


def broken(endpoint: Endpoint) -> Endpoint:
    for _ in range(THRESHOLD):
        endpoint.failed()
    return endpoint


def test_an_endpoint_that_one_process_found_out_is_out_for_all() -> None:
    one, other = broken(at()), at(5000.0)
    assert not other.is_out
    tell(one, other)
    assert other.is_out
    assert other.enter() == pytest.approx(one.enter()), "seconds count from now, whatever the clocks say"


def test_the_first_answer_lets_all_processes_call_again() -> None:
    one, other = broken(at()), at()
    tell(one, other)
    other.succeeded()
    tell(one, other)
    assert not other.is_out, "older news changes nothing"
    tell(other, one)
    assert not one.is_out and one.enter() == 0.0


def test_a_pause_that_an_endpoint_asks_for_holds_everywhere() -> None:
    one, other = at(), at()
    one.hold(30.0)
    tell(one, other)
    assert other.enter() == pytest.approx(30.0)


def test_an_endpoint_that_always_answered_is_not_worth_a_word() -> None:
    endpoints.endpoint_of("http://a|m").succeeded()
    assert sharing.news().endpoints == {}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["broken", "succeeded", "hold"])), max_size=30))
def test_processes_that_tell_each_other_all_agree_in_the_end(events: list[tuple[int, str]]) -> None:
    every = [at() for _ in range(3)]
    do = {"broken": broken, "succeeded": Endpoint.succeeded, "hold": lambda one: one.hold(10.0)}
    for who, event in events:
        do[event](every[who])
    for _ in range(3):
        for one in every:
            tell(one, *every)
    assert len({one.is_out for one in every}) == 1


def test_a_bill_is_counted_once_however_often_it_is_told() -> None:
    spending.answered("dear", 1.0, 10, 20, 0.25)
    for total in (0.5, 0.75):
        spending.learn("worker 1", {"dear": Account(calls=2, dollars=total), "cheap": Account(failed=1)})
    assert spending.dollars == 1.0
    assert spending.accounts()["dear"] == Account(
        calls=3, prompt_tokens=10, completion_tokens=20, seconds=1.0, dollars=1.0
    )
    assert spending.accounts(without="worker 1") == spending.own_accounts()
    assert spending.own_accounts()["dear"].dollars == 0.25


def test_the_others_bills_count_for_the_budget() -> None:
    spending.answered("dear", 1.0, 10, 20, 0.25)
    spending.check(0.5)
    spending.learn("worker 1", {"dear": Account(dollars=0.25)})
    with pytest.raises(BudgetSpent, match=r"dear \$0.50"):
        spending.check(0.5)


def test_a_run_that_one_process_stops_stops_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "wrong")
    spending.answered("dear", 1.0, 10, 20, 2.0)
    with pytest.raises(BudgetSpent):
        spending.check(1.0)
    endpoints.refuse_key("http://a", "SOME_KEY", "dear", "HTTP 401")
    told = pickle.loads(pickle.dumps(sharing.news(own_bills=True)))
    forget_users()
    assert run_stop.reason_to_stop() is None
    sharing.learn("worker 1", told)
    assert "user_budget" in str(run_stop.reason_to_stop())
    with pytest.raises(UserAuthenticationError, match="SOME_KEY"):
        endpoints.check_key("http://a", "SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "right")
    endpoints.check_key("http://a", "SOME_KEY")
    assert sharing.news().gist == sharing.news().gist


@pytest.mark.parametrize(("limit", "processes", "part"), [(128, 1, 128), (128, 4, 32), (10, 4, 3), (1, 4, 1)])
def test_each_process_has_its_part_of_a_limit(limit: int, processes: int, part: int) -> None:
    try:
        endpoints.share_limits(processes)
        assert endpoints.part_of(limit) == part
    finally:
        endpoints.share_limits(1)
