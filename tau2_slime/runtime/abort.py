"""Work that an abort of the rollout ends: `until_abort`.

It cancels the task that waits, as `asyncio.timeout` does, so that no further task is needed for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tau2_slime.errors import EpisodeAborted
from tau2_slime.runtime.loops import PerLoop, take_turn

T = TypeVar("T")

POLL = 0.25
"""Seconds between two looks at whether an episode was aborted."""


class _Waiting:
    """A task that waits for its work."""

    def __init__(self, aborted: Callable[[], bool], grace: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] | None = task
        self._cancelled_by_others = task.cancelling()
        self._aborted, self._grace, self._told = aborted, grace, False
        self.why: Exception | None = None
        """Why the task was cancelled from here."""

    def ask(self) -> None:
        """Was it aborted? Then it is cancelled when its grace is over."""
        try:
            if self._told or not self._aborted():
                return
            self._told, why = True, EpisodeAborted("aborted while waiting")
        except Exception as error:  # the caller's function: its episode alone is told
            self._cancel(error)
            return
        if self._grace:
            asyncio.get_running_loop().call_later(self._grace, self._cancel, why)
        else:
            self._cancel(why)

    def _cancel(self, why: Exception) -> None:
        if self._task is not None and self.why is None:
            self.why = why
            self._task.cancel()

    def ends(self) -> bool:
        """The work is over. True if that is because the task was cancelled from here, and by nobody else."""
        task, self._task = self._task, None
        return task is not None and self.why is not None and task.uncancel() <= self._cancelled_by_others


class _Aborts:
    """Asks for all who wait in one event loop. Thousands may wait, so they share one timer."""

    def __init__(self) -> None:
        self.waiting: set[_Waiting] = set()
        self._asks = False

    def ask_soon(self) -> None:
        if not self._asks:
            self._asks = True
            asyncio.get_running_loop().call_later(POLL, self._ask)

    def _ask(self) -> None:
        self._asks = False
        for one in list(self.waiting):
            one.ask()
        if self.waiting:
            self.ask_soon()


_aborts = PerLoop(_Aborts)


async def until_abort(work: Awaitable[T], aborted: Callable[[], bool], *, grace: float = 0.0) -> T:
    """The result of ``work``, unless an abort comes first.

    Args:
        work: a coroutine. It is cancelled when the abort comes, or when the caller is cancelled.
        aborted: asked now and every `POLL` seconds.
        grace: seconds that ``work`` may go on after the abort.

    Raises:
        EpisodeAborted: the abort came first. Otherwise: what ``work`` raises.
    """
    one, every = _Waiting(aborted, grace), _aborts.get()
    every.waiting.add(one)
    every.ask_soon()
    try:
        one.ask()
        if one.why is not None:
            await asyncio.sleep(0)  # where the cancellation arrives: the work never begins
        result = await work
    except asyncio.CancelledError:
        if not one.ends() or one.why is None:
            raise
        raise one.why from None
    finally:
        one.ends()
        every.waiting.discard(one)
        if (close := getattr(work, "close", None)) is not None:
            close()  # a coroutine that never began would be warned about
        # They hold the exception, whose traceback holds this frame: a cycle with the whole episode in it.
        del one, work, close
    await take_turn()
    return result
