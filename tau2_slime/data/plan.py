"""Prompt data for slime: which τ² tasks go into which JSONL file, and the proof that train and test stay apart.

A row is ``{"index", "prompt", "metadata": {"domain", "task_split", "task_id"}}``. ``index`` is the task's position in the
task list of ``task_split`` in τ²'s order, whatever was left out, split off or shuffled: it and ``task_id`` always agree.
`plan` decides and refuses before anything is written; `tau2_slime.data.files.write` puts the files on disk.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from tau2_slime.data.request import Request
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains, scoring, tau2_compat

TRAIN, TEST = "train", "test"
Role = Literal["train", "held out"]


@dataclass(frozen=True)
class Selection:
    """The tasks of one split that stay in, as positions in τ²'s list, and what was left out and why."""

    domain: str
    split: str
    positions: tuple[int, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    part: str | None = None
    """The fraction that this is, if the split was divided."""
    weight: int = 1
    """How often each task stands in a combined file."""

    def rows(self) -> list[dict[str, Any]]:
        pool = domains.tasks(self.domain, self.split)
        return [_row(self.domain, self.split, index, pool[index].id) for index in self.positions]

    @property
    def stem(self) -> str:
        """``retail_train``, ``retail_dev``, ``telecom_full_train`` (test tasks left out), ``mock_base``."""
        label = self.domain if self.split in (TRAIN, TEST) else f"{self.domain}_{self.split}"
        if self.part:
            return f"{label}_{self.part}"
        if self.split in (TRAIN, TEST):
            return f"{label}_{self.split}"
        return f"{label}_{TRAIN}" if any(reason.startswith("in split") for reason in self.left_out) else label


@dataclass(frozen=True)
class Content:
    """What `check_apart` needs to know of a file, be it planned or on disk already."""

    name: str
    role: str
    keys: frozenset[tuple[str, str]]
    """(domain, task id)"""
    only_test: bool
    """All of it is τ²'s own test split."""
    test_allowed: bool
    """It was made with ``--allow-test-tasks``."""

    @classmethod
    def of(cls, name: str, role: str, rows: Iterable[Mapping[str, Any]], *, test_allowed: bool) -> Content:
        found = [row["metadata"] for row in rows]
        keys = frozenset((m["domain"], m["task_id"]) for m in found)
        return cls(name, role, keys, all(m["task_split"] == TEST for m in found), test_allowed)


@dataclass(frozen=True)
class DataFile:
    """One JSONL file to write."""

    name: str
    role: Role
    selections: tuple[Selection, ...]
    rows: tuple[dict[str, Any], ...]

    def content(self, request: Request) -> Content:
        return Content.of(self.name, self.role, self.rows, test_allowed=request.allow_test_tasks)

    def text(self) -> str:
        return "".join(json.dumps(row) + "\n" for row in self.rows)


@dataclass(frozen=True)
class Plan:
    """The files of a `Request`, and one line for everything that was left out or skipped."""

    request: Request
    files: tuple[DataFile, ...]
    notes: tuple[str, ...]


def plan(request: Request) -> Plan:
    """Choose the tasks of every file.

    Raises:
        ConfigError: an unknown domain or split, a training file that would hold test tasks, an empty part.
    """
    if request.limit is not None and request.limit < 1:
        raise ConfigError(f"--limit {request.limit}: at least 1")
    chosen = list(dict.fromkeys(request.domains or domains.domains()))
    notes: list[str] = []
    wanted = [(domain, split) for domain in chosen for split in _splits_of(domain, request, notes)]
    combined = [_domain_and_split(spec) for spec in dict.fromkeys(request.multi_domain_train)]
    weights = _weights(request, combined)
    known = {split for domain in [*chosen, *(d for d, _ in combined)] for split in domains.splits(domain)}
    for option, names in (("--splits", request.splits), ("--exclude-split", request.exclude_splits or ())):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{option} {name}: no such split in these domains (they have: {', '.join(sorted(known))})"
                )
    if request.fractions and all(split == TEST for _, split in [*wanted, *combined]):
        raise ConfigError("--fractions divides training splits, and there is none here: give --splits train, say")

    files: list[DataFile] = []
    for domain, split in wanted:
        for selection in _parts(_select(request, domain, split, training=split != TEST), request):
            if selection.positions:
                role: Role = "train" if split != TEST and selection.part in (None, TRAIN) else "held out"
                rows = tuple(selection.rows())
                files.append(DataFile(f"{selection.stem}_tasks.jsonl", role, (selection,), rows))
            else:
                notes.append(f"{domain}/{split}: no file, nothing stays in ({_reasons(selection)})")
    if combined:
        files.append(_combined_file(request, combined, weights))
    if not files:
        raise ConfigError("nothing to write: " + "; ".join(notes))
    for file in files:
        for selection in file.selections:
            line = f"{selection.domain}/{selection.split}: left out {_reasons(selection)}"
            if selection.left_out and line not in notes:
                notes.append(line)
    twice = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    if twice:
        raise ConfigError(f"two of the files asked for would be called {twice[0]}: prepare them in two folders")
    check_apart(file.content(request) for file in files)
    return Plan(request, tuple(files), tuple(notes))


def _splits_of(domain: str, request: Request, notes: list[str]) -> list[str]:
    has = domains.splits(domain)
    if not request.splits:
        return [split for split in (TRAIN, TEST) if split in has] or list(has)
    for split in request.splits:
        if split not in has:
            notes.append(f"{domain}: skipped split {split!r}, it has only: {', '.join(has)}")
    return [split for split in dict.fromkeys(request.splits) if split in has]


def _domain_and_split(spec: str) -> tuple[str, str]:
    domain, _, split = spec.partition(":")
    split = split or TRAIN
    has = domains.splits(domain)
    if split not in has:
        raise ConfigError(
            f"--multi-domain-train {spec}: domain {domain!r} has no split {split!r}; write {domain}:<split>, "
            f"with one of: {', '.join(has)}"
        )
    return domain, split


def _select(request: Request, domain: str, split: str, *, training: bool) -> Selection:
    """The tasks of ``domain``/``split`` that the request lets in.

    Raises:
        ConfigError: ``training``, and some of them are test tasks.
    """
    pool, members = domains.tasks(domain, split), domains.splits(domain)
    excluded: tuple[str, ...] = ()
    if training and request.exclude_splits is not None:
        excluded = request.exclude_splits
    elif training and split not in (TRAIN, TEST) and not request.allow_test_tasks:
        excluded = (TEST,)
    reasons: dict[str, set[str]] = {
        f"in split {name}": set(members.get(name, ())) for name in excluded if name != split
    }
    left_out: Counter[str] = Counter()
    kept: list[int] = []
    for index, task in enumerate(pool):
        reason = next((reason for reason, ids in reasons.items() if task.id in ids), None)
        reason = reason or _unplayable(request, domain, task)
        if reason is None:
            kept.append(index)
        else:
            left_out[reason] += 1
    test = set(members.get(TEST, ()))
    leaked = sum(pool[index].id in test for index in kept)
    if training and leaked and not request.allow_test_tasks:
        cure = "" if split == TEST else "leave them out with --exclude-split test, or "
        raise ConfigError(
            f"{domain}/{split}: {leaked} of {len(kept)} tasks for training are in the domain's test split; "
            f"{cure}train on them all the same with --allow-test-tasks"
        )
    return Selection(domain, split, tuple(kept[: request.limit]), dict(left_out))


def _unplayable(request: Request, domain: str, task: Any) -> str | None:
    """Why the task stays out, in words that name the option; None if it can be played and scored."""
    if scoring.needs_judge(task) and not request.allow_llm_judge:
        return "graded by an LLM judge (--allow-llm-judge keeps them)"
    if request.agent_type == "llm":
        return None
    tau2 = tau2_compat.load()
    agent_class = tau2.LLMGTAgent if request.agent_type == "gt" else tau2.LLMSoloAgent
    if not agent_class.check_valid_task(task) or (request.agent_type == "solo" and not _has_solo_mode(domain)):
        return f"not playable by --agent-type {request.agent_type}"
    return None


@lru_cache(maxsize=64)
def _has_solo_mode(domain: str) -> bool:
    try:
        tau2_compat.build_environment(domain, solo=True, env_kwargs={})
    except ValueError:  # τ²'s own refusal
        return False
    return True


def _parts(selection: Selection, request: Request) -> list[Selection]:
    """The selection itself, or its random fractions: disjoint, together complete, each in τ²'s order."""
    if not request.fractions or selection.split == TEST or not selection.positions:
        return [selection]
    where = f"{selection.domain}/{selection.split}"
    for name, _ in request.fractions:
        if name != TRAIN and name in domains.splits(selection.domain):
            raise ConfigError(f"--fractions: {name!r} is a split of τ²'s {selection.domain}; call the part dev, say")
    count = len(selection.positions)
    exact = [share * count for _, share in request.fractions]
    sizes = [int(size + 1e-9) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: sizes[i] - exact[i])
    for i in by_remainder[: count - sum(sizes)]:
        sizes[i] += 1
    shuffled = list(selection.positions)
    random.Random(f"{request.seed}/{where}").shuffle(shuffled)
    parts = []
    for (name, share), size in zip(request.fractions, sizes, strict=True):
        if size == 0:
            raise ConfigError(f"--fractions {name}={share:g}: that is not one of the {count} tasks of {where}")
        taken, shuffled = shuffled[:size], shuffled[size:]
        parts.append(Selection(selection.domain, selection.split, tuple(sorted(taken)), selection.left_out, name))
    return parts


def _weights(request: Request, combined: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The weight of each part of the combined file, 1 unless the request says otherwise.

    Raises:
        ConfigError: a name that is no part of it, or that two parts share.
    """
    weights = dict.fromkeys(combined, 1)
    for name, times in request.weights:
        meant = [part for part in combined if name in (part[0], f"{part[0]}:{part[1]}")]
        if len(meant) != 1:
            parts = ", ".join(f"{domain}:{split}" for domain, split in combined) or "nothing"
            why = "names more than one part" if meant else "is no part"
            raise ConfigError(f"--weights {name}={times}: {name!r} {why} of --multi-domain-train ({parts})")
        weights[meant[0]] = times
    return weights


def _combined_file(
    request: Request, combined: Sequence[tuple[str, str]], weights: Mapping[tuple[str, str], int]
) -> DataFile:
    selections = []
    for domain, split in combined:
        parts = _parts(_select(request, domain, split, training=True), request)
        selection = next((part for part in parts if part.part in (None, TRAIN)), None)
        if selection is None:
            raise ConfigError("--multi-domain-train needs a part called train in --fractions")
        if not selection.positions:
            raise ConfigError(f"--multi-domain-train: nothing of {domain}/{split} stays in ({_reasons(selection)})")
        selections.append(replace(selection, weight=weights[domain, split]))
    rows = [row for selection in selections for row in selection.rows() * selection.weight]
    random.Random(request.seed).shuffle(rows)
    stem = "_".join(s.domain if s.split == TRAIN else f"{s.domain}-{s.split}" for s in selections)
    return DataFile(f"{stem}_{TRAIN}_tasks.jsonl", "train", tuple(selections), tuple(rows))


def check_apart(contents: Iterable[Content]) -> None:
    """No training task in a held-out file of the same run or folder.

    Raises:
        ConfigError: naming the two files and how many tasks they share.
    """
    contents = list(contents)
    for train in (c for c in contents if c.role == "train"):
        for other in (c for c in contents if c.role == "held out"):
            shared = train.keys & other.keys
            if shared and not (other.only_test and train.test_allowed):
                raise ConfigError(
                    f"{train.name} and {other.name} would share {len(shared)} tasks in one folder: "
                    "divide overlapping splits in runs of their own, each into its own folder"
                )


def _reasons(selection: Selection) -> str:
    return ", ".join(f"{count} tasks {reason}" for reason, count in selection.left_out.items())


def _row(domain: str, split: str, index: int, task_id: str) -> dict[str, Any]:
    # A list of messages, because slime insists on one for checkpoints with a processor and never length-filters it.
    prompt = [{"role": "user", "content": f"tau2 {domain} task {task_id} ({split} {index})"}]
    return {
        "index": index,
        "prompt": prompt,
        "metadata": {"domain": domain, "task_split": split, "task_id": task_id},
    }
