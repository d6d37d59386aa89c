"""`tau2-slime synth verify`: the gates over tasks of any origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tau2_slime.errors import ConfigError
from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.policy_rules.rules import Stated
from tau2_slime.runtime.files import write_atomically
from tau2_slime.synth.gates import evidence, held_out, replay, reward, schema, words
from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.synth.gates.duplicates import Seen
from tau2_slime.synth.gates.held_out import HoldOut
from tau2_slime.world import domains, task_rows

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

MOST_OF_AN_ID = 1000
"""Characters that a row which is not a task may call its id."""
GATES = tuple(f"G{number}" for number in range(1, 18))


class Verdict(NamedTuple):
    """What the gates say about one task."""

    id: str
    failed: dict[str, str]
    """Gate -> reason, in the gates' order."""
    no_evidence: dict[str, str]

    @property
    def accepted(self) -> bool:
        return not self.failed

    def as_row(self) -> dict[str, object]:
        """One line of the report."""
        return {
            "id": self.id,
            "verdict": "accept" if self.accepted else "reject",
            "failed": list(self.failed),
            "reasons": self.failed,
            **({"no_evidence": self.no_evidence} if self.no_evidence else {}),
        }


class Judge:
    """Judges the tasks of one set one after the other; an accepted one is what later ones must differ from."""

    def __init__(self, domain: str, *, hold_out: HoldOut = "test", templates: bool = False) -> None:
        """``templates``: the texts are the generator's own, so that G17 is judged by reading them back.

        Raises:
            ConfigError: τ² has no such domain, or the policy of it is not in code.
        """
        if domain not in POLICIES:
            raise ConfigError(f"domain={domain!r}: synth knows the policies of {', '.join(sorted(POLICIES))}")
        domains.splits(domain)
        self.domain, self.hold_out = domain, hold_out
        self.seen = Seen()
        self._own_text = templates

    def judge_row(self, row: object, name: str) -> Verdict:
        """The verdict on a row of a task file; ``name`` stands in for an id that it does not have."""
        task, why = schema.task_of_row(row)
        if task is None:
            named = row.get("id") if isinstance(row, dict) else None
            usable = isinstance(named, str) and 0 < len(named) <= MOST_OF_AN_ID
            return Verdict(str(named) if usable else name, {"G1": why}, {})
        return self.judge(task)

    def remember(self, task: Task) -> None:
        """``task`` is part of the set: what follows must differ from it."""
        self.seen.add(Case(self.domain, task))

    def judge(self, task: Task, stated: Stated | None = None) -> Verdict:
        """The verdict on ``task``. ``stated``: what its customer states, as data; without it, what the text says."""
        case, found = self._judged(task, stated)
        if case is not None:
            self.seen.check(case, found)
            if not found.failed:
                self.seen.add(case)
        return _verdict(task, found)

    def judge_alone(self, task: Task, stated: Stated | None = None) -> Verdict:
        """Like `judge`, without a look at the rest of the set (G16)."""
        return _verdict(task, self._judged(task, stated)[1])

    def admit(self, task: Task, verdict: Verdict) -> Verdict:
        """A verdict of `judge_alone` with G16: the task becomes a part of the set unless it is like another one in it."""
        if not verdict.accepted:
            return verdict
        case, found = Case(self.domain, task), Findings({}, dict(verdict.no_evidence))
        self.seen.check(case, found)
        if not found.failed:
            self.seen.add(case)
        return _verdict(task, found)

    def _judged(self, task: Task, stated: Stated | None) -> tuple[Case | None, Findings]:
        """What the gates but G16 find; no case if the task has no beginning."""
        found = Findings()
        try:
            case = Case(self.domain, task, stated)
            schema.check(case, found)
            try:
                _ = case.start
            except Exception as error:  # τ²'s environment, given an initial state of anybody's making
                found.fail("G3", f"the initial state cannot be applied: {type(error).__name__}: {str(error)[:160]}")
                return None, found
            self._judge_played(case, found)
        except RecursionError as error:
            found.fail("G3", f"the task cannot be played: {type(error).__name__}")
            return None, found
        return case, found

    def _judge_played(self, case: Case, found: Findings) -> None:
        replay.check(case, found)
        words.check_text(case, found)
        words.check_communicated(case, found)
        held_out.check(case, found, self.hold_out)
        reward.check(case, found)
        replay.check_needed(case, found)
        replay.check_order(case, found)
        evidence.check(case, found)
        if not self._own_text:
            found.unknown("G17", "a second reader is needed to recover the intents from other people's prose")


def _verdict(task: Task, found: Findings) -> Verdict:
    order = {gate: number for number, gate in enumerate(GATES)}
    failed = dict(sorted(found.failed.items(), key=lambda item: order[item[0]]))
    unknown = {gate: why for gate, why in found.no_evidence.items() if gate not in failed}
    return Verdict(task.id, failed, unknown)


def rows_of(path: Path) -> Iterator[tuple[object, str]]:
    """(row, its place) of a task file. A row that is not JSON is its first characters.

    Raises:
        ConfigError: the file is missing, is not a file of text, is damaged, or holds nothing.
    """
    empty = True
    with task_rows.opened(path) as file:
        for row in task_rows.rows_of(file, path):
            empty = False
            try:
                content: object = json.loads(row.text)
            except (ValueError, RecursionError):
                content = row.text[:80].decode("utf-8", "replace")
            yield content, row.where
    if empty:
        raise ConfigError(f"task file {path}: it holds no task")


def verify(
    domain: str,
    tasks: Path,
    report: Path,
    *,
    hold_out: HoldOut = "test",
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """Judge every row of ``tasks``, write one line a row to ``report`` in the file's order, and return the verdicts.

    ``advance`` is told how many rows are done, and of how many.

    Raises:
        ConfigError: the domain is unknown, or the file cannot be read.
    """
    judge = Judge(domain, hold_out=hold_out)
    rows = list(rows_of(tasks))
    verdicts = []
    for row, place in rows:
        verdicts.append(judge.judge_row(row, place))
        advance(len(verdicts), len(rows))
    lines = [json.dumps(verdict.as_row(), ensure_ascii=False) for verdict in verdicts]
    report.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(report, "\n".join(lines) + "\n")
    return verdicts
