"""slime's prompt files, read as slime reads them: JSONL or parquet, with ``path@[a:b]`` slices."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tau2_slime.evaluation.plan.yaml_source import Key, Source

_SLICE = re.compile(r"(?P<path>.*)@\[(?P<start>-?\d*):(?P<stop>-?\d*)\]")


def read_rows(source: Source, key: Key, spec: str) -> list[dict[str, Any]]:
    """The rows that ``spec`` names; ``source`` and ``key`` only say where ``spec`` stands.

    Raises:
        ConfigError: no such file, another format, a line that is no JSON object, or nothing left of it.
    """
    match = _SLICE.fullmatch(spec)
    if match is None and "@[" in spec:
        raise source.error(key, f"{spec!r}: a slice is written @[start:stop], such as @[0:10]; either may be empty")
    name = match["path"] if match else spec
    path = Path(name)
    if not path.is_file():
        raise source.error(
            key,
            f"there is no file {name}; data_prep/prepare_tau2_data.py writes prompt data, DATA_DIR names its folder",
        )
    if path.suffix == ".jsonl":
        rows = _jsonl(source, key, path)
    elif path.suffix == ".parquet":
        rows = _parquet(source, key, path)
    else:
        raise source.error(key, f"{name}: the file must end in .jsonl or .parquet")
    if match:
        rows = rows[slice(*(int(match[part]) if match[part] else None for part in ("start", "stop")))]
    if not rows:
        raise source.error(key, f"{spec!r} leaves no row")
    return rows


def task_index(metadata: Mapping[str, Any], prompt: Any) -> int | None:
    """The task's position, where the row names it by that (``input_key: index``)."""
    for value in (metadata.get("index"), prompt):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().isdigit():
            return int(value)
    return None


def _jsonl(source: Source, key: Key, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            # slime skips such a line: then a slice would hold other tasks than its author thought.
            raise source.error(key, f"{path}, line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise source.error(key, f"{path}, line {number} is no JSON object")
        rows.append(row)
    return rows


def _parquet(source: Source, key: Key, path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise source.error(key, f"{path}: reading parquet needs pyarrow (pip install pyarrow)") from None
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows
