"""An evaluation's YAML file, read as slime reads it (by OmegaConf), with errors that name the line and the key.

A key is written as OmegaConf writes it: ``eval.datasets[0].path``; the file itself is the empty key.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.interpolations import TooLong, check_interpolations
from tau2_slime.runtime.yaml_text import UnreadableYaml, check_extent

_UNSET = re.compile(r"Environment variable '(.+)' not found")


@dataclass(frozen=True)
class YamlSource:
    """A parsed file."""

    path: Path
    data: object
    """Plain dicts and lists, every interpolation resolved."""
    text: str = field(repr=False)

    def error(self, key: str, problem: str) -> ConfigError:
        """A `ConfigError` that names the file, the line of ``key`` and the key itself."""
        line, _ = _place(yaml.compose(self.text, Loader=yaml.SafeLoader), key)
        return ConfigError(f"{self.path}, line {line}: {key or 'the file'}: {problem}")


def read_yaml(path: Path) -> YamlSource:
    """Parse ``path`` and resolve its interpolations, such as ``${oc.env:NAME,default}`` and ``${eval.defaults.top_p}``.

    Raises:
        ConfigError: the file cannot be read, is not YAML, has a key twice, or has an interpolation without a value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    try:
        check_extent(text)
        loaded = OmegaConf.load(io.StringIO(text))
        check_interpolations(OmegaConf.to_container(loaded, resolve=False))
        return YamlSource(path, OmegaConf.to_container(loaded, resolve=True), text)
    except UnreadableYaml as error:
        line = "" if error.line is None else f", line {error.line}"
        raise ConfigError(f"{path}{line}: this YAML cannot be read: {error}") from error
    except TooLong as error:
        raise YamlSource(path, None, text).error(*error.args) from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        start = "" if error.context_mark is None else f" ({error.context}, line {error.context_mark.line + 1})"
        raise ConfigError(f"{path}{line}: this YAML cannot be read: {error.problem}{start}") from error
    except OmegaConfBaseException as error:
        raise _unresolved(YamlSource(path, None, text), error) from error
    # OSError: neither a mapping nor a list. ValueError, TypeError: a value that cannot be, such as the 99th of a month.
    except (yaml.YAMLError, OSError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise ConfigError(f"{path}: this YAML cannot be read: {' '.join(str(error).split())[:200]}") from error


def _unresolved(source: YamlSource, error: OmegaConfBaseException) -> ConfigError:
    key = str(error.full_key or "")
    _, written = _place(yaml.compose(source.text, Loader=yaml.SafeLoader), key)
    problem = str(error).splitlines()[0]
    unset = _UNSET.search(problem)
    if unset is not None:
        problem = f"the environment variable {unset[1]} is not set; export it, or write ${{oc.env:{unset[1]},default}}"
    return source.error(key, f"{written!r}: {problem}")


def _place(node: yaml.Node | None, key: str) -> tuple[int, str]:
    """The line (from 1) of ``key`` and what is written there; of the nearest key above it if the file has no such key."""
    line = 1 if node is None else node.start_mark.line + 1
    while key and node is not None:
        below = [
            (mark, child, rest) for name, mark, child in _children(node) if (rest := _after(name, key)) is not None
        ]
        if not below:
            return line, ""
        mark, node, key = below[0]
        line = mark.line + 1
    return line, node.value if isinstance(node, yaml.ScalarNode) else ""


def _after(name: str, key: str) -> str | None:
    """What is left of ``key`` below the child ``name``; None if it does not lead there."""
    if not key.startswith(name):
        return None
    rest = key[len(name) :]
    return rest.removeprefix(".") if not rest or rest[0] in ".[" else None


def _children(node: yaml.Node) -> list[tuple[str, yaml.Mark, yaml.Node]]:
    """(name in a key, where it stands, value) of a mapping's keys or a sequence's items; the longest names first."""
    if isinstance(node, yaml.SequenceNode):
        return [(f"[{i}]", item.start_mark, item) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return []
    own = [(str(name.value), name.start_mark, value) for name, value in node.value]
    return sorted(own, key=lambda child: -len(child[0]))
