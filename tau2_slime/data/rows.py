"""The rows of slime's prompt data, read as slime reads them (``slime/utils/data.py``), and the task that a row names.

`RowContent` is a row as the data preparation writes it. A file of one's own may have other keys, if slime's ``--input-key``
and ``--metadata-key`` say so, and any key of `Tau2Config` in the metadata.

slime skips a line that it cannot parse, and goes on with something else than the file says. This reader refuses such a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import anchored, short_name
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import first_position
from tau2_slime.world import domains, retrieval, scoring

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


class RowMetadata(TypedDict):
    domain: str
    task_split: str
    task_id: str


class RowContent(TypedDict):
    """A row as the data preparation writes it."""

    index: int
    """The task's position in its split, in τ²'s order."""
    prompt: list[dict[str, str]]
    metadata: RowMetadata


PROMPT_KEYS = ("index", "prompt", "input")
"""Where a task's position may stand if nobody says what slime's ``--input-key`` is."""

_SLICE = re.compile(r"^(?P<path>.*)@\[(?P<start>-?\d*):(?P<stop>-?\d*)\]$")  # as slime has it


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    content: Mapping[str, object]
    where: str
    """For messages: ``tasks.jsonl, line 3`` (from 1) or ``tasks.parquet, row 2`` (from 0)."""
    folder: Path = Path()
    """Of its file: relative paths in the row count from there."""


@dataclass(frozen=True)
class RowTask:
    """What an episode of a row plays."""

    config: Tau2Config
    metadata: dict[str, object]
    """The row's, and the overrides over it."""
    task: Task


def row_content(domain: str, split: str, index: int, task_id: str) -> RowContent:
    """A row to write: the task at position ``index`` of the split.

    The prompt is a list of messages, because slime insists on one for checkpoints with a processor and never filters it by
    its length. An episode does not read it.
    """
    return {
        "index": index,
        "prompt": [{"role": "user", "content": f"tau2 {domain} task {task_id} ({short_name(split)} {index})"}],
        "metadata": {"domain": domain, "task_split": split, "task_id": task_id},
    }


def read_rows(spec: str) -> list[Row]:
    """The rows that ``spec`` names: ``tasks.jsonl``, or a slice ``tasks.jsonl@[0:10]``, whose bounds are Python's.

    Raises:
        ConfigError: the file is missing or is neither JSONL nor parquet, a row is not an object, or no row is left.
    """
    match = _SLICE.match(spec)
    name = spec if match is None else match["path"]
    if not Path(name).is_file():
        if match is None and "@[" in spec:
            raise _not_a_slice(spec)
        raise ConfigError(
            f"{name} is missing: write it with data_prep/prepare_tau2_data.py --output_dir {Path(name).parent}, and look at "
            "its --help for files of several domains"
        )
    if name.endswith(".jsonl"):
        rows = read_jsonl(Path(name))
    elif name.endswith(".parquet"):
        rows = list(_parquet(Path(name)))
    else:
        raise ConfigError(f"{name}: slime reads files that end in .jsonl or .parquet, and no others")
    count = len(rows)
    if match is not None:
        try:
            start, stop = (int(match[bound]) if match[bound] else None for bound in ("start", "stop"))
        except ValueError:  # a lone minus sign
            raise _not_a_slice(spec) from None
        rows = rows[start:stop]
    if not rows:
        raise ConfigError(f"{spec} holds no rows ({count} in the file)")
    return rows


def read_jsonl(path: Path) -> list[Row]:
    """Every row of a JSONL file; blank lines are skipped. Only ``\\n``, ``\\r\\n`` and ``\\r`` end a line.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or a line is not a JSON object.
    """
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_json_row(line.strip(), f"{path}, line {number}", path.parent))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return rows


def metadata_of(row: Row, key: str = "metadata") -> dict[str, object]:
    """The row's metadata; empty if it has none. Raises ConfigError for anything that is not an object."""
    found = row.content.get(key)
    if not found:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(
            f"{row.where}: {key!r} is of type {type(found).__name__}, not a metadata object such as "
            '{"domain": "retail"}; slime parses no JSON text in there, and its evaluation drops it'
        )
    return dict(found)


def row_task(
    row: Row,
    *,
    overrides: Mapping[str, object] | None = None,
    input_key: str | None = None,
    metadata_key: str = "metadata",
    tau2: Mapping[str, object] | None = None,
) -> RowTask:
    """The task of ``row`` and the configuration of its episodes.

    ``overrides``: `Tau2Config` keys that win over the row's metadata. ``input_key``, ``metadata_key``: what slime reads as
    the prompt and the metadata; without the first, each of `PROMPT_KEYS` may hold the task's position. ``tau2``: the mapping
    of the job's ``--custom-config-path``.

    Raises:
        ConfigError: naming the row and what is wrong: the settings, or no task, or one that cannot be scored.
    """
    metadata = {**anchored(metadata_of(row, metadata_key), row.folder), **(overrides or {})}
    task_id = metadata.get("task_id")
    if input_key is not None:
        keys: tuple[str, ...] = (input_key,)
    else:  # overrides may name another split, where the row's position is another task's
        keys = PROMPT_KEYS if task_id is None or not overrides else ()
    try:
        config = Tau2Config.resolve(tau2, metadata)
        config.require_named_task()
        index = first_position(metadata.get("index"), *(row.content.get(key) for key in keys))
        named = None if task_id is None else str(task_id)
        task = domains.find_task(config.domain, config.task_split, task_id=named, index=index)
        scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
        retrieval.require(config.domain, config.environment)
    except ConfigError as error:
        raise ConfigError(f"{row.where}: {error}") from error
    return RowTask(config, {**metadata, "task_id": task.id}, task)


def _not_a_slice(spec: str) -> ConfigError:
    return ConfigError(f"{spec!r}: a slice is written @[start:stop], such as @[0:10]; either number may be left out")


def _json_row(text: str, where: str, folder: Path) -> Row:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{where} is not JSON: {error}. slime would skip this line, and a slice would count without it: mend it or "
            "delete it"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is not a JSON object but of type {type(content).__name__}; slime stops there")
    return Row(content, where, folder)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(
            f"{path}: reading parquet needs the package pyarrow, here and for slime: pip install pyarrow"
        ) from None
    try:
        batches = parquet.ParquetFile(path).iter_batches()
        contents = [content for batch in batches for content in batch.to_pylist()]
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{path} is not a parquet file that can be read: {error}") from error
    for number, content in enumerate(contents):
        yield Row(content, f"{path}, row {number}", path.parent)
