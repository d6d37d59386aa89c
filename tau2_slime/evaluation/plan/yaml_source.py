"""A YAML file whose values know the line that they stand on, with the interpolation that slime's loader (OmegaConf) has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tau2_slime.errors import ConfigError

Key = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the root."""

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Source:
    """A parsed file."""

    path: Path
    data: Any
    lines: Mapping[Key, int]
    """Line (from 1) of every key and list item."""

    def error(self, key: Key, problem: str) -> ConfigError:
        """A `ConfigError` that names file, line and key."""
        known = next((self.lines[key[:i]] for i in range(len(key), -1, -1) if key[:i] in self.lines), 1)
        return ConfigError(f"{self.path}, line {known}: {spell(key)}: {problem}")


def spell(key: Key) -> str:
    """``eval.datasets[0].path``, as a user would write it."""
    out = ""
    for part in key:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out or "the file"


def load(path: Path, environ: Mapping[str, str] | None = None) -> Source:
    """Parse ``path`` and resolve its interpolations: ``${oc.env:NAME}``, ``${oc.env:NAME,default}``, ``${other.key}``.

    Raises:
        ConfigError: no file, no YAML, a key twice, or an interpolation that leads nowhere.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path} is not UTF-8 text: {error}") from error
    lines: dict[Key, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = _construct(path, node, (), lines) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"--config {path}{where} is no YAML: {' '.join(str(error).split())}") from error
    source = Source(path, data, lines)
    return Source(path, _Resolver(source, os.environ if environ is None else environ).resolve(data, (), 0), lines)


def _construct(path: Path, node: yaml.Node, key: Key, lines: dict[Key, int]) -> Any:
    lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        constructor = yaml.constructor.SafeConstructor()
        constructor.flatten_mapping(node)  # YAML's own merge key, <<
        own = {id(pair[0]) for pair in node.value}
        for name_node, value_node in node.value:
            name = constructor.construct_object(name_node)
            line = name_node.start_mark.line + 1
            if name in out and id(name_node) in own and lines.get((*key, name), line) != line:
                twice = f"the key is there twice, first in line {lines[(*key, name)]}"
                raise ConfigError(f"{path}, line {line}: {spell((*key, name))}: {twice}")
            out[name] = _construct(path, value_node, (*key, name), lines)
            lines[(*key, name)] = line
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_construct(path, item, (*key, i), lines) for i, item in enumerate(node.value)]
    return yaml.constructor.SafeConstructor().construct_object(node)


class _Resolver:
    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source, self._environ = source, environ

    def resolve(self, value: Any, key: Key, depth: int) -> Any:
        if isinstance(value, dict):
            return {k: self.resolve(v, (*key, k), depth) for k, v in value.items()}
        if isinstance(value, list):
            return [self.resolve(v, (*key, i), depth) for i, v in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if depth > _MAX_DEPTH:
            raise self._source.error(key, f"{value!r} refers to itself")
        whole = _INNERMOST.fullmatch(value)
        if whole is not None:
            return self.resolve(self._one(whole.group(1), key), key, depth + 1)
        replaced = _INNERMOST.sub(
            lambda match: str(self.resolve(self._one(match.group(1), key), key, depth + 1)), value
        )
        if replaced == value:
            raise self._source.error(key, f"{value!r}: an interpolation is not closed")
        return self.resolve(replaced, key, depth + 1)

    def _one(self, inner: str, key: Key) -> Any:
        """What ``${inner}`` stands for."""
        inner = inner.strip()
        if inner.startswith("oc.env:"):
            name, comma, default = inner.removeprefix("oc.env:").partition(",")
            if (found := self._environ.get(name.strip())) is not None:
                return found
            if comma:
                return None if default.strip() == "null" else default.strip()  # a text, as OmegaConf has it
            raise self._source.error(
                key, f"the environment variable {name.strip()} is not set; export it, or write ${{oc.env:NAME,default}}"
            )
        if ":" in inner:
            raise self._source.error(
                key,
                f"${{{inner}}} is not understood here; allowed: ${{oc.env:NAME}}, ${{oc.env:NAME,default}}, ${{a.key}}",
            )
        dots = len(inner) - len(inner.lstrip("."))
        base: Key = key[: len(key) - dots] if dots else ()
        at: Any = self._source.data
        names: list[str | int] = [*base, *(piece for piece in re.split(r"[.\[\]]+", inner.lstrip(".")) if piece)]
        for part in names:
            try:
                at = at[int(part)] if isinstance(at, list) else at[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise self._source.error(key, f"${{{inner}}} leads nowhere: there is no {part!r}") from None
        return at
