"""How long a file's interpolations become: each may name one that names ten others, and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST_CHARACTERS = 1_000_000
"""Of all values together once they are resolved."""
LONGEST_CHAIN = 30
"""Interpolations that lead to one another."""
MOST_IN_A_VALUE = 1000

_INNERMOST = re.compile(r"\$\{([^{}]*)\}")
_OF_A_KEY = re.compile(
    r"\s*(?:oc\.(?:select|deprecated|dict\.keys|dict\.values)\s*:)?\s*([^,:\s]+)\s*(?:,.*)?", re.DOTALL
)


class TooLong(ValueError):
    """The interpolations of a file have no reasonable end."""


def check_interpolations(data: object) -> None:
    """Nothing, if resolving the interpolations of ``data``, plain dicts and lists, takes little time and memory.

    Raises:
        TooLong: it would not; ``args`` are the key and the problem.
    """
    leaves = dict(_leaves(data, ()))
    lengths: dict[tuple[str, ...], int] = {}

    def length(path: tuple[str, ...], chain: tuple[tuple[str, ...], ...]) -> int:
        """Characters of what stands at ``path`` and below."""
        if path in lengths:
            return lengths[path]
        name = ".".join(path)
        if path in chain:
            raise TooLong(name, "Recursive interpolation: it leads back to itself")
        if len(chain) > LONGEST_CHAIN:
            raise TooLong(name, f"more than {LONGEST_CHAIN} interpolations lead to one another")
        total = 0
        for leaf, text in [(path, leaves[path])] if path in leaves else below(path):
            total += len(text)
            for key in _named(text, leaf):
                total += length(key, (*chain, path))
            if total > MOST_CHARACTERS:
                raise TooLong(name, f"its interpolations become more than {MOST_CHARACTERS:,} characters")
        lengths[path] = total
        return total

    def below(path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
        return [(leaf, text) for leaf, text in leaves.items() if leaf[: len(path)] == path]

    whole = 0
    for path in leaves:
        whole += length(path, ())
        if whole > MOST_CHARACTERS:
            raise TooLong(".".join(path), f"the file's values become more than {MOST_CHARACTERS:,} characters")


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts of ``value`` and where they stand."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, str(number)))
    elif isinstance(value, str):
        yield path, value


def _named(text: str, at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys that the interpolations of ``text`` name, from the root.

    Raises:
        TooLong: one computes the name of another, so that nobody can tell beforehand.
    """
    if text.count("${") > MOST_IN_A_VALUE:
        raise TooLong(".".join(at), f"more than {MOST_IN_A_VALUE} interpolations in one value")
    while found := _INNERMOST.search(text):
        if "\0" in found[1] and not re.match(r"\s*[\w.]+\s*:", found[1]):
            raise TooLong(".".join(at), "the name of one interpolation is made of another")
        named = _OF_A_KEY.fullmatch(found[1].replace("\0", ""))
        if named is not None:
            key = re.sub(r"\[([^\]]*)\]", r".\1", named[1])
            dots = len(key) - len(key.lstrip("."))
            base = at[: len(at) - dots] if dots else ()
            yield (*base, *(part for part in key.lstrip(".").split(".") if part))
        text = text[: found.start()] + "\0" + text[found.end() :]
