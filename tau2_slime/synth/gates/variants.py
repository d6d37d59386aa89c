"""Which variants of a product a text describes: options by their values, values by the words that customers use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tau2_slime.policy_rules.rules import Record
from tau2_slime.synth.gates.phrases import stem

_WATER = re.compile(r"\bwater[\s-]?(?:resist\w*|proof\w*)")
_NOT_WATER = re.compile(
    rf"\b(?:no|not|non|without|isn't|aren't)\b[^.;,]{{0,15}}?{_WATER.pattern}"
    rf"|{_WATER.pattern}\W{{0,3}}(?:(?:is|be|to|as) )?no\b"
)


def fitting(text: str, item: Record, product: Record) -> list[str]:
    """The available variants that ``text`` describes: what is said is new, what nobody mentions stays as it was."""
    values: dict[str, set[str]] = {}
    for variant in product.variants.values():
        for key, value in variant.options.items():
            values.setdefault(key, set()).add(value)
    said = {key: found - {item.options.get(key)} for key, found in said_options(text, values).items()}
    said = {key: found for key, found in said.items() if found}
    others = [v for v in product.variants.values() if v.available and v.item_id != item.item_id]

    def fits(options: Mapping[str, str], *, loosely: bool) -> bool:
        return all(
            value in said[key] if key in said else loosely or item.options.get(key) == value
            for key, value in options.items()
        )

    strictly = [v.item_id for v in others if fits(v.options, loosely=False)]
    return strictly or [v.item_id for v in others if fits(v.options, loosely=True)]


def said_options(text: str, values: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Option -> the values of it that ``text`` names.

    A value is not taken from within a longer one, nor for an option if it stands beside the name of another one.

    >>> said_options("a black lens, rose gold frame", {"lens": ["black"], "frame": ["black", "gold", "rose gold"]})
    {'lens': {'black'}, 'frame': {'rose gold'}}
    """
    found: dict[str, set[str]] = {}
    for key, options in values.items():
        left = text
        for value in sorted(options, key=lambda option: (-len(option), option)):
            elsewhere = [k for k, v in values.items() if k != key and value in v and _beside(text, k, value)]
            if says_option(left, key, value) and not (elsewhere and not _beside(text, key, value)):
                found.setdefault(key, set()).add(value)
            left = _phrase(value).sub(" ", left)
    return found


def says_option(text: str, key: str, value: str) -> bool:
    """True if ``text`` has this value of an option. 'yes', 'no' and 'none' count only with the option's name."""
    value = value.lower()
    if value in ("yes", "no"):
        return (_NOT_WATER.search(text) is not None) == (value == "no") and _WATER.search(text) is not None
    if value == "none" and re.search(rf"\b(?:no|without|none)\b[^.;,]{{0,12}}?\b{re.escape(stem(key))}", text):
        return True
    return says_value(text, value)


def says_value(text: str, value: str) -> bool:
    """True if ``text`` has the value of an option, with some freedom in spelling.

    >>> says_value("a 128gb one", "128GB"), says_value("the i7 processor", "i7"), says_value("size l please", "XL")
    (True, True, False)
    >>> says_value("the bluetooth speaker", "blue"), says_value("in order 7, over-ear", "in-ear")
    (False, False)
    """
    value = value.lower()
    if _phrase(value).search(text):
        return True
    if len(value) > 2 and any(c.isdigit() for c in value):
        return re.search(rf"(?<![0-9.]){re.escape(_squeezed(value))}", _squeezed(text)) is not None
    words = re.findall(r"[a-z0-9]+", value)
    if any(len(word) < 3 for word in words):
        return False  # 'in-ear' is said as a whole
    return all(re.search(rf"\b{re.escape(stem(word))}\w{{0,3}}\b", text) for word in words)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s-]+", "", text)


def _phrase(value: str) -> re.Pattern[str]:
    """``value`` as a whole, with blanks or hyphens between its words."""
    words = r"[\s-]?".join(map(re.escape, re.split(r"[\s-]+", value.lower())))
    return re.compile(rf"(?<![a-z0-9.]){words}(?![a-z0-9]|\.\d)")


def _beside(text: str, key: str, value: str) -> bool:
    """True if the option's name stands directly before or after its value."""
    key, value = re.escape(key.lower()), re.escape(value.lower())
    return re.search(rf"\b{key}(?::| is| be| to| of)? {value}\b|\b{value} {key}\b", text) is not None
