"""`simulations.jsonl`: one finished episode a line, appended and synced, so that a kill loses nothing that was finished.

What two runs of the same episode may differ in (when, how long) stands under ``clock``; the rest of a line is reproducible.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.users import user_role
from tau2_slime.evaluation.plan.datasets import Dataset, Item, Plan
from tau2_slime.evaluation.store.protocol import DatasetProtocol
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.runtime.files import append_line, ends_with_a_whole_line, hold_folder, write_atomically

FILE = "simulations.jsonl"
_TIMES = ("generation_time", "user_time", "total_time")


class EpisodeName(NamedTuple):
    """What an episode is called within a run."""

    dataset: str
    item: str
    attempt: int


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    dataset: Dataset
    item: Item
    attempt: int

    @property
    def name(self) -> EpisodeName:
        return EpisodeName(self.dataset.name, self.item.name, self.attempt)

    @property
    def label(self) -> str:
        """`name` as one text."""
        return "/".join(map(str, self.name))


class FailedTry(TypedDict):
    """Why an earlier try of an episode said nothing about the agent."""

    termination: str
    blame: str
    detail: str


class Record(TypedDict):
    """One line of the file: a finished episode."""

    dataset: str
    item: str
    attempt: int
    domain: str
    task_split: str
    task_id: str
    repeat: int
    agent_type: str
    user_model: str
    """Empty in solo mode."""
    status: str
    termination: str
    blame: str
    detail: str
    """What went wrong, in one line; empty if nothing did."""
    excluded: bool
    """True: the episode says nothing about the agent, and `reward` is None."""
    reward: float | None
    reward_info: dict[str, Any] | None
    """τ²'s `RewardInfo`."""
    tokens: dict[str, int]
    """``prompt``, ``sampled`` and ``context`` (what was appended between the policy's turns)."""
    cost: dict[str, float]
    """US dollars of the ``policy`` and of the ``user``."""
    tries: list[FailedTry]
    stats: dict[str, Any]
    """`EpisodeStats` without its times."""
    rejected_calls: dict[str, list[int]]
    """Index of a message -> positions of its calls that did not reach the environment."""
    messages: list[dict[str, Any]]
    """τ²'s messages without their times."""
    clock: dict[str, Any]
    """Seconds of the episode, and ``messages``: the time of each message."""
    telemetry: NotRequired[dict[str, float]]
    """`episode.telemetry`'s counts, and the metrics of one's own."""
    ledger: NotRequired[dict[str, Any]]
    """Every token and log-probability (``--keep-tokens``)."""


def name_of(record: Record) -> EpisodeName:
    return EpisodeName(str(record["dataset"]), str(record["item"]), int(record["attempt"]))


def record_of(
    job: Job, result: InteractionResult, *, tries: Sequence[FailedTry], cost: Mapping[str, float], tokens: bool
) -> Record:
    """The line of a finished episode.

    ``tries``: earlier tries of it that failed. ``cost``: US dollars by role. ``tokens``: keep the ledger.
    """
    stats, config = asdict(result.stats), job.item.config
    plain = result.to_dict(tokens=tokens)
    messages = plain["messages"]
    stamps = [message.pop("timestamp", None) for message in messages]
    ledger = result.ledger
    record: Record = {
        "dataset": job.dataset.name,
        "item": job.item.name,
        "attempt": job.attempt,
        "domain": config.domain,
        "task_split": config.task_split,
        "task_id": job.item.task_id,
        "repeat": job.item.repeat,
        "agent_type": config.agent_type,
        "user_model": user_role(config, config.user_model).label,
        "status": plain["status"],
        "termination": plain["termination"],
        "blame": plain["blame"],
        "detail": plain["detail"],
        "excluded": not result.trainable,
        "reward": plain["reward"] if result.trainable else None,
        "reward_info": plain["reward_info"],
        "tokens": {
            "prompt": ledger.prompt_length if ledger else _usage(result.generations[:1], "prompt_tokens"),
            "sampled": ledger.sampled_count if ledger else _usage(result.generations, "completion_tokens"),
            "context": len(ledger.tokens) - ledger.prompt_length - ledger.sampled_count if ledger else 0,
        },
        "cost": dict(cost),
        "tries": list(tries),
        "stats": {k: v for k, v in stats.items() if k not in _TIMES},
        "telemetry": plain["telemetry"],
        "rejected_calls": {str(k): v for k, v in result.rejected_calls.items()},
        "messages": messages,
        "clock": {**{name: stats[name] for name in _TIMES}, "messages": stamps},
    }
    if "ledger" in plain:
        record["ledger"] = plain["ledger"]
    return record


def _usage(generations: Sequence[Mapping[str, Any]], name: str) -> int:
    """What an API's usage says in total."""
    return sum(int(generation.get(name) or 0) for generation in generations)


@dataclass
class Store:
    """The episodes of a folder."""

    folder: Path
    records: dict[EpisodeName, Record] = field(default_factory=dict)
    damaged: int = 0
    """Lines that could not be read; their episodes are played again."""

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def notes(self) -> list[str]:
        """What a user must know of damage."""
        if not self.damaged:
            return []
        lines = "1 line is" if self.damaged == 1 else f"{self.damaged} lines are"
        return [f"{self.path}: {lines} damaged and left out; running the evaluation again plays their episodes"]

    def read(self) -> Store:
        """Load what is there, and return self. Damaged lines, such as one that a kill cut in half, are left out."""
        self.records, self.damaged = {}, 0
        if self.path.exists():
            with self.path.open("rb") as file:
                for raw in file:
                    if raw.strip():
                        self._take(raw)
        return self

    def _take(self, raw: bytes) -> None:
        try:
            record = json.loads(raw)
            name = name_of(record)
            record["messages"], record["termination"], record["excluded"] or float(record["reward"])
        except (ValueError, KeyError, TypeError):
            self.damaged += 1
            return
        self.records.setdefault(name, record)

    @contextlib.contextmanager
    def writing(self, *, replay_excluded: bool = False) -> Iterator[Store]:
        """Hold the folder for this process and repair the file. ``replay_excluded``: drop the excluded records.

        Raises:
            ConfigError: another process is writing here, or nobody can.
        """
        with hold_folder(self.folder, "evaluation"):
            self.repair(replay_excluded=replay_excluded)
            yield self

    def repair(self, *, replay_excluded: bool = False) -> None:
        """Read the file, and rewrite it if it holds more than whole records. The folder must be held by this process."""
        self.read()
        dropped = [name for name, record in self.records.items() if replay_excluded and record["excluded"]]
        for name in dropped:
            del self.records[name]
        if self.damaged or dropped or not ends_with_a_whole_line(self.path):
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in self.records.values())
            write_atomically(self.path, lines)

    def append(self, record: Record) -> None:
        """Add a line and wait until it is on the disk.

        Raises:
            RuntimeError: the episode has a record already.
            OSError: the disk is full; nothing of the record is in the file.
        """
        name = name_of(record)
        if name in self.records:
            raise RuntimeError(f"{name} is recorded already")
        append_line(self.path, json.dumps(record, ensure_ascii=False, default=str))
        self.records[name] = record


def jobs(plan: Plan) -> list[Job]:
    """Every episode: first attempts of all tasks first, so that a run that is stopped has something of everything."""
    most = max(dataset.attempts for dataset in plan.datasets)
    return [
        Job(dataset, item, attempt)
        for attempt in range(most)
        for dataset in plan.datasets
        if attempt < dataset.attempts
        for item in dataset.items
    ]


def units(records: Mapping[EpisodeName, Record], protocol: Mapping[str, DatasetProtocol]) -> list[Unit]:
    """One `Unit` per task of each dataset of a manifest's ``protocol``."""
    out = []
    for dataset, part in protocol.items():
        for item in part["tasks"]:
            found = [records.get(EpisodeName(dataset, item, attempt)) for attempt in range(part["attempts"])]
            out.append(
                Unit(
                    dataset=dataset,
                    domain=item.partition("/")[0],
                    task=item,
                    user_model=part["user_model"],
                    outcomes=tuple(None if r is None or r["excluded"] else r["reward"] for r in found),
                    played=sum(r is not None for r in found),
                )
            )
    return out
