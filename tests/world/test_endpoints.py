"""The breaker: opens after failures in a row, lets one call find out whether the endpoint is back, in any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.chat.faults import Fault, of_exception, retry_after
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.endpoints import COOLDOWN_FIRST, COOLDOWN_MAX, THRESHOLD, Endpoint
from tests.fresh import forget_users


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Endpoint, Clock]:
    clock = Clock()
    place = Endpoint(clock)
    for _ in range(THRESHOLD):
        assert place.enter() == 0.0
        place.failed()
    return place, clock


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not() -> None:
    place = Endpoint(Clock())
    for _ in range(5 * THRESHOLD):
        for _ in range(THRESHOLD - 1):
            place.failed()
        place.succeeded()
    assert place.enter() == 0.0 and not place.is_out
    place, _ = opened()
    assert place.is_out and 0 < place.enter() <= COOLDOWN_FIRST * 1.25


def test_one_call_finds_out_and_its_answer_lets_all_in() -> None:
    place, clock = opened()
    clock.now += 2 * COOLDOWN_FIRST
    with ThreadPoolExecutor(8) as pool:
        entered = [wait == 0.0 for wait in pool.map(lambda _: place.enter(), range(64))]
    assert entered.count(True) == 1
    place.succeeded()
    assert place.enter() == 0.0 and place.enter() == 0.0


def test_each_failed_probe_doubles_the_pause_up_to_a_limit() -> None:
    place, clock = opened()
    pauses = []
    for _ in range(10):
        clock.now += 2 * COOLDOWN_MAX
        assert place.enter() == 0.0
        place.failed()
        pauses.append(place.enter())
    assert pauses[0] > COOLDOWN_FIRST * 1.4
    assert COOLDOWN_MAX * 0.75 <= pauses[-1] <= COOLDOWN_MAX * 1.25


def test_calls_that_were_under_way_when_it_went_out_change_nothing() -> None:
    place, _ = opened()
    before = place.enter()
    for _ in range(100):
        place.failed()
    assert place.enter() == before


def test_a_cancelled_probe_leaves_its_place_to_another() -> None:
    place, clock = opened()
    clock.now += 2 * COOLDOWN_FIRST
    assert place.enter() == 0.0
    assert place.enter() > 0
    place.dropped()
    assert place.enter() == 0.0


def test_an_endpoint_that_asked_for_a_pause_gets_it() -> None:
    clock = Clock()
    place = Endpoint(clock)
    place.hold(7)
    place.hold(3)
    assert place.enter() == 7.0
    clock.now += 7
    assert place.enter() == 0.0 and not place.is_out


@given(st.lists(st.sampled_from(["enter", "succeeded", "failed", "dropped", "hold", "later"]), max_size=60))
def test_whatever_happens_it_opens_again_in_the_end(events: list[str]) -> None:
    clock = Clock()
    place = Endpoint(clock)
    for event in events:
        if event == "later":
            clock.now += 3
        elif event == "hold":
            place.hold(2)
        else:
            getattr(place, event)()
    place.dropped()
    clock.now += 2 * COOLDOWN_MAX
    assert place.enter() == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"Retry-After": formatdate(0)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_what_retry_after_says(headers: Any, seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def error(status: int | None, text: str = "no", name: str = "APIError", headers: Any = None) -> Exception:
    made = type(name, (Exception,), {})(text)
    made.status_code = status  # type: ignore[attr-defined]
    made.response = SimpleNamespace(headers=headers)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("raised", "fault"),
    [
        (error(429, headers={"retry-after": "3"}), Fault.RATE_LIMIT),
        (
            error(429, "You exceeded your current quota, please check your plan and billing details"),
            Fault.AUTHENTICATION,
        ),
        (error(401), Fault.AUTHENTICATION),
        (error(402, "Insufficient credits"), Fault.AUTHENTICATION),
        (error(403), Fault.AUTHENTICATION),
        (error(403, "Your input was flagged"), Fault.CONTENT_FILTER),
        (error(400, "the prompt triggering content management policy"), Fault.CONTENT_FILTER),
        (error(400, name="ContentPolicyViolationError"), Fault.CONTENT_FILTER),
        (error(400, name="ContextWindowExceededError"), Fault.CONTEXT_OVERFLOW),
        (error(400, "The input (9000 tokens) is longer than the model's context length"), Fault.CONTEXT_OVERFLOW),
        (error(400), Fault.REJECTED),
        (error(404), Fault.REJECTED),
        (error(500), Fault.UNAVAILABLE),
        (error(529), Fault.UNAVAILABLE),
        (error(408, name="Timeout"), Fault.TIMEOUT),
        (TimeoutError(), Fault.TIMEOUT),
    ],
)
def test_every_failure_of_a_provider_has_its_kind(raised: Exception, fault: Fault) -> None:
    failed = of_exception(raised)
    assert failed is not None and failed.fault is fault


def test_retry_after_is_found_where_litellm_keeps_it_and_where_a_client_does() -> None:
    kept = error(429)
    kept.litellm_response_headers = {"retry-after": "4"}  # type: ignore[attr-defined]
    for raised, seconds in ((kept, 4.0), (error(503, headers={"Retry-After": "9"}), 9.0), (error(429), None)):
        failed = of_exception(raised)
        assert failed is not None and failed.retry_after == seconds


@pytest.mark.parametrize("raised", [KeyError("message"), ValueError("x"), AttributeError("y"), TypeError("z")])
def test_a_mistake_of_our_own_is_not_a_failure_of_the_provider(raised: Exception) -> None:
    assert of_exception(raised) is None


def test_a_clients_error_without_a_status_is_the_providers() -> None:
    import httpx

    connect, read = of_exception(httpx.ConnectError("refused")), of_exception(httpx.ReadTimeout("slow"))
    assert connect is not None and connect.fault is Fault.UNAVAILABLE
    assert read is not None and read.fault is Fault.TIMEOUT


def test_a_refused_key_is_remembered_until_another_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.errors import UserAuthenticationError
    from tau2_slime.runtime import run_stop

    monkeypatch.setenv("MY_USER_KEY", "first")
    forget_users()
    try:
        told = endpoints.refuse_key("http://x/v1", "MY_USER_KEY", "calm", "401")
        assert "MY_USER_KEY" in str(told) and "first" not in str(told)
        with pytest.raises(UserAuthenticationError, match="MY_USER_KEY"):
            endpoints.check_key("http://x/v1", "MY_USER_KEY")
        endpoints.check_key("http://other/v1", "MY_USER_KEY")
        assert run_stop.reason_to_stop() == str(told)
        monkeypatch.setenv("MY_USER_KEY", "second")
        endpoints.check_key("http://x/v1", "MY_USER_KEY")
        assert run_stop.reason_to_stop() is None
    finally:
        forget_users()
