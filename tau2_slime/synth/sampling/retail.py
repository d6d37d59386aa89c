"""Retail: cancel, change, return and exchange what one customer's orders allow."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tau2_slime.policy_rules.rules import Call, Record, Stated
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of, pick_weighted, split_count
from tau2_slime.synth.sandbox import Sandbox

FRAMES: Mapping[str, tuple[str, ...]] = {
    "cancel": (
        "You want to cancel {order} because {why}.",
        "Please have {order} cancelled: {why}.",
        "Cancel {order} for you, as {why}.",
        "Your wish is that {order} is cancelled, since {why}.",
    ),
    "return": (
        "You want to return the {items} of {order} and get the refund to {pay}.",
        "From {order}, the {items} should go back to the shop; the refund goes to {pay}.",
        "You would like to send back the {items} that came with {order}. For the refund you choose {pay}.",
        "You decided to return the {items} you received in {order}, with the money refunded to {pay}.",
    ),
    "exchange": (
        "You want to exchange the {item} of {order} for one with {options}, everything else unchanged, using {pay}.",
        (
            "From {order}, the {item} should be exchanged for one with {options} and otherwise as it is; use "
            "{pay} for the difference."
        ),
        (
            "You would like to swap the {item} that came with {order} for one with {options}. The other features "
            "stay, and you choose {pay}."
        ),
    ),
    "modify": (
        "You want to modify {order}: the {item} should become one with {options}, everything else unchanged, using {pay}.",
        (
            "In {order}, the {item} should be changed to one with {options} and otherwise as it is; use {pay} for "
            "the difference."
        ),
        (
            "You would like the {item} in {order} to be switched to one with {options}. The other features stay, "
            "and you choose {pay}."
        ),
    ),
    "address": (
        "You want {order} to be shipped to {address}.",
        "Please change the delivery address of {order} to {address}.",
        "The address of {order} is wrong: it should go to {address}.",
        "You are moving, so {order} must be delivered to {address}.",
    ),
    "payment": (
        "You want to pay {order} with {pay} instead.",
        "Please change the payment method of {order} to {pay}.",
        "You would rather have {order} charged to {pay}.",
    ),
    "user_address": (
        "You want your default address in the profile to be {address}.",
        "Please update the default address of your account to {address}.",
        "You moved: the default address on file should now be {address}.",
    ),
    "refund_total": (
        "You want to know how much money comes back to you from {order}.",
        "Ask for the exact amount that you get back for {order}.",
        "Let the agent tell you the total refund for {order}.",
    ),
    "tracking": (
        "You want to know the tracking number of {order}.",
        "Ask for the tracking number of {order}.",
        "Let the agent tell you the tracking number that {order} was shipped with.",
    ),
    "human": (
        "At the very end, you want to {matter}, and if the agent cannot do that, you ask for a human agent.",
        "When everything else is done, ask to {matter}; if that is out of reach, you want to be put through to a person.",
    ),
}
_WHY = {
    "no longer needed": ("it is no longer needed", "you no longer need it", "you do not need it any more"),
    "ordered by mistake": ("it was ordered by mistake", "you ordered it by mistake", "that order was a mistake"),
}
_MATTERS = (
    "talk about a job application at the head office",
    "complain about the music in one of the shops",
    "arrange a gift wrapping for a friend's order",
    "discuss a bulk discount for a school",
    "report a broken link on the website",
    "ask for an extended warranty contract",
)
_STREETS = (
    "Maple Lane",
    "River Road",
    "Birch Street",
    "Hill Avenue",
    "Meadow Drive",
    "Church Street",
    "Garden Way",
    "Lake View",
    "Mill Road",
)
_PLACES = (
    *(("Austin", "TX", "78704"), ("Denver", "CO", "80203"), ("Portland", "OR", "97209"), ("Columbus", "OH", "43215")),
    *(("Madison", "WI", "53703"), ("Tucson", "AZ", "85719"), ("Raleigh", "NC", "27605"), ("Omaha", "NE", "68102")),
    *(("Boise", "ID", "83702"), ("Albany", "NY", "12207"), ("Tampa", "FL", "33602"), ("Reno", "NV", "89501")),
)
KINDS = ("cancel", "return", "exchange", "modify", "address", "payment", "user_address")


def capacity(db: Record, user: Record) -> int:
    """How many writes the orders of ``user`` allow, at least."""
    count = 1
    for order_id in user.orders:
        order = db.orders.get(order_id)
        if order is not None:
            count += {"pending": 2, "delivered": 1}.get(order.status, 0)
    return count


def users(db: Record) -> dict[str, int]:
    """User id -> capacity."""
    return {user_id: capacity(db, user) for user_id, user in db.users.items()}


class Sampler:
    """Builds one proposal: a customer with room for the writes, and writes one after the other in τ²'s environment."""

    def __init__(self, rng: random.Random, box: Sandbox, user_id: str, weights: Mapping[str, float]) -> None:
        self._rng, self._box, self._weights = rng, box, weights
        with box.reading() as db:
            self._db: Any = db
        self._user = self._db.users[user_id]
        self._orders = [self._db.orders[i] for i in self._user.orders if i in self._db.orders]
        self._products = Counter(item.name for order in self._orders for item in order.items)
        self._used: dict[str, set[str]] = {}
        self._steps: list[tuple[Intent, list[Call], Call]] = []
        self._reasons: set[str] = set()
        self._extra: list[tuple[Intent, list[Call]]] = []
        self.communicate: list[str] = []

    def build(self, difficulty: str) -> Proposal | None:
        """None if the customer has no room for the writes after all."""
        wanted = split_count(self._rng, difficulty)
        with self._box.reading():
            for _ in range(wanted * 12):
                if len(self._steps) == wanted:
                    break
                made = self._one(pick_weighted(self._rng, self._weights, KINDS))
                if made is not None:
                    self._steps.append(made)
            if len(self._steps) < wanted:
                return None
            self._ask_something()
            return self._proposal(difficulty)

    def _one(self, kind: str) -> tuple[Intent, list[Call], Call] | None:
        made = {
            "cancel": self._cancel,
            "return": self._return,
            "exchange": self._exchange,
            "modify": self._modify,
            "address": self._address,
            "payment": self._payment,
            "user_address": self._user_address,
        }[kind]()
        if made is None:
            return None
        call = made[2]
        if self._box.violations(call) or not self._stays_possible(kind, call):
            return None
        return made

    def _stays_possible(self, kind: str, call: Call) -> bool:
        """Book the order for the request; False if an earlier request of the conversation stands in the way."""
        order_id = str(call.arguments.get("order_id", "profile"))
        used = self._used.setdefault(order_id, set())
        alone = {"cancel", "return", "exchange"}
        if kind in used or (used and kind in alone) or used & alone:
            return False
        if {kind, *used} >= {"payment", "modify"} or "modify" in used:
            return False  # an items change closes the order; two payments in one history would need their order told
        used.add(kind)
        return True

    def _order(self, status: str) -> Any:
        orders = [order for order in self._orders if order.status == status]
        return self._rng.choice(orders) if orders else None

    def _name(self, order: Record) -> str:
        """How the customer refers to an order: by its number, or by an item that no other order holds."""
        alone = [item.name for item in order.items if self._products[item.name] == 1]
        if alone and self._rng.random() < 0.35:
            return (
                f"the order with the {alone[0]} ({order.order_id})"
                if self._rng.random() < 0.3
                else f"order {order.order_id}"
            )
        return self._rng.choice(
            (f"order {order.order_id}", f"your order {order.order_id}", f"the order {order.order_id}")
        )

    def _look(self, order: Record) -> list[Call]:
        return [Call("get_order_details", {"order_id": order.order_id})]

    def _cancel(self) -> tuple[Intent, list[Call], Call] | None:
        order = self._order("pending")
        if order is None:
            return None
        reason = next(iter(self._reasons)) if self._reasons else self._rng.choice(sorted(_WHY))
        self._reasons.add(reason)
        why = self._rng.choice(_WHY[reason])
        slots = {"order": self._name(order), "why": why}
        call = Call("cancel_pending_order", {"order_id": order.order_id, "reason": reason})
        return Intent("cancel", slots), self._look(order), call

    def _return(self) -> tuple[Intent, list[Call], Call] | None:
        order = self._order("delivered")
        if order is None:
            return None
        counts = Counter(item.name for item in order.items)
        items = [item for item in order.items if counts[item.name] == 1]
        if not items:
            return None
        chosen = self._rng.sample(items, self._rng.randint(1, min(3, len(items))))
        original = order.payment_history[0].payment_method_id
        allowed = [m for m in self._user.payment_methods.values() if m.id == original or m.source == "gift_card"]
        method = self._rng.choice(allowed)
        names = [item.name for item in chosen]
        slots = {
            "order": self._name(order),
            "items": " and the ".join([", the ".join(names[:-1]), names[-1]] if len(names) > 1 else names),
            "pay": self._pay(method, original),
        }
        arguments = {
            "order_id": order.order_id,
            "item_ids": [i.item_id for i in chosen],
            "payment_method_id": method.id,
        }
        return Intent("return", slots), self._look(order), Call("return_delivered_order_items", arguments)

    def _exchange(self) -> tuple[Intent, list[Call], Call] | None:
        return self._variant("exchange", self._order("delivered"), "exchange_delivered_order_items")

    def _modify(self) -> tuple[Intent, list[Call], Call] | None:
        return self._variant("modify", self._order("pending"), "modify_pending_order_items")

    def _variant(self, kind: str, order: Record, tool: str) -> tuple[Intent, list[Call], Call] | None:
        if order is None:
            return None
        counts = Counter(item.name for item in order.items)
        items = [item for item in order.items if counts[item.name] == 1]
        if not items:
            return None
        item = self._rng.choice(items)
        product = self._db.products[item.product_id]
        others = [
            v
            for v in product.variants.values()
            if v.available and v.item_id != item.item_id and v.options != item.options
        ]
        if not others:
            return None
        new = self._rng.choice(others)
        changed = {key: value for key, value in new.options.items() if item.options.get(key) != value}
        if not changed or len(changed) > 3:
            return None
        method = self._rng.choice(list(self._user.payment_methods.values()))
        if method.source == "gift_card" and method.balance < 2 * abs(new.price - item.price):
            return None
        original = order.payment_history[0].payment_method_id
        slots = {
            "order": self._name(order),
            "item": item.name,
            "options": " and ".join(f"{key} {value}" for key, value in changed.items()),
            "pay": self._pay(method, original),
        }
        arguments = {
            "order_id": order.order_id,
            "item_ids": [item.item_id],
            "new_item_ids": [new.item_id],
            "payment_method_id": method.id,
        }
        reads = [*self._look(order), Call("get_product_details", {"product_id": item.product_id})]
        return Intent(kind, slots), reads, Call(tool, arguments)

    def _pay(self, method: Record, original: str) -> str:
        if method.id == original and self._rng.random() < 0.4:
            return "the original payment method"
        same = [m for m in self._user.payment_methods.values() if m.source == method.source]
        if method.source == "credit_card":
            return f"your {method.brand.capitalize()} credit card ending in {method.last_four}"
        name = "your PayPal account" if method.source == "paypal" else "your gift card"
        return name if len(same) == 1 else "the original payment method"

    def _new_address(self) -> dict[str, str]:
        city, state, zip_code = self._rng.choice(_PLACES)
        first = f"{self._rng.randint(11, 989)} {self._rng.choice(_STREETS)}"
        second = f"Suite {self._rng.randint(101, 990)}" if self._rng.random() < 0.5 else ""
        return {"address1": first, "address2": second, "city": city, "state": state, "country": "USA", "zip": zip_code}

    def _said(self, a: Mapping[str, str]) -> str:
        return ", ".join(
            part for part in (a["address1"], a["address2"], a["city"], f"{a['state']} {a['zip']}", "USA") if part
        )

    def _address(self) -> tuple[Intent, list[Call], Call] | None:
        order = self._order("pending")
        if order is None:
            return None
        address = self._new_address()
        intent = Intent("address", {"order": self._name(order), "address": self._said(address)})
        return intent, self._look(order), Call("modify_pending_order_address", {"order_id": order.order_id, **address})

    def _payment(self) -> tuple[Intent, list[Call], Call] | None:
        order = self._order("pending")
        if order is None or len(order.payment_history) != 1:
            return None
        now = order.payment_history[0]
        methods = [m for m in self._user.payment_methods.values() if m.id != now.payment_method_id]
        methods = [m for m in methods if m.source != "gift_card" or m.balance > 2 * now.amount]
        methods = [m for m in methods if m.source == "credit_card" or self._pay(m, "") != "the original payment method"]
        if not methods:
            return None
        method = self._rng.choice(methods)
        intent = Intent("payment", {"order": self._name(order), "pay": self._pay(method, "")})
        call = Call("modify_pending_order_payment", {"order_id": order.order_id, "payment_method_id": method.id})
        return intent, self._look(order), call

    def _user_address(self) -> tuple[Intent, list[Call], Call] | None:
        address = self._new_address()
        call = Call("modify_user_address", {"user_id": self._user.user_id, **address})
        return Intent("user_address", {"address": self._said(address)}), [], call

    def _ask_something(self) -> None:
        """Now and then a value that the agent must say: what comes back, or a tracking number."""
        backs = [
            (i, c) for i, _, c in self._steps if c.name in ("return_delivered_order_items", "cancel_pending_order")
        ]
        if backs and self._rng.random() < 0.4:
            intent, call = self._rng.choice(backs)
            order = self._db.orders[call.arguments["order_id"]]
            prices = [i.price for i in order.items if i.item_id in call.arguments.get("item_ids", [i.item_id])]
            if len(prices) > 1 or call.name.startswith("return"):
                reads = [Call("calculate", {"expression": " + ".join(map(str, prices))})] if len(prices) > 1 else []
                self._extra.append((Intent("refund_total", {"order": intent.slots["order"]}), reads))
                self.communicate.append(
                    f"{sum(prices):.2f}".rstrip("0").rstrip(".") if len(prices) > 1 else str(prices[0])
                )
        shipped = [order for order in self._orders if order.fulfillments]
        if shipped and self._rng.random() < 0.12:
            order = self._rng.choice(shipped)
            self._extra.append((Intent("tracking", {"order": f"order {order.order_id}"}), self._look(order)))
            self.communicate.append(order.fulfillments[0].tracking_id[0])

    def _proposal(self, difficulty: str) -> Proposal:
        rng, user = self._rng, self._user
        by_email = rng.random() < 0.5
        first, last = user.name.first_name, user.name.last_name
        find = (
            Call("find_user_id_by_email", {"email": user.email})
            if by_email
            else Call("find_user_id_by_name_zip", {"first_name": first, "last_name": last, "zip": user.address.zip})
        )
        intents = [intent for intent, _, _ in self._steps] + [intent for intent, _ in self._extra]
        calls = [find, *self._layout()]
        if rng.random() < 0.05:
            matter = rng.choice(_MATTERS)
            intents.append(Intent("human", {"matter": matter}))
            calls.append(Call("transfer_to_human_agents", {"summary": f"The customer wants to {matter}."}))
        known = f"You are {first} {last}. " + (
            f"Your email is {user.email}." if by_email else f"Your zip code is {user.address.zip}."
        )
        unknown = (
            None if by_email else rng.choice(("You do not remember your email address.", "You do not know your email."))
        )
        return Proposal(
            domain="retail",
            difficulty=difficulty,
            user=user.user_id,
            intents=intents,
            calls=calls,
            reason=write(rng, intents, FRAMES),
            known=known,
            unknown=unknown,
            manner=manner_of(rng),
            stated=Stated(cancel_reasons=frozenset(self._reasons) or None),
            communicate=self.communicate,
            facts=[value for intent in intents for value in intent.slots.values()],
        )

    def _layout(self) -> list[Call]:
        """The reads and writes in one of the orders that agents take; each read at most once, before what it is for."""
        rng = self._rng
        reads = [call for _, before, _ in self._steps for call in before]
        out: list[Call] = []
        if rng.random() < 0.55:
            out.append(Call("get_user_details", {"user_id": self._user.user_id}))
        if rng.random() < 0.06:
            out.append(Call("list_all_product_types", {}))
        sums = [call for _, before in self._extra for call in before]
        early = rng.random() < 0.5
        if early:
            out += reads
        for _, before, call in self._steps:
            out += [*before, call]
        position = rng.randint(1, len(out)) if rng.random() < 0.5 else len(out)
        first_write = next(i for i, call in enumerate(out) if call.name in _WRITE_NAMES)
        out[max(first_write, position) : max(first_write, position)] = sums
        return list(_once(out))


_WRITE_NAMES = frozenset(
    {
        "cancel_pending_order",
        "return_delivered_order_items",
        "exchange_delivered_order_items",
        "modify_pending_order_items",
        "modify_pending_order_address",
        "modify_pending_order_payment",
        "modify_user_address",
    }
)


def _once(calls: list[Call]) -> Iterator[Call]:
    seen: list[Call] = []
    for call in calls:
        if call not in seen:
            seen.append(call)
            yield call


def propose(
    rng: random.Random, box: Sandbox, user_id: str, difficulty: str, weights: Mapping[str, float]
) -> Proposal | None:
    """One proposal for ``user_id`` in the untouched environment ``box``; None if there is no room for it."""
    return Sampler(rng, box, user_id, weights).build(difficulty)
