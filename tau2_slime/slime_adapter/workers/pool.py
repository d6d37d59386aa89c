"""The pool in slime's process: starts the workers, deals out episodes, and plays those of a dead worker again.

All of it runs in one thread with an event loop of its own, because slime calls `generate` from several loops. A caller pays
for one message each way.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import pickle
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import Tau2SlimeError
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.loops import result_of
from tau2_slime.runtime.secrets import redact
from tau2_slime.slime_adapter.workers import launch
from tau2_slime.slime_adapter.workers.episodes import Episode, Episodes, Worker
from tau2_slime.slime_adapter.workers.logs import OneVoice
from tau2_slime.slime_adapter.workers.process import NEWS_EVERY, Welcome
from tau2_slime.slime_adapter.workers.task import Played, Task
from tau2_slime.slime_adapter.workers.wire import Channel, admit
from tau2_slime.world.users import sharing

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample

logger = logging.getLogger(__name__)

START_PATIENCE = 300.0
"""Seconds that a worker may take to connect."""
MOST_FAILURES = 5
"""A worker that ends so many times in a row without having finished an episode is not started again."""
PAUSE_FIRST, PAUSE_MAX = 0.5, 30.0
"""Seconds before it is started again, doubled each time."""


class Pool:
    """``size`` worker processes. They start at the first episode and end with this process, however it ends."""

    def __init__(self, size: int, play: str) -> None:
        """``play``: dotted path of the function that plays a sample in a worker, called as `generate`."""
        self._size, self._play = size, play
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._expected: dict[int, tuple[bytes, asyncio.Future[Channel]]] = {}
        self._alive = size
        """Workers that run or will be started again."""
        self._episodes = Episodes()
        self._log = OneVoice()

    # ---- called from slime's event loops -----------------------------------------------------------------------------

    async def play(
        self,
        args: SlimeArgs,
        sample: SlimeSample,
        sampling_params: Mapping[str, Any],
        *,
        evaluation: bool,
        aborted: Callable[[], bool],
    ) -> None:
        """Have a worker play ``sample`` and fill it.

        Raises:
            EpisodeAborted: ``aborted`` before a worker had it.
            Tau2SlimeError: the pool has failed, no worker can be kept alive, or none survives this episode.
        """
        task = Task.of(args, sample, sampling_params, evaluation=evaluation)
        episode = Episode(next(self._numbers), pickle.dumps(task), aborted, Future())
        loop = self._running()

        def over(_: Future[Played]) -> None:
            with contextlib.suppress(RuntimeError):  # the pool was closed
                loop.call_soon_threadsafe(self._episodes.over, episode)

        episode.played.add_done_callback(over)
        try:
            loop.call_soon_threadsafe(self._episodes.hand_over, episode)
        except RuntimeError:  # the pool has failed
            raise Tau2SlimeError(self._episodes.lost) from None
        played = await result_of(episode.played)
        played.put_into(sample)

    def workers(self) -> dict[str, int]:
        """The workers that are connected, as the log calls them: how many episodes each plays now."""
        return {worker.name: len(worker.episodes) for worker in self._episodes.workers}

    def close(self) -> None:
        """End the workers; what they play is lost. For programs that do not end with their last rollout."""
        self._episodes.lost = "the pool of worker processes was closed"
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._supervisor.cancel)
            self._thread.join(30)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._supervise(ready)), name="tau2-slime-workers", daemon=True
                )
                self._thread.start()
                self._loop = ready.result()
            return self._loop

    # ---- in the pool's own loop --------------------------------------------------------------------------------------

    async def _supervise(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        current = asyncio.current_task()
        assert current is not None
        self._supervisor = current
        ready.set_result(asyncio.get_running_loop())
        try:
            host = launch.own_address()
            server = await asyncio.start_server(self._admit, host, 0)
            port = server.sockets[0].getsockname()[1]
            async with server, asyncio.TaskGroup() as tasks:
                for slot in range(self._size):
                    tasks.create_task(self._keep(slot, host, port))
                tasks.create_task(self._episodes.watch())
                tasks.create_task(self._pass_news_on())
        except asyncio.CancelledError:
            self._episodes.give_up(self._episodes.lost)
        except BaseException as error:  # nobody may wait for a pool that is not there
            reason = f"the pool of worker processes failed: {redact(repr(error))}"  # of a group, its members too
            logger.exception("tau2_slime: the pool of worker processes failed")
            run_stop.stop_run(reason)
            self._episodes.give_up(reason)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def key_of(number: int) -> bytes | None:
            known = self._expected.get(number)
            return None if known is None else known[0]

        try:
            number, channel = await asyncio.wait_for(admit(reader, writer, key_of), 30)
            self._expected.pop(number)[1].set_result(channel)
        except (OSError, EOFError, TimeoutError, KeyError, asyncio.InvalidStateError) as error:
            logger.warning("tau2_slime: a connection to the pool of worker processes was refused: %r", error)
            writer.close()

    async def _keep(self, slot: int, host: str, port: int) -> None:
        """Keep one worker running."""
        failures = 0
        while True:
            finished, why = await self._one_life(slot, host, port)
            failures = 0 if finished else failures + 1
            if failures >= MOST_FAILURES:
                break
            pause = min(PAUSE_MAX, PAUSE_FIRST * 2 ** max(0, failures - 1))
            logger.warning("tau2_slime: worker %d is started again in %.1f s (%s)", slot, pause, why)
            await asyncio.sleep(pause)
        self._alive -= 1
        logger.error(
            "tau2_slime: worker %d ended %d times in a row without having finished an episode (%s): it is not "
            "started again; %d of %d are left",
            *(slot, failures, why, self._alive, self._size),
        )
        if not self._alive:
            reason = (
                f"no worker process can be kept alive ({why}); set rollout_workers: 0 to play in slime's own process"
            )
            run_stop.stop_run(reason)
            self._episodes.give_up(reason)

    async def _one_life(self, slot: int, host: str, port: int) -> tuple[int, str]:
        """Start a worker and serve it until it ends: how many episodes it finished, and how it ended."""
        number, key = next(self._numbers), secrets.token_bytes(32)
        arrived: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._expected[number] = key, arrived
        worker, why = None, ""
        try:
            process = await launch.start(host, port, number, key)
        except OSError as error:
            self._expected.pop(number)
            return 0, f"it cannot be started: {error}"
        ended: asyncio.Future[str] = asyncio.ensure_future(process.ended())
        try:
            either: set[asyncio.Future[Any]] = {ended, arrived}
            await asyncio.wait(either, timeout=START_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if arrived.done():
                worker = Worker(f"{slot} ({process.name})", arrived.result())
                await self._serve(worker)
                await asyncio.wait({ended}, timeout=5)
            elif not ended.done():
                why = f"it did not connect to {host}:{port} within {START_PATIENCE:.0f} s (with Ray: is a CPU free for it?)"
            why = why or (ended.result() if ended.done() else "its connection was lost")
        finally:
            process.stop()
            await asyncio.wait({ended}, timeout=5)
            ended.cancel()
            self._expected.pop(number, None)
            if worker is not None:
                self._episodes.bury(worker, why)
        return (worker.finished if worker is not None else 0), why

    async def _serve(self, worker: Worker) -> None:
        """Until the worker's connection ends."""
        welcome = Welcome(self._play, self._alive, logging.root.getEffectiveLevel(), sharing.news())
        worker.channel.post("welcome", welcome)
        self._episodes.arrived(worker, self._alive - len(self._episodes.workers) - 1)
        with contextlib.suppress(EOFError, OSError):
            while True:
                what, *rest = await worker.channel.receive()
                if what == "done":
                    number, played, why = rest
                    if number in worker.episodes:  # else its caller was cancelled
                        worker.finished += 1
                        failure = Tau2SlimeError(f"a worker process could not play the sample: {why}")
                        worker.episodes[number].end(failure if played is None else played)
                elif what == "log":
                    self._log.say(worker.name, *rest)
                elif what == "news":
                    sharing.learn(f"worker {worker.name}", rest[0])

    async def _pass_news_on(self) -> None:
        while True:
            for worker in self._episodes.workers:
                news = sharing.news(without=f"worker {worker.name}")
                if news.gist != worker.told:
                    worker.told = news.gist
                    worker.channel.post("news", news)
            await asyncio.sleep(NEWS_EVERY)


_lock = threading.Lock()
_pools: dict[tuple[int, str], Pool] = {}


def pool(size: int, play: str) -> Pool:
    """This process's pool of ``size`` workers."""
    with _lock:
        if (size, play) not in _pools:
            _pools[size, play] = Pool(size, play)
        return _pools[size, play]


def close() -> None:
    """End all workers of this process; the next episode starts new ones."""
    with _lock:
        pools = list(_pools.values())
        _pools.clear()
    for one in pools:
        one.close()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # the pool's thread does not exist in a forked child
