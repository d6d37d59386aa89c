"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tau2_slime.errors import ConfigError

HfCheckpoint = Annotated[str | None, typer.Option(help="Folder or hub name of the policy's tokenizer.")]
Router = Annotated[str | None, typer.Option(help="http://host:port of an sglang router or server.")]
UserBaseUrl = Annotated[str | None, typer.Option(help="Endpoint of the user model.")]
UserApiKeyVar = Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML with a tau2: mapping, as for --custom-config-path.")
]


def config_mapping(path: Path | None) -> dict[str, object]:
    """The ``tau2:`` mapping of a config file; empty without one. slime reads this file with PyYAML, so it is read so here.

    Raises:
        ConfigError: the file cannot be read, or has no such mapping.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    mapping = content.get("tau2") if isinstance(content, dict) else None
    if not isinstance(mapping, dict):
        raise ConfigError(f"--config {path}: there is no 'tau2:' mapping in it")
    return mapping
