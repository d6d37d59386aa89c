"""Processes that make and judge proposals ahead of time. What comes out is the same without them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from tau2_slime.errors import ConfigError
from tau2_slime.synth.generate import Event, Generator, Plan
from tau2_slime.synth.verify import Judge


class Workers:
    """Processes that make the slots of a plan ahead of time."""

    def __init__(self, count: int) -> None:
        """Raises OSError if they cannot be started."""
        self._count = count
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_end_with_the_parent)

    def _submit(self, plan: Plan, slot: int) -> Future[list[Event]]:
        # A process starts here, and takes over that Ctrl-C waits: it is the parent's to handle.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(_slot, plan, slot)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def slots(self, plan: Plan, first: int) -> Iterator[list[Event]]:
        """What `Generator.slot` makes of each slot from ``first`` on, in order."""
        due = deque(self._submit(plan, slot) for slot in range(first, min(plan.count, first + 2 * self._count)))
        for slot in range(first + 2 * self._count, plan.count + 2 * self._count):
            if not due:
                return
            try:
                made = due.popleft().result()
            except BrokenProcessPool:
                raise ConfigError(
                    "--max-concurrency: a worker process was killed (is the memory full?); what is made is kept, and the "
                    "same command with a smaller number goes on"
                ) from None
            if slot < plan.count:
                due.append(self._submit(plan, slot))
            yield made

    def close(self) -> None:
        """End the processes; what they are at is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def workers(concurrency: int) -> Iterator[Workers | None]:
    """``concurrency`` processes, at most one a core; none, and None, where this process alone does it all."""
    count = min(concurrency, os.cpu_count() or 1)
    if count < 2:
        yield None
        return
    pool = Workers(count)
    try:
        yield pool
    finally:
        pool.close()


_generators: dict[str, Generator] = {}
"""In a worker: those of the plans so far."""


def _slot(plan: Plan, slot: int) -> list[Event]:
    generator = _generators.get(repr(plan))
    if generator is None:
        judge = Judge(plan.domain, hold_out=plan.hold_out, templates=True)
        generator = _generators[repr(plan)] = Generator(plan, judge)
    return generator.slot(slot)


def _end_with_the_parent() -> None:
    """A parent that is killed tells nobody, and its processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
