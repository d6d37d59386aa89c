"""The thread that keeps a viewer up to date: it reads what is new and diagnoses what has failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tau2_slime.diagnosis.beside_gold import whole_view
from tau2_slime.diagnosis.decide import diagnose
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.curves import Curves, Interval
from tau2_slime.inspector.episode_view import View, alone
from tau2_slime.inspector.page import overview
from tau2_slime.inspector.rows import says
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime import tracebacks
from tau2_slime.view.runs import Runs, Vanished

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two looks at the files."""
DIAGNOSED = 25
"""Episodes that are diagnosed before the files are looked at again."""


class Reader:
    """`Runs` and their curves, read in a thread of its own.

    Args:
        runs: not read by anybody else.
        interval: of a share, for the curves.
        language: loads the tokenizer when the first episode with tokens is opened; None from it: ids are shown.
        follow: go on looking for new episodes.
        replay: replay tool calls in τ² for databases and diagnosis.
    """

    def __init__(
        self,
        runs: Runs,
        interval: Interval,
        language: Callable[[Runs], CheckpointProfile | None],
        *,
        follow: bool = False,
        replay: bool = True,
    ) -> None:
        self.runs, self._follow, self._replay = runs, follow, replay
        self._interval, self._load = interval, language
        self._curves, self._counted, self._generation = Curves(interval), 0, 0
        self._version = 0
        """Grows with everything that a page does not know yet."""
        self._causes: list[tuple[int, int, str, str]] = []
        """(version, episode, who, what) in the order in which they were found."""
        self._examined = 0
        """Episodes up to here have a diagnosis, or can have none."""
        self._state = "reading …"
        self._lock = threading.Lock()
        self._tau2 = threading.Lock()
        """τ² and the caches over it know one thread at a time."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="viewer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after what it is doing."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    # ---- what the server asks ------------------------------------------------------------------------------------------

    def news(self, start: int, generation: int, version: int) -> Mapping[str, Any]:
        """What a page that knows ``start`` rows of ``generation``, as of ``version``, does not know.

        ``rows``, ``curves``, ``problems``, ``causes`` (number, who, what) and ``generation``, all absent if nothing is new;
        ``version``, ``state`` (a line about what the viewer is doing) and ``final`` (nothing will follow).
        """
        with self._lock:
            out: dict[str, Any] = {
                "version": self._version,
                "state": self._state,
                "final": not self._thread.is_alive(),
            }
            if version == self._version and generation == self._generation:
                return out
            fresh = generation != self._generation
            start = 0 if fresh else start
            causes = [] if fresh else [[number, *cause] for at, number, *cause in self._causes if at > version]
            shown = overview(self.runs.rows[start : self._counted], self._curves, self.runs.problems)
            return {**out, **shown, "generation": self._generation, "causes": causes}

    def episode(self, number: int, generation: int) -> View:
        """One episode as the page shows it.

        Raises:
            Vanished: its file is gone, or has been written again since the page was told of it.
            IndexError: there is no such episode.
        """
        if generation != self._generation:
            raise Vanished("the files have been written again; the list is read anew in a moment")
        if not 0 <= number < self._counted:
            raise IndexError(number)
        one = self.runs.open(number)
        with self._tau2:
            language = self._language if one.ledger is not None else None
            return alone(whole_view(one, language, replay=self._replay), language)

    def search(self, wanted: str) -> list[int]:
        """Numbers of the episodes in which somebody says ``wanted``, whatever its capitals."""
        return [number for number, words in enumerate(self.runs.words[: self._counted]) if says(words, wanted)]

    @cached_property
    def _language(self) -> CheckpointProfile | None:
        try:
            return self._load(self.runs)
        except ConfigError:
            return None  # ids are shown: a page must not fail for a tokenizer

    # ---- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read_on()
        except Exception as error:  # a page that is silent would look like a run that stands still
            tracebacks.log(logger, "the viewer has stopped reading", error)
            self._say(f"stopped reading: {error!r}")

    def _read_on(self) -> None:
        while not self._over.is_set():
            self.runs.refresh(self._count)
            self._count()
            left = self._diagnose(DIAGNOSED)
            if left:
                self._say(f"diagnosing, {left} episodes left")
            elif self._follow:
                self._say("following")
                self._over.wait(PAUSE)
            else:
                break
        self._say("")

    def _say(self, state: str) -> None:
        with self._lock:
            self._state = state

    def _count(self) -> None:
        """Tell the curves, and so the pages, of rows that are new."""
        with self._lock:
            if self._generation != self.runs.generation:
                self._curves, self._counted, self._examined = Curves(self._interval), 0, 0
                self._generation, self._causes = self.runs.generation, []
                self._version += 1
            new = self.runs.rows[self._counted :]
            problems = self.runs.problems
            if new or problems != self._told:
                self._curves.add(new)
                self._counted += len(new)
                self._told = problems
                self._version += 1

    _told: list[str] | None = None

    def _diagnose(self, most: int) -> int:
        """Diagnose up to ``most`` failed episodes; how many are left to look at."""
        if not self._replay:
            return 0
        while self._examined < self._counted and most and not self._over.is_set():
            row = self.runs.rows[self._examined]
            if not row.who and row.reward is not None and row.reward >= SUCCESS:
                self._found("none", "none")
            elif not row.who and row.talk:
                most -= 1
                try:
                    one = self.runs.open(self._examined)
                except Vanished:
                    one = None
                if one is not None and one.messages:
                    with self._tau2:
                        finding = diagnose(one).finding
                    self._found(str(finding.who.value), str(finding.what))
            self._examined += 1
        return self._counted - self._examined

    def _found(self, who: str, what: str) -> None:
        row = self.runs.rows[self._examined]
        with self._lock:
            row.who, row.what = who, what
            self._curves.changed(row)
            self._version += 1
            self._causes.append((self._version, self._examined, who, what))
