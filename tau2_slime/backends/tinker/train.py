"""``python -m tau2_slime.backends.tinker.train``: GRPO on τ² through Tinker.

Both spellings work: chz's ``key=value`` (lists with commas) and ``--key value [value ...]``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

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


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        spelled = given if {"--help", "-h"} & set(given) else chz_arguments(given)
        import chz
        from tinker_cookbook.rl import train

        from tau2_slime.backends.tinker.train_config import Tau2TrainConfig

        config = chz.Blueprint(Tau2TrainConfig).make_from_argv(spelled, allow_hyphens=True)
        asyncio.run(train.main(config.build()))
    except ConfigError as error:
        sys.exit(f"tau2_slime: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"tau2_slime: {error.name} is not installed: pip install 'tau2-slime[tinker]'")


if __name__ == "__main__":
    main()
