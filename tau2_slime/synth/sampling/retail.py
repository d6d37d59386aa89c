"""Retail: cancel, change, return and exchange what one customer's orders allow."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from tau2_slime.policy_rules.rules import Call, Record, Stated
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of
from tau2_slime.synth.sampling.retail_calls import laid_out
from tau2_slime.synth.sampling.retail_wording import FRAMES, MATTERS, PLACES, STREETS, WHY
from tau2_slime.synth.sampling.sampler import Asked, Request, Sampler
from tau2_slime.synth.sandbox import Sandbox

ALONE = frozenset({"cancel", "return", "exchange"})
"""After such a request an order is closed."""
ORIGINAL = "the original payment method"


class Payment(NamedTuple):
    """How the customer names a payment method, and what of it is said word for word."""

    words: str
    fact: str


def users(db: Record) -> dict[str, int]:
    """User id -> how many writes the orders allow, at least."""
    room = {"pending": 2, "delivered": 1}
    return {
        user_id: 1 + sum(room.get(db.orders[i].status, 0) for i in user.orders if i in db.orders)
        for user_id, user in db.users.items()
    }


class RetailSampler(Sampler):
    """See `Sampler`."""

    USUAL: ClassVar[Mapping[str, float]] = {
        **{"return": 2.4, "exchange": 2.0, "modify": 2.0, "cancel": 1.6, "address": 1.2},
        **{"user_address": 0.12, "payment": 0.5},
    }

    def __init__(self, rng: random.Random, box: Sandbox, user_id: str, weights: Mapping[str, float]) -> None:
        super().__init__(rng, box, user_id, weights)
        self._orders = [self.db.orders[i] for i in self.user.orders if i in self.db.orders]
        self._products = Counter(item.name for order in self._orders for item in order.items)
        self._reason = rng.choice(sorted(WHY))
        """Of all cancellations: the text must not leave open which reason is for which order."""

    def request(self, kind: str) -> Request | None:
        made = {
            "cancel": self._cancel,
            "return": self._return,
            "exchange": self._exchange,
            "modify": self._modify,
            "address": self._address,
            "payment": self._payment,
            "user_address": self._user_address,
        }[kind]()
        if made is None or self.box.violations(made.call):
            return None
        return made if self._stays_possible(kind, made.call) else None

    def _stays_possible(self, kind: str, call: Call) -> bool:
        """Book the order for the request; False if an earlier request of the conversation stands in the way."""
        used = self.used.setdefault(str(call.arguments.get("order_id", "profile")), set())
        if kind in used or (used and kind in ALONE) or used & ALONE:
            return False
        if {kind, *used} >= {"payment", "modify"} or "modify" in used:
            return False  # an items change closes the order; two payments in one history would need their order told
        used.add(kind)
        return True

    def _order(self, status: str) -> Any:
        orders = [order for order in self._orders if order.status == status]
        return self.rng.choice(orders) if orders else None

    def _name(self, order: Record) -> str:
        """How the customer refers to an order: by its number, now and then with an item that no other order holds."""
        alone = [item.name for item in order.items if self._products[item.name] == 1]
        if alone and self.rng.random() < 0.1:
            return f"the order with the {alone[0]} ({order.order_id})"
        return self.rng.choice(
            (f"order {order.order_id}", f"your order {order.order_id}", f"the order {order.order_id}")
        )

    def _single(self, order: Record) -> list[Any]:
        """The items of an order that its product's name tells apart."""
        counts = Counter(item.name for item in order.items)
        return [item for item in order.items if counts[item.name] == 1]

    def _cancel(self) -> Request | None:
        order = self._order("pending")
        if order is None:
            return None
        slots = {"order": self._name(order), "why": self.rng.choice(WHY[self._reason])}
        intent = Intent("cancel", slots, {"order": (order.order_id,)}, {"why": self._reason})
        call = Call("cancel_pending_order", {"order_id": order.order_id, "reason": self._reason})
        return Request(intent, _look(order), call)

    def _return(self) -> Request | None:
        order = self._order("delivered")
        items = self._single(order) if order is not None else []
        if not items:
            return None
        chosen = self.rng.sample(items, self.rng.randint(1, min(3, len(items))))
        original = order.payment_history[0].payment_method_id
        allowed = [m for m in self.user.payment_methods.values() if m.id == original or m.source == "gift_card"]
        method = self.rng.choice(allowed)
        names = [item.name for item in chosen]
        pay = self._pay(method, original)
        slots = {
            "order": self._name(order),
            "items": " and the ".join([", the ".join(names[:-1]), names[-1]] if len(names) > 1 else names),
            "pay": pay.words,
        }
        facts = {"order": (order.order_id,), "items": tuple(names), "pay": (pay.fact,)}
        ids = [item.item_id for item in chosen]
        arguments = {"order_id": order.order_id, "item_ids": ids, "payment_method_id": method.id}
        return Request(Intent("return", slots, facts), _look(order), Call("return_delivered_order_items", arguments))

    def _exchange(self) -> Request | None:
        return self._variant("exchange", self._order("delivered"), "exchange_delivered_order_items")

    def _modify(self) -> Request | None:
        return self._variant("modify", self._order("pending"), "modify_pending_order_items")

    def _variant(self, kind: str, order: Record, tool: str) -> Request | None:
        items = self._single(order) if order is not None else []
        if not items:
            return None
        item = self.rng.choice(items)
        others = [
            v
            for v in self.db.products[item.product_id].variants.values()
            if v.available and v.item_id != item.item_id and v.options != item.options
        ]
        if not others:
            return None
        new = self.rng.choice(others)
        changed = {key: value for key, value in new.options.items() if item.options.get(key) != value}
        if not changed or len(changed) > 3:
            return None
        method = self.rng.choice(list(self.user.payment_methods.values()))
        if method.source == "gift_card" and method.balance < 2 * abs(new.price - item.price):
            return None
        pay = self._pay(method, order.payment_history[0].payment_method_id)
        options = " and ".join(f"{key} {value}" for key, value in changed.items())
        slots = {"order": self._name(order), "item": item.name, "options": options, "pay": pay.words}
        facts = {
            "order": (order.order_id,),
            "item": (item.name,),
            "options": tuple(changed.values()),
            "pay": (pay.fact,),
        }
        arguments = {
            "order_id": order.order_id,
            "item_ids": [item.item_id],
            "new_item_ids": [new.item_id],
            "payment_method_id": method.id,
        }
        reads = [*_look(order), Call("get_product_details", {"product_id": item.product_id})]
        return Request(Intent(kind, slots, facts), reads, Call(tool, arguments))

    def _pay(self, method: Record, original: str) -> Payment:
        if method.id == original and self.rng.random() < 0.4:
            return Payment(ORIGINAL, "original payment method")
        same = [m for m in self.user.payment_methods.values() if m.source == method.source]
        if method.source == "credit_card":
            return Payment(
                f"your {method.brand.capitalize()} credit card ending in {method.last_four}", method.last_four
            )
        if len(same) > 1:
            return Payment(ORIGINAL, "original payment method")  # the gates refuse it unless it is the original one
        return (
            Payment("your PayPal account", "PayPal")
            if method.source == "paypal"
            else Payment("your gift card", "gift card")
        )

    def _new_address(self) -> dict[str, str]:
        city, state, zip_code = self.rng.choice(PLACES)
        first = f"{self.rng.randint(11, 989)} {self.rng.choice(STREETS)}"
        second = f"Suite {self.rng.randint(101, 990)}" if self.rng.random() < 0.5 else ""
        return {"address1": first, "address2": second, "city": city, "state": state, "country": "USA", "zip": zip_code}

    def _address(self) -> Request | None:
        order = self._order("pending")
        if order is None:
            return None
        address = self._new_address()
        slots = {"order": self._name(order), "address": _said(address)}
        intent = Intent("address", slots, {"order": (order.order_id,), "address": _parts(address)})
        return Request(
            intent, _look(order), Call("modify_pending_order_address", {"order_id": order.order_id, **address})
        )

    def _user_address(self) -> Request | None:
        address = self._new_address()
        intent = Intent("user_address", {"address": _said(address)}, {"address": _parts(address)})
        return Request(intent, [], Call("modify_user_address", {"user_id": self.user.user_id, **address}))

    def _payment(self) -> Request | None:
        order = self._order("pending")
        if order is None or len(order.payment_history) != 1:
            return None
        now = order.payment_history[0]
        methods = [m for m in self.user.payment_methods.values() if m.id != now.payment_method_id]
        methods = [m for m in methods if m.source != "gift_card" or m.balance > 2 * now.amount]
        methods = [m for m in methods if m.source == "credit_card" or self._pay(m, "").words != ORIGINAL]
        if not methods:
            return None
        method = self.rng.choice(methods)
        pay = self._pay(method, "")
        slots = {"order": self._name(order), "pay": pay.words}
        intent = Intent("payment", slots, {"order": (order.order_id,), "pay": (pay.fact,)})
        call = Call("modify_pending_order_payment", {"order_id": order.order_id, "payment_method_id": method.id})
        return Request(intent, _look(order), call)

    def ask(self) -> None:
        """What comes back, or a tracking number."""
        backs = [r for r in self.requests if r.call.name in ("return_delivered_order_items", "cancel_pending_order")]
        if backs and self.rng.random() < 0.4:
            back = self.rng.choice(backs)
            order = self.db.orders[back.call.arguments["order_id"]]
            chosen = back.call.arguments.get("item_ids", [item.item_id for item in order.items])
            prices = [item.price for item in order.items if item.item_id in chosen]
            if len(prices) > 1 or back.intent.kind == "return":
                reads = [Call("calculate", {"expression": " + ".join(map(str, prices))})] if len(prices) > 1 else []
                value = f"{sum(prices):.2f}".rstrip("0").rstrip(".") if len(prices) > 1 else str(prices[0])
                self.asked.append(Asked(_about("refund_total", order, back.intent.slots["order"]), reads, value))
        shipped = [order for order in self._orders if order.fulfillments]
        if shipped and self.rng.random() < 0.12:
            order = self.rng.choice(shipped)
            intent = _about("tracking", order, f"order {order.order_id}")
            self.asked.append(Asked(intent, _look(order), order.fulfillments[0].tracking_id[0]))

    def proposal(self, difficulty: str) -> Proposal:
        rng, user = self.rng, self.user
        first, last = user.name.first_name, user.name.last_name
        by_email = rng.random() < 0.25
        find = (
            Call("find_user_id_by_email", {"email": user.email})
            if by_email
            else Call("find_user_id_by_name_zip", {"first_name": first, "last_name": last, "zip": user.address.zip})
        )
        intents, calls = self.intents(), [find, *laid_out(self)]
        if rng.random() < 0.03:
            matter = rng.choice(MATTERS)
            intents.append(Intent("human", {"matter": matter}, {"matter": (matter,)}))
            calls.append(Call("transfer_to_human_agents", {"summary": f"The customer wants to {matter}."}))
        known = f"Your email is {user.email}." if by_email else f"Your zip code is {user.address.zip}."
        forgotten = ("You do not remember your email address.", "You do not know your email.")
        cancels = any(intent.kind == "cancel" for intent in intents)
        return Proposal(
            domain="retail",
            difficulty=difficulty,
            user=user.user_id,
            intents=intents,
            calls=calls,
            reason=write(rng, intents, FRAMES),
            known=f"You are {first} {last}. {known}",
            unknown=None if by_email else rng.choice(forgotten),
            manner=manner_of(rng),
            stated=Stated(cancel_reasons=frozenset({self._reason}) if cancels else None),
            communicate=[asked.value for asked in self.asked],
        )


def _look(order: Record) -> list[Call]:
    return [Call("get_order_details", {"order_id": order.order_id})]


def _about(kind: str, order: Record, name: str) -> Intent:
    return Intent(kind, {"order": name}, {"order": (order.order_id,)})


def _said(a: Mapping[str, str]) -> str:
    parts = (a["address1"], a["address2"], a["city"], f"{a['state']} {a['zip']}", "USA")
    return ", ".join(part for part in parts if part)


def _parts(a: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for part in (a["address1"], a["address2"], a["city"], a["zip"]) if part)
