"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tau2_slime.errors import ConfigError

HfCheckpoint = Annotated[str | None, typer.Option(help="Folder or hub name of the policy's tokenizer.")]
Router = Annotated[str | None, typer.Option(help="http://host:port of an sglang router or server.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML with a tau2: mapping, as for --custom-config-path.")
]


def config_mapping(path: Path | None) -> dict[str, Any]:
    """The ``tau2:`` mapping of a config file; empty without one.

    Raises:
        ConfigError: the file cannot be read, or has no such mapping.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("tau2"), dict):
        raise ConfigError(f"--config {path}: there is no 'tau2:' mapping in it")
    return content["tau2"]
