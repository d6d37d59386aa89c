"""Words that customers use: for requests, for things of the catalogue, for ways to pay, for all of something."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALL = re.compile(
    r"\b(all|every|everything|each|any|anything|both|entire|whole|other|others|another|rest|remaining|pending orders|"
    r"recent|recently|latest|last|just|same|two|three|four|five|multiple|duplicates?|orders)\b"
)
HEDGE = re.compile(
    r"\b(if|unless|whether|otherwise|don't|do not|not|never|except|keep|instead|rather|but|only|check|know|"
    r"ask|status|wonder|same as|"
    r"like in|unlike|already|could|would|might|maybe|can|possible|cannot|can't|when)\b"
)
COMPARISON = re.compile(
    r"\b(cheap\w*|expensive\w*|costl\w*|larg\w*|small\w*|bigg\w*|big|less\w*|more|most|least|bright\w*|dim\w*|"
    r"light\w*|heav\w*|high\w*|"
    r"low\w*|long\w*|short\w*|same|similar|prefer\w*|any|another|different|better|best|upgrade\w*|fanc\w*|"
    r"item (?:id|number)|"
    r"whatever|closest|newer|size (?:up|down)|lowest|highest|max\w*|min\w*|intermediate|beginner|expert|version|either|care|"
    r"compatible|instead|received|item)\b"
)
PAYMENT = re.compile(
    r"\b(pay\w*|paid|card|visa|mastercard|amex|american express|gift ?card|giftcard|credit|debit|paypal|"
    r"method|original|refund\w*|"
    r"certificates?|voucher|balance|ending)\b"
)
_KINDS = {
    "gift_card": re.compile(r"gift ?-?cards?"),
    "paypal": re.compile(r"\bpay ?pal"),
    "credit_card": re.compile(r"credit|visa|master ?card|amex|american express|\bcards? (?:ending|with)|\bcard\b"),
    "certificate": re.compile(r"certificate|voucher"),
}
GENERIC_PAYMENT = re.compile(
    r"\b(original|same|whichever|whatever|any|other|another|way (?:i|you|it)|used for|used to pay|initial|"
    r"possible|prefer\w*|covers?)\b"
)


def kinds_named(text: str) -> set[str]:
    """The kinds of payment methods that ``text`` names. A gift card alone is not a credit card."""
    without_gift = re.sub(r"gift ?-?cards?", " ", text)
    found = {kind for kind, words in _KINDS.items() if kind != "credit_card" and words.search(text)}
    return found | ({"credit_card"} if _KINDS["credit_card"].search(without_gift) else set())


def names_product(text: str, name: str) -> bool:
    """True if ``text`` names a product of the catalogue, at least by one of its words, in singular or plural.

    >>> names_product("return the cleaner and a tshirt", "Vacuum Cleaner"), names_product("a tshirt", "T-Shirt")
    (True, True)
    """
    squeezed = text.replace("-", "")
    words = [name.lower().replace("-", ""), *name.lower().replace("-", "").split()]
    return any(re.search(rf"\b{re.escape(_stem(word))}\w*", squeezed) for word in words if len(word) > 2)


def names_product_fully(text: str, name: str) -> bool:
    """True if ``text`` has the whole name, in singular or plural."""
    return re.search(rf"\b{re.escape(_stem(name.lower()))}\w{{0,3}}\b", text) is not None


def _stem(word: str) -> str:
    for end in ("ves", "es", "s"):
        if word.endswith(end) and len(word) > len(end) + 2:
            return word[: -len(end)]
    return word


def says_value(text: str, value: str) -> bool:
    """True if ``text`` has the value of an option, with some freedom in spelling.

    >>> says_value("a 128gb one", "128GB"), says_value("the i7 processor", "i7"), says_value("size l please", "XL")
    (True, True, False)
    """
    value = value.lower()
    squeezed = re.sub(r"[\s-]+", "", text)
    if re.search(rf"(?<![a-z0-9.]){re.escape(value)}(?![a-z0-9]|\.\d)", text):
        return True
    if len(value) > 2 and any(c.isdigit() for c in value):
        return re.sub(r"[\s-]+", "", value) in squeezed
    words = [word for word in re.findall(r"[a-z0-9]+", value) if len(word) > 2]
    return bool(words) and all(re.search(rf"\b{re.escape(_stem(word))}", text) for word in words)


def mentions(text: str, words: Iterable[str]) -> bool:
    """True if one of ``words`` is a part of ``text``."""
    return any(word and word.lower() in text for word in words)
