"""The real `generate`, and what it leaves behind: asyncio tasks, threads, memory."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from typing import Any

_episode: contextvars.ContextVar[weakref.WeakSet[Any] | None] = contextvars.ContextVar("episode", default=None)

left_behind: dict[str, int] = {}
"""Tasks that an episode started and that were not done when it returned, by name of their coroutine."""
LITELLM = "LoggingWorker."
"""litellm's own log worker, one per event loop, is started by whoever calls it first."""
loops: set[int] = set()
"""Event loops that played episodes."""
now = peak = played = 0
"""Episodes that are being played, the most of them at once, and all that ended."""


def _factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs)
    tasks = _episode.get()
    if tasks is not None:
        tasks.add(task)
    return task


async def generate(args: Any, sample: Any, sampling_params: dict[str, Any], evaluation: bool = False) -> Any:
    """`tau2_slime.generate_with_tau2.generate`, watched."""
    from tau2_slime.generate_with_tau2 import generate as real

    global now, peak, played
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_factory)
    loops.add(id(loop))
    started: weakref.WeakSet[Any] = weakref.WeakSet()
    token = _episode.set(started)
    now += 1
    peak = max(peak, now)
    try:
        return await real(args, sample, sampling_params, evaluation)
    finally:
        _episode.reset(token)
        now -= 1
        played += 1
        await asyncio.sleep(0)  # what was cancelled a moment ago has to run once more to end
        for task in started:
            if not task.done():
                name = getattr(task.get_coro(), "__qualname__", "?")
                left_behind[name] = left_behind.get(name, 0) + 1


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def memory() -> float:
    """Resident memory of this process in MiB."""
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
