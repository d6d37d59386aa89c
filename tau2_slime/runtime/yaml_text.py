"""YAML of others, read within bounds: a page of it can mean a billion values, or nest until Python gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import yaml

MOST_VALUES = 100_000
"""Values of a file, those that aliases repeat counted each time."""
DEEPEST = 50
"""Lists and mappings within each other."""
LONGEST_NUMBER = 1000
"""Characters of a number."""


class Mark(Protocol):
    """PyYAML's, of which there are two."""

    line: int


class UnreadableYaml(ValueError):
    """Why a text is not read: one line, with the line in the text if it is known."""

    def __init__(self, problem: str, mark: Mark | None = None) -> None:
        super().__init__(problem)
        self.line = None if mark is None else mark.line + 1


@dataclass
class _Extent:
    """Of a value: how many values it holds, itself included, and how deep they nest."""

    values: int = 1
    depth: int = 1
    anchor: str | None = None

    def take(self, other: _Extent, mark: Mark | None) -> None:
        self.values += other.values
        self.depth = max(self.depth, other.depth + 1)
        if self.values > MOST_VALUES:
            raise UnreadableYaml(f"more than {MOST_VALUES:,} values, aliases counted each time", mark)
        if self.depth > DEEPEST:
            raise UnreadableYaml(f"lists and mappings nest deeper than {DEEPEST}", mark)


def check_extent(text: str) -> None:
    """Nothing, if ``text`` is YAML that can be read in little time and memory.

    Raises:
        UnreadableYaml: it is not.
    """
    try:
        _measure(text)
    except yaml.MarkedYAMLError as error:
        start = "" if error.context_mark is None else f" ({error.context}, line {error.context_mark.line + 1})"
        raise UnreadableYaml(f"{error.problem}{start}", error.problem_mark) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UnreadableYaml(" ".join(str(error).split())) from None


def _measure(text: str) -> None:
    done: dict[str, _Extent] = {}
    stack = [_Extent()]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(stack) > DEEPEST:
                raise UnreadableYaml(f"lists and mappings nest deeper than {DEEPEST}", mark)
            stack.append(_Extent(anchor=event.anchor))
            continue
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            value = stack.pop()
        elif isinstance(event, yaml.ScalarEvent):
            number = event.implicit[0] and event.value[:1] in "+-.0123456789"
            if number and len(event.value) > LONGEST_NUMBER and not event.value.count(" "):
                raise UnreadableYaml(f"a number of {len(event.value):,} characters", mark)
            value = _Extent(anchor=event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            if any(open_.anchor == event.anchor for open_ in stack):
                raise UnreadableYaml(f"the alias *{event.anchor} stands within what it means", mark)
            if event.anchor not in done:
                raise UnreadableYaml(f"the alias *{event.anchor} means nothing", mark)
            value = _Extent(done[event.anchor].values, done[event.anchor].depth)
        else:
            continue
        stack[-1].take(value, mark)
        if value.anchor is not None:
            done[value.anchor] = value


def load_plain(text: str) -> object:
    """``text`` as PyYAML reads it, in plain dicts, lists and values.

    Raises:
        UnreadableYaml: it is not YAML, or not within bounds, or holds a value that cannot be, such as the 99th of a month.
    """
    check_extent(text)
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise UnreadableYaml(str(error.problem), error.problem_mark) from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UnreadableYaml(f"a value that cannot be: {' '.join(str(error).split())[:200]}") from None
