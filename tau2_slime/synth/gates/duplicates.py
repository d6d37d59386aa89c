"""G16: no second task with the same writes and the same communicated values, and none with nearly the same text."""

from __future__ import annotations

from collections.abc import Hashable

from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.synth.gates.held_out import canonical, composition, grams

NEAR = 0.9
"""Jaccard similarity of 8-grams from which two texts count as one."""


class Seen:
    """The tasks of a set so far."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._keys: dict[Hashable, str] = {}
        self._grams: dict[str, list[int]] = {}
        self._texts: list[tuple[str, int]] = []

    def check(self, case: Case, found: Findings) -> None:
        """G16 of ``case`` against those that were added."""
        if case.task.id in self._ids:
            found.fail("G16", f"another task has the id {case.task.id}: a file with both cannot be played")
            return
        if not case.writes and not case.communicated:
            return  # other gates refuse it
        same = self._keys.get(_key(case))
        if same is not None:
            found.fail("G16", f"same writes and same communicated values as task {same}")
            return
        if case.domain == "telecom":
            return  # the texts of an intent are alike: the faults tell tasks apart
        own = grams(case.text)
        counts: dict[int, int] = {}
        for gram in own:
            for number in self._grams.get(gram, ()):
                counts[number] = counts.get(number, 0) + 1
        for number, shared in counts.items():
            task_id, size = self._texts[number]
            if shared >= NEAR * (len(own) + size - shared):
                found.fail("G16", f"nearly the text of task {task_id}")
                return

    def add(self, case: Case) -> None:
        """``case`` is part of the set."""
        self._ids.add(case.task.id)
        self._keys.setdefault(_key(case), case.task.id)
        own = grams(case.text)
        number = len(self._texts)
        self._texts.append((case.task.id, len(own)))
        for gram in own:
            self._grams.setdefault(gram, []).append(number)


def _key(case: Case) -> Hashable:
    writes = tuple(sorted(canonical(call) for call in case.writes))
    if case.domain == "telecom":
        return writes, composition(case.task), case.task.user_scenario.persona
    return writes, tuple(sorted(value.replace(",", "") for value in case.communicated))
