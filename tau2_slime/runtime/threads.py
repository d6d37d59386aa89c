"""Work that must not run on the event loop, and values that are built once per process.

slime drives episodes from more than one event loop (its rollout thread, the fully-async worker), so nothing here belongs to
a loop: threads and `concurrent.futures.Future`s are shared, and each caller awaits them in its own loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

from tau2_slime.errors import EpisodeAborted

P = ParamSpec("P")
T = TypeVar("T")


def _new_pool() -> ThreadPoolExecutor:
    # Few threads: the work is CPU-bound Python, and every thread that wants the GIL delays the event loop.
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="tau2-slime")


_pool = _new_pool()


def _in_a_forked_child() -> None:
    global _pool
    _pool = _new_pool()  # the parent's threads do not exist here, and its pool would wait for them


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


async def offload(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``fn`` returns, run in the package's own small thread pool.

    A cancelled caller stops waiting. A call that already runs finishes in its thread, and its result is dropped.
    """
    return await asyncio.wrap_future(_pool.submit(fn, *args, **kwargs))


class Once(Generic[T]):
    """A process-wide cache. Values are built in the thread pool, once per key; other callers await the first build.

    A build that raised is not kept: the next caller tries again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, Future[T]] = {}

    async def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value of ``key``; ``build`` makes it if there is none yet. Raises what ``build`` raises."""
        with self._lock:
            future = self._values.get(key)
            if future is None or (future.done() and future.exception() is not None):
                future = self._values[key] = _pool.submit(build)
        # shield: one cancelled episode must not cancel the build that others wait for
        return await asyncio.shield(asyncio.wrap_future(future))


class PerLoop(Generic[T]):
    """One value for each event loop: asyncio's objects (sessions, semaphores) must not be shared by two loops."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._values: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()

    def get(self) -> T:
        """The running loop's value, built at its first call there."""
        loop = asyncio.get_running_loop()
        value = self._values.get(loop)
        if value is None:
            value = self._values[loop] = self._build()
        return value

    def pop(self) -> T | None:
        """Forget the running loop's value and return it; None if there is none."""
        return self._values.pop(asyncio.get_running_loop(), None)


async def until_abort(work: Awaitable[T], aborted: Callable[[], bool], *, grace: float = 0.0, poll: float = 0.25) -> T:
    """The result of ``work``, unless an abort comes first.

    Args:
        work: a coroutine or a future. It is cancelled when the abort comes, or when the caller is cancelled.
        aborted: asked every ``poll`` seconds.
        grace: seconds that ``work`` may go on after the abort.
        poll: seconds.

    Raises:
        EpisodeAborted: the abort came first. Otherwise: what ``work`` raises.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            if aborted():
                await asyncio.wait({task}, timeout=grace)
                if not task.done():
                    raise EpisodeAborted("aborted while waiting")
                break
            await asyncio.wait({task}, timeout=poll)
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif not task.cancelled():
            task.exception()  # reading it keeps asyncio from logging "exception was never retrieved" if we were cancelled
