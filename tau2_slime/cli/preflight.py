"""What `tau2-slime doctor` checks for a launch: files, GPUs, data and keys, before slime takes minutes to find out.

Each check returns one text for what is and raises `ConfigError` for what is wrong together with its fix; a check about
data also says which user models its episodes will call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.users import models_of
from tau2_slime.errors import ConfigError

GENERATE = "tau2_slime.generate_with_tau2.generate"


@dataclass(frozen=True)
class Data:
    """What a set of rows will play."""

    text: str
    users: tuple[Tau2Config, ...] = field(default=())
    """One configuration for each distinct (user model, endpoint, key variable)."""


def torch_dist(folder: Path) -> str:
    """The checkpoint in Megatron's format that training starts from.

    Raises:
        ConfigError: it is not there, or its conversion did not finish.
    """
    marker = folder / "latest_checkpointed_iteration.txt"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is missing: convert the checkpoint with slime's tools/convert_hf_to_torch_dist.py")
    if not marker.is_file():
        raise ConfigError(f"{folder} has no {marker.name}: the conversion did not finish; delete it and convert again")
    return f"{folder}, iteration {marker.read_text().strip()}"


def slime_source(folder: Path) -> str:
    """A slime checkout that this process can import `slime` from.

    Raises:
        ConfigError: there is no ``train.py`` in it.
    """
    if not (folder / "train.py").is_file() or not (folder / "slime" / "__init__.py").is_file():
        raise ConfigError(
            f"{folder} is no slime checkout (no train.py, no slime/): set SLIME_DIR to where it was cloned"
        )
    return str(folder)


def gpus(wanted: int) -> str:
    """``wanted`` GPUs are visible to this process.

    Raises:
        ConfigError: fewer, or no driver.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise ConfigError(f"no nvidia-smi here: a machine with {wanted} GPUs is needed (NUM_GPUS)")
    listed = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=60)
    there = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(there) if chosen is None else len([word for word in chosen.split(",") if word.strip()])
    if listed.returncode or count < wanted:
        limited = "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen})"
        said = f": {listed.stdout.strip()[:200]}" if listed.returncode else ""
        raise ConfigError(f"{count} GPUs are visible{limited}, {wanted} are asked for: set NUM_GPUS={count}{said}")
    model = there[0].split(":", 1)[1].split("(")[0].strip() if there else "?"
    return f"{count} x {model}, {wanted} used"


def prompt_data(path: str, mapping: Mapping[str, Any] | None) -> Data:
    """Every row of slime's ``--prompt-data`` names a task that the installed τ² has.

    Raises:
        ConfigError: naming the file, the line and what is wrong with it.
    """
    users: dict[tuple[Any, ...], Tau2Config] = {}
    counts = _check_rows(path, mapping, {}, users, training=True)
    return Data(f"{path}: " + _counted(counts), tuple(users.values()))


def eval_config(path: Path, mapping: Mapping[str, Any] | None) -> Data:
    """Every dataset of slime's ``--eval-config``: its file, its tasks, its settings.

    Raises:
        ConfigError: naming the dataset and what is wrong with it.
    """
    content = _load_yaml(path)
    section = content.get("eval", content)
    datasets = section.get("datasets") if isinstance(section, dict) else None
    if isinstance(datasets, dict):
        datasets = [{"name": name, **(value or {})} for name, value in datasets.items()]
    if not datasets:
        raise ConfigError(f"{path} names no datasets under eval.datasets")
    defaults = section.get("defaults") or {}
    users: dict[tuple[Any, ...], Tau2Config] = {}
    counts: Counter[str] = Counter()
    episodes = 0
    for dataset in datasets:
        name = dataset.get("name", "?")
        where = f"{path}, dataset {name}"
        if dataset.get("custom_generate_function_path") != GENERATE:
            raise ConfigError(
                f"{where}: custom_generate_function_path must be {GENERATE} (slime up to 0.3.1 reads it only from the "
                "dataset itself)"
            )
        if not dataset.get("path"):
            raise ConfigError(f"{where}: it has no path")
        try:
            found = _check_rows(
                str(dataset["path"]), mapping, dataset.get("metadata_overrides") or {}, users, training=False
            )
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        counts += found
        episodes += sum(found.values()) * int(
            dataset.get("n_samples_per_eval_prompt") or defaults.get("n_samples_per_eval_prompt") or 1
        )
    return Data(
        f"{path}: {len(datasets)} datasets, {episodes} episodes an evaluation; " + _counted(counts),
        tuple(users.values()),
    )


# ---- parts -------------------------------------------------------------------------------------------------------------


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


_SLICE = re.compile(r"^(?P<file>.*?)(@\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?$", re.DOTALL)


def _rows(path: str) -> list[tuple[int, dict[str, Any]]]:
    """(line number, row) of ``file.jsonl`` or ``file.jsonl@[a:b]``."""
    match = _SLICE.match(path)
    assert match is not None
    file = Path(match["file"])
    if not file.is_file():
        raise ConfigError(
            f"{file} is missing: write it with data_prep/prepare_tau2_data.py --output_dir {file.parent}, and look at "
            "its --help for files of several domains"
        )
    if file.suffix != ".jsonl":
        return []
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("metadata", {}), dict):
            raise ConfigError(f"{file}, line {number}: not an object with a metadata object")
        rows.append((number, row))
    start, stop = (int(match[key]) if match[key] else None for key in ("start", "stop"))
    chosen = rows[start:stop]
    if not chosen:
        raise ConfigError(f"{path} holds no rows ({len(rows)} in the file)")
    return chosen


def _check_rows(
    path: str,
    mapping: Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    users: dict[tuple[Any, ...], Tau2Config],
    *,
    training: bool,
) -> Counter[str]:
    from tau2_slime.world.domains import find_task

    counts: Counter[str] = Counter()
    for number, row in _rows(path):
        metadata = {**row.get("metadata", {}), **overrides}
        index = row.get("index")
        try:
            config = Tau2Config.resolve(mapping, metadata)
            find_task(
                config.domain,
                config.task_split,
                task_id=metadata.get("task_id"),
                index=index if isinstance(index, int) and not isinstance(index, bool) else None,
            )
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        counts[f"{config.domain}/{config.task_split}"] += 1
        for model in models_of(config, training=training):
            users.setdefault((model, config.user_base_url, config.user_api_key_var), config)
    return counts


_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<name>\w+)(,(?P<default>[^}]*))?\}")


def _load_yaml(path: Path) -> dict[str, Any]:
    """YAML with slime's ``${oc.env:NAME}`` and ``${oc.env:NAME,default}`` filled in."""
    import yaml

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        if found is None:
            raise ConfigError(f"{path} reads the variable {match['name']}, which is not set: export it first")
        return found

    try:
        content = yaml.safe_load(_ENVIRONMENT.sub(value, path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping")
    return content
