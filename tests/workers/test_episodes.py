"""Which worker gets which episode. The workers of these tests are names: nothing is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime.errors import EpisodeAborted, Tau2SlimeError
from tau2_slime.slime_adapter.workers.episodes import HOLD, MOST_DEATHS, Episode, Episodes, Worker
from tests.clock import forward

pytestmark = pytest.mark.fast


def worker(name: str) -> Worker:
    said: list[Any] = []
    channel: Any = SimpleNamespace(said=said, post=lambda *message: said.append(message), close=lambda: None)
    return Worker(name, channel)


def some(count: int, aborted: Callable[[], bool] = lambda: False) -> list[Episode]:
    return [Episode(number, b"", aborted, Future()) for number in range(count)]


def handed(all_: Episodes, episodes: list[Episode]) -> None:
    for episode in episodes:
        all_.hand_over(episode)


async def test_workers_that_come_one_after_the_other_share_what_waited() -> None:
    all_, workers = Episodes(), [worker(name) for name in "abc"]
    handed(all_, some(12))
    for coming, one in zip((2, 1, 0), workers, strict=True):
        all_.arrived(one, coming)
    assert [len(one.episodes) for one in workers] == [4, 4, 4]


async def test_no_episode_waits_for_ever_for_a_worker_that_does_not_come() -> None:
    all_, only = Episodes(), worker("a")
    handed(all_, some(8))
    all_.arrived(only, 3)
    assert len(only.episodes) == 2
    forward(HOLD + 1)
    watching = asyncio.create_task(all_.watch())
    await asyncio.sleep(0)
    watching.cancel()
    assert len(only.episodes) == 8


async def test_a_dead_workers_episodes_go_to_the_others_until_too_many_have_died() -> None:
    all_, (first, *others) = Episodes(), [worker(str(i)) for i in range(MOST_DEATHS)]
    all_.arrived(first, 0)
    episodes = some(3)
    handed(all_, episodes)
    for one in others:
        all_.arrived(one, 0)
        all_.bury(first, "killed by SIGKILL")
        assert [episode.worker for episode in episodes] == [one] * 3
        first = one
    all_.bury(first, "killed by SIGSEGV")
    for episode in episodes:
        error = episode.played.exception(0)
        assert isinstance(error, Tau2SlimeError)
        assert "SIGSEGV" in str(error)


async def test_what_is_aborted_ends_without_a_worker() -> None:
    all_, flag = Episodes(), SimpleNamespace(on=False)
    waiting = some(2, lambda: flag.on)
    handed(all_, waiting)
    flag.on = True
    watching = asyncio.create_task(all_.watch())
    await asyncio.sleep(0)
    watching.cancel()
    late = some(1, lambda: flag.on)
    only = worker("a")
    all_.arrived(only, 0)
    handed(all_, late)
    assert all(isinstance(episode.played.exception(0), EpisodeAborted) for episode in (*waiting, *late))
    assert not only.episodes and not only.channel.said  # type: ignore[attr-defined]


async def test_an_abort_and_a_cancelled_caller_reach_the_worker() -> None:
    all_, only, flag = Episodes(), worker("a"), SimpleNamespace(on=False)
    all_.arrived(only, 0)
    one, other = episodes = some(2, lambda: flag.on)
    handed(all_, episodes)
    other.played.cancel()
    all_.over(other)
    flag.on = True
    watching = asyncio.create_task(all_.watch())
    await asyncio.sleep(0)
    watching.cancel()
    assert only.channel.said[2:] == [("cancel", other.number), ("abort", [one.number])]  # type: ignore[attr-defined]
    all_.bury(only, "killed by SIGKILL")
    assert isinstance(one.played.exception(0), EpisodeAborted), "slime stopped it: nobody plays it again"
