"""slime stops the rollout: noticed at once wherever the episode stands, and what was sampled is kept.

The servers hang where it matters, so an episode that waited for them would be lost (`PATIENCE`).
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.faults.conftest import GOLD, PAID, PATIENCE, Flag, Stage, Status, outcome, stats
from tests.faults.servers import (
    Move,
    UserMove,
    after,
    answer,
    error,
    hang,
    http,
    log_prob,
    partial,
    queued_abort,
    say,
    spell,
)

STOPPED = (Status.ABORTED, "aborted", "infrastructure")

SOON = 25.0
"""Seconds; far below every time-out of the test, far above the second that an abort may take on a busy machine."""


async def _soon(episode: Any) -> Any:
    return await asyncio.wait_for(episode, SOON)


async def test_before_the_first_call(stage: Stage) -> None:
    sample = await stage.play(aborted=lambda: True)
    assert outcome(sample) == STOPPED
    assert stage.router.asks == []


@pytest.mark.parametrize("turn", [0, 1])
async def test_the_server_answers_with_what_it_has(stage: Stage, turn: int) -> None:
    flag = Flag()
    script: list[Move] = [*GOLD[:turn], after(flag.set, partial("Let me see")), *GOLD]
    sample = await _soon(stage.play(script, aborted=flag))
    assert outcome(sample) == STOPPED
    ids = stage.router.sent["episode"][turn]
    assert sample.tokens[-len(ids) :] == ids
    assert sample.loss_mask[-len(ids) :] == [1] * len(ids)
    assert sample.rollout_log_probs[-len(ids) :] == [log_prob(token) for token in ids]
    assert len(stage.router.asks) == turn + 1


@pytest.mark.parametrize("turn", [0, 1])
async def test_the_server_never_answers(stage: Stage, turn: int) -> None:
    flag = Flag()
    script: list[Move] = [*GOLD[:turn], after(flag.set, hang())]
    sample = await _soon(stage.play(script, aborted=flag, request_timeout=3600))
    assert outcome(sample) == STOPPED
    assert sum(sample.loss_mask) == sum(map(len, stage.router.sent["episode"])), "earlier turns are kept"


async def test_the_server_answers_from_its_queue(stage: Stage) -> None:
    flag = Flag()
    sample = await _soon(stage.play([GOLD[0], after(flag.set, queued_abort()), *GOLD], aborted=flag))
    assert outcome(sample) == STOPPED
    assert len(stage.router.asks) == 2


async def test_the_server_finishes_its_turn_all_the_same(stage: Stage) -> None:
    """The turn was complete before the abort reached it: it is kept, and nothing follows."""
    flag = Flag()
    sample = await _soon(stage.play([after(flag.set, GOLD[0]), *GOLD[1:]], aborted=flag))
    assert outcome(sample) == STOPPED
    assert len(stage.router.asks) == 1
    assert sum(sample.loss_mask) == len(stage.router.sent["episode"][0])


async def test_between_turns(stage: Stage) -> None:
    flag = Flag()
    hello = UserMove(content="Please create the task.", before=flag.set)
    sample = await _soon(stage.play(users=[hello], aborted=flag))
    assert outcome(sample) == STOPPED
    assert stage.router.asks == []


async def test_inside_a_call_of_the_user(stage: Stage) -> None:
    flag = Flag()
    users = [UserMove(content="Please create the task."), UserMove(silent=True, before=flag.set)]
    sample = await _soon(stage.play(users=users, aborted=flag, user_timeout=3600))
    assert outcome(sample) == STOPPED
    assert any(sample.loss_mask)


def _set_later(flag: Flag) -> None:
    asyncio.get_running_loop().call_later(0.2, flag.set)


async def test_while_a_retry_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.tokens.engine.BACKOFF_FIRST", 3600)
    monkeypatch.setattr("tau2_slime.tokens.engine.BACKOFF_MAX", 3600)
    flag = Flag()
    sample = await _soon(
        stage.play([GOLD[0], after(lambda: _set_later(flag), error(503, "no_available_workers"))], aborted=flag)
    )
    assert outcome(sample) == STOPPED
    assert len(stage.router.asks) == 2


async def test_while_a_retry_of_the_user_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.world.users.simulator.BACKOFF_FIRST", 3600)
    monkeypatch.setattr("tau2_slime.world.users.simulator.BACKOFF_MAX", 3600)
    flag = Flag()
    limited = UserMove(status=429, before=lambda: _set_later(flag))
    sample = await _soon(stage.play(users=[limited], aborted=flag))
    assert outcome(sample) == STOPPED


async def test_while_the_reward_is_computed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    flag, done = Flag(), threading.Event()

    def endless(*_: Any, **__: Any) -> None:
        flag.set()
        done.wait(60)

    monkeypatch.setattr("tau2_slime.world.scoring.is_quick", lambda *_, **__: False)
    monkeypatch.setattr("tau2_slime.world.scoring.score", endless)
    try:
        sample = await _soon(stage.play(aborted=flag))
    finally:
        done.set()
    assert outcome(sample) == STOPPED
    assert any(sample.loss_mask), "the whole conversation is kept"


async def test_a_hundred_at_once(stage: Stage) -> None:
    flag = Flag()
    arrived = 0

    def count() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 100:
            flag.set()

    stage.router.choose = lambda ask: after(count, hang())
    names = [f"episode {i}" for i in range(100)]
    episodes = (stage.play(name=n, aborted=flag, request_timeout=3600) for n in names)
    samples = await asyncio.wait_for(asyncio.gather(*episodes), PATIENCE)
    assert {outcome(sample) for sample in samples} == {STOPPED}


async def test_a_cancelled_episode_is_cancelled(stage: Stage) -> None:
    """`CancelledError` is the one thing that `generate` lets through."""
    asked = asyncio.Event()
    episode = asyncio.create_task(stage.play([after(asked.set, hang())]))
    await asyncio.wait_for(asked.wait(), 30)
    episode.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(episode, SOON)


# ---- an abort of the engine that is not slime's: a weight update -----------------------------------------------------


async def test_a_weight_update_is_resumed_in_place(stage: Stage) -> None:
    whole = spell("create_task", {"user_id": "user_1", "title": "Important Meeting"})
    head, tail = whole[:25], whole[25:]
    script = [partial(head, version="1"), answer(tail, version="2"), answer("Your case is now complete.", version="2")]
    sample = await stage.play(script)
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert sample.weight_versions == ["1", "2", "2"]
    first, second = stage.router.asks[:2]
    sent = stage.router.sent["episode"]
    assert second.ids == first.ids + sent[0]
    assert second.params["max_new_tokens"] == first.params["max_new_tokens"] - len(sent[0])
    prompt = len(first.ids)
    turn = sent[0] + sent[1]
    assert sample.tokens[prompt : prompt + len(turn)] == turn
    assert sample.loss_mask[: len(turn)] == [1] * len(turn)
    assert stats(sample)["resumed_aborts"] == 1


async def test_a_turn_that_was_over_when_the_abort_came_is_not_continued(stage: Stage) -> None:
    """sglang reports the abort although the last sampled token is the stop token."""
    aborted = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
    sample = await stage.play([answer("One moment.", finish=aborted), *GOLD])
    assert outcome(sample) == PAID
    assert stats(sample)["resumed_aborts"] == 0
    assert stage.results[0].messages[2].content == "One moment."


async def test_aborts_from_the_queue_are_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.policy.sampling._RESUME_PAUSE", 0.01)
    sample = await stage.play([GOLD[0], queued_abort(), queued_abort(), *GOLD[1:]])
    assert outcome(sample) == PAID
    assert stats(sample)["resumed_aborts"] == 2
    assert stage.router.asks[1].payload == stage.router.asks[3].payload


async def test_a_turn_that_aborts_eat_up_is_too_long(stage: Stage) -> None:
    sample = await stage.play([partial("word " * 20)] * 50, max_new_tokens=60)
    assert outcome(sample) == (Status.TRUNCATED, "response_length", "limit")
    assert len(stage.router.asks) < 10


async def test_an_endlessly_aborting_server_is_unavailable(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.policy.sampling._RESUME_PAUSE", 0)
    monkeypatch.setattr("tau2_slime.policy.sampling._MAX_EMPTY_ABORTS", 5)
    sample = await stage.play([queued_abort()] * 50)
    assert outcome(sample) == (Status.FAILED, "infrastructure_error", "infrastructure")


async def test_slimes_abort_ends_the_waiting_for_a_weight_update(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.policy.sampling._RESUME_PAUSE", 3600)
    flag = Flag()
    sample = await _soon(stage.play([after(lambda: _set_later(flag), queued_abort())], aborted=flag))
    assert outcome(sample) == STOPPED


async def test_a_fault_during_a_resumed_turn_keeps_the_first_half(stage: Stage) -> None:
    sample = await stage.play([partial("Let me"), http(502, "x"), say(" see."), *GOLD])
    assert outcome(sample) == PAID
    assert stage.results[0].messages[2].content == "Let me see."
