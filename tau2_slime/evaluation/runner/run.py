"""Plays a plan: many episodes at a time, each exactly once, whatever interrupts the run.

A failure of the infrastructure or of a user model says nothing about the agent: the episode is tried again later, and after
the last try it is recorded as excluded, with its reason. An endpoint that only fails is no longer asked: what could not be
played stays unplayed, and the next run of the same command plays it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tau2_slime.episode.result import InteractionResult, failed_result
from tau2_slime.episode.users import user_role
from tau2_slime.evaluation.runner.budget import Budget, EpisodePayer
from tau2_slime.evaluation.runner.policies import PolicyBackend
from tau2_slime.evaluation.store.records import FailedTry, Job, Record, Store, record_of
from tau2_slime.outcome import SUCCESS, Blame, Termination
from tau2_slime.runtime.loops import offload, to_its_end
from tau2_slime.runtime.secrets import described
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
    """Further tries of an episode that failed without the agent being to blame."""
    pause: float = 5.0
    """Seconds before such a try, doubled for the next."""
    patience: int = 10
    """Failures of an endpoint in a row after which it is no longer asked."""
    tokens: bool = False
    """Keep every token and log-probability in the records."""


@dataclass
class Progress:
    """How far a run is, counted in episodes."""

    total: int
    done: int = 0
    """With a record."""
    running: int = 0
    successes: int = 0
    scored: int = 0
    """Done and not excluded."""
    excluded: int = 0
    retried: int = 0
    """Tries that failed and were repeated."""
    spent: float = 0.0
    """US dollars."""
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
        on_change: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """``todo``: every job of the plan; those that ``store`` has a record of are not played again.

        ``on_change`` is called when an episode starts and when it ends.
        """
        self._policy, self._store, self._budget, self._options = policy, store, budget, options
        self._on_change = on_change
        self.progress = Progress(len(todo), spent=budget.spent)
        self._queue: deque[tuple[Job, tuple[FailedTry, ...]]] = deque()
        for job in todo:
            if job.name in store.records:
                self._count(store.records[job.name])
            else:
                self._queue.append((job, ()))
        self.end = End.COMPLETE
        self._failures: dict[str, int] = {}
        self._down: set[str] = set()
        self._delayed = 0
        self._writing = asyncio.Lock()

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

    def interrupt(self) -> None:
        """Begin nothing more, and let what is under way end as aborted: its policy may keep it."""
        self._stop(End.INTERRUPTED, "interrupted")

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
            if job.item.config.user_path is not None and self._budget.used_up:
                self._stop_for_budget()
                return
            if tries:
                self._delayed += 1
                try:
                    await asyncio.sleep(self._options.pause * 2 ** (len(tries) - 1))
                finally:
                    self._delayed -= 1
            await self._play(job, tries)

    async def _play(self, job: Job, tries: tuple[FailedTry, ...]) -> None:
        payer = EpisodePayer(self._budget)
        token = PAYER.set(payer)
        self.progress.running += 1
        self._on_change(self.progress)
        try:
            result = await self._policy.play(job, self._stopped)
        except Exception as error:  # an unforeseen error ends this episode only, and its text is recorded
            result = failed_result(described(error))
        finally:
            PAYER.reset(token)
            self.progress.running -= 1
            self.progress.spent = self._budget.spent
        self._count_own_user(job, result, payer)
        await self._finish(job, tries, result, payer.cost)
        self._on_change(self.progress)

    def _count_own_user(self, job: Job, result: InteractionResult, payer: EpisodePayer) -> None:
        """Take what a user simulator of one's own reports into the budget."""
        config = job.item.config
        if config.user_path is not None:
            own = config.simulator(config.user_model).base_url is not None
            payer.add_reported(user_role(config, config.user_model).label, result.stats, own=own)
            self.progress.spent = self._budget.spent
            if self._budget.used_up and (self._queue or self.progress.running):
                self._stop_for_budget()

    def _stop_for_budget(self) -> None:
        self._stop(End.BUDGET, f"the next call could pass --max-cost {self._budget.limit:g}")

    async def _finish(
        self, job: Job, tries: tuple[FailedTry, ...], result: InteractionResult, cost: dict[str, float]
    ) -> None:
        """Record the episode, or queue it again, or stop the run."""
        if self._budget.reached:
            self._stop_for_budget()
        if self._budget.unwritten:
            self._stop(End.DISK, self._budget.unwritten)
        if result.termination is Termination.ABORTED:
            return
        if result.termination is Termination.CONFIG_ERROR:
            self._stop(End.CONFIG, result.detail)
            return
        if result.trainable:
            for blame in (Blame.USER, Blame.INFRASTRUCTURE):
                self._failures[self._endpoint(job, blame)] = 0
            await to_its_end(self._record(job, tries, result, cost))
            return
        if self._is_down(job, result):
            return
        if len(tries) < self._options.retries:
            self.progress.retried += 1
            failed = FailedTry(termination=result.termination, blame=result.blame, detail=result.detail)
            self._queue.append((job, (*tries, failed)))
            return
        await to_its_end(self._record(job, tries, result, cost))

    def _endpoint(self, job: Job, blame: Blame) -> str:
        """A name for what failed: the user model's endpoint, or the policy's."""
        if blame is Blame.USER:
            return f"user {job.item.config.user_model} {job.item.config.user_base_url}"
        return "policy"

    def _is_down(self, job: Job, result: InteractionResult) -> bool:
        """Count a failure of an endpoint. True if it is no longer asked, so that this episode stays unplayed."""
        if result.termination not in (Termination.USER_ERROR, Termination.INFRASTRUCTURE_ERROR):
            return False
        endpoint = self._endpoint(job, result.blame)
        self._failures[endpoint] = self._failures.get(endpoint, 0) + 1
        if endpoint in self._down:
            return True
        # When a server stops, all episodes in flight fail together: that is one failure.
        if self._failures[endpoint] < max(self._options.patience, self._options.concurrency):
            return False
        self._down.add(endpoint)
        if endpoint == "policy":
            self._stop(End.POLICY_DOWN, f"the policy failed {self._failures[endpoint]} times in a row: {result.detail}")
        else:
            if not self._stopped():
                self.end = End.USER_DOWN
            self.progress.note(
                f"{job.item.config.user_model} failed {self._failures[endpoint]} times in a row and is no longer asked: "
                f"{result.detail}"
            )
        return True

    def _stop(self, end: End, note: str) -> None:
        if not self._stopped():
            self.end = end
        self.progress.note(note)

    async def _record(
        self, job: Job, tries: tuple[FailedTry, ...], result: InteractionResult, cost: dict[str, float]
    ) -> None:
        record = record_of(job, result, tries=tries, cost=cost, tokens=self._options.tokens)
        try:
            async with self._writing:  # a thread waits for the disk; the other episodes do not
                await offload(self._store.append, record)
        except OSError as error:  # a full disk; the next run repairs a line that was cut
            self._stop(End.DISK, f"{self._store.path} cannot be written: {error.strerror or error}")
            return
        if self._policy.unfinished is not None and result.blame is not Blame.INFRASTRUCTURE:
            self._policy.unfinished.drop([job.label])
        self._count(record)

    def _count(self, record: Record) -> None:
        progress = self.progress
        progress.done += 1
        if record["excluded"]:
            progress.excluded += 1
        else:
            progress.scored += 1
            progress.successes += record["reward"] is not None and record["reward"] >= SUCCESS
