"""`simulations.jsonl`: one finished episode a line, appended and synced, so that a kill loses nothing that was finished.

What two runs of the same episode may differ in (when, how long) stands under ``clock``; the rest of a line is reproducible.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import Dataset, Item, Plan
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.runtime.files import write_atomically

FILE = "simulations.jsonl"
_TIMES = ("generation_time", "user_time", "total_time")

Name = tuple[str, str, int]
"""Dataset, item, attempt: an episode's name."""


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    dataset: Dataset
    item: Item
    attempt: int

    @property
    def name(self) -> Name:
        return self.dataset.name, self.item.name, self.attempt


Record = dict[str, Any]


def name_of(record: Mapping[str, Any]) -> Name:
    return str(record["dataset"]), str(record["item"]), int(record["attempt"])


def record_of(
    job: Job, result: InteractionResult, *, tries: Sequence[Mapping[str, str]], cost: Mapping[str, float], tokens: bool
) -> Record:
    """The line of a finished episode. ``tries``: earlier ones of it that failed. ``tokens``: keep the ledger."""
    stats = asdict(result.stats)
    plain = result.to_dict(tokens=tokens)
    messages = plain["messages"]
    stamps = [message.pop("timestamp", None) for message in messages]
    ledger = result.ledger
    record: Record = {
        "dataset": job.dataset.name,
        "item": job.item.name,
        "attempt": job.attempt,
        "domain": job.item.config.domain,
        "task_split": job.item.config.task_split,
        "task_id": job.item.task_id,
        "repeat": job.item.repeat,
        "agent_type": job.item.config.agent_type,
        "user_model": job.item.config.user_model if job.item.config.agent_type != "solo" else "",
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
        "tries": [dict(earlier) for earlier in tries],
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
    return sum(int(generation.get(name) or 0) for generation in generations)


@dataclass
class Store:
    """The folder's episodes."""

    folder: Path
    records: dict[Name, Record] = field(default_factory=dict)
    damaged: int = 0
    """Lines that could not be read; their episodes are played again."""

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def notes(self) -> list[str]:
        """What a user must know of damage, in sentences."""
        if not self.damaged:
            return []
        lines = "1 line is" if self.damaged == 1 else f"{self.damaged} lines are"
        return [f"{self.path}: {lines} damaged and left out; running the evaluation again plays their episodes"]

    def read(self) -> Store:
        """Load what is there. Lines that are no record, such as one that a kill cut in half, are left out."""
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
    def writing(self, *, again: Sequence[Name] = ()) -> Iterator[Store]:
        """Hold the folder for this process; repair the file, and forget the records named in ``again``.

        Raises:
            ConfigError: another process is writing here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"another evaluation is writing to {self.folder}: wait for it, or stop it") from None
            self.read()
            for name in again:
                self.records.pop(name, None)
            if self.damaged or again or not self._ends_well():
                self._rewrite()
            yield self

    def append(self, record: Record) -> None:
        """Add a line and wait until it is on the disk."""
        name = name_of(record)
        if name in self.records:
            raise RuntimeError(f"{name} is there already")
        line = json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            written = 0
            while written < len(line):
                written += file.write(line[written:]) or 0
            os.fsync(file.fileno())
        self.records[name] = record

    def _ends_well(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _rewrite(self) -> None:
        write_atomically(self.path, (json.dumps(record, ensure_ascii=False) + "\n" for record in self.records.values()))


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


def units(records: Mapping[Name, Record], layout: Mapping[str, Mapping[str, Any]]) -> list[Unit]:
    """One `Unit` per task of each dataset; ``layout`` is the manifest's (`manifest.layout`)."""
    out = []
    for dataset, described in layout.items():
        attempts = int(described["attempts"])
        for item in described["items"]:
            found = [records.get((dataset, item, attempt)) for attempt in range(attempts)]
            out.append(
                Unit(
                    dataset=dataset,
                    domain=item.partition("/")[0],
                    task=item,
                    user_model=described["user_model"],
                    outcomes=tuple(None if r is None or r["excluded"] else float(r["reward"]) for r in found),
                    played=sum(r is not None for r in found),
                )
            )
    return out
