"""Retail: what the customer says about orders, items, variants, payment and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tau2_slime.policy_rules.retail import ORDER_WRITES
from tau2_slime.policy_rules.rules import Call, Record
from tau2_slime.synth.gates import evidence_payment, left_out_retail
from tau2_slime.synth.gates.case import Case, Findings, plain, word_in
from tau2_slime.synth.gates.evidence_payment import ends_elsewhere
from tau2_slime.synth.gates.phrases import ALL, COMPARISON, ORDER_ID, compares, names_product, sentences
from tau2_slime.synth.gates.variants import fitting, says_option, says_value

_OTHER_ITEM = (
    r"exchang|swap|replac|chang|switch|modif|upgrad|different|instead|trade|updat|"
    r"rather|new|would like|want|should|prefer"
)
REQUEST = {
    "cancel_pending_order": (
        r"cancel|no longer|(?:don't|not) (?:need|want)|mistake|get rid|undo|call off|remov|stop|scrap|drop|withdraw|void"
    ),
    "return_delivered_order_items": r"return|refund|(?:sen[dt]|giv\w+|ship|tak\w+) (?:\w+ ){0,3}back|goes? back|money|bring",
    "exchange_delivered_order_items": _OTHER_ITEM,
    "modify_pending_order_items": _OTHER_ITEM,
    "modify_pending_order_address": r"address|deliver|ship|mov|sent|send|suite|street|home",
    "modify_pending_order_payment": r"pay|card|paypal|gift|method|balance|charge",
    "modify_user_address": r"address|mov|profile|default|home|suite",
}
_FIT = {
    "cancel_pending_order": ("pending",),
    "return_delivered_order_items": ("delivered",),
    "exchange_delivered_order_items": ("delivered",),
}
_MISTAKE = "ordered by mistake"


def check(case: Case, found: Findings) -> None:
    """G9, G13, G17."""
    with case.start.reading() as db:
        if case.writes and not _can_be_found(case, db):
            found.fail(
                "G9", f"nothing that the customer says leads to {case.customer}: no email, no name with zip code"
            )
        for call in case.writes:
            if call.name not in REQUEST:
                continue
            if not re.search(REQUEST[call.name], case.text):
                found.fail("G9", f"nobody asks for {call.name}")
                continue
            try:
                for gate, reason in _judge(case, db, call):
                    found.fail(gate, f"{call.name}: {reason}")
            except (KeyError, TypeError, AttributeError, IndexError):
                continue  # other gates refuse such a call
        for reason in left_out_retail.reasons(case, db):
            found.fail("G17", reason)


def _judge(case: Case, db: Record, call: Call) -> Iterator[tuple[str, str]]:
    a = call.arguments
    if "address1" in a:
        yield from _address(case, db, a)
    if call.name not in ORDER_WRITES:
        return
    order = db.orders[a["order_id"]]
    yield from _order(case, db, call, order)
    if a.get("reason") == _MISTAKE and case.stated.cancel_reasons is None:
        yield "G9", "nobody says that it was a mistake"  # the other reason is what cancelling itself says
    if "item_ids" in a:
        yield from _items(case, db, order, a["item_ids"])
    if "new_item_ids" in a:
        for old, new in zip(a["item_ids"], a["new_item_ids"], strict=True):
            yield from _variant(case, db, order, old, new)
    if "payment_method_id" in a:
        yield from _payment(case, db, call, order)


def _can_be_found(case: Case, db: Record) -> bool:
    user = db.users.get(case.customer)
    if user is None:
        return True  # other gates refuse it
    by_name = user.name.first_name.lower() in case.text and word_in(case.text, user.address.zip)
    return by_name or user.email.lower() in case.text


def _address(case: Case, db: Record, a: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    user = db.users[case.customer]
    known = [user.address, *(db.orders[i].address for i in user.orders if i in db.orders)]
    if any(all(getattr(address, key) == a[key] for key in ("address1", "address2", "zip")) for address in known):
        return
    on_file = " ".join(plain(f"{x.address1} {x.address2} {x.city} {x.zip}") for x in known)
    for key in ("address1", "address2", "zip", "city"):
        value = plain(str(a[key]))
        if value and not _address_part(case.text, value) and not (value in on_file and key != "address2"):
            yield "G9", f"{key} {a[key]!r} is not said, and is not an address of the customer"


def _address_part(text: str, value: str) -> bool:
    """``value`` in ``text``; punctuation and the usual short forms aside."""

    def bare(t: str) -> str:
        t = re.sub(r"[.,;#]", " ", t)
        for long, short in (
            ("street", "st"),
            ("avenue", "ave"),
            ("drive", "dr"),
            ("road", "rd"),
            ("apartment", "apt"),
            ("suite", "ste"),
        ):
            t = re.sub(rf"\b{long}\b", short, t)
        return " ".join(t.split())

    return bare(value) in bare(text)


def _order(case: Case, db: Record, call: Call, order: Record) -> Iterator[tuple[str, str]]:
    named = {m.group(0).lstrip("#") for m in ORDER_ID.finditer(case.text)}
    if order.order_id.lower().lstrip("#") in named:
        return
    by_item = [item.name for item in order.items if names_product(case.text, item.name)]
    own = {i.lower().lstrip("#") for i in db.users[order.user_id].orders}
    if named & own and not by_item and not ALL.search(ORDER_ID.sub(" ", case.text)):
        yield "G9", f"the text names {', '.join(sorted(named & own))}, not {order.order_id}, and nothing in it"
        return
    if named or ALL.search(case.text) or len(by_item) != 1 or call.name not in _FIT:
        return
    spoken = _option_words(case, [item for item in order.items if item.name == by_item[0]])
    others = [
        other
        for i in db.users[order.user_id].orders
        if (other := db.orders.get(i)) is not None
        and i != order.order_id
        and other.status in _FIT[call.name]
        and any(item.name == by_item[0] for item in other.items)
        and not any(c.arguments.get("order_id") == i for c in case.writes)
        and _option_words(case, [item for item in other.items if item.name == by_item[0]]) >= spoken
    ]
    if others and not compares(case.text):
        yield "G13", f"{by_item[0]} is in {others[0].order_id} as well as in {order.order_id}"


def _option_words(case: Case, items: Sequence[Any]) -> int:
    """How many options of the item that is described best stand in the text."""
    return max(sum(says_value(case.text, str(value)) for value in item.options.values()) for item in items)


def _items(case: Case, db: Record, order: Record, item_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    names = {item.item_id: item.name for item in order.items}
    spoken = {name for name in names.values() if names_product(case.text, name)}
    if (
        not spoken
        or ALL.search(ORDER_ID.sub(" ", case.text))
        or re.search(r"\b(items|things|stuff|order but|pair)\b", case.text)
    ):
        return
    for item_id in item_ids:
        if names.get(item_id) not in spoken and item_id not in case.text:
            yield "G9", f"the customer says nothing about {names.get(item_id)}"


def _variant(case: Case, db: Record, order: Record, old: str, new: str) -> Iterator[tuple[str, str]]:
    item = next(item for item in order.items if item.item_id == old)
    product = db.products[item.product_id]
    gold = product.variants[new]
    if word_in(case.text, new) or COMPARISON.search(case.text):
        return  # a choice by price, by size or by taste: what it leads to is not in the words
    about = [s for s in sentences(case.text) if names_product(s, item.name)]
    apart = about if len(about) > 1 else []  # such a product may be changed in two orders
    readings = [fitting(text, item, product) for text in (*apart, "\n".join(about), case.text) if text]
    if any(reading == [new] for reading in readings):
        return
    rivals = [reading for reading in readings if new in reading]
    changed = {k: v for k, v in gold.options.items() if v != item.options.get(k)}
    unsaid = {k: v for k, v in changed.items() if not says_option(case.text, k, str(v))}
    if not rivals or unsaid == changed:
        yield "G9", f"nobody says that the {item.name} becomes one with {unsaid or gold.options}"
    if rivals:
        rival = next(item_id for item_id in rivals[0] if item_id != new)
        yield "G13", f"the words fit {rival} as well as {new} ({item.name})"


def _payment(case: Case, db: Record, call: Call, order: Record) -> Iterator[tuple[str, str]]:
    methods = db.users[order.user_id].payment_methods
    method = methods.get(call.arguments["payment_method_id"])
    if method is None:
        return
    others = [m for m in methods.values() if m.id != method.id and ends_elsewhere(case, call, payment_method_id=m.id)]
    original = order.payment_history[0].payment_method_id if order.payment_history else None
    yield from evidence_payment.check(case, method, others, usual=method.id == original)
