"""A worker: connects to its pool, plays what it is told, and ends when the pool is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from tau2_slime.runtime import garbage_collection
from tau2_slime.runtime.dotted_path import load_object
from tau2_slime.runtime.secrets import described
from tau2_slime.slime_adapter.workers.logs import ToThePool
from tau2_slime.slime_adapter.workers.task import Played, Task
from tau2_slime.slime_adapter.workers.wire import Channel, introduce
from tau2_slime.world.users import endpoints, sharing

NEWS_EVERY = 0.25
"""Seconds between two looks at whether there is something to tell."""
THE_OTHERS = "the other processes"


@dataclass(frozen=True)
class Welcome:
    """What the pool tells a worker first."""

    play: str
    """Dotted path of the function that plays a sample; its arguments are those of `generate`."""
    processes: int
    """How many workers there are: each takes its part of the simulators' limits."""
    level: int
    """Of the pool's root logger."""
    news: sharing.News


class Worker:
    """The episodes of one worker process."""

    def __init__(self, channel: Channel, welcome: Welcome) -> None:
        self._channel = channel
        self._play = cast("Callable[..., Awaitable[Any]]", load_object(welcome.play, what="worker's function"))
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._aborted: set[int] = set()
        endpoints.share_limits(welcome.processes)
        sharing.learn(THE_OTHERS, welcome.news)

    async def run(self) -> None:
        """Until the pool is gone."""
        teller = asyncio.create_task(self._tell_news())
        try:
            while True:
                what, *rest = await self._channel.receive()
                if what == "play":
                    number, task = rest
                    self._tasks[number] = asyncio.create_task(self._episode(number, task))
                elif what == "abort":
                    self._aborted.update(number for number in rest[0] if number in self._tasks)
                elif what == "cancel":
                    task = self._tasks.get(rest[0])
                    if task is not None:
                        task.cancel()
                elif what == "news":
                    sharing.learn(THE_OTHERS, rest[0])
        except (EOFError, OSError):
            return
        finally:
            for task in (teller, *self._tasks.values()):
                task.cancel()

    async def _episode(self, number: int, pickled: bytes) -> None:
        try:
            task: Task = pickle.loads(pickled)
            sample = task.sample()
            args = task.arguments(lambda: number in self._aborted)
            await self._play(args, sample, task.sampling_params, evaluation=task.evaluation)
            self._channel.post("done", number, Played.of(sample), None)
        except BaseException as error:  # `play` raises nothing; whatever this is, the pool must not wait for ever
            self._channel.post("done", number, None, described(error))
            if not isinstance(error, Exception):
                raise
        finally:
            self._tasks.pop(number, None)
            self._aborted.discard(number)

    async def _tell_news(self) -> None:
        told: tuple[object, ...] | None = None
        while True:
            news = sharing.news(own_bills=True)
            if news.gist != told:
                told = news.gist
                self._channel.post("news", news)
            await asyncio.sleep(NEWS_EVERY)


async def serve(host: str, port: int, number: int, key: bytes) -> None:
    """Be worker ``number`` of the pool at ``host:port`` until that pool is gone.

    Raises:
        PermissionError: what listens there is not that pool.
    """
    try:
        channel = await introduce(host, port, number, key)
        _, welcome = await channel.receive()
    except (EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        return
    os.environ.setdefault(garbage_collection.VARIABLE, "rare")  # nobody else lives in this process
    logging.root.handlers[:] = [ToThePool(channel)]
    logging.root.setLevel(welcome.level)
    await Worker(channel, welcome).run()


def main() -> None:
    """A plain process: ``HOST PORT NUMBER`` on the command line, the key on stdin. It ends at once with its pool."""
    host, port, number = sys.argv[1:]
    key = bytes.fromhex(sys.stdin.readline().strip())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends slime's process, and with it this one
    try:
        asyncio.run(_then_exit(serve(host, int(port), int(number), key)))
    except Exception as error:  # whatever it is: the pool reads the exit status, a person this line
        print(f"tau2_slime: worker process {number}: {described(error)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


async def _then_exit(work: Awaitable[None]) -> None:
    await work
    os._exit(0)
