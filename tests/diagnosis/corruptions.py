"""Every way of the taxonomy in which a gold play can go wrong. Each yields the episode with its label, or None if the task
has no place for it; an episode that τ² pays all the same is no failure and is dropped by `labelled`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from tau2_slime.diagnosis.records import find, tables_of
from tau2_slime.outcome import SUCCESS, Termination
from tau2_slime.world import domains

from .plays import (
    ASK_USER,
    CONFIRM,
    Episode,
    Label,
    Made,
    actions,
    begin,
    finish,
    listing,
    opening,
    own_writes,
    play_all,
    step,
    told,
)

Corruption = Callable[[str, Any, int], Made | None]


def _owner(e: Episode, arguments: dict[str, Any]) -> Any:
    for table, key in (("orders", "order_id"), ("reservations", "reservation_id")):
        record = find(e.world, table, arguments.get(key))
        if record is not None:
            return find(e.world, "users", record.user_id)
    return find(e.world, "users", arguments.get("user_id"))


def _other_payment(e: Episode, a: dict[str, Any]) -> tuple[str, str] | None:
    key = next((k for k in ("payment_method_id", "payment_id") if k in a), None)
    user = _owner(e, a)
    if key is None or user is None:
        return None
    others = [k for k in user.payment_methods if k != a[key] and not k.startswith("certificate")]
    return (key, others[0]) if others else None


def _other_variant(e: Episode, a: dict[str, Any]) -> list[str] | None:
    if not a.get("new_item_ids"):
        return None
    wanted = a["new_item_ids"][0]
    for product in tables_of(e.world)["products"].values():
        if wanted in product.variants:
            others = [k for k, v in product.variants.items() if k not in (wanted, a["item_ids"][0]) and v.available]
            return [others[0], *a["new_item_ids"][1:]] if others else None
    return None


def wrong(e: Episode, name: str, a: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The arguments with one of them wrong; None if there is no such argument."""
    b = deepcopy(a)
    if kind == "payment":
        other = _other_payment(e, a)
        if other is None:
            return None
        b[other[0]] = other[1]
    elif kind == "item":
        items = _other_variant(e, a)
        if items is not None:
            b["new_item_ids"] = items
        elif len(a.get("item_ids", [])) > 1:
            b["item_ids"] = a["item_ids"][:-1]
        else:
            return None
    elif kind == "amount":
        key = next((k for k in ("amount", "gb_amount") if k in a), None)
        if key is None:
            return None
        b[key] = 1.0 if key == "gb_amount" else a[key] + 50
    elif kind == "value":
        if "reason" in a:
            b["reason"] = "ordered by mistake" if a["reason"] == "no longer needed" else "no longer needed"
        elif "address1" in a:
            b["zip"] = "10001"
        elif "total_baggages" in a:
            b["total_baggages"] += 1
        elif "passengers" in a:
            b["passengers"][0]["last_name"] = "Smithers"
        else:
            return None
    elif kind == "record":
        user = _owner(e, a)
        for record, held in (("order_id", "orders"), ("reservation_id", "reservations")):
            if record in a and name in ("cancel_pending_order", "cancel_reservation"):
                taken = str(actions(e.domain, e.task)) + told(e.task)
                others = [x for x in getattr(user, held) if x not in taken]
                others = [x for x in others if record != "order_id" or find(e.world, "orders", x).status == "pending"]
                if others:
                    b[record] = others[0]
                    return b
        return None
    return b


def wrong_argument(kind: str, *, confirmed: bool = True) -> Corruption:
    def make(domain: str, task: Any, seed: int) -> Made | None:
        e = begin(domain, task, seed)
        hit: list[int] = []

        def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
            _, name, a, write = action
            if hit or not write or action[0] == "user":
                return False
            b = wrong(e, name, a, kind)
            if b is None:
                return False
            if confirmed:
                e.agent(f"{listing(name, b if seed % 2 else a)} {CONFIRM[seed % 4]}")
                e.user("Yes, please.")
            hit.append(e.call(name, b))
            return True

        play_all(e, change)
        finish(e)
        if not hit or e.messages[hit[0] + 1].get("error"):
            return None
        what = "wrong_argument" if confirmed else "unconfirmed_write"
        return e.done(), Label(f"{what}.{kind}", "agent", what, hit[0])

    return make


def wrong_tool(domain: str, task: Any, seed: int) -> Made | None:
    e = begin(domain, task, seed)
    hit: list[int] = []

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        _, name, a, write = action
        if hit or not write:
            return False
        if name == "exchange_delivered_order_items":
            other = "return_delivered_order_items", {"order_id": a["order_id"], "item_ids": a["item_ids"]}
            order = find(e.world, "orders", a["order_id"])
            other[1]["payment_method_id"] = order.payment_history[0].payment_method_id
        elif name in ("modify_pending_order_items", "modify_pending_order_address"):
            other = "cancel_pending_order", {"order_id": a["order_id"], "reason": "no longer needed"}
        elif name in ("update_reservation_flights", "update_reservation_baggages", "update_reservation_passengers"):
            other = "cancel_reservation", {"reservation_id": a["reservation_id"]}
        elif name == "cancel_reservation":
            held = find(e.world, "reservations", a["reservation_id"])
            other = (
                "update_reservation_passengers",
                {
                    "reservation_id": a["reservation_id"],
                    "passengers": [
                        {"first_name": "Ann", "last_name": "Lee", "dob": "1990-01-01"} for _ in held.passengers
                    ],
                },
            )
        else:
            return False
        hit.append(e.listed(*other))
        return True

    play_all(e, change)
    finish(e)
    if not hit or e.messages[hit[0] + 1].get("error"):
        return None
    return e.done(), Label("wrong_tool", "agent", "wrong_tool", hit[0])


def missing_action(domain: str, task: Any, seed: int) -> Made | None:
    own = own_writes(domain, task)
    if not own:
        return None
    e = begin(domain, task, seed)
    left = own[-1] if seed % 2 else own[0]
    play_all(e, lambda position, action: position == left)
    turn = finish(e, text=("I have taken care of everything you asked for.", "All set.")[seed % 2])
    return e.done(), Label("missing_action", "agent", "missing_action", turn)


def missing_request(domain: str, task: Any, seed: int) -> Made | None:
    """Telecom: the user is never asked for a gold action."""
    users = [i for i, (r, _, _, w) in enumerate(actions(domain, task)) if w and r == "user"]
    if not users:
        return None
    e = begin(domain, task, seed)
    play_all(e, lambda position, action: position == users[seed % len(users)])
    turn = finish(e, text="Your issue should be resolved now.")
    last = [i for i, m in enumerate(e.messages) if m.get("tool_calls")]
    texts = [
        i
        for i, m in enumerate(e.messages)
        if m["role"] == "assistant" and m.get("content") and i > max(last, default=1)
    ]
    return e.done(), Label("missing_request", "agent", "missing_action", texts[0] if texts else turn)


def _extra(e: Episode) -> tuple[str, dict[str, Any]] | None:
    """A write that the task has nothing to do with and that the environment accepts."""
    names = re.findall(r"\b[a-z]+_[a-z]+_\d{4}\b", str([m.get("tool_calls") for m in e.messages]) + told(e.task))
    user = next((u for n in names if (u := find(e.world, "users", n)) is not None), None)
    if user is None:
        orders = [a for _, _, a, _ in actions(e.domain, e.task) if "order_id" in a or "reservation_id" in a]
        user = _owner(e, orders[0]) if orders else None
    touched = str([a for _, _, a, _ in actions(e.domain, e.task)]) + told(e.task)
    if user is None:
        return None
    if e.domain == "retail":
        for name in user.orders:
            if name not in touched and find(e.world, "orders", name).status == "pending":
                return "cancel_pending_order", {"order_id": name, "reason": "no longer needed"}
        return None
    for name in user.reservations:
        held = find(e.world, "reservations", name)
        if held is not None and name not in touched:
            free = ("regular", "silver", "gold").index(user.membership) + (
                "basic_economy",
                "economy",
                "business",
            ).index(held.cabin)
            total = held.total_baggages + 1
            return "update_reservation_baggages", {
                "reservation_id": name,
                "total_baggages": total,
                "nonfree_baggages": max(0, total - free * len(held.passengers)),
                "payment_id": held.payment_history[0].payment_id,
            }
    return None


def extra_action(domain: str, task: Any, seed: int) -> Made | None:
    if domain == "telecom":
        return None
    e = begin(domain, task, seed)
    play_all(e)
    extra = _extra(e)
    if extra is None:
        return None
    e.agent(f"I also noticed something. {listing(*extra)} {CONFIRM[seed % 4]}")
    e.user("Okay, yes.")
    turn = e.call(*extra)
    finish(e)
    return e.done(), Label("extra_action", "agent", "extra_action", turn)


def off_script(domain: str, task: Any, seed: int) -> Made | None:
    if domain == "telecom":
        return None
    e = begin(domain, task, seed)
    play_all(e)
    extra = _extra(e)
    if extra is None:
        return None
    e.agent("That is done. Is there anything else I can help you with?")
    record = extra[1].get("order_id") or extra[1].get("reservation_id")
    ask = "cancel my order" if domain == "retail" else "add one more checked bag to my reservation"
    turn = e.user(f"Yes, one more thing: please also {ask} {record}.")
    e.listed(*extra)
    finish(e)
    return e.done(), Label("off_script", "user", "off_script", turn)


def off_script_option(domain: str, task: Any, seed: int) -> Made | None:
    """The user asks for another variant than its scenario's, and the agent does it as asked."""
    e = begin(domain, task, seed, said="Hi, I would like to change something about an order.")
    asked: list[int] = []

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        _, name, a, write = action
        if asked or not write or not a.get("new_item_ids"):
            return False
        items = _other_variant(e, a)
        if items is None:
            return False
        options = _new_options(e, a["new_item_ids"][0], items[0])
        value = next((o for o in options if not re.search(rf"(?<!\w){re.escape(o)}(?!\w)", told(e.task), re.I)), None)
        if value is None:
            return False
        e.agent("Which option would you like for the new item?")
        asked.append(e.user(f"I would like the one with {value}, please."))
        e.listed(name, {**a, "new_item_ids": items})
        return True

    play_all(e, change)
    finish(e)
    if not asked:
        return None
    return e.done(), Label("off_script_option", "user", "off_script", asked[0])


def _new_options(e: Episode, gold: str, other: str) -> list[str]:
    for product in tables_of(e.world)["products"].values():
        if gold in product.variants:
            mine, theirs = product.variants[other].options, product.variants[gold].options
            return [v for k, v in mine.items() if theirs.get(k) != v]
    return []


def invented(domain: str, task: Any, seed: int) -> Made | None:
    e = begin(domain, task, seed)
    said: list[int] = []

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        _, name, a, write = action
        if said or not write or action[0] == "user":
            return False
        if "address1" in a:
            b = {**a, "address1": "4711 Invented Road"}
            e.agent("What is the new address?")
            said.append(e.user("It is 4711 Invented Road, the rest is as I told you."))
        elif "passengers" in a:
            b = deepcopy(a)
            b["passengers"][0]["first_name"] = "Zebulon"
            e.agent("What is the passenger's first name?")
            said.append(e.user("The first name is Zebulon."))
        elif name == "send_certificate":
            b = {**a, "amount": 777}
            e.agent("I can offer you a certificate. What amount did we promise you?")
            said.append(e.user("You promised me $777."))
        else:
            return False
        e.listed(name, b)
        return True

    play_all(e, change)
    finish(e)
    return (e.done(), Label("invented", "user", "invented", said[0])) if said else None


def premature_transfer(domain: str, task: Any, seed: int) -> Made | None:
    e = begin(domain, task, seed)
    own = [i for i, (_, _, _, w) in enumerate(actions(domain, task)) if w]
    if not own:
        return None
    for action in actions(domain, task)[: own[0] if seed % 2 else own[-1]]:
        step(e, *action)
    turn = e.call("transfer_to_human_agents", {"summary": "The customer needs help with the request."})
    e.agent("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.")
    e.user("###TRANSFER###")
    return e.done(), Label("premature_transfer", "agent", "premature_transfer", turn)


REFUSALS = (
    "I'm sorry, but I cannot do that: it is against our policy.",
    "Unfortunately, I'm unable to {verb} this, because it is not allowed.",
    "I apologize, but we are not able to {verb} that for you.",
)


def wrong_refusal(domain: str, task: Any, seed: int) -> Made | None:
    own = own_writes(domain, task)
    if not own or domain == "telecom":
        return None
    e = begin(domain, task, seed)
    at = own[-1]
    for action in actions(domain, task)[:at]:
        step(e, *action)
    verb = actions(domain, task)[at][1].split("_")[0]
    turn = e.agent(REFUSALS[seed % 3].format(verb=verb))
    e.user("That is a pity. Goodbye. ###STOP###")
    return e.done(), Label("wrong_refusal", "agent", "wrong_refusal", turn)


def premature_stop(domain: str, task: Any, seed: int) -> Made | None:
    own = own_writes(domain, task)
    if not own:
        return None
    e = begin(domain, task, seed)
    at = own[-1]
    for action in actions(domain, task)[:at]:
        step(e, *action)
    e.agent(f"{listing(*actions(domain, task)[at][1:3])} {CONFIRM[seed % 4]}")
    turn = e.user(
        ("Yes, please go ahead. Thank you! ###STOP###", "Yes. ###STOP###", "###STOP###", "Great, thanks! ###STOP###")[
            seed % 4
        ]
    )
    return e.done(), Label("premature_stop", "user", "premature_stop", turn)


def unspoken_wish(domain: str, task: Any, seed: int) -> Made | None:
    """The user stops before it has said what its scenario wants."""
    own = own_writes(domain, task)
    if not own or domain == "telecom":
        return None
    e = begin(domain, task, seed, said="Hello, I have a question about my account.")
    for action in actions(domain, task)[: own[0]]:
        step(e, *action)
    e.agent("I have found your profile. What can I do for you? Is there anything else I can help with?")
    turn = e.user("No, that's all, thank you. ###STOP###")
    return e.done(), Label("unspoken_wish", "user", "premature_stop", turn)


def refused_offer(domain: str, task: Any, seed: int) -> Made | None:
    own = own_writes(domain, task)
    if not own or domain == "telecom":
        return None
    e = begin(domain, task, seed)
    at = own[-1]
    for action in actions(domain, task)[:at]:
        step(e, *action)
    e.agent(f"{listing(*actions(domain, task)[at][1:3])} {CONFIRM[seed % 4]}")
    turn = e.user(("No, I don't want that.", "No thanks, leave it as it is.", "Actually, never mind.")[seed % 3])
    e.agent("I understand, I will leave it. Is there anything else I can help you with?")
    e.user("No, that is all. ###STOP###")
    return e.done(), Label("refused_offer", "user", "refused_offer", turn)


def withheld(domain: str, task: Any, seed: int) -> Made | None:
    known = told(task)
    asked = (
        ("zip code", r"\b\d{5}\b", "retail"),
        ("email", r"\S+@\S+", "retail"),
        ("user id", r"\b[a-z]+_[a-z]+_\d{4}\b", "airline"),
        ("phone number", r"\d{3}-\d{3}-\d{4}", "telecom"),
    )
    what = next((w for w, form, d in asked if d == domain and re.search(form, known)), None)
    if what is None or not any(w for *_, w in actions(domain, task)):
        return None
    e = begin(domain, task, seed, said="Hello, I need some help.")
    e.agent(f"Of course. Could you please give me your {what}?")
    turn = e.user(
        (f"I don't have my {what}.", f"Sorry, I don't remember my {what}.", f"I do not know my {what}.")[seed % 3]
    )
    e.agent(f"Without your {what} I cannot help you further. I am sorry.")
    e.user("Okay, bye. ###STOP###")
    return e.done(), Label("withheld", "user", "withheld", turn)


FLIPS = (
    "Thank you for contacting us! How can I help you today?",
    "I've processed your refund. Is there anything else I can help you with?",
    "I'd be happy to help you. Could you please provide your order number?",
)


def role_flip(domain: str, task: Any, seed: int) -> Made | None:
    if not own_writes(domain, task):
        return None
    e = begin(domain, task, seed)
    e.agent("Could you please give me some more details?")
    turn = e.user(FLIPS[seed % 3])
    e.agent("I am the agent here. What can I do for you?")
    e.user("Thank you, have a nice day. ###STOP###")
    return e.done(), Label("role_flip", "user", "role_flip", turn)


def leak(domain: str, task: Any, seed: int) -> Made | None:
    if not own_writes(domain, task):
        return None
    e = begin(domain, task, seed)
    e.agent("Could you please give me some more details?")
    turn = e.user(f"Task instructions: You want the agent to help you. {told(task)[:120]}")
    e.agent("I am not sure that I understand. Could you say that again?")
    e.user("###STOP###")
    return e.done(), Label("leak", "user", "leak", turn)


def claimed_not_done(domain: str, task: Any, seed: int) -> Made | None:
    users = [i for i, (r, n, _, w) in enumerate(actions(domain, task)) if w and r == "user" and n in ASK_USER]
    if not users:
        return None
    e = begin(domain, task, seed)
    said: list[int] = []
    at = users[seed % len(users)]

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        if position != at:
            return False
        e.agent(ASK_USER[action[1]])
        said.append(e.user(("I have done that.", "Okay, done.", "I've just done it, it should be fine now.")[seed % 3]))
        return True

    play_all(e, change)
    finish(e, text="It should work now.")
    return e.done(), Label("claimed_not_done", "user", "claimed_not_done", said[0])


def misreported(domain: str, task: Any, seed: int) -> Made | None:
    users = [i for i, (r, _, _, w) in enumerate(actions(domain, task)) if w and r == "user"]
    if not users:
        return None
    e = begin(domain, task, seed)
    if "mms" in task.id:
        e.agent("Can you send a picture message now?")
        turn = e.call("can_send_mms", {}, "user")
        lie = "Yes, I can send MMS messages now, it works."
    else:
        e.agent("Please run a speed test. What does it say?")
        turn = e.call("run_speed_test", {}, "user")
        lie = "The speed test says excellent."
    if re.search("excellent|can send", str(e.messages[turn + 1]["content"]), re.I):
        return None
    turn = e.user(lie)
    e.agent("Great, then your issue is resolved. Is there anything else I can help you with?")
    e.user("No, thank you. ###STOP###")
    return e.done(), Label("misreported", "user", "misreported", turn)


def not_communicated(domain: str, task: Any, seed: int) -> Made | None:
    if not task.evaluation_criteria.communicate_info:
        return None
    e = begin(domain, task, seed)
    play_all(e)
    turn = finish(e, info=False)
    last = max((i for i, m in enumerate(e.messages) if m["role"] == "assistant" and m.get("tool_calls")), default=1)
    texts = [i for i, m in enumerate(e.messages) if m["role"] == "assistant" and m.get("content") and i > last]
    return e.done(), Label("not_communicated", "agent", "not_communicated", texts[0] if texts else turn)


def swapped_user_steps(domain: str, task: Any, seed: int) -> Made | None:
    """Telecom: the reboot before the setting that needs it; the line resumed before the payment."""
    if domain != "telecom":
        return None
    plan = actions(domain, task)
    names = [name for _, name, _, _ in plan]
    for first, second in (
        ("reset_apn_settings", "reboot_device"),
        ("make_payment", "resume_line"),
        ("resume_line", "reboot_device"),
    ):
        if first in names and second in names and names.index(first) < names.index(second):
            order = [*plan]
            moved = order.pop(names.index(second))
            at = names.index(first)
            if first == "make_payment":
                at = names.index("send_payment_request")
            order.insert(at, moved)
            e = begin(domain, task, seed)
            turn = None
            for action in order:
                made = step(e, *action)
                if action is moved:
                    turn = made - 1 if action[0] == "user" else made
            finish(e)
            return e.done(), Label("wrong_order", "agent", "wrong_order", turn)
    return None


def permuted_lists(domain: str, task: Any, seed: int) -> Made | None:
    """The same items, payments or flights in another order."""
    e = begin(domain, task, seed)
    hit = []

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        _, name, a, write = action
        lists = [k for k, v in a.items() if isinstance(v, list) and len(v) > 1 and k != "flights"]
        if not write or not lists:
            return False
        hit.append(e.listed(name, {k: v[::-1] if k in lists else v for k, v in a.items()}))
        return True

    play_all(e, change)
    finish(e)
    return (e.done(), Label("permuted_lists", "task", "order_dependent", None)) if hit else None


ILLEGAL = {"airline": {"2", "7", "9", "27", "29", "33", "37", "38", "39", "44"}, "retail": {"18", "91", "107"}}
"""Official gold that the policy forbids, as its readers found."""


def gold_label(domain: str, task: Any, seed: int) -> Made | None:
    if task.id not in ILLEGAL.get(domain, ()):
        return None
    bad = {
        "2": "send_certificate",
        "27": "send_certificate",
        "38": "send_certificate",
        "29": "update_reservation_flights",
    }
    bad |= {"33": "update_reservation_baggages", "18": "exchange", "91": "exchange", "107": "exchange"}
    name = bad.get(task.id, "cancel_reservation")
    e = begin(domain, task, seed)

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        if not action[3] or not action[1].startswith(name):
            return False
        if name == "exchange" and all(
            a != b for a, b in zip(action[2]["item_ids"], action[2]["new_item_ids"], strict=True)
        ):
            return False
        e.agent("I am sorry, our policy does not allow this, so I cannot do it.")
        e.user("All right, I understand.")
        return True

    play_all(e, change)
    finish(e)
    return e.done(), Label("gold_label", "task", "gold_label", None)


def ended(kind: str, termination: Termination, who: str, what: str) -> Corruption:
    def make(domain: str, task: Any, seed: int) -> Made | None:
        e = begin(domain, task, seed)
        for action in actions(domain, task)[: 1 + seed % 2]:
            step(e, *action)
        e.agent("Let me have a look at that for you and then I will")
        return e.done(termination), Label(kind, who, what, len(e.messages) - 1)

    return make


def error_limit(domain: str, task: Any, seed: int) -> Made | None:
    e = begin(domain, task, seed)
    for action in actions(domain, task)[:1]:
        step(e, *action)
    tool = {"retail": "get_order_details", "airline": "get_reservation_details", "telecom": "get_details_by_id"}[domain]
    key = {"retail": "order_id", "airline": "reservation_id", "telecom": "id"}[domain]
    turns = [e.call(tool, {key: f"X{i}"}, reaches=True) for i in range(10)]
    return e.done(Termination.TOO_MANY_ERRORS), Label("error_limit", "agent", "error_limit", turns[0])


def malformed_calls(domain: str, task: Any, seed: int) -> Made | None:
    e = begin(domain, task, seed)
    turns = [e.call("get_user_details", {}, reaches=False) for i in range(10)]
    return e.done(Termination.TOO_MANY_ERRORS), Label("malformed_calls", "agent", "malformed_call", turns[0])


def user_errors(domain: str, task: Any, seed: int) -> Made | None:
    if domain != "telecom":
        return None
    e = begin(domain, task, seed)
    e.agent("Please check your status bar.")
    turns = [
        e.call("grant_app_permission", {"app_name": f"none{i}", "permission": "storage"}, "user") for i in range(10)
    ]
    if not e.messages[turns[0] + 1].get("error"):
        turns = [e.call(f"check_thing_{i}", {}, "user") for i in range(10)]
    return e.done(Termination.TOO_MANY_ERRORS), Label("user_errors", "user", "error_limit", None)


CORRUPTIONS: dict[str, Corruption] = {
    **{f"wrong_argument.{k}": wrong_argument(k) for k in ("payment", "item", "amount", "value", "record")},
    **{
        f"unconfirmed_write.{k}": wrong_argument(k, confirmed=False)
        for k in ("payment", "item", "amount", "value", "record")
    },
    "wrong_tool": wrong_tool,
    "missing_action": missing_action,
    "missing_request": missing_request,
    "extra_action": extra_action,
    "off_script": off_script,
    "off_script_option": off_script_option,
    "invented": invented,
    "premature_transfer": premature_transfer,
    "wrong_refusal": wrong_refusal,
    "premature_stop": premature_stop,
    "unspoken_wish": unspoken_wish,
    "refused_offer": refused_offer,
    "withheld": withheld,
    "role_flip": role_flip,
    "leak": leak,
    "claimed_not_done": claimed_not_done,
    "misreported": misreported,
    "not_communicated": not_communicated,
    "wrong_order": swapped_user_steps,
    "permuted_lists": permuted_lists,
    "gold_label": gold_label,
    "length": ended("length", Termination.CONTEXT_LENGTH, "agent", "length_limit"),
    "response_length": ended("response_length", Termination.RESPONSE_LENGTH, "agent", "length_limit"),
    "steps": ended("steps", Termination.MAX_STEPS, "agent", "step_limit"),
    "turns": ended("turns", Termination.MAX_TURNS, "agent", "step_limit"),
    "agent_error": ended("agent_error", Termination.AGENT_ERROR, "agent", "malformed_call"),
    "user_error": ended("user_error", Termination.USER_ERROR, "user", "simulator_failure"),
    "infrastructure": ended("infrastructure", Termination.INFRASTRUCTURE_ERROR, "infrastructure", "infrastructure"),
    "error_limit": error_limit,
    "malformed_calls": malformed_calls,
    "user_errors": user_errors,
}


def labelled(per_kind: int, *, kinds: Iterator[str] | None = None) -> list[Made]:
    """Up to ``per_kind`` failures of each kind and domain; the same every time."""
    found: list[Made] = []
    for kind in kinds or CORRUPTIONS:
        for domain in ("retail", "airline", "telecom"):
            pool = domains.tasks(domain, "base")
            made = 0
            for seed, task in enumerate(pool):
                if made == per_kind:
                    break
                if kind != "gold_label" and task.id in ILLEGAL.get(domain, ()):  # its label would be at fault as well
                    continue
                episode = CORRUPTIONS[kind](domain, task, seed)
                if episode is not None and (episode[0].reward is None or episode[0].reward < SUCCESS):
                    found.append(episode)
                    made += 1
    return found


def successes(count: int) -> list[Made]:
    """Gold plays that τ² pays in full."""
    found = []
    for domain in ("retail", "airline", "telecom"):
        for seed, task in enumerate(domains.tasks(domain, "base")[:count]):
            e = begin(domain, task, seed)
            play_all(e)
            finish(e)
            episode = e.done()
            if episode.reward is not None and episode.reward >= SUCCESS:
                found.append((episode, Label("success", "none", "none", None)))
    return found


__all__ = ["CORRUPTIONS", "labelled", "opening", "successes"]
