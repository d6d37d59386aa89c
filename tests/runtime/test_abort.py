"""Waiting for work until an abort, which cancels it: nothing is cancelled twice, too late, or for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tau2_slime.errors import EpisodeAborted
from tau2_slime.runtime import abort
from tau2_slime.runtime.abort import UntilAbort

T = TypeVar("T")


async def until_abort(work: Callable[[], Awaitable[T]], aborted: Callable[[], bool], *, grace: float = 0.0) -> T:
    async with UntilAbort(aborted, grace=grace):
        return await work()


class Work:
    """Work that tells whether it was cancelled."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = self.cancelled = self.finished = False

    async def run(self) -> str:
        self.began = True
        try:
            await asyncio.sleep(self.seconds)
            self.finished = True
            return "done"
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.fixture
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abort, "POLL", 0.001)


@pytest.mark.usefixtures("asked_often")
async def test_work_that_nobody_aborts_returns_its_result() -> None:
    assert await until_abort(Work(0.02).run, lambda: False) == "done"


@pytest.mark.usefixtures("asked_often")
async def test_an_abort_is_noticed_at_the_next_poll_and_cancels_the_work() -> None:
    work, asked = Work(3600), []

    def aborted() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(EpisodeAborted):
        await until_abort(work.run, aborted)
    assert len(asked) == 4
    assert work.cancelled and not work.finished


@pytest.mark.usefixtures("asked_often")
async def test_all_who_wait_in_a_loop_are_asked_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 4,096 episodes waits for an engine: a timer for each would keep the loop busy."""
    timers: list[float] = []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def call_later(delay: float, *args: Any, **kwargs: Any) -> Any:
        timers.append(delay)
        return later(delay, *args, **kwargs)

    monkeypatch.setattr(loop, "call_later", call_later)
    stop, works = asyncio.Event(), [asyncio.Event() for _ in range(100)]
    waiting = [asyncio.ensure_future(until_abort(work.wait, stop.is_set)) for work in works]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(timers) == 1
    for work in works[::2]:
        work.set()
    assert await asyncio.gather(*waiting[::2]) == [True] * 50
    stop.set()
    ended = await asyncio.gather(*waiting[1::2], return_exceptions=True)
    assert {type(one) for one in ended} == {EpisodeAborted}
    assert not abort._running.get().known


async def test_an_abort_before_the_work_begins_never_starts_it() -> None:
    work = Work(3600)
    with pytest.raises(EpisodeAborted):
        await until_abort(work.run, lambda: True)
    assert not work.began


async def test_grace_lets_work_finish() -> None:
    quick = Work(0.02)
    assert await until_abort(quick.run, lambda: True, grace=30) == "done"
    slow = Work(3600)
    with pytest.raises(EpisodeAborted):
        await until_abort(slow.run, lambda: True, grace=0.02)
    assert slow.cancelled


async def test_what_the_work_raises_is_raised() -> None:
    async def broken() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await until_abort(broken, lambda: False)


async def test_cancelling_the_caller_cancels_the_work() -> None:
    work = Work(3600)
    waiting = asyncio.ensure_future(until_abort(work.run, lambda: False))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled


# ---- the task that waited goes on ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("asked_often")
@pytest.mark.parametrize("grace", [0.0, 0.01])
async def test_after_an_abort_the_task_can_wait_again(grace: float) -> None:
    with pytest.raises(EpisodeAborted):
        await until_abort(Work(3600).run, lambda: True, grace=grace)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    async with asyncio.timeout(0.05) as timeout:  # which looks at how often the task was cancelled
        assert await Work(0.02).run() == "done"
    assert not timeout.expired()


async def test_grace_that_ends_after_the_work_cancels_nothing() -> None:
    assert await until_abort(Work(0.0).run, lambda: True, grace=0.02) == "done"
    assert await Work(0.05).run() == "done"


@pytest.mark.usefixtures("asked_often")
async def test_an_abort_and_a_caller_who_cancels_at_once_end_in_cancellation() -> None:
    """Whoever cancelled the task must see it cancelled, whatever else was going on."""
    work = Work(3600)
    stop = asyncio.Event()
    waiting = asyncio.ensure_future(until_abort(work.run, stop.is_set))
    await asyncio.sleep(0.01)
    stop.set()
    [one] = abort._running.get().known
    one.ask()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled and waiting.cancelled()


@pytest.mark.usefixtures("asked_often")
@pytest.mark.parametrize("first", [0, 2])
async def test_what_the_question_raises_ends_that_one_work(first: int) -> None:
    asked: list[int] = []

    def aborted() -> bool:
        asked.append(1)
        if len(asked) > first:
            raise LookupError("slime has no such state")
        return False

    work, other = Work(3600), asyncio.ensure_future(until_abort(Work(0.05).run, lambda: False))
    with pytest.raises(LookupError, match="no such state"):
        await until_abort(work.run, aborted)
    assert not work.finished and await other == "done"


@pytest.mark.usefixtures("asked_often")
async def test_work_that_turns_the_cancellation_into_an_error_leaves_no_cancellation_behind() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise OSError("the connection was closed") from None

    with pytest.raises(OSError, match="closed"):
        await until_abort(stubborn, lambda: True, grace=0.01)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


@pytest.mark.usefixtures("asked_often")
async def test_an_aborted_work_is_gone_at_once() -> None:
    """It holds a whole episode: no cycle may keep it until a full collection."""
    work = Work(3600)
    gone = weakref.ref(work)
    gc.disable()
    try:
        with contextlib.suppress(EpisodeAborted):
            await until_abort(work.run, iter([False, True]).__next__)
        del work
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
