"""Retail's policy, R1 to R17."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tau2_slime.policy_rules.rules import (
    Call,
    Past,
    Record,
    Rule,
    Stated,
    Violation,
    by_id,
    ends_with_a_transfer,
    of_another_customer,
    out_of_order,
)

REASONS = ("no longer needed", "ordered by mistake")

rules = by_id(
    Rule(
        "R1",
        "identify the customer by email, or by name and zip code, before anything else",
        soft=True,
        pattern=r"authenticate the user identity",
    ),
    Rule(
        "R2",
        "help one customer a conversation, and only with that customer's data",
        pattern=r"only help one user per conversation",
    ),
    Rule(
        "R3",
        "cancel an order only while its status is exactly 'pending'",
        pattern=r"only be cancelled if its status is 'pending'",
    ),
    Rule(
        "R4",
        "cancel only for the customer's own reason, 'no longer needed' or 'ordered by mistake'",
        pattern=r"either 'no longer needed' or|other reasons are not",
    ),
    Rule(
        "R5",
        "change a pending order only while its status is exactly 'pending': not after its items were changed",
        pattern=r"only be modified if its status is 'pending'",
    ),
    Rule(
        "R6",
        "a new item in a pending order is available, of the same product, and has other options",
        pattern=r"each item can be modified to an available",
    ),
    Rule(
        "R7",
        "pay and refund only with payment methods of the customer's profile",
        pattern=r"provide a payment method",
    ),
    Rule("R8", "a gift card must cover the price difference", pattern=r"enough balance to cover the price difference"),
    Rule(
        "R9",
        "return or exchange only a delivered order, once, and never both",
        pattern=r"only take action on pending or delivered",
    ),
    Rule(
        "R10",
        "a refund goes to the original payment method or to a gift card",
        pattern=r"refund must either go to the original",
    ),
    Rule("R11", "items are in the order, as often as they are named", pattern=r"list of items to be returned"),
    Rule(
        "R12",
        "exchange an item only for an available one of the same product with other options",
        pattern=r"each item can be exchanged to an available",
    ),
    Rule("R13", "all items of one order are changed in one call", pattern=r"only be called once per order"),
    Rule(
        "R14",
        "a pending order's payment changes to one other method, and only if it has one payment so far",
        pattern=r"single payment method different",
    ),
    Rule(
        "R15",
        "a gift card that is to pay an order must cover its total",
        pattern=r"enough balance to cover the total",
    ),
    Rule(
        "R16",
        "the default address belongs to the customer",
        pattern=r"any requests for tasks related to any other user",
    ),
    ends_with_a_transfer("R17"),
)
ORDER_WRITES = frozenset(
    {
        "cancel_pending_order",
        "exchange_delivered_order_items",
        "modify_pending_order_address",
        "modify_pending_order_items",
        "modify_pending_order_payment",
        "return_delivered_order_items",
    }
)
writes = ORDER_WRITES | {"modify_user_address"}


def check(db: Record, call: Call, past: Past, stated: Stated) -> Iterator[Violation]:
    """See `DomainPolicy.check`."""
    if call.name not in writes:
        return
    a = call.arguments
    yield from out_of_order(call, past, rules["R17"], rules["R1"])
    if call.name == "modify_user_address":
        if past.customer is not None and a["user_id"] != past.customer:
            yield Violation(rules["R2"], f"{a['user_id']} is not {past.customer}")
            yield Violation(rules["R16"], f"the address of {a['user_id']} is not the customer's")
        return
    order = db.orders.get(a["order_id"])
    if order is None:
        return  # the tool refuses it
    yield from of_another_customer(rules["R2"], past, f"order {order.order_id}", order.user_id)
    methods = db.users[order.user_id].payment_methods
    method = methods.get(a.get("payment_method_id"))
    if "payment_method_id" in a and method is None:
        yield Violation(rules["R7"], f"{a['payment_method_id']} is not in the profile of {order.user_id}")
    yield from _CHECKS[call.name](db, order, a, method, stated)


def _cancel(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    if order.status != "pending":
        yield Violation(rules["R3"], f"order {order.order_id} is {order.status!r}")
    if a["reason"] not in REASONS:
        yield Violation(rules["R4"], f"{a['reason']!r} is not a reason that the policy accepts")
    elif stated.cancel_reasons is not None and a["reason"] not in stated.cancel_reasons:
        given = ", ".join(sorted(stated.cancel_reasons)) or "another one"
        yield Violation(rules["R4"], f"the reason {a['reason']!r} is not the customer's ({given})")


def _pending(order: Record) -> Iterator[Violation]:
    if order.status != "pending":
        yield Violation(rules["R5"], f"order {order.order_id} is {order.status!r}")


def _address(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    yield from _pending(order)


def _payment(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    yield from _pending(order)
    history = order.payment_history
    if len(history) != 1 or history[0].transaction_type != "payment":
        yield Violation(rules["R14"], f"order {order.order_id} has {len(history)} payments so far")
    elif history[0].payment_method_id == a["payment_method_id"]:
        yield Violation(rules["R14"], f"order {order.order_id} is paid by {a['payment_method_id']} already")
    if method is not None and method.source == "gift_card" and history and method.balance < history[0].amount:
        yield Violation(rules["R15"], f"{method.id} holds {method.balance}, the order costs {history[0].amount}")


def _modify(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    if order.status == "pending (item modified)":
        yield Violation(rules["R13"], f"the items of order {order.order_id} were changed before")
    yield from _pending(order)
    yield from _items(order, a["item_ids"])
    yield from _new_items(db, order, a, method, rules["R6"])


def _exchange(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    yield from _delivered(order)
    yield from _items(order, a["item_ids"])
    yield from _new_items(db, order, a, method, rules["R12"])


def _return(db: Record, order: Record, a: Record, method: Record, stated: Stated) -> Iterator[Violation]:
    yield from _delivered(order)
    yield from _items(order, a["item_ids"])
    original = order.payment_history[0].payment_method_id if order.payment_history else None
    if method is not None and method.source != "gift_card" and method.id != original:
        yield Violation(rules["R10"], f"{method.id} did not pay order {order.order_id} and is not a gift card")


def _delivered(order: Record) -> Iterator[Violation]:
    if order.status in ("return requested", "exchange requested"):
        yield Violation(rules["R9"], f"order {order.order_id} was returned or exchanged before")
        yield Violation(rules["R13"], f"order {order.order_id} needs a second call")
    elif order.status != "delivered":
        yield Violation(rules["R9"], f"order {order.order_id} is {order.status!r}")


def _items(order: Record, item_ids: list[str]) -> Iterator[Violation]:
    there = Counter(item.item_id for item in order.items)
    for item_id, count in Counter(item_ids).items():
        if count > there[item_id]:
            yield Violation(rules["R11"], f"item {item_id} is {there[item_id]} times in {order.order_id}, not {count}")


def _new_items(db: Record, order: Record, a: Record, method: Record, rule: Rule) -> Iterator[Violation]:
    difference = 0.0
    for old, new in zip(a["item_ids"], a["new_item_ids"], strict=False):
        item = next((item for item in order.items if item.item_id == old), None)
        if item is None:
            continue
        variant = db.products[item.product_id].variants.get(new)
        if variant is None:
            yield Violation(rule, f"{new} is not an item of the product {item.name}")
        elif not variant.available:
            yield Violation(rule, f"{new} is not available")
        elif old == new or variant.options == item.options:
            yield Violation(rule, f"{new} has the same options as {old}")
        if variant is not None:
            difference += variant.price - item.price
    if method is not None and method.source == "gift_card" and method.balance < round(difference, 2):
        yield Violation(rules["R8"], f"{method.id} holds {method.balance}, the difference is {difference:.2f}")


_CHECKS = {
    "cancel_pending_order": _cancel,
    "modify_pending_order_address": _address,
    "modify_pending_order_payment": _payment,
    "modify_pending_order_items": _modify,
    "exchange_delivered_order_items": _exchange,
    "return_delivered_order_items": _return,
}


def customer(db: Record, call: Call, answer: str) -> str | None:
    """See `DomainPolicy.customer`."""
    if identifies(call):
        return answer if answer in db.users else None
    if call.name == "modify_user_address":
        return str(call.arguments.get("user_id"))
    if call.name in ORDER_WRITES:
        order = db.orders.get(call.arguments.get("order_id"))
        return None if order is None else str(order.user_id)
    return None


def identifies(call: Call) -> bool:
    """See `DomainPolicy.identifies`."""
    return call.name in ("find_user_id_by_email", "find_user_id_by_name_zip")
