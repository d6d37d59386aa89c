"""Plays a plan: side by side, each episode exactly once, whatever interrupts it.

A failure of the infrastructure or of a user model says nothing about the agent: the episode is played again, later, and in
the end recorded as excluded, with its reason. An endpoint that only fails is left alone after a while: what could not be
played stays unplayed, and the next run of the same command goes on there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tau2_slime.episode.result import InteractionResult, failed_result
from tau2_slime.evaluation.runner.budget import Budget, EpisodePayer
from tau2_slime.evaluation.runner.policies import PolicyBackend
from tau2_slime.evaluation.store.records import Job, Record, Store, record_of
from tau2_slime.outcome import SUCCESS, Blame, Termination
from tau2_slime.world.billing import PAYER


class End(StrEnum):
    """Why a run stopped."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    BUDGET = "budget"
    POLICY_DOWN = "policy down"
    USER_DOWN = "user model down"
    CONFIG = "configuration"
    DISK = "cannot write"


@dataclass(frozen=True)
class Options:
    """How to play."""

    concurrency: int = 16
    """Episodes at a time."""
    retries: int = 2
    """Further tries of an episode that failed through no fault of the agent."""
    pause: float = 5.0
    """Seconds before such a try, doubled for the next."""
    patience: int = 10
    """Failures of an endpoint in a row, with no success in between, after which it is left alone."""
    tokens: bool = False
    """Keep every token and log-probability in the records."""


@dataclass
class Progress:
    """Where a run stands."""

    total: int
    done: int = 0
    running: int = 0
    successes: int = 0
    scored: int = 0
    excluded: int = 0
    retried: int = 0
    spent: float = 0.0
    notes: list[str] = field(default_factory=list)
    """What the user should know, once each."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class Runner:
    """One session of a run."""

    def __init__(
        self,
        todo: Sequence[Job],
        policy: PolicyBackend,
        store: Store,
        budget: Budget,
        options: Options,
        *,
        total: int | None = None,
        on_change: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """``todo``: every job of the plan; those that ``store`` has a record of are not played again."""
        self._policy, self._store, self._budget, self._options = policy, store, budget, options
        self._queue: deque[tuple[Job, tuple[dict[str, str], ...]]] = deque(
            (job, ()) for job in todo if job.name not in store.records
        )
        self._on_change = on_change
        self.progress = Progress(total if total is not None else len(todo), spent=budget.spent)
        wanted = {job.name for job in todo}
        for name, record in store.records.items():
            if name in wanted:
                self._count(record)
        self.end = End.COMPLETE
        self._failures: dict[str, int] = {}
        self._down: set[str] = set()
        self._delayed = 0

    async def run(self) -> End:
        """Play until everything is recorded or something ends it. A cancellation is an interruption."""
        if not self._queue:
            return self.end
        workers = [asyncio.create_task(self._work()) for _ in range(min(self._options.concurrency, len(self._queue)))]
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            self.end = End.INTERRUPTED
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self.progress.running = 0
        return self.end

    def _stopped(self) -> bool:
        return self.end not in (End.COMPLETE, End.USER_DOWN)

    async def _work(self) -> None:
        while not self._stopped():
            if not self._queue:
                # Another worker may be about to put a failed episode back.
                if self.progress.running == 0 and self._delayed == 0:
                    return
                await asyncio.sleep(0.05)
                continue
            job, tries = self._queue.popleft()
            if self._endpoint(job, Blame.USER) in self._down:
                continue
            if tries:
                self._delayed += 1
                try:
                    await asyncio.sleep(self._options.pause * 2 ** (len(tries) - 1))
                finally:
                    self._delayed -= 1
            await self._play(job, tries)

    async def _play(self, job: Job, tries: tuple[dict[str, str], ...]) -> None:
        payer = EpisodePayer(self._budget)
        token = PAYER.set(payer)
        self.progress.running += 1
        self._on_change(self.progress)
        try:
            result = await self._policy.play(job, self._stopped)
        except Exception as error:  # nothing foresaw it: one episode's failure, told with its reason
            result = failed_result(f"{type(error).__name__}: {error}")
        finally:
            PAYER.reset(token)
            self.progress.running -= 1
            self.progress.spent = self._budget.spent
        self._judge(job, tries, result, payer.cost)
        self._on_change(self.progress)

    def _judge(
        self, job: Job, tries: tuple[dict[str, str], ...], result: InteractionResult, cost: dict[str, float]
    ) -> None:
        """Record the episode, or put it back, or stop."""
        if self._budget.reached:
            self._stop(End.BUDGET, f"the next call could pass --max-cost {self._budget.limit:g}")
        if result.termination is Termination.ABORTED:
            return
        if result.termination is Termination.CONFIG_ERROR:
            self._stop(End.CONFIG, result.detail)
            return
        if result.trainable:
            for blame in (Blame.USER, Blame.INFRASTRUCTURE):
                self._failures[self._endpoint(job, blame)] = 0
            self._record(job, tries, result, cost)
            return
        why = {"termination": str(result.termination), "blame": str(result.blame), "detail": result.detail}
        if self._gave_up(job, result):
            return
        if len(tries) < self._options.retries:
            self.progress.retried += 1
            self._queue.append((job, (*tries, why)))
            return
        self._record(job, tries, result, cost)

    def _endpoint(self, job: Job, blame: Blame) -> str:
        if blame is Blame.USER:
            return f"user {job.item.config.user_model} {job.item.config.user_base_url}"
        return "policy"

    def _gave_up(self, job: Job, result: InteractionResult) -> bool:
        """True if the endpoint that failed is now left alone, and this episode with it."""
        if result.termination not in (Termination.USER_ERROR, Termination.INFRASTRUCTURE_ERROR):
            return False
        endpoint = self._endpoint(job, result.blame)
        self._failures[endpoint] = self._failures.get(endpoint, 0) + 1
        if endpoint in self._down:
            return True
        # All that were in flight fail together when a server goes: that is one failure, not many.
        if self._failures[endpoint] < max(self._options.patience, self._options.concurrency):
            return False
        self._down.add(endpoint)
        if endpoint == "policy":
            self._stop(End.POLICY_DOWN, f"the policy failed {self._failures[endpoint]} times in a row: {result.detail}")
        else:
            self.end = End.USER_DOWN
            self.progress.note(
                f"{job.item.config.user_model} failed {self._failures[endpoint]} times in a row and is left alone: "
                f"{result.detail}"
            )
        return True

    def _stop(self, end: End, note: str) -> None:
        if not self._stopped():
            self.end = end
        self.progress.note(note)

    def _record(
        self, job: Job, tries: tuple[dict[str, str], ...], result: InteractionResult, cost: dict[str, float]
    ) -> None:
        record = record_of(job, result, tries=tries, cost=cost, tokens=self._options.tokens)
        try:
            self._store.append(record)
        except OSError as error:  # a full disk: what is cut now is repaired by the next run
            self._stop(End.DISK, f"{self._store.path} cannot be written: {error.strerror or error}")
            return
        self._count(record)

    def _count(self, record: Record) -> None:
        progress = self.progress
        progress.done += 1
        if record["excluded"]:
            progress.excluded += 1
        else:
            progress.scored += 1
            progress.successes += record["reward"] >= SUCCESS


def excluded(store: Store) -> list[Any]:
    """Names of the records that are excluded, for a run that tries them again."""
    return [name for name, record in store.records.items() if record["excluded"]]
