"""A run's records -> everything that its tables say, as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.evaluation.runner.budget import Bill, Budget
from tau2_slime.evaluation.statistics import baselines
from tau2_slime.evaluation.statistics.baselines import KINDS, Rewards, solved_share
from tau2_slime.evaluation.statistics.estimates import Scores, domain_weighted, grouped, scores
from tau2_slime.evaluation.store import manifest as manifests
from tau2_slime.evaluation.store.records import Name, Record, Store, units
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.outcome import SUCCESS


@dataclass(frozen=True)
class Group:
    """A row of the score table."""

    kind: str
    """dataset, domain, user or overall."""
    name: str
    scores: Scores
    planned: int
    """Attempts that the plan has."""
    played: int
    """Attempts with a record."""
    baselines: dict[str, float | None] = field(default_factory=dict)
    """Degenerate policy -> the share of these tasks that it solves; None: not known."""


@dataclass
class ToolUse:
    """What became of the policy's calls of one tool."""

    calls: int = 0
    errors: int = 0
    malformed: int = 0
    """Of the errors: calls that could not be read, or that a guard refused."""


@dataclass(frozen=True)
class Summary:
    """A whole run."""

    manifest: Mapping[str, Any]
    units: list[Unit]
    records: Mapping[Name, Record]
    groups: list[Group]
    domain_weighted: float | None
    """pass^1 with every domain counted once."""
    bills: Mapping[tuple[str, str], Bill]
    end: str
    """complete, or why the run stopped."""
    notes: list[str]

    @property
    def overall(self) -> Group:
        return self.groups[-1]

    @property
    def played(self) -> list[Record]:
        """The plan's records, in the plan's order."""
        return [r for row in self.grid() for r in row[1] if r is not None]

    def grid(self) -> list[tuple[Unit, list[Record | None]]]:
        """Every unit with the record of each attempt."""
        return [
            (unit, [self.records.get((unit.dataset, str(unit.task), i)) for i in range(len(unit.outcomes))])
            for unit in self.units
        ]

    def reasons(self) -> Counter[str]:
        """Why episodes are excluded."""
        return Counter(f"{r['blame']}: {r['detail'] or r['termination']}" for r in self.played if r["excluded"])

    def endings(self) -> Counter[tuple[str, str, str]]:
        """(what came of it, termination, blame) -> episodes."""
        return Counter((fate(r), r["termination"], r["blame"]) for r in self.played)

    def tools(self) -> dict[str, ToolUse]:
        """Tool -> use by the policy, most errors first."""
        out: dict[str, ToolUse] = {}
        for record in self.played:
            _count_tools(record, out)
        return dict(sorted(out.items(), key=lambda pair: (-pair[1].errors, -pair[1].calls, pair[0])))


def fate(record: Mapping[str, Any]) -> str:
    """What came of an episode: excluded, solved or failed."""
    if record["excluded"]:
        return "excluded"
    return "solved" if record["reward"] >= SUCCESS else "failed"


def _count_tools(record: Mapping[str, Any], out: dict[str, ToolUse]) -> None:
    rejected = {(int(i), p) for i, positions in record["rejected_calls"].items() for p in positions}
    queue: list[tuple[str, bool]] = []
    for index, message in enumerate(record["messages"]):
        calls = message.get("tool_calls") or []
        if calls:
            mine = message["role"] == "assistant"
            queue = [(call["name"] if mine else "", (index, p) in rejected) for p, call in enumerate(calls)]
        elif message["role"] == "tool" and queue:
            name, malformed = queue.pop(0)
            if name:
                use = out.setdefault(name, ToolUse())
                use.calls += 1
                use.errors += bool(message.get("error"))
                use.malformed += malformed


def summarise(
    manifest: Mapping[str, Any],
    records: Mapping[Name, Record],
    *,
    known: Rewards | None = None,
    bills: Mapping[tuple[str, str], Bill] | None = None,
    end: str = "",
    notes: Sequence[str] = (),
) -> Summary:
    """Tables of ``records`` under ``manifest``; ``known``: `baselines.score_baselines`."""
    rows = units(records, manifests.layout(manifest))
    several_users = len({row.user_model for row in rows}) > 1
    several_domains = len({row.domain for row in rows}) > 1
    groups = [_group("dataset", name, members, known) for name, members in grouped(rows, lambda u: u.dataset).items()]
    if several_domains:
        groups += [_group("domain", name, g, known) for name, g in grouped(rows, lambda u: u.domain).items()]
    if several_users:
        groups += [_group("user", name or "-", g, known) for name, g in grouped(rows, lambda u: u.user_model).items()]
    groups.append(_group("overall", "all tasks", rows, known))
    if not end:
        end = "complete" if groups[-1].played == groups[-1].planned else "incomplete"
    return Summary(manifest, rows, records, groups, domain_weighted(rows), bills or {}, end, list(notes))


def _group(kind: str, name: str, members: Sequence[Unit], known: Rewards | None) -> Group:
    played = sum(len(u.outcomes) if u.played is None else u.played for u in members)
    planned = sum(len(u.outcomes) for u in members)
    values = {k: solved_share([str(u.task) for u in members], known, k) if known else None for k in KINDS}
    return Group(kind, name, scores(members), planned, played, values)


def read_folder(folder: Path) -> Summary:
    """The summary of a finished or interrupted run's folder, with the baselines that were scored for it.

    What is damaged in the folder is left out, and `Summary.notes` names the file, the damage and the remedy.

    Raises:
        ConfigError: the folder does not hold an evaluation.
    """
    manifest = manifests.read(folder)
    store, budget = Store(folder).read(), Budget(folder / "costs.jsonl")
    notes = [*store.notes, *budget.notes]
    known: Rewards | None = None
    try:
        known = baselines.read_rewards(folder / baselines.FILE)
    except FileNotFoundError:  # --no-baselines, or an interrupted run
        pass
    except (OSError, ValueError) as error:
        notes.append(
            f"{folder / baselines.FILE} cannot be used ({error}), so the columns 'nothing' and 'transfer' are empty: "
            "run the evaluation again, or delete the file"
        )
    return summarise(manifest, store.records, known=known, bills=budget.bills, notes=notes)
