"""Work that must not run on the event loop, turns for those that do, and what is built once: per process, or per loop.

slime drives episodes from more than one event loop (its rollout thread, the fully-async worker), so nothing here belongs to
a loop: threads and `concurrent.futures.Future`s are shared, and each caller awaits them in its own loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from tau2_slime.runtime.garbage_collection import builds_what_stays

P = ParamSpec("P")
T = TypeVar("T")


def _new_pool() -> ThreadPoolExecutor:
    # Few threads: the work is CPU-bound Python, and every thread that wants the GIL delays the event loop.
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="tau2-slime")


_pool = _new_pool()


async def offload(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``fn`` returns, run in the package's own small thread pool.

    A cancelled caller stops waiting. A call that already runs finishes in its thread, and its result is dropped.
    """
    return await result_of(_pool.submit(_run, partial(fn, *args, **kwargs)))


async def result_of(job: Future[T]) -> T:
    """What a thread makes of ``job``. If the caller is cancelled, so is a job that has not begun."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()
    job.add_done_callback(partial(_finished.get().tell, loop, waiter))
    try:
        result = await waiter
    except asyncio.CancelledError:
        job.cancel()
        raise
    finally:
        del job, waiter  # they hold the exception, whose traceback holds this frame
    await take_turn()
    return result


class _Finished:
    """What threads have finished for one event loop. Each wake-up of a loop is a byte that it reads from a socket; threads
    that wake it for every short call keep it reading, so it is woken once for all that is there when it looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: list[tuple[asyncio.Future[Any], Future[Any]]] = []

    def tell(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[T], job: Future[T]) -> None:
        """Called in the thread."""
        with self._lock:
            self._ready.append((waiter, job))
            first = len(self._ready) == 1
        if first:
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits, and nothing of it may stay here
                with self._lock:
                    self._ready.clear()

    def _deliver(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, []
        for waiter, job in ready:
            if waiter.done():
                continue  # its caller was cancelled
            if job.cancelled():
                waiter.cancel()
            elif (error := job.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(job.result())


SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread of the pool hands over Python's lock, instead of 0.005: the loop gives the lock up at every
socket that it reads or writes, and waits that long to get it back."""
_running = 0
_interval = 0.0
_interval_lock = threading.Lock()


def _run(work: Callable[[], T]) -> T:
    """``work`` in a thread of the pool. When the last one is done, the process has its own switch interval again."""
    global _running, _interval
    with _interval_lock:
        if _running == 0:
            _interval = sys.getswitchinterval()
            sys.setswitchinterval(min(_interval, SWITCH_INTERVAL))
        _running += 1
    try:
        return work()
    finally:
        with _interval_lock:
            _running -= 1
            if _running == 0:
                sys.setswitchinterval(_interval)


def _in_a_forked_child() -> None:
    """The parent's threads do not exist here: a pool with them would wait for ever, and none of their work will end."""
    global _pool, _running, _interval_lock
    _pool, _interval_lock = _new_pool(), threading.Lock()
    for once in _onces:
        once.forget_unfinished()
    if _running:
        _running = 0
        sys.setswitchinterval(_interval)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


def is_cancelled(error: BaseException) -> bool:
    """True for the CancelledError of a task that was cancelled.

    There is another: whoever awaits a task of their own that was cancelled raises it too, and nobody wants this task to end.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


async def to_its_end(work: Awaitable[T]) -> T:
    """The result of ``work``. A cancelled caller waits until ``work`` is over, and is cancelled then."""
    task, cancelled = asyncio.ensure_future(work), False
    try:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:  # there may be several
                cancelled = True
        if cancelled:
            task.exception()  # reading it keeps asyncio from logging that nobody did
            raise asyncio.CancelledError
        return task.result()
    finally:
        del task, work  # they hold the exception, whose traceback holds this frame


ROUND = 0.005
"""Seconds that episodes work in one round of the event loop: then sockets and timers have their turn. Who waits for a timer
sees up to three rounds."""
WOKEN = 4
"""Episodes that work in a round after they had to wait for it; a turn of one takes about half a millisecond."""


@dataclass
class _Round:
    """What one event loop does between two looks at its sockets and timers."""

    began: float | None = None
    """When an episode first worked in it; None: none has."""
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    """Episodes that work in later rounds, in their order."""

    def begin(self) -> None:
        """Another round: those that have waited longest have their turn in it."""
        self.began = None
        woken = 0
        while self.waiting and woken < WOKEN:
            turn = self.waiting.popleft()
            if not turn.done():  # its episode may have been cancelled
                turn.set_result(None)
                woken += 1
        if self.waiting:
            self.begin_soon()

    def begin_soon(self) -> None:
        self.began = time.perf_counter()
        asyncio.get_running_loop().call_soon(self.begin)


async def take_turn() -> None:
    """Return at once, or in a later round of the loop if many episodes want to work in this one.

    The loop runs everything that is ready before it looks at sockets and timers again. Hundreds of episodes that all get
    their answers after a pause would keep it for hundreds of milliseconds.
    """
    this = _rounds.get()
    if this.began is None:
        this.begin_soon()
    elif this.waiting or time.perf_counter() - this.began > ROUND:
        turn = asyncio.get_running_loop().create_future()
        this.waiting.append(turn)
        await turn


_onces: weakref.WeakSet[Once[Any]] = weakref.WeakSet()


class Once(Generic[T]):
    """A process-wide cache. Values are built in the thread pool, once per key; other callers await the first build.

    A build that raised is not kept: the next caller tries again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, Future[T]] = {}
        _onces.add(self)

    def forget_unfinished(self) -> None:
        """In a forked child: what another thread was building will never be there."""
        self._lock = threading.Lock()
        self._values = {key: value for key, value in self._values.items() if value.done()}

    async def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value of ``key``; ``build`` makes it if there is none yet. Raises what ``build`` raises."""
        with self._lock:
            future = self._values.get(key)
            if future is None or (future.done() and future.exception() is not None):
                future = self._values[key] = _pool.submit(_run, partial(_build, build))
        if future.done():
            return future.result()
        # shield: one cancelled episode must not cancel the build that others wait for
        value = await asyncio.shield(asyncio.wrap_future(future))
        await take_turn()
        return value


def _build(build: Callable[[], T]) -> T:
    with builds_what_stays():
        return build()


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


_rounds = PerLoop(_Round)
_finished = PerLoop(_Finished)
