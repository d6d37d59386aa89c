"""``python -m tau2_slime.backends.tinker.train``: GRPO on τ² through Tinker.

Both spellings work: chz's ``key=value`` (lists with commas) and ``--key value [value ...]``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from tinker_cookbook.rl.train import Config

    from tau2_slime.backends.tinker.train_config import Tau2TrainConfig


def chz_arguments(arguments: Sequence[str]) -> list[str]:
    """``arguments`` in chz's spelling.

    >>> chz_arguments(["--train-user-models", "a", "b", "--group_size=4", "epochs=1"])
    ['train_user_models=a,b', 'group_size=4', 'epochs=1']

    Raises:
        ConfigError: a ``--key`` without a value, or a value that belongs to no key.
    """
    out: list[str] = []
    key = ""
    values: list[str] = []

    def close() -> None:
        if key:
            if not values:
                raise ConfigError(f"--{key} needs a value")
            out.append(f"{key}={','.join(values)}")

    for argument in arguments:
        if argument.startswith("--"):
            close()
            name, equals, value = argument[2:].partition("=")
            key, values = name.replace("-", "_"), []
            if equals:
                out.append(f"{key}={value}")
                key = ""
        elif not key:
            if "=" not in argument:
                raise ConfigError(f"{argument!r}: write key=value or --key value")
            out.append(argument)
        elif "=" in argument:
            close()
            key, values = "", []
            out.append(argument)
        else:
            values.append(argument)
    close()
    return out


def parse_arguments(arguments: Sequence[str]) -> Tau2TrainConfig:
    """The settings that the command line gives.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
        SystemExit: help was asked for, and printed.
    """
    import chz
    from chz.blueprint import (
        ConstructionException,
        EntrypointHelpException,
        ExtraneousBlueprintArg,
        InvalidBlueprintArg,
    )

    from tau2_slime.backends.tinker.train_config import Tau2TrainConfig

    wants_help = bool({"--help", "-h"} & set(arguments))
    try:
        spelled = ["--help"] if wants_help else chz_arguments(arguments)
        config: Tau2TrainConfig = chz.Blueprint(Tau2TrainConfig).make_from_argv(spelled, allow_hyphens=True)
        return config
    except EntrypointHelpException as error:
        print("python -m tau2_slime.backends.tinker.train [--key value [value ...] | key=value[,value...]] ...\n")
        print(str(error).split("\n", 1)[1].strip())
        sys.exit(0)
    except (ExtraneousBlueprintArg, InvalidBlueprintArg, ConstructionException, ValueError) as error:
        raise ConfigError(f"{_in_one_line(str(error))}; --help lists the keys") from None


def _in_one_line(text: str) -> str:
    """The lines of chz's message that say what is wrong."""
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [line for line in rest if line.startswith(("Could not cast", "Did you mean", "Not a value"))]
    first = re.sub(r" to Blueprint for \S+|\.\.\.$", "", first)
    return ": ".join([first, *useful])


def check_before_start(config: Config) -> None:
    """Find what would stop the run later, before anything is started on Tinker.

    Raises:
        ConfigError: Tinker has no key, a setting is wrong, or ``log_path`` holds another run.
    """
    _check_key()
    _check_log_path(config)
    asyncio.run(config.dataset_builder())


def _check_key() -> None:
    import tinker

    try:
        from tinker.lib._auth_token_provider import resolve_auth_provider
    except ImportError:  # another release of tinker: its client will say it
        return
    try:
        resolve_auth_provider(None, enforce_cmd=False)
    except tinker.TinkerError as error:
        raise ConfigError(
            f"the key for Tinker is missing or not usable ({error}); put it into the environment variable TINKER_API_KEY"
        ) from None


_SAME_RUN = ("model_name", "lora_rank")
_SAME_DATA = ("domains", "task_split", "groups_per_batch", "task_ids", "max_tasks", "seed")
"""Fields, of the configuration and of its dataset, that must not change when a run goes on from a checkpoint."""


def _check_log_path(config: Config) -> None:
    """The cookbook resumes whatever run it finds in ``log_path``. Raises ConfigError if that is another run."""
    folder = Path(config.log_path)
    if not (folder / "checkpoints.jsonl").is_file():
        return
    try:
        before = json.loads((folder / "config.json").read_text())
        data = dict(before["dataset_builder"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    pairs = [(name, before.get(name), getattr(config, name)) for name in _SAME_RUN]
    # A run of an earlier release does not know every field.
    pairs += [(name, data[name], getattr(config.dataset_builder, name)) for name in _SAME_DATA if name in data]
    for name, old, new in pairs:
        if old != (list(new) if isinstance(new, tuple) else new):
            raise ConfigError(
                f"log_path={config.log_path!r} holds the checkpoints of a run with {name}={old!r}, which would go on with "
                f"{name}={new!r}; give another log_path"
            )
    print(f"tau2_slime: going on from the last checkpoint in {config.log_path}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train. ``arguments``: the command line; None takes the process's own. Exits with one line where it cannot run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from tinker_cookbook.rl import train

        config = parse_arguments(given).build()
        check_before_start(config)
        asyncio.run(train.main(config))
    except KeyboardInterrupt:
        print("tau2_slime: interrupted; the same command goes on from the last checkpoint, if any", file=sys.stderr)
        sys.exit(130)
    except ConfigError as error:
        sys.exit(f"tau2_slime: {' '.join(str(error).split())}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tinker", "tinker_cookbook", "chz", "torch"):
            raise
        sys.exit(f"tau2_slime: {error.name} is not installed: pip install 'tau2-slime[tinker]'")


if __name__ == "__main__":
    main()
