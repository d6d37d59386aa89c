"""Prompt data on disk: JSONL files, and the manifest that says what is in them and what they were made from."""

from __future__ import annotations

import hashlib
import inspect
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from tau2_slime.config.task_split import names_a_file, short_name
from tau2_slime.data.plan import Content, DataFile, DataPlan, check_apart
from tau2_slime.data.request import DataRequest
from tau2_slime.data.rows import metadata_of, read_jsonl
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import domains, tau2_compat

MANIFEST = "tau2_manifest.json"


def write_files(planned: DataPlan, folder: Path, *, replace: bool = False) -> dict[str, bool]:
    """Write the files and then the manifest, each atomically; file name -> whether its content is new.

    The manifest keeps the entries of earlier runs into the same folder for as long as their files are unchanged.

    Args:
        planned: what to write.
        folder: made if need be.
        replace: a file of the same name with other rows may be there; it is lost.

    Raises:
        ConfigError: the folder cannot be written, or holds a file of one of these names with other rows, or a file of an
            earlier run that shares tasks with one of these where one trains and the other is held out.
    """
    request = planned.request
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries, earlier = _earlier_files(folder, {file.name for file in planned.files})
        check_apart([*earlier, *(file.content(request) for file in planned.files)])
        entries |= {file.name: _entry(file, request) for file in planned.files}
        if not replace:
            for file in planned.files:
                _refuse_other_rows(folder / file.name, file)
        changed = {file.name: _write(folder / file.name, file.text()) for file in planned.files}
        _write(folder / MANIFEST, json.dumps({"files": entries}, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from error
    return changed


def _refuse_other_rows(path: Path, file: DataFile) -> None:
    if path.exists() and path.read_bytes() != file.text().encode():
        there = sum(1 for line in path.read_bytes().splitlines() if line.strip())
        raise ConfigError(
            f"{path} holds other rows ({there}; {len(file.rows)} are to be written): "
            "name another --output-dir, or replace them with --force"
        )


def _entry(file: DataFile, request: DataRequest) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(file.text().encode()).hexdigest(),
        "tasks": sum(len(s.positions) for s in file.selections),
        "rows": len(file.rows),
        "role": file.role,
        "selections": [
            {
                "domain": s.domain,
                "task_split": s.split,
                "part": s.part,
                "tasks": len(s.positions),
                "weight": s.weight,
                "left_out": dict(s.left_out),
            }
            for s in file.selections
        ],
        "tau2": tau2_compat.version(),
        "sources": {name: sha for s in file.selections for name, sha in source_hashes(s.domain, s.split).items()},
        "seed": request.seed,
        "arguments": request.arguments(),
    }


@lru_cache(maxsize=64)
def source_hashes(domain: str, split: str = "") -> dict[str, str]:
    """sha256 of the task file ``split``; else of the task and split files that τ²'s loader of ``domain`` reads.

    These are named below τ²'s data folder. A domain registered from elsewhere has no such constants: there it is that of
    the loaded tasks.
    """
    if names_a_file(split):
        return {short_name(split): domains.task_file(domain, split).sha256}
    tau2 = tau2_compat.load()
    loader = inspect.unwrap(tau2.registry.get_tasks_loader(domain))
    named = [Path(v) for k, v in getattr(loader, "__globals__", {}).items() if k.endswith("_TASK_SET_PATH")]
    files: list[Path] = []
    for path in named:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path, path.with_name(f"split_{path.stem}.json")]
    root = Path(tau2.DATA_DIR)
    found = {
        path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name: _sha256(path)
        for path in files
        if path.is_file()
    }
    made = domains.made_split_hash(domain, split)
    if made is not None:
        found[f"{domain}/{split} by seed {domains.SPLIT_SEED}"] = made
    if found:
        return found
    dump = [task.model_dump(mode="json") for split in domains.splits(domain) for task in domains.tasks(domain, split)]
    return {f"{domain} (loaded tasks)": hashlib.sha256(json.dumps(dump, sort_keys=True).encode()).hexdigest()}


def _earlier_files(folder: Path, rewritten: set[str]) -> tuple[dict[str, dict[str, Any]], list[Content]]:
    """The manifest's entries for files that are still as they were written, and stay; and what is in these files."""
    path = folder / MANIFEST
    if not path.exists():
        return {}, []
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["files"]
        entries = {
            name: entry
            for name, entry in known.items()
            if name not in rewritten and (folder / name).is_file() and _sha256(folder / name) == entry["sha256"]
        }
        return entries, [_content(folder / name, entry) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a manifest of this script: move it away") from error


def _content(path: Path, entry: dict[str, Any]) -> Content:
    metadata = [metadata_of(row) for row in read_jsonl(path)]
    return Content.of(path.name, entry["role"], metadata, test_allowed=entry["arguments"]["allow_test_tasks"])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> bool:
    """Put ``text`` at ``path``; False if it was there already, so that a second run changes no file's time."""
    data = text.encode()
    if path.is_file() and path.read_bytes() == data:
        return False
    write_atomically(path, data)
    return True
