"""Which worker plays which episode, and what becomes of an episode whose worker is gone or whose rollout is aborted.

All of it belongs to the pool's event loop; only the future of an episode is awaited elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from tau2_slime.errors import EpisodeAborted, Tau2SlimeError
from tau2_slime.slime_adapter.workers.task import Played
from tau2_slime.slime_adapter.workers.wire import Channel

logger = logging.getLogger(__name__)

ABORT_EVERY = 0.1
"""Seconds between two looks at slime's abort flag."""
HOLD = 20.0
"""Seconds that episodes wait for further workers while the first are there."""
MOST_DEATHS = 3
"""An episode is given up when so many workers have died while they played it: it may be what kills them."""


@dataclass(eq=False)
class Episode:
    """One call of `generate`."""

    number: int
    task: bytes
    """A pickled `Task`."""
    aborted: Callable[[], bool]
    played: Future[Played]
    worker: Worker | None = None
    told: bool = False
    """The worker knows that it is aborted."""
    deaths: int = 0

    def end(self, outcome: Played | Exception) -> None:
        with contextlib.suppress(InvalidStateError):  # its caller was cancelled at this moment
            if isinstance(outcome, Played):
                self.played.set_result(outcome)
            else:
                self.played.set_exception(outcome)


@dataclass(eq=False)
class Worker:
    """One process that is connected."""

    name: str
    channel: Channel
    episodes: dict[int, Episode] = field(default_factory=dict)
    finished: int = 0
    told: tuple[object, ...] = ()
    """The gist of the last news that it was told."""


class Episodes:
    """The episodes under way, and the workers that are connected."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.lost = ""
        """Why no worker can be had any more."""
        self._waiting: list[Episode] = []
        self._hold_until = 0.0
        """When what waits for workers that are to come goes to those that are there; seconds of the loop's clock."""
        self._all: dict[int, Episode] = {}

    def arrived(self, worker: Worker, coming: int) -> None:
        """A worker is connected, and ``coming`` are still to come: it gets its part of what waits, and they theirs."""
        self.workers.append(worker)
        self._share_out(len(self._waiting) * coming // (len(self.workers) + coming))
        self._hold_until = asyncio.get_running_loop().time() + HOLD

    def _share_out(self, hold: int) -> None:
        """Hand over what waits, but for the last ``hold`` episodes."""
        kept = len(self._waiting) - hold
        ready, self._waiting = self._waiting[:kept], self._waiting[kept:]
        for episode in ready:
            self.hand_over(episode)

    def hand_over(self, episode: Episode) -> None:
        """To the worker with the fewest episodes; it waits if none is connected."""
        if episode.played.done():
            return
        self._all[episode.number] = episode
        if self.lost:
            episode.end(Tau2SlimeError(self.lost))
        elif not self.workers:
            self._waiting.append(episode)
        else:
            worker = min(self.workers, key=lambda one: len(one.episodes))
            worker.episodes[episode.number] = episode
            episode.worker = worker
            worker.channel.post("play", episode.number, episode.task)

    def over(self, episode: Episode) -> None:
        """The caller has its answer, or was cancelled."""
        self._all.pop(episode.number, None)
        worker = episode.worker
        if worker is not None and worker.episodes.pop(episode.number, None) is not None and episode.played.cancelled():
            worker.channel.post("cancel", episode.number)

    def bury(self, worker: Worker, why: str) -> None:
        """A worker is gone: others play its episodes again, from where slime handed them over."""
        if worker in self.workers:
            self.workers.remove(worker)
        worker.channel.close()
        left = [episode for episode in worker.episodes.values() if not episode.played.done()]
        worker.episodes.clear()
        if not self.lost:
            told = "tau2_slime: worker %s ended (%s); %d episodes that it played begin again elsewhere"
            logger.warning(told, worker.name, why, len(left))
        for episode in left:
            episode.worker, episode.deaths = None, episode.deaths + 1
            if episode.told:
                episode.end(EpisodeAborted("its worker process ended after the rollout was aborted"))
            elif episode.deaths >= MOST_DEATHS:
                what = f"{episode.deaths} worker processes ended while they played this episode (the last one: {why})"
                episode.end(Tau2SlimeError(what))
            else:
                self.hand_over(episode)

    def give_up(self, why: str) -> None:
        """No worker can be had any more."""
        self.lost = why
        for episode in list(self._all.values()):
            episode.end(Tau2SlimeError(why))

    async def watch(self) -> None:
        """Tell workers of aborts, and let no episode wait too long for a worker to come."""
        while True:
            told: dict[Worker, list[int]] = {}
            for episode in list(self._all.values()):
                if episode.told or episode.played.done() or not episode.aborted():
                    continue
                episode.told = True
                if episode.worker is None:
                    self._waiting.remove(episode)
                    episode.end(EpisodeAborted("the rollout was aborted before the episode began"))
                else:
                    told.setdefault(episode.worker, []).append(episode.number)
            for worker, numbers in told.items():
                worker.channel.post("abort", numbers)
            if self._waiting and self.workers and asyncio.get_running_loop().time() > self._hold_until:
                self._share_out(0)
            await asyncio.sleep(ABORT_EVERY)
