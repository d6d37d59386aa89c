"""PATH -> trajectories, whatever wrote it: a rollout's folder, slime's dumps, an evaluation, τ²'s own results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.inspector import rows
from tau2_slime.inspector.trajectory import Trajectory

_ACCEPTED = (
    "a folder or file of `tau2-slime rollout` (samples.jsonl, trajectories.jsonl), a .pt of slime's "
    "--save-debug-rollout-data or a --dump-details folder, simulations.jsonl of `tau2-slime eval`, or τ²'s results .json"
)


@dataclass
class Loaded:
    """What was found."""

    trajectories: list[Trajectory] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """One line for each thing that is no episode, naming file and position."""
    checkpoint: str | None = None
    """Tokenizer of the policy, where the files say it."""
    embedded: bool = False
    """The package's own small tokenizer was used."""


def load(path: Path) -> Loaded:
    """Every episode under ``path``, in the order of the files.

    Raises:
        ConfigError: nothing there can be read as episodes; the message names what can.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; give {_ACCEPTED}")
    out = Loaded()
    for file in _files(path):
        if file.suffix == ".pt":
            _load_pt(file, out)
        elif file.suffix == ".jsonl":
            _load_jsonl(file, out)
        else:
            _load_results(file, out)
    if not out.trajectories and not out.unreadable:
        raise ConfigError(f"{path}: no episode in it; give {_ACCEPTED}")
    _unique(out.trajectories)
    return out


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in (".pt", ".jsonl", ".json"):
            raise ConfigError(f"{path}: not a kind of file that holds episodes; give {_ACCEPTED}")
        return [path]
    for name in ("samples.jsonl", "trajectories.jsonl", "simulations.jsonl"):
        if (path / name).is_file():
            return [path / name]
    for folder in (path / "rollout_data", path):
        found = sorted(folder.glob("*.pt"), key=lambda p: (p.stem.startswith("eval_"), _number(p.stem), p.stem))
        if found:
            return found
    found = [file for file in sorted(path.glob("*.json")) if _is_results(file)]
    if not found:
        raise ConfigError(f"{path}: no episodes in this folder; give {_ACCEPTED}")
    return found


def _number(stem: str) -> int:
    digits = "".join(c for c in stem if c.isdigit())
    return int(digits) if digits else 0


def _is_results(file: Path) -> bool:
    with file.open("rb") as opened:
        return b'"simulations"' in opened.read() if file.stat().st_size < 1 << 30 else False


# ---- JSON lines --------------------------------------------------------------------------------------------------------


def _load_jsonl(file: Path, out: Loaded) -> None:
    partner: dict[Any, dict[str, Any]] = {}
    if file.name == "samples.jsonl" and (file.parent / "trajectories.jsonl").is_file():
        for where, row in _lines(file.parent / "trajectories.jsonl", out):
            if row.get("index") in partner:
                out.unreadable.append(f"{where}: a second trajectory of index {row.get('index')}")
            partner[row.get("index")] = row
    samples = False
    seen: set[Any] = set()
    for where, row in _lines(file, out):
        try:
            if "loss_mask" in row or "rollout_log_probs" in row or "response_length" in row:
                samples = True
                index = row.get("index")
                if index is not None and index in seen and partner:
                    out.unreadable.append(f"{where}: a second sample of index {index}")
                seen.add(index)
                out.trajectories.append(rows.of_sample(row, where, partner.get(index)))
                if partner and index not in partner:
                    out.unreadable.append(f"{where}: trajectories.jsonl has no index {index}")
            elif "attempt" in row and "messages" in row:
                out.trajectories.append(rows.of_record(row, where))
            elif "messages" in row and "termination" in row:
                out.trajectories.append(rows.of_trajectory(row, where))
            else:
                out.unreadable.append(f"{where}: no episode (keys {', '.join(list(row)[:6]) or 'none'})")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            out.unreadable.append(f"{where}: not as it is written: {type(error).__name__}: {error}")
    if samples and partner:
        for index in partner.keys() - seen:
            out.unreadable.append(f"{file}: the sample of trajectory {index} is missing")
    if all(one.name.isdigit() for one in out.trajectories):  # episodes are written when they end
        out.trajectories.sort(key=lambda one: int(one.name))
    _checkpoint_of_folder(file.parent, out)


def _lines(file: Path, out: Loaded) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open("rb") as opened:
        for number, raw in enumerate(opened, 1):
            if not raw.strip():
                continue
            where = f"{file.name}:{number}"
            try:
                row = json.loads(raw)
            except ValueError as error:
                out.unreadable.append(f"{where}: not JSON ({error}); was the writer killed?")
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                out.unreadable.append(f"{where}: no episode, but {type(row).__name__}")


def _checkpoint_of_folder(folder: Path, out: Loaded) -> None:
    """What a rollout's summary.json or an evaluation's manifest.json says about the tokenizer."""
    for name in ("summary.json", "manifest.json"):
        try:
            known = json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue
        if not isinstance(known, dict):
            continue
        subject = known.get("subject")
        facts = {**known, **(subject if isinstance(subject, dict) else {})}
        out.checkpoint = out.checkpoint or facts.get("hf_checkpoint")
        out.embedded = out.embedded or bool(facts.get("embedded"))


# ---- slime's dumps -----------------------------------------------------------------------------------------------------


def _load_pt(file: Path, out: Loaded) -> None:
    try:
        import torch
    except ImportError:
        raise ConfigError(
            f"{file.name} is a file of torch, which is not installed here: pip install torch (the CPU build will do), "
            "or run the command where slime runs"
        ) from None
    try:
        # Sample dumps hold numpy arrays and plain data, but also whatever the metadata held: slime itself reads them so.
        data = torch.load(file, map_location="cpu", weights_only=False)
        samples = data["samples"]
    except Exception as error:  # torch raises what its unpickler meets
        raise ConfigError(
            f"{file}: not a file of slime's --save-debug-rollout-data: {type(error).__name__}: {error}"
        ) from error
    prefix = f"{file.stem}:" if file.parent.name == "rollout_data" or len(list(file.parent.glob("*.pt"))) > 1 else ""
    for position, row in enumerate(_flat(samples)):
        where = f"{file.name}[{position}]"
        try:
            row = row if isinstance(row, dict) else vars(row)
            found = rows.of_sample(rows.plain(row), where, None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            out.unreadable.append(f"{where}: not a sample: {type(error).__name__}: {error}")
            continue
        found.name = prefix + found.name
        out.trajectories.append(found)
    tokenizer = file.parent.parent / "tokenizer"
    if out.checkpoint is None and tokenizer.is_dir():
        out.checkpoint = str(tokenizer)


def _flat(samples: Any) -> Iterator[Any]:
    for sample in samples:
        if isinstance(sample, (list, tuple)):
            yield from _flat(sample)
        else:
            yield sample


# ---- τ²'s results ------------------------------------------------------------------------------------------------------


def _load_results(file: Path, out: Loaded) -> None:
    try:
        data = json.loads(file.read_bytes())
        simulations = data["simulations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not τ²'s results: {type(error).__name__}: {error}; give {_ACCEPTED}") from error
    tasks = {str(task.get("id")): task for task in data.get("tasks") or [] if isinstance(task, dict)}
    for position, run in enumerate(simulations):
        where = f"{file.name}[{position}]"
        try:
            out.trajectories.append(rows.of_simulation(run, where, data.get("info") or {}, tasks))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            out.unreadable.append(f"{where}: not a simulation: {type(error).__name__}: {error}")


def _unique(trajectories: list[Trajectory]) -> None:
    """Names that a user can give: a second one of the same name gets its position."""
    seen: set[str] = set()
    for position, trajectory in enumerate(trajectories):
        if trajectory.name in seen:
            trajectory.name = f"{trajectory.name}@{position}"
        seen.add(trajectory.name)
