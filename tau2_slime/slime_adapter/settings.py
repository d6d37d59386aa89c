"""The configuration of one of slime's samples: the job's ``tau2:`` mapping and the sample's metadata, read as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import KEYS, PATHS, anchored, names_a_file
from tau2_slime.slime_adapter.types import SlimeArgs


def resolve_settings(
    args: SlimeArgs, metadata: Mapping[str, object] | None = None, *, evaluation: bool = False
) -> Tau2Config:
    """`Tau2Config.resolve` of the job's mapping and ``metadata``; relative paths count from the files that hold them.

    Raises:
        ConfigError: a setting is wrong.
    """
    mapping = getattr(args, "tau2", None)
    if isinstance(mapping, Mapping) and not PATHS.isdisjoint(mapping):
        mapping = anchored(mapping, *_folders(args, "custom_config_path"))
    if metadata is not None and any(names_a_file(metadata.get(key)) for key in KEYS):
        metadata = anchored(metadata, *_folders_of_rows(args, evaluation))
    return Tau2Config.resolve(mapping, metadata)


def _folders(args: SlimeArgs, *names: str) -> Iterator[Path]:
    """The folders of the files that these arguments name, where they name one."""
    for name in names:
        path = getattr(args, name, None)
        if isinstance(path, str | Path) and path:
            yield Path(str(path).partition("@[")[0]).parent


def _folders_of_rows(args: SlimeArgs, evaluation: bool) -> Iterator[Path]:
    """Of the files that a sample's metadata may come from: slime does not say from which."""
    if not evaluation:
        yield from _folders(args, "prompt_data")
        return
    yield from _folders(args, "eval_config")
    for dataset in getattr(args, "eval_datasets", None) or ():
        yield from _folders(dataset, "path")
