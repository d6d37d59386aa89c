"""Retail: what the customer asks for in plain words, and the gold leaves out although the policy allows it (G17)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tau2_slime.policy_rules.rules import Call, Record
from tau2_slime.synth.gates.case import Case
from tau2_slime.synth.gates.phrases import (
    HEDGE,
    ORDER_ID,
    kinds_named,
    listed,
    names_product,
    names_product_fully,
    sentences,
)
from tau2_slime.synth.gates.variants import fitting

_WISHES = {
    "cancel_pending_order": re.compile(r"\bcancel\w*\b"),
    "return_delivered_order_items": re.compile(r"\breturn\w*\b"),
    "exchange_delivered_order_items": re.compile(r"\bexchang\w*\b"),
    "modify_pending_order_payment": re.compile(r"\b(?:chang|switch|updat)\w* (?:the )?payment\b"),
    "modify_pending_order_address": re.compile(
        r"\b(?:chang|updat)\w* (?:the )?(?:shipping |delivery |mailing )?address\b"
    ),
}
_ANOTHER = re.compile(r"modif|(?<!ex)chang|swap|address|payment")
"""Beside a wish to cancel, return or exchange: the sentence may be about something else."""
_OWN_ADDRESS = re.compile(r"\b(?:change|update|set) (?:your|the|my) (?:default|user|profile) address\b")


def reasons(case: Case, db: Record) -> Iterator[str]:
    """Requests that nobody grants. A sentence with a condition or a negation is not judged."""
    if any(step.call.name == "transfer_to_human_agents" for step in case.steps):
        return
    yield from _items(case, db)
    done = {str(call.arguments.get("order_id")) for call in case.writes}
    for sentence in sentences(case.text):
        if HEDGE.search(sentence):
            continue
        if _OWN_ADDRESS.search(sentence) and all(call.name != "modify_user_address" for call in case.writes):
            yield "the customer asks for another default address, and the gold leaves it out"
        wishes = [tool for tool, words in _WISHES.items() if words.search(sentence)]
        if len(wishes) != 1 or (not wishes[0].startswith("modify") and _ANOTHER.search(sentence)):
            continue
        for match in ORDER_ID.finditer(sentence):
            order = db.orders.get(f"#{match.group(0).lstrip('#').upper()}")
            if order is None or order.order_id in done or order.user_id != case.customer:
                continue
            if any(case.sandbox().run([*_lookup(case), call]) for call in _ways(db, wishes[0], order, sentence)):
                yield f"the customer asks for {wishes[0]} on {order.order_id}, and the gold leaves it out"


def _lookup(case: Case) -> list[Call]:
    """The gold's reads that find the customer."""
    return [s.call for s in case.steps if s.call.name.startswith("find_user_id") and not s.error]


def _ways(db: Record, tool: str, order: Record, sentence: str) -> Iterator[Call]:
    """Calls of ``tool`` that would grant the wish: of one item where items are wanted, with each fitting payment method."""
    methods = db.users[order.user_id].payment_methods.values()
    paid = [payment.payment_method_id for payment in order.payment_history[:1]]
    start = {"order_id": order.order_id}
    if tool == "cancel_pending_order":
        yield from (Call(tool, {**start, "reason": reason}) for reason in ("no longer needed", "ordered by mistake"))
    if tool == "modify_pending_order_address":
        yield Call(tool, {**start, **order.address.model_dump(), "address1": "1 Main Street"})
    if tool == "modify_pending_order_payment":
        named = [m.id for m in methods if m.source in kinds_named(sentence)]
        yield from (Call(tool, {**start, "payment_method_id": method}) for method in named)
    if tool == "return_delivered_order_items":
        items = [order.items[0].item_id]
        yield from (Call(tool, {**start, "item_ids": items, "payment_method_id": method}) for method in paid)
    if tool == "exchange_delivered_order_items":
        for item in order.items:
            fits = fitting(sentence, item, db.products[item.product_id]) if names_product(sentence, item.name) else []
            if len(fits) == 1:
                given = {**start, "item_ids": [item.item_id], "new_item_ids": fits}
                yield from (Call(tool, {**given, "payment_method_id": method.id}) for method in methods)


def _items(case: Case, db: Record) -> Iterator[str]:
    """Items that stand beside a returned one in the same plain sentence, and that no call of the gold touches."""
    touched = {str(item_id) for call in case.writes for item_id in call.arguments.get("item_ids", ())}
    for call in case.writes:
        order = db.orders.get(call.arguments.get("order_id"))
        if call.name != "return_delivered_order_items" or order is None:
            continue
        returned = [item.name for item in order.items if item.item_id in touched]
        for sentence in sentences(case.text):
            if (
                "return" not in sentence
                or HEDGE.search(sentence)
                or re.search(r"exchang|cancel|modif|chang|same order", sentence)
            ):
                continue
            if not any(names_product_fully(sentence, name) for name in returned):
                continue
            for item in order.items:
                if item.item_id not in touched and item.name not in returned and listed(sentence, item.name):
                    yield f"the customer asks to return the {item.name} as well, and the gold leaves it out"
