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
from typing import Any

from tau2_slime.errors import ConfigError


def chz_arguments(arguments: Sequence[str]) -> list[str]:
    """``arguments`` in chz's spelling: ``--key a b`` is ``key=a,b``, ``--key=a`` is ``key=a``; the rest stays.

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


def read(arguments: Sequence[str]) -> Any:
    """The `Tau2TrainConfig` that the command line means.

    Raises:
        ConfigError: an unknown key or a value that cannot be one.
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

    helped = bool({"--help", "-h"} & set(arguments))
    try:
        spelled = ["--help"] if helped else chz_arguments(arguments)
        return chz.Blueprint(Tau2TrainConfig).make_from_argv(spelled, allow_hyphens=True)
    except EntrypointHelpException as error:
        print("python -m tau2_slime.backends.tinker.train [--key value [value ...] | key=value[,value...]] ...\n")
        print(str(error).split("\n", 1)[1].strip())
        sys.exit(0)
    except (ExtraneousBlueprintArg, InvalidBlueprintArg, ConstructionException, ValueError) as error:
        raise ConfigError(f"{_in_one_line(str(error))}; --help lists the keys") from None


def _in_one_line(text: str) -> str:
    """The lines of chz's message that tell what is wrong."""
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in rest if line.startswith(("Could not cast", "Did you mean", "Not a value"))]
    first = re.sub(r" to Blueprint for \S+|\.\.\.$", "", first)
    return ": ".join([first, *told])


def check(config: Any) -> None:
    """What would stop the run later, told before anything is started; ``config`` is the cookbook's.

    Raises:
        ConfigError: Tinker has no key, a setting is wrong, or ``log_path`` holds another run.
    """
    _check_key()
    _check_folder(config)
    asyncio.run(config.dataset_builder())


def _check_key() -> None:
    import tinker

    try:
        from tinker.lib._auth_token_provider import resolve_auth_provider
    except ImportError:  # another tinker: then its client says it
        return
    try:
        resolve_auth_provider(None, enforce_cmd=False)
    except tinker.TinkerError as error:
        raise ConfigError(
            f"the key for Tinker is missing or none ({error}); put it into the environment variable TINKER_API_KEY"
        ) from None


_WHAT_A_RUN_IS = ("model_name", "lora_rank")
_WHAT_ITS_DATA_ARE = ("domains", "task_split", "groups_per_batch", "max_tasks", "seed")


def _check_folder(config: Any) -> None:
    """The cookbook resumes whatever it finds in ``log_path``: then it must be this run."""
    folder = Path(config.log_path)
    if not (folder / "checkpoints.jsonl").is_file():
        return
    try:
        before = json.loads((folder / "config.json").read_text())
        data = dict(before["dataset_builder"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    pairs = [(name, before.get(name), getattr(config, name)) for name in _WHAT_A_RUN_IS]
    pairs += [(name, data.get(name), getattr(config.dataset_builder, name)) for name in _WHAT_ITS_DATA_ARE]
    for name, old, new in pairs:
        if old != (list(new) if isinstance(new, tuple) else new):
            raise ConfigError(
                f"log_path={config.log_path!r} holds the checkpoints of a run with {name}={old!r}, which would go on with "
                f"{name}={new!r}; give another log_path"
            )
    print(f"tau2_slime: going on from the last checkpoint in {config.log_path}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from tinker_cookbook.rl import train

        config = read(given).build()
        check(config)
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
