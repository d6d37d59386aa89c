"""The records of a run -> everything that its tables say, as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tau2_slime.evaluation.runner.budget import Bill, Budget
from tau2_slime.evaluation.statistics import baselines
from tau2_slime.evaluation.statistics.baselines import KINDS, Rewards, solved_share
from tau2_slime.evaluation.statistics.estimates import Scores, domain_weighted, grouped, scores
from tau2_slime.evaluation.store import manifest as manifests
from tau2_slime.evaluation.store.manifest import Manifest
from tau2_slime.evaluation.store.records import EpisodeName, Record, Store, units
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.outcome import SUCCESS

OWN_METRIC = "custom/"
"""How the names of metrics of one's own begin in an episode's telemetry."""


@dataclass(frozen=True)
class MetricMean:
    """A metric of one's own, over the episodes that have it and are not excluded."""

    mean: float
    episodes: int


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
    """Kind of baseline -> the share of these tasks that it solves; None: not known."""
    metrics: dict[str, MetricMean] = field(default_factory=dict)
    """``custom/<name>`` -> its mean; empty without metrics of one's own."""


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

    manifest: Manifest
    units: list[Unit]
    records: Mapping[EpisodeName, Record]
    groups: list[Group]
    """The last one is the whole run."""
    domain_weighted: float | None
    """pass^1 with every domain counted once."""
    bills: Mapping[tuple[str, str], Bill]
    """(role, model) -> what its calls cost."""
    end: str
    """complete, or why the run stopped."""
    notes: list[str]
    """What a reader must know, in sentences."""

    @property
    def overall(self) -> Group:
        return self.groups[-1]

    @property
    def played(self) -> list[Record]:
        """The plan's records, in the plan's order."""
        return [record for unit in self.units for record in attempts(unit, self.records) if record is not None]

    def grid(self) -> list[tuple[Unit, list[Record | None]]]:
        """Every unit with its `attempts`."""
        return [(unit, attempts(unit, self.records)) for unit in self.units]

    def reasons(self) -> Counter[str]:
        """Why episodes are excluded."""
        return Counter(f"{r['blame']}: {r['detail'] or r['termination']}" for r in self.played if r["excluded"])

    def endings(self) -> Counter[tuple[str, str, str]]:
        """(`outcome_of`, termination, blame) -> episodes."""
        return Counter((outcome_of(r), r["termination"], r["blame"]) for r in self.played)

    def tools(self) -> dict[str, ToolUse]:
        """Tool -> use by the policy, most errors first."""
        out: dict[str, ToolUse] = {}
        for record in self.played:
            _count_tools(record, out)
        return dict(sorted(out.items(), key=lambda pair: (-pair[1].errors, -pair[1].calls, pair[0])))


def attempts(unit: Unit, records: Mapping[EpisodeName, Record]) -> list[Record | None]:
    """The record of each attempt at a unit; None: not played."""
    return [records.get(EpisodeName(unit.dataset, unit.task, i)) for i in range(len(unit.outcomes))]


def outcome_of(record: Record) -> str:
    """What came of an episode: excluded, solved or failed."""
    if record["excluded"] or record["reward"] is None:
        return "excluded"
    return "solved" if record["reward"] >= SUCCESS else "failed"


def _count_tools(record: Record, out: dict[str, ToolUse]) -> None:
    """Add the policy's calls. The results of a message's calls follow it, in the order of the calls."""
    rejected = {(int(i), p) for i, positions in record["rejected_calls"].items() for p in positions}
    waiting: list[tuple[str, bool]] = []
    for index, message in enumerate(record["messages"]):
        calls = message.get("tool_calls") or []
        if calls:
            policy = message["role"] == "assistant"
            waiting = [(call["name"] if policy else "", (index, p) in rejected) for p, call in enumerate(calls)]
        elif message["role"] == "tool" and waiting:
            name, malformed = waiting.pop(0)
            if name:
                use = out.setdefault(name, ToolUse())
                use.calls += 1
                use.errors += bool(message.get("error"))
                use.malformed += malformed


def summarise(
    manifest: Manifest,
    records: Mapping[EpisodeName, Record],
    *,
    known: Rewards | None = None,
    bills: Mapping[tuple[str, str], Bill] | None = None,
    end: str = "",
    notes: Sequence[str] = (),
) -> Summary:
    """The summary of ``records`` under ``manifest``.

    ``known``: the rewards of the baselines. ``end``: why the run stopped; empty: told from the records.
    """
    rows = units(records, manifest["protocol"])

    def group(kind: str, name: str, members: Sequence[Unit]) -> Group:
        return Group(
            kind,
            name,
            scores(members),
            planned=sum(len(unit.outcomes) for unit in members),
            played=sum(unit.played_attempts for unit in members),
            baselines={k: solved_share([u.task for u in members], known, k) if known else None for k in KINDS},
            metrics=_own_metrics(record for unit in members for record in attempts(unit, records)),
        )

    groups = [group("dataset", name, members) for name, members in grouped(rows, lambda u: u.dataset).items()]
    by_domain, by_user = grouped(rows, lambda u: u.domain), grouped(rows, lambda u: u.user_model)
    if len(by_domain) > 1:
        groups += [group("domain", name, members) for name, members in by_domain.items()]
    if len(by_user) > 1:
        groups += [group("user", name or "-", members) for name, members in by_user.items()]
    groups.append(group("overall", "all tasks", rows))
    if not end:
        end = "complete" if groups[-1].played == groups[-1].planned else "incomplete"
    return Summary(manifest, rows, records, groups, domain_weighted(rows), bills or {}, end, list(notes))


def _own_metrics(records: Iterable[Record | None]) -> dict[str, MetricMean]:
    values: dict[str, list[float]] = {}
    for record in records:
        if record is not None and not record["excluded"]:
            for name, value in record.get("telemetry", {}).items():
                if name.startswith(OWN_METRIC):
                    values.setdefault(name, []).append(value)
    return {name: MetricMean(fmean(found), len(found)) for name, found in sorted(values.items())}


def read_folder(folder: Path) -> Summary:
    """The summary of a finished or interrupted run's folder, with the baselines that were scored for it.

    What is damaged in the folder is left out, and `Summary.notes` names the file, the damage and the remedy.

    Raises:
        ConfigError: the folder does not hold an evaluation.
    """
    manifest = manifests.read(folder)
    store, budget = Store(folder).read(), Budget(folder / "costs.jsonl")
    notes = [*store.notes, *budget.notes]
    known = known_baselines(folder, notes.append)
    return summarise(manifest, store.records, known=known, bills=budget.bills, notes=notes)


def known_baselines(folder: Path, tell: Callable[[str], None]) -> Rewards | None:
    """The rewards in an evaluation's folder; None if it has none. ``tell`` is given what is wrong with its file."""
    try:
        return baselines.read_rewards(folder / baselines.FILE)
    except FileNotFoundError:  # --no-baselines, or an interrupted run
        return None
    except (OSError, ValueError) as error:
        tell(
            f"{folder / baselines.FILE} cannot be used ({error}), so the columns 'nothing' and 'transfer' are empty: "
            "run the evaluation again, or delete the file"
        )
        return None
