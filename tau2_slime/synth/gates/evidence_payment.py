"""G9 and G13 over a payment method: what the customer says of it, and whether another one would do as well."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tau2_slime.policy_rules.rules import Call, Record
from tau2_slime.synth.gates.case import Case, word_in
from tau2_slime.synth.gates.phrases import GENERIC_PAYMENT, PAYMENT, kinds_named

_BY_AMOUNT = re.compile(
    r"\b(small\w*|larg\w*|big\w*|less\w*|most|least|high\w*|low\w*|one of|all|exact\w*|only|as much)\b"
)


def ends_elsewhere(case: Case, call: Call, **other: object) -> bool:
    """True if the gold with ``other`` arguments in ``call`` is as allowed, and ends in another state."""
    changed = replace(call, arguments={**call.arguments, **other})
    box = case.sandbox()
    calls = [changed if step.call is call else step.call for step in case.steps if not step.error]
    return box.run(calls) and box.state() != case.end


def says_digits(text: str, method: Record) -> bool:
    """True if the last four digits of a card stand in ``text``."""
    last_four = getattr(method, "last_four", None)
    return last_four is not None and word_in(text, last_four)


def check(case: Case, method: Record, others: Sequence[Any], *, usual: bool) -> Iterator[tuple[str, str]]:
    """(gate, reason) for what speaks against ``method``.

    Args:
        others: methods with which the gold would be as allowed and end elsewhere; without any, nothing is wrong.
        usual: it is how the customer paid before, which needs no word.
    """
    if not others or says_digits(case.text, method):
        return
    if not PAYMENT.search(case.text):
        if not usual:
            yield "G13", f"nobody says how to pay, and {others[0].id} would do as well as {method.id}"
        return
    if GENERIC_PAYMENT.search(case.text):
        return
    kinds = kinds_named(case.text)
    if method.source not in kinds:
        if kinds:
            yield "G9", f"the customer names {', '.join(sorted(kinds))}, the gold takes {method.source}"
        return
    same = [m for m in others if m.source == method.source]
    if same and not told_apart(case.text, method, same):
        yield "G13", f"{same[0].id} fits what is said as well as {method.id}"


def told_apart(text: str, method: Record, same: Sequence[Any]) -> bool:
    """True if the brand or the balance in ``text`` is that of ``method`` alone; 'small' and 'large' decide as well."""
    brand = getattr(method, "brand", None)
    if brand is not None:
        return str(brand).lower() in text and all(str(m.brand).lower() != str(brand).lower() for m in same)
    balance = getattr(method, "amount", getattr(method, "balance", None))
    if balance is None:
        return False
    amount = f"{balance:g}"
    if word_in(text.replace(",", ""), amount) or word_in(text.replace(",", ""), f"${amount}"):
        return all(getattr(m, "amount", getattr(m, "balance", None)) != balance for m in same)
    return bool(_BY_AMOUNT.search(text))
