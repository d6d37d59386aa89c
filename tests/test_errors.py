"""A log that names every cause once, says how often it came back, and never goes mute."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from tau2_slime import errors
from tau2_slime.errors import OncePerCause
from tau2_slime.outcome import Termination


@pytest.mark.parametrize(
    ("error", "termination"),
    [
        (errors.ConfigError, Termination.CONFIG_ERROR),
        (errors.UserAuthenticationError, Termination.CONFIG_ERROR),
        (errors.BudgetSpent, Termination.CONFIG_ERROR),
        (errors.EngineUnavailable, Termination.INFRASTRUCTURE_ERROR),
        (errors.TokenTruthError, Termination.INFRASTRUCTURE_ERROR),
        (errors.ContextOverflow, Termination.CONTEXT_LENGTH),
        (errors.UserSimulatorError, Termination.USER_ERROR),
        (errors.EpisodeAborted, Termination.ABORTED),
    ],
)
def test_an_error_says_how_its_episode_ended(error: type[errors.Tau2SlimeError], termination: Termination) -> None:
    assert Termination(error("a cause").termination) is termination


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ten_thousand_causes_do_not_silence_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    log = OncePerCause()
    letters = [f"{a}{b}{c}{d}" for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghij" for d in "abcdefghij"]
    assert sum(log.first_time("episode failed", f"the {word} is broken") for word in letters) == 10_000
    assert log.first_time("unforeseen", "KeyError: 'choices'")
    assert log.first_time("episode failed", "the disk is full")
    assert not caplog.records, "nothing was left out, so there is nothing to count"


def test_its_memory_is_bounded() -> None:
    log = OncePerCause(capacity=3)
    assert [log.first_time(kind) for kind in "abcda"] == [True] * 5, "a was forgotten when d came"
    assert not log.first_time("d")


def test_what_keeps_coming_back_is_not_forgotten() -> None:
    log = OncePerCause(capacity=3)
    log.first_time("often")
    for i in range(50):
        assert log.first_time(f"rare {'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}")
        assert not log.first_time("often")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("out for another 37 s", "out for another 12.5 s"),
        ("http://127.0.0.1:3000 refused", "http://10.0.0.7:41233 refused"),
        ("index=9999 is outside", "index=17 is outside"),
        ("request req_011CXyz4abCD failed", "request req_011CXzzQr5tU failed"),
        ("no task 'create_task_1'", "no task 'create_task_7'"),
        ("<Reply object at 0x7f3a9c0d1e2f>", "<Reply object at 0x7f3a9c0d77aa>"),
        (
            "the user simulator's fault: role_flip ('How may I help you with your order today?')",
            "the user simulator's fault: role_flip ('I have cancelled your reservation, goodbye.')",
        ),
    ],
)
def test_numbers_ids_and_quotations_make_no_new_cause(one: str, other: str) -> None:
    log = OncePerCause()
    assert log.first_time("kind", one)
    assert not log.first_time("kind", other)
    assert log.first_time("another kind", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user model openai/gpt-4o is out", "user model openai/gpt-5 is out"),
        ("HTTP 429 from the endpoint", "HTTP 401 from the endpoint"),
        ("unknown key 'user_modell'", "unknown key 'max_step'"),
        ("KeyError: 'a'", "TypeError: 'a'"),
        ("deepseek-v3.1 refuses", "deepseek-v3.2 refuses"),
    ],
)
def test_what_differs_in_meaning_is_told(one: str, other: str) -> None:
    log = OncePerCause()
    assert log.first_time("kind", one)
    assert log.first_time("kind", other)


def test_the_kind_itself_is_taken_as_it_is() -> None:
    log = OncePerCause()
    assert log.first_time("thoughts of model 1")
    assert log.first_time("thoughts of model 2")


def test_repetitions_are_counted_and_told_at_growing_intervals(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = OncePerCause(clock=clock)
    for i in range(1234):
        clock.now = i * 60.0
        assert log.first_time("router", f"no answer from port {i}") is (i == 0)
    assert [record.getMessage() for record in caplog.records] == [
        "tau2_slime: 9 more of this kind in the last 9 minutes: router: no answer from port 9",
        "tau2_slime: 90 more of this kind in the last 90 minutes: router: no answer from port 99",
        "tau2_slime: 900 more of this kind in the last 15 hours: router: no answer from port 999",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_repetitions_that_nobody_was_told_of_are_told_when_their_cause_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = OncePerCause(capacity=2, clock=clock)
    for kind in ("a", "a", "a", "b"):
        log.first_time(kind)
    clock.now = 30.0
    assert log.first_time("c")
    assert [record.getMessage() for record in caplog.records] == [
        "tau2_slime: 2 more of this kind in the last 30 seconds: a"
    ]


def test_a_long_message_is_looked_at_and_kept_in_part(caplog: pytest.LogCaptureFixture) -> None:
    log = OncePerCause()
    began = time.perf_counter()
    for _ in range(10):
        log.first_time("page", "<html>" + "'\"x" * 200_000)
    assert time.perf_counter() - began < 5
    assert len(caplog.records[0].getMessage()) < 1000


def test_of_many_threads_one_is_first(caplog: pytest.LogCaptureFixture) -> None:
    log = OncePerCause()
    answers: list[bool] = []
    start = threading.Barrier(8)

    def meet() -> None:
        start.wait()
        answers.extend(log.first_time("cause", str(i)) for i in range(125))

    threads = [threading.Thread(target=meet) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answers) == 1
    assert sorted(int(record.getMessage().split()[1]) for record in caplog.records) == [9, 90, 900]
