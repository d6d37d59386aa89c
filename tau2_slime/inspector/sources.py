"""PATH -> trajectories, whatever wrote it: a rollout's folder, slime's dumps, an evaluation, τ²'s own results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.inspector import row_formats
from tau2_slime.inspector.found import ACCEPTED, NOT_AN_EPISODE, FoundEpisodes, make_names_unique
from tau2_slime.inspector.tau2_results import RUNS, read_results
from tau2_slime.inspector.trajectory import Trajectory

EPISODES = "episodes.jsonl"
"""What the hooks write of each step (``episode_log``): a short line for each episode, without its conversation."""


def read_episodes(path: Path) -> FoundEpisodes:
    """Every episode under ``path``, in the order of the files.

    Raises:
        ConfigError: nothing there can be read as episodes; the message names what can.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; give {ACCEPTED}")
    found = FoundEpisodes()
    for file in files_of(path):
        read_file(file, found)
    if not found.trajectories and not found.unreadable:
        raise ConfigError(f"{path}: no episode in it; give {ACCEPTED}")
    make_names_unique(found.trajectories)
    return found


def read_file(file: Path, found: FoundEpisodes) -> None:
    """Add the episodes of one of `files_of` to ``found``.

    Raises:
        ConfigError: it is not such a file at all, or it is damaged.
    """
    if file.suffix == ".pt":
        _read_pt(file, found)
    elif file.suffix == ".jsonl":
        _read_jsonl(file, found)
    else:
        read_results(file, found)


def files_of(path: Path) -> list[Path]:
    """The files that hold the episodes of ``path``, in their order.

    Raises:
        ConfigError: there are none, or it is another kind of file.
    """
    if path.is_file():
        if path.suffix not in (".pt", ".jsonl", ".json"):
            raise ConfigError(f"{path}: not a kind of file that holds episodes; give {ACCEPTED}")
        return [path]
    for name in ("samples.jsonl", "trajectories.jsonl", "simulations.jsonl", EPISODES):
        if (path / name).is_file():
            return [path / name]
    if (path / "results.json").is_file() and (path / RUNS).is_dir():
        return [path / "results.json"]
    for folder in (path / "rollout_data", path):
        dumps = sorted(folder.glob("*.pt"), key=lambda p: (p.stem.startswith("eval_"), _rollout_number(p.stem), p.stem))
        if dumps:
            return dumps
    results = [file for file in sorted(path.glob("*.json")) if _holds_simulations(file)]
    if not results:
        raise ConfigError(f"{path}: no episodes in this folder; give {ACCEPTED}")
    return results


def _rollout_number(stem: str) -> int:
    return int("".join(filter(str.isdecimal, stem)) or 0)


def step_of_dump(file: Path) -> tuple[int, str]:
    """Step and kind (``train`` or ``eval``) of one of slime's dumps, by its name: ``12.pt``, ``eval_12.pt``."""
    return _rollout_number(file.stem), "eval" if file.stem.startswith("eval_") else "train"


def _holds_simulations(file: Path) -> bool:
    return file.stat().st_size < 1 << 30 and b'"simulations"' in file.read_bytes()


# ---- JSON lines --------------------------------------------------------------------------------------------------------


def _read_jsonl(file: Path, found: FoundEpisodes) -> None:
    """``samples.jsonl`` with the ``trajectories.jsonl`` beside it, or any of the package's files alone."""
    counterparts: dict[object, dict[str, Any]] = {}
    if file.name == "samples.jsonl" and (file.parent / "trajectories.jsonl").is_file():
        for where, row in _lines(file.parent / "trajectories.jsonl", found):
            if _index(row) in counterparts:
                found.unreadable.append(f"{where}: a second trajectory of index {_index(row)}")
            counterparts[_index(row)] = row
    indices: set[object] = set()
    for where, row in _lines(file, found):
        try:
            index = _index(row)
            if is_sample(row):
                if counterparts and index is not None and index in indices:
                    found.unreadable.append(f"{where}: a second sample of index {index}")
                if counterparts and index not in counterparts:
                    found.unreadable.append(f"{where}: trajectories.jsonl has no index {index}")
                indices.add(index)
            found.trajectories.append(from_line(row, where, counterparts.get(index)))
        except NotAnEpisode as error:
            found.unreadable.append(str(error))
    if indices:
        missing = counterparts.keys() - indices
        found.unreadable += [f"{file}: the sample of trajectory {index} is missing" for index in missing]
    if all(one.name.isdigit() for one in found.trajectories):  # episodes are written in the order in which they end
        found.trajectories.sort(key=lambda one: int(one.name))
    read_checkpoint(file.parent, found)


class NotAnEpisode(ValueError):
    """Why a row is not an episode, with the row's place."""


def is_sample(row: Mapping[str, Any]) -> bool:
    """True for one of slime's samples."""
    return bool({"loss_mask", "rollout_log_probs", "response_length"} & row.keys())


def from_line(row: dict[str, Any], where: str, counterpart: dict[str, Any] | None = None) -> Trajectory:
    """The episode of one line of any of the package's files.

    ``counterpart``: of a sample, the same episode's line of trajectories.jsonl.

    Raises:
        NotAnEpisode: it is something else.
    """
    try:
        if is_sample(row):
            return row_formats.from_sample(row, where, counterpart)
        if "attempt" in row and "messages" in row:
            return row_formats.from_evaluation(row, where)
        if "messages" in row and "termination" in row:
            return row_formats.from_trajectory(row, where)
        if "step" in row and "termination" in row:
            return row_formats.from_log(row, where)
    except NOT_AN_EPISODE as error:
        raise NotAnEpisode(
            f"{where}: not in the form that it is written in: {type(error).__name__}: {error}"
        ) from error
    raise NotAnEpisode(f"{where}: not an episode (keys {', '.join(list(row)[:6]) or 'none'})")


def _index(row: dict[str, Any]) -> int | str | None:
    index = row.get("index")
    return index if index is None or isinstance(index, int) else str(index)


def _lines(file: Path, found: FoundEpisodes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each JSON object of ``file`` stands, and the object; other lines go to ``found.unreadable``."""
    with file.open("rb") as opened:
        for number, raw in enumerate(opened, 1):
            if not raw.strip():
                continue
            where = f"{file.name}:{number}"
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError) as error:
                found.unreadable.append(f"{where}: not JSON ({error}); was the writer killed?")
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                found.unreadable.append(f"{where}: not an episode, but {type(row).__name__}")


def read_checkpoint(folder: Path, found: FoundEpisodes) -> None:
    """What a rollout's summary.json or an evaluation's manifest.json says about the tokenizer."""
    for name in ("summary.json", "manifest.json"):
        try:
            written = json.loads((folder / name).read_text(encoding="utf-8"))
            policy = written.get("subject", written)
            checkpoint = policy.get("hf_checkpoint") or policy.get("checkpoint")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        found.checkpoint = found.checkpoint or (checkpoint if isinstance(checkpoint, str) else None) or None
        found.embedded = found.embedded or bool(policy.get("embedded")) or policy.get("kind") == "embedded"


# ---- slime's dumps -----------------------------------------------------------------------------------------------------


def _read_pt(file: Path, found: FoundEpisodes) -> None:
    from tau2_slime.inspector.torch_file import NotATorchFile, read_torch_file

    try:
        written = read_torch_file(file)
        samples = written["samples"] if isinstance(written, dict) else None
        if not isinstance(samples, (list, tuple)):
            raise NotATorchFile("no samples in it")
    except NotATorchFile as error:
        raise ConfigError(f"{file}: not a file of slime's --save-debug-rollout-data: {error}") from None
    several = file.parent.name == "rollout_data" or len(list(file.parent.glob("*.pt"))) > 1
    for position, row in enumerate(_flat(samples)):
        where = f"{file.name}[{position}]"
        try:
            fields = row if isinstance(row, dict) else vars(row)
            if not {"tokens", "response", "prompt"} & fields.keys():
                raise TypeError(f"no tokens, response or prompt in a {type(row).__name__}")
            trajectory = row_formats.from_sample(row_formats.without_arrays(fields), where, None)
        except NOT_AN_EPISODE as error:
            found.unreadable.append(f"{where}: not a sample: {type(error).__name__}: {error}")
            continue
        trajectory.name = f"{file.stem}:{trajectory.name}" if several else trajectory.name
        trajectory.step, trajectory.kind = step_of_dump(file)
        found.trajectories.append(trajectory)
    tokenizer = file.parent.parent / "tokenizer"
    if found.checkpoint is None and tokenizer.is_dir():
        found.checkpoint = str(tokenizer)


def _flat(samples: Iterable[object], depth: int = 0) -> Iterator[object]:
    """Samples one by one: slime dumps a flat list, or groups."""
    for sample in samples:
        if isinstance(sample, (list, tuple)) and depth < 3:
            yield from _flat(sample, depth + 1)
        else:
            yield sample
