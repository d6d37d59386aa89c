"""A mistake in this package's own code around the simulator is not the simulator's: no retry, no blame, one traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tau2_slime.chat import completion as chat_completion
from tau2_slime.world.users import completion, endpoints, simulator
from tests.faults.conftest import Stage, Status, detail, outcome, stats
from tests.faults.servers import UserMove

HELLO = UserMove(content="Please create the task 'Important Meeting' for user_1.")

PLACES: dict[str, tuple[Any, str]] = {
    "reading the answer": (completion, "read_completion"),
    "writing the request": (completion, "served_name"),
    "choosing the way": (completion, "is_direct"),
    "booking the answer": (simulator.LitellmUser, "_book"),
    "building the message": (simulator, "user_message"),
    "cutting the reasoning off": (chat_completion, "cut_thoughts"),
    "telling the breaker": (endpoints.Endpoint, "succeeded"),
    "the list of expenses": (simulator.spending, "answered"),
    "the state of the endpoint": (endpoints, "endpoint_of"),
}


def broken(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.surprise
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", [KeyError("message"), AttributeError("no such thing")], ids=["key", "attribute"])
async def test_it_is_infrastructure_and_told_once(
    stage: Stage, place: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(*PLACES[place], broken(error))
    samples = [await stage.play(users=[HELLO] * 9, name=name) for name in ("first", "second")]
    for sample in samples:
        assert outcome(sample) == (Status.FAILED, "infrastructure_error", "infrastructure")
        assert detail(sample) == f"{type(error).__name__}: {error}"
        assert stats(sample)["user_retries"] == 0 and not stats(sample)["user_faults"]
    assert len(stage.user.prompts) <= 1, "of the second episode: no further try"
    told = [r for r in caplog.records if r.name.startswith("tau2_slime") and r.exc_text]
    assert len(told) == 1 and told[0].levelno == logging.ERROR


@pytest.mark.surprise
async def test_another_call_may_try_the_endpoint_after_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that ends in our own mistake must not keep every other episode waiting."""
    monkeypatch.setattr(completion, "read_completion", broken(KeyError("x")))
    place = endpoints.endpoint_of(f"{stage.user.url}|openai/test")
    now = [0.0]
    place.clock = lambda: now[0]
    for _ in range(endpoints.THRESHOLD):
        place.failed()
    now[0] += 1000.0
    sample = await stage.play(users=[HELLO])
    assert outcome(sample)[1] == "infrastructure_error"
    assert place.enter() == 0.0
