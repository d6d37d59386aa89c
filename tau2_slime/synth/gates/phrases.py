"""Words that customers use: for requests, for things of the catalogue, for ways to pay, for all of something."""

from __future__ import annotations

import re

ALL = re.compile(
    r"\b(all|every|everything|each|both|any(?! (?:more|longer))|anything|entire|whole|rest|remaining|"
    r"orders|reservations|trips|flights|bookings|"
    r"other (?:order|one|trip|reservation)|another (?:order|one|trip|reservation)|recent|recently|latest|last|duplicates?|"
    r"just (?:bought|received|ordered|placed|got|booked|made))\b"
)
HEDGE = re.compile(
    r"\b(if|unless|whether|otherwise|don't|do "
    r"not|not|never|except|keep|instead|rather|only|check|know|status|wonder|same as|"
    r"like in|unlike|already|might|maybe|possible|cannot|can't|first try|try to|consider\w*|insist\w*)\b"
)
ORDER_ID = re.compile(r"#?\bw\d{7}\b")
COMPARISON = re.compile(
    r"\b(cheap\w*|(?:most|less|more) expensive|costl\w*|larger|largest|smaller|smallest|bigger|biggest|less|more|most|least|"
    r"brighter|brightest|dimmer|lighter|heavier|higher|highest|lower|lowest|longer|longest|shorter|shortest|similar|prefer\w*|"
    r"better|best|upgrade\w*|fanc\w*|whatever|closest|newer|size (?:up|down)|maximum|minimum|intermediate|either|care|"
    r"compatible|same (?:type|kind|one|item|specs?|product)|exact(?:ly)? (?:the )?same|item (?:id|number))\b"
)
_NOT_A_COMPARISON = re.compile(r"\b(?:no longer|(?:any|no) ?more|any longer|not more)\b")
PAYMENT = re.compile(
    r"\b(pay\w*|paid|cards?|gc|cc|visa|mastercard|amex|american express|gift ?card|giftcard|credit|debit|paypal|"
    r"method|original|refund\w*|"
    r"certificates?|voucher|balance|ending)\b"
)
_KINDS = {
    "gift_card": re.compile(r"gift ?-?cards?|\bgcs?\b"),
    "paypal": re.compile(r"\bpay ?pal"),
    "credit_card": re.compile(r"credit|visa|master ?card|amex|american express|\bcards?\b|\bcc\b"),
    "certificate": re.compile(r"certificate|voucher"),
}
GENERIC_PAYMENT = re.compile(
    r"\b(?:original|same|initial|other|another|any|whichever|whatever|preferred)(?: \w+){0,2} "
    r"(?:payment|payments|method|methods|card|cards|account|form|way|ways|certificates?)\b|\bway (?:i|you) (?:paid|pay)\b|"
    r"\b(?:paid|used|charged)(?: \w+){0,2} (?:originally|initially|for)\b|\boriginal(?:ly)? (?:payment|paid|used)\b|"
    r"\bused to pay\b|\boriginal\b|\bcovers?\b|\bif (?:it is )?not possible\b"
)


def kinds_named(text: str) -> set[str]:
    """The kinds of payment methods that ``text`` names. A gift card alone is not a credit card."""
    without_gift = re.sub(r"gift ?-?cards?", " ", text)
    found = {kind for kind, words in _KINDS.items() if kind != "credit_card" and words.search(text)}
    return found | ({"credit_card"} if _KINDS["credit_card"].search(without_gift) else set())


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return re.split(r"(?<=[.;!?\n])\s+", text)


def asks_plainly(text: str, wish: re.Pattern[str]) -> bool:
    """True if a sentence without conditions and negations holds ``wish``.

    >>> asks_plainly("with a bag", re.compile("a bag")), asks_plainly("if it is free, with a bag", re.compile("a bag"))
    (True, False)
    """
    return any(wish.search(sentence) and not HEDGE.search(sentence) for sentence in sentences(text))


def compares(text: str) -> bool:
    """True if ``text`` chooses by a comparison: by price, by size, by taste.

    >>> compares("the cheapest one"), compares("it is no longer needed"), compares("you don't want it any more")
    (True, False, False)
    """
    return COMPARISON.search(_NOT_A_COMPARISON.sub(" ", text)) is not None


def names_product(text: str, name: str) -> bool:
    """True if ``text`` names a product of the catalogue, at least by one of its words, in singular or plural.

    >>> names_product("return the cleaner and a tshirt", "Vacuum Cleaner"), names_product("a tshirt", "T-Shirt")
    (True, True)
    """
    squeezed = text.replace("-", "")
    words = [name.lower().replace("-", ""), *name.lower().replace("-", "").split()]
    return any(re.search(rf"\b{re.escape(stem(word))}\w*", squeezed) for word in words if len(word) > 2)


def names_product_fully(text: str, name: str) -> bool:
    """True if ``text`` has the whole name, in singular or plural."""
    return re.search(rf"\b{re.escape(stem(name.lower()))}\w{{0,3}}\b", text) is not None


def listed(text: str, name: str) -> bool:
    """True if ``text`` has the whole name as a further entry of a list: after 'and' or a comma.

    >>> listed("return the lamp and the chair", "Chair"), listed("return the lamp you sent with the chair", "Chair")
    (True, False)
    """
    return (
        re.search(rf"(?:\band|,|&) (?:the |your |my |an? )?{re.escape(stem(name.lower()))}\w{{0,3}}\b", text)
        is not None
    )


def stem(word: str) -> str:
    """``word`` without the ending of a plural."""
    for end in ("ves", "es", "s"):
        if word.endswith(end) and len(word) > len(end) + 2:
            return word[: -len(end)]
    return word
