"""A simulator that is out: waited for or replaced, by policy; a refused key ends the run, and says with which variable."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tau2_slime import hooks
from tau2_slime.errors import ConfigError
from tau2_slime.world.users import endpoints
from tests.faults.conftest import GOLD, PAID, TASK, Stage, Status, detail, outcome, stats
from tests.faults.servers import FAREWELL, UserModel, UserMove, say

HELLO = UserMove(content="Please create the task 'Important Meeting' for user_1.")
BYE = UserMove(content="Thank you. ###STOP###")
STOPPED = (Status.FAILED, "config_error", "infrastructure")


@pytest_asyncio.fixture
async def spare() -> AsyncIterator[UserModel]:
    """A second endpoint."""
    server = UserModel()
    await server.start()
    yield server
    await server.close()


def pool(stage: Stage, spare: UserModel) -> list[dict[str, Any]]:
    """The stage's sample has index 5, so the second simulator, at the stage's own endpoint, is the one that it meets."""
    return [
        {"name": "spare", "model": "openai/spare", "base_url": spare.url},
        {"name": "main", "model": "openai/main", "base_url": stage.user.url},
    ]


async def test_the_next_one_plays_on_and_the_sample_says_so(stage: Stage, spare: UserModel) -> None:
    spare.script = [HELLO, BYE]
    sample = await stage.play(
        [say("Hello?"), *GOLD],
        users=[HELLO, *[UserMove(status=503)] * 9],
        user_simulators=pool(stage, spare),
        user_failover="next",
        user_retries=1,
    )
    assert outcome(sample) == PAID
    told = sample.metadata["tau2"]
    assert told["user_model"] == "main", "whom it was dealt"
    assert told["user_played"] == ["main", "spare"]
    assert stats(sample)["user_played"] == {"main": 1, "spare": 2}
    assert stats(sample)["user_faults"] == {"unavailable": 2}
    assert [len(stage.user.prompts), len(spare.prompts)] == [3, 2]
    first = spare.prompts[0]["messages"]
    assert [m["content"] for m in first[-2:]] == [HELLO.content, "Hello?"], "with the conversation up to then"


FAULTS = {
    "context_overflow": UserMove(status=400, message="This model's maximum context length is 10 tokens"),
    "content_filter": UserMove(status=400, message="triggering content management policy"),
    "rejected": UserMove(status=404),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_no_retry_cures_another_simulator_may(stage: Stage, spare: UserModel, fault: str) -> None:
    sample = await stage.play(
        users=[FAULTS[fault]] * 9, user_simulators=pool(stage, spare), user_failover="next", user_retries=5
    )
    assert len(stage.user.prompts) == 1
    assert sample.metadata["tau2"]["user_played"] == ["spare"]
    assert stats(sample)["user_faults"] == {fault: 1}


async def test_when_nobody_can_play_all_are_named(stage: Stage, spare: UserModel) -> None:
    spare.script = [UserMove(status=500)] * 9
    sample = await stage.play(
        users=[UserMove(status=404)] * 9, user_simulators=pool(stage, spare), user_failover="next", user_retries=1
    )
    assert outcome(sample) == (Status.FAILED, "user_error", "user")
    assert "main" in detail(sample) and "spare" in detail(sample)


async def test_by_default_nobody_plays_for_another(stage: Stage, spare: UserModel) -> None:
    sample = await stage.play(users=[UserMove(status=500)] * 9, user_simulators=pool(stage, spare), user_retries=1)
    assert outcome(sample) == (Status.FAILED, "user_error", "user")
    assert not spare.prompts


async def test_an_endpoint_that_is_out_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """More failures in a row than the breaker takes; the episode does not use up its tries while it is open."""
    monkeypatch.setattr(endpoints, "THRESHOLD", 2)
    monkeypatch.setattr(endpoints, "COOLDOWN_FIRST", 0.05)
    sample = await stage.play(users=[*[UserMove(status=503)] * 3, HELLO, BYE], user_retries=3)
    assert outcome(sample) == PAID
    assert stats(sample)["user_waited"] > 0


async def test_patience_has_an_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "THRESHOLD", 1)
    sample = await stage.play(users=[UserMove(status=503)] * 9, user_retries=5, user_patience=0)
    assert outcome(sample) == (Status.FAILED, "user_error", "user")
    assert "is out for another" in detail(sample)
    assert len(stage.user.prompts) == 1


async def test_retry_after_is_honoured(stage: Stage) -> None:
    """The stage's own backoff is milliseconds: whoever comes back within the second did not listen."""
    asked: list[float] = []
    limited = UserMove(status=429, headers={"Retry-After": "1"}, before=lambda: asked.append(time.monotonic()))
    again = UserMove(content=HELLO.content, before=lambda: asked.append(time.monotonic()))
    sample = await stage.play(users=[limited, again, BYE], user_retries=1)
    assert outcome(sample) == PAID
    assert asked[1] - asked[0] >= 1.0
    assert stats(sample)["user_faults"] == {"rate_limit": 1}


async def test_a_pause_longer_than_patience_is_not_waited_for(stage: Stage) -> None:
    sample = await stage.play(users=[UserMove(status=429, headers={"Retry-After": "3600"})] * 9, user_patience=5)
    assert outcome(sample) == (Status.FAILED, "user_error", "user")
    assert len(stage.user.prompts) == 1


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_fails_every_further_episode_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monkeypatch.setenv("MY_USER_KEY", "very-secret-indeed")
    key: dict[str, Any] = {"user_api_key_var": "MY_USER_KEY"}
    refusal = UserMove(status=status, message="Incorrect key: very-secret-indeed")
    first = await stage.play([say("Hello?")], users=[HELLO, *[refusal] * 9], **key)
    assert len(stage.user.prompts) == 2, "not tried again"
    asked = len(stage.router.asks)
    second = await stage.play(users=[HELLO, BYE], name="second", **key)
    other = await stage.play(users=[HELLO, BYE], name="other", user_model="openai/other")
    assert outcome(first) == outcome(second) == outcome(other) == STOPPED
    assert detail(first) == detail(second) == detail(other)
    assert "MY_USER_KEY" in detail(first)
    assert "very-secret-indeed" not in repr([first, second]) + caplog.text
    assert len(stage.router.asks) == asked and not stage.user.prompts, "nothing is asked of anybody any more"
    assert sum(r.levelname == "CRITICAL" for r in caplog.records) == 1
    for hook in (hooks.keep_informative_groups, hooks.post_process_rewards):
        with pytest.raises(ConfigError, match="MY_USER_KEY"):
            hook(stage.args(), [first, second])


async def test_evaluation_with_another_key_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime import generate_with_tau2

    monkeypatch.setenv("MY_USER_KEY", "k")
    await stage.play(users=[UserMove(status=401)], user_api_key_var="MY_USER_KEY")
    stage.router.script = GOLD
    sample = stage.sample("evaluation", **TASK)
    params = {"temperature": 1.0, "max_new_tokens": 512}
    await generate_with_tau2.generate(stage.args(), sample, params, evaluation=True)
    assert outcome(sample) == PAID


async def test_an_interrupted_episode_goes_on_with_who_had_taken_over(stage: Stage, spare: UserModel) -> None:
    from tests.faults.conftest import Flag

    flag = Flag()
    settings: dict[str, Any] = {
        "user_simulators": pool(stage, spare),
        "user_failover": "next",
        "user_retries": 0,
    }
    spare.script = [HELLO, UserMove(content="Go on.", before=flag.set), BYE, BYE]
    script = [say("Hello?"), say("Once more?"), *GOLD]
    sample = await stage.play(script, users=[UserMove(status=404)] * 9, aborted=flag, **settings)
    assert sample.status is Status.ABORTED
    flag.on = False
    asked = len(stage.user.prompts)
    await stage.run(stage.args(**settings), sample)
    assert not sample.metadata["tau2"]["restarted"]
    assert sample.metadata["tau2"]["user_played"] == ["spare"]
    assert len(stage.user.prompts) == asked, "the one that is out is not asked again"
    assert sample.response.count(FAREWELL) <= 1
