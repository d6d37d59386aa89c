"""Prompt data for slime: which τ² tasks go into which JSONL file, and the proof that train and test stay apart.

`tau2_slime.data.rows` has the format of a row. ``index`` is the task's position in τ²'s list of ``task_split``, whatever was
left out, divided or shuffled: it and ``task_id`` always agree. `plan_files` decides and refuses before anything is written;
`tau2_slime.data.files.write_files` puts the files on disk.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tau2_slime.config.task_split import names_a_file
from tau2_slime.data.request import DataRequest
from tau2_slime.data.rows import RowContent
from tau2_slime.data.selection import TEST, TRAIN, Selection, fractions_of, select_tasks, word_of
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains

Role = Literal["train", "held out"]


@dataclass(frozen=True)
class Content:
    """What `check_apart` needs to know of a file, be it planned or on disk already."""

    name: str
    role: str
    tasks: frozenset[tuple[str, str, str]]
    """(domain, task file or empty, task id)"""
    only_test: bool
    """Every row is of τ²'s own test split."""
    test_allowed: bool
    """It was made with ``--allow-test-tasks``."""

    @classmethod
    def of(cls, name: str, role: str, metadata: Iterable[Mapping[str, object]], *, test_allowed: bool) -> Content:
        """``metadata``: of every row."""
        found = list(metadata)
        # A task of a file is another one than τ²'s of the same id.
        tasks = frozenset(
            (str(m["domain"]), str(m["task_split"]) if names_a_file(m["task_split"]) else "", str(m["task_id"]))
            for m in found
        )
        return cls(name, role, tasks, all(m["task_split"] == TEST for m in found), test_allowed)


@dataclass(frozen=True)
class DataFile:
    """One JSONL file to write."""

    name: str
    role: Role
    selections: tuple[Selection, ...]
    rows: tuple[RowContent, ...]

    def content(self, request: DataRequest) -> Content:
        metadata = (row["metadata"] for row in self.rows)
        return Content.of(self.name, self.role, metadata, test_allowed=request.allow_test_tasks)

    def text(self) -> str:
        """The file, a row a line."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)


@dataclass(frozen=True)
class DataPlan:
    """The files of a `DataRequest`, and one line for everything that was left out or skipped."""

    request: DataRequest
    files: tuple[DataFile, ...]
    notes: tuple[str, ...]


def plan_files(request: DataRequest) -> DataPlan:
    """Raises ConfigError for an unknown domain or split, a training file that would hold test tasks, an empty part."""
    if request.limit is not None and request.limit < 1:
        raise ConfigError(f"--limit {request.limit}: at least 1")
    chosen = list(dict.fromkeys(request.domains or domains.domains()))
    wanted = [(domain, split) for domain in chosen for split in _splits_of(domain, request)]
    combined = [_domain_and_split(spec) for spec in dict.fromkeys(request.multi_domain_train)]
    weights = _weights(request, combined)
    _check_split_names(request, [*chosen, *(domain for domain, _ in combined)])
    if request.fractions and all(split == TEST for _, split in [*wanted, *combined]):
        raise ConfigError("--fractions divides training splits, and there is none here: give --splits train, say")
    selections = [
        selection
        for domain, split in wanted
        for selection in fractions_of(select_tasks(request, domain, split, training=split != TEST), request)
    ]
    files = [_file(selection) for selection in selections if selection.positions]
    if combined:
        files.append(_combined_file(request, combined, weights))
    notes = _notes(request, chosen, selections, files)
    if not files:
        raise ConfigError("nothing to write: " + "; ".join(notes))
    twice = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    if twice:
        raise ConfigError(f"two of the files asked for would be called {twice[0]}: prepare them in two folders")
    check_apart(file.content(request) for file in files)
    return DataPlan(request, tuple(files), notes)


def _splits_of(domain: str, request: DataRequest) -> list[str]:
    """The splits of ``domain`` that get a file of their own."""
    has = domains.splits(domain)
    if not request.splits:
        return [split for split in (TRAIN, TEST) if split in has] or list(has)
    return [split for split in dict.fromkeys(request.splits) if split in has or names_a_file(split)]


def _check_split_names(request: DataRequest, named: Sequence[str]) -> None:
    known = {split for domain in named for split in domains.splits(domain)}
    for option, names in (("--splits", request.splits), ("--exclude-split", request.exclude_splits or ())):
        for name in names:
            if name not in known and not names_a_file(name):
                raise ConfigError(
                    f"{option} {name}: no such split in these domains (they have: {', '.join(sorted(known))})"
                )


def _file(selection: Selection) -> DataFile:
    role: Role = "train" if selection.split != TEST and selection.part in (None, TRAIN) else "held out"
    return DataFile(f"{selection.stem}_tasks.jsonl", role, (selection,), tuple(selection.rows()))


def _notes(
    request: DataRequest, chosen: Sequence[str], selections: Sequence[Selection], files: Sequence[DataFile]
) -> tuple[str, ...]:
    """One line for every split that a domain lacks, file that would be empty, and kind of task that stays out."""
    skipped = [
        f"{domain}: skipped split {split!r}, it has only: {', '.join(domains.splits(domain))}"
        for domain in chosen
        for split in request.splits
        if split not in domains.splits(domain) and not names_a_file(split)
    ]
    empty = [f"{s.domain}/{s.split}: no file, nothing stays in ({s.reasons})" for s in selections if not s.positions]
    left_out = [f"{s.domain}/{s.split}: left out {s.reasons}" for f in files for s in f.selections if s.left_out]
    return tuple(dict.fromkeys([*skipped, *empty, *left_out]))


def _domain_and_split(spec: str) -> tuple[str, str]:
    domain, _, split = spec.partition(":")
    split = split or TRAIN
    has = domains.splits(domain)
    if split not in has and not names_a_file(split):
        raise ConfigError(
            f"--multi-domain-train {spec}: domain {domain!r} has no split {split!r}; write {domain}:<split>, "
            f"with one of: {', '.join(has)}"
        )
    return domain, split


def _weights(request: DataRequest, combined: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The weight of each part of the combined file, 1 unless the request says otherwise."""
    weights = dict.fromkeys(combined, 1)
    for name, times in request.weights:
        meant = [part for part in combined if name in (part[0], f"{part[0]}:{part[1]}")]
        if len(meant) != 1:
            parts = ", ".join(f"{domain}:{split}" for domain, split in combined) or "nothing"
            why = "names more than one part" if meant else "is not a part"
            raise ConfigError(f"--weights {name}={times}: {name!r} {why} of --multi-domain-train ({parts})")
        weights[meant[0]] = times
    return weights


def _combined_file(
    request: DataRequest, combined: Sequence[tuple[str, str]], weights: Mapping[tuple[str, str], int]
) -> DataFile:
    selections = []
    for domain, split in combined:
        parts = fractions_of(select_tasks(request, domain, split, training=True), request)
        selection = next((part for part in parts if part.part in (None, TRAIN)), None)
        if selection is None:
            raise ConfigError("--multi-domain-train needs a part called train in --fractions")
        if not selection.positions:
            raise ConfigError(f"--multi-domain-train: nothing of {domain}/{split} stays in ({selection.reasons})")
        selections.append(replace(selection, weight=weights[domain, split]))
    rows = [row for selection in selections for row in selection.rows() * selection.weight]
    random.Random(request.seed).shuffle(rows)
    stem = "_".join(s.domain if s.split == TRAIN else f"{s.domain}-{word_of(s.split)}" for s in selections)
    return DataFile(f"{stem}_{TRAIN}_tasks.jsonl", "train", tuple(selections), tuple(rows))


def check_apart(contents: Iterable[Content]) -> None:
    """Raises ConfigError if a held-out file of the same run or folder holds a training task."""
    contents = list(contents)
    for train in (c for c in contents if c.role == "train"):
        for other in (c for c in contents if c.role == "held out"):
            shared = train.tasks & other.tasks
            if shared and not (other.only_test and train.test_allowed):
                raise ConfigError(
                    f"{train.name} and {other.name} would share {len(shared)} tasks in one folder: "
                    "divide overlapping splits in runs of their own, each into its own folder"
                )
