"""What an abort of the rollout ends.

>>> async with UntilAbort(slime_aborts):  # doctest: +SKIP
...     message = await user.reply(text)

It cancels the task that waits, as `asyncio.timeout` does, so that a request needs no further task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tau2_slime.errors import EpisodeAborted
from tau2_slime.runtime.loops import PerLoop, take_turn

POLL = 0.25
"""Seconds between two looks at whether an episode was aborted."""


class UntilAbort:
    """A context whose body is cancelled when an abort comes. It never begins if the abort was there before, without grace.

    Raises:
        EpisodeAborted: the abort came first.
    """

    def __init__(self, aborted: Callable[[], bool], *, grace: float = 0.0) -> None:
        """``aborted``: asked now and every `POLL` seconds. ``grace``: seconds that the body may go on after the abort."""
        self._aborted, self._grace = aborted, grace
        self._task: asyncio.Task[Any] | None = None
        self._why: Exception | None = None
        """Why the task was cancelled from here."""

    async def __aenter__(self) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelled_by_others = task.cancelling()
        if not self._aborted():
            _running.get().add(self)
        elif self._grace:
            self._end(EpisodeAborted(_ABORTED))
        else:
            raise EpisodeAborted("aborted before it began")

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (task, self._task), (why, self._why) = (self._task, None), (self._why, None)
        _running.get().known.discard(self)
        try:
            if why is None:
                if kind is None:
                    await take_turn()
            elif task is not None and task.uncancel() <= self._cancelled_by_others and kind is asyncio.CancelledError:
                raise why from None
        finally:
            del task, why  # its traceback holds this frame: a cycle with the whole episode in it

    def ask(self) -> None:
        """Was it aborted?"""
        try:
            if self._aborted():
                self._end(EpisodeAborted(_ABORTED))
        except Exception as error:  # the caller's function: its episode alone is told
            self._cancel(error)

    def _end(self, why: EpisodeAborted) -> None:
        """Cancel the body when its grace is over. Nobody need ask again."""
        _running.get().known.discard(self)
        if self._grace:
            asyncio.get_running_loop().call_later(self._grace, self._cancel, why)
        else:
            self._cancel(why)

    def _cancel(self, why: Exception) -> None:
        if self._task is not None and self._why is None:
            self._why = why
            self._task.cancel()


_ABORTED = "aborted while waiting"


class _Running:
    """The bodies that run in one event loop. Thousands may, so one timer asks for all."""

    def __init__(self) -> None:
        self.known: set[UntilAbort] = set()
        self._asks = False

    def add(self, one: UntilAbort) -> None:
        self.known.add(one)
        if not self._asks:
            self._asks = True
            asyncio.get_running_loop().call_later(POLL, self._ask)

    def _ask(self) -> None:
        self._asks = bool(self.known)
        for one in list(self.known):
            one.ask()
        if self._asks:
            asyncio.get_running_loop().call_later(POLL, self._ask)


_running = PerLoop(_Running)
