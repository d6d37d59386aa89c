"""`synth verify` over a labelled corpus: each gate's clear cases and the near misses beside them, in words of many kinds."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.synth.verify import Judge
from tests.synth.tasks import make_row, official, row_of

Action = tuple[str, dict[str, Any]]

# Retail: Yusuf Garcia, with his orders and payment methods as they stand in τ²'s database.
EMAIL = "yusuf.garcia2909@example.com"
FIND: Action = ("find_user_id_by_email", {"email": EMAIL})
PAYPAL, CARD, GIFT = "paypal_7503218", "credit_card_8405687", "gift_card_7588375"
BACKPACK, BOOTS, MIXED, LAMP, BRUSH = "#W6885344", "#W2564042", "#W3260419", "#W4794911", "#W2286012"
NEW_HOME = {
    "address1": "12 Mill Street",
    "address2": "",
    "city": "Austin",
    "state": "TX",
    "country": "USA",
    "zip": "78701",
}


def retail(text: str, *actions: Action, find: bool = True, **more: Any) -> dict[str, Any]:
    known = f"You are Yusuf Garcia. Your email is {EMAIL}."
    return make_row("retail", "t", text, known, [*([FIND] if find else []), *actions], **more)


def cancel(order: str, reason: str = "no longer needed") -> Action:
    return "cancel_pending_order", {"order_id": order, "reason": reason}


def give_back(order: str, items: list[str], pay: str = PAYPAL) -> Action:
    return "return_delivered_order_items", {"order_id": order, "item_ids": items, "payment_method_id": pay}


def swap(tool: str, order: str, old: str, new: str, pay: str = PAYPAL) -> Action:
    return tool, {"order_id": order, "item_ids": [old], "new_item_ids": [new], "payment_method_id": pay}


def move(order: str, **more: str) -> Action:
    return "modify_pending_order_address", {"order_id": order, **NEW_HOME, **more}


EXCHANGE, MODIFY = "exchange_delivered_order_items", "modify_pending_order_items"
TSHIRT, DESK_LAMP, KETTLE = "9647292434", "9190635437", "5268233322"
GOOD = retail(f"You no longer need order {BACKPACK}, so cancel it.", cancel(BACKPACK))
TRANSFER: Action = ("transfer_to_human_agents", {"summary": "s"})

# Airline: Mei Hernandez (gold; a Visa 3202, a Mastercard 1698) and Sophia Taylor (silver; two Visas).
MEI, SOPHIA = "mei_hernandez_8984", "sophia_taylor_9065"
VISA = "credit_card_6082923"
LAS_DFW = [{"flight_number": "HAT070", "date": "2024-05-22"}, {"flight_number": "HAT297", "date": "2024-05-23"}]
MEI_HERSELF = {"first_name": "Mei", "last_name": "Hernandez", "dob": "1981-01-11"}
ANYA = {"first_name": "Anya", "last_name": "Anderson", "dob": "1959-05-28"}
NORA = {"first_name": "Nora", "last_name": "Becker", "dob": "1990-05-03"}
HUGO = {"first_name": "Hugo", "last_name": "Novak", "dob": "1971-08-30"}


def airline(user: str, text: str, *actions: Action, known: str | None = None, **more: Any) -> dict[str, Any]:
    name = user.rsplit("_", 1)[0].replace("_", " ").title()
    return make_row("airline", "t", text, known or f"You are {name}. Your user id is {user}.", list(actions), **more)


def off(reservation: str) -> Action:
    return "cancel_reservation", {"reservation_id": reservation}


def bags(reservation: str, total: Any, paid: int = 0, pay: str = VISA) -> Action:
    arguments = {"reservation_id": reservation, "total_baggages": total, "nonfree_baggages": paid, "payment_id": pay}
    return "update_reservation_baggages", arguments


def people(reservation: str, *passengers: dict[str, str]) -> Action:
    return "update_reservation_passengers", {"reservation_id": reservation, "passengers": list(passengers)}


def fly(reservation: str, cabin: str, flights: list[dict[str, str]], pay: str = VISA) -> Action:
    arguments = {"reservation_id": reservation, "cabin": cabin, "flights": flights, "payment_id": pay}
    return "update_reservation_flights", arguments


SICK = "You are ill and cannot fly, so you want to cancel reservation R9QDGB."
RETAIL_REJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "an id that is empty": ("G1", {**GOOD, "id": " "}),
    "actions that are no list": ("G1", {**GOOD, "evaluation_criteria": {"actions": {"a": 1}}}),
    "a basis that does not exist": ("G1", {**GOOD, "evaluation_criteria": {"actions": [], "reward_basis": ["DBX"]}}),
    "a misspelt key": ("G1", {**GOOD, "initial_stat": {"message_history": []}}),
    "numbers for ids": ("G2", retail("Return the T-Shirt of #W4794911 to PayPal.", give_back(LAMP, [9647292434]))),  # type: ignore[list-item]
    "a text for a list": ("G2", retail("Return the T-Shirt of #W4794911 to PayPal.", give_back(LAMP, TSHIRT))),  # type: ignore[arg-type]
    "a tool of another domain": ("G2", retail("Cancel #W6885344, no longer needed.", off("R9QDGB"))),
    "an item of another order": ("G3", retail("Return the T-Shirt of #W2286012.", give_back(BRUSH, [TSHIRT]))),
    "a variant that is sold out": (
        "G3",
        retail("Modify the boots in #W2564042 to size 12, PayPal.", swap(MODIFY, BOOTS, "6159919747", "8118291112")),
    ),
    "a delivered order that is cancelled": ("G3", retail(f"Cancel {LAMP}, no longer needed.", cancel(LAMP))),
    "a gift card that is too small": (
        "G3",
        retail(
            f"Pay {BACKPACK} with your gift card.",
            ("modify_pending_order_payment", {"order_id": BACKPACK, "payment_method_id": GIFT}),
        ),
    ),
    "reads alone": ("G4", retail(f"What is in {BACKPACK}?", ("get_order_details", {"order_id": BACKPACK}))),
    "an address that it has already": (
        "G4",
        retail(
            f"Order {BACKPACK} must go to 794 Park Avenue, Suite 828, Washington, DC 20080.",
            move(
                BACKPACK, address1="794 Park Avenue", address2="Suite 828", city="Washington", state="DC", zip="20080"
            ),
        ),
    ),
    "a profile address that is overwritten": (
        "G6",
        retail(
            "First set your default address to 9 Oak Road, Austin, TX 78701, then to 12 Mill Street, Austin, TX 78701.",
            ("modify_user_address", {"user_id": "yusuf_garcia_3055", **NEW_HOME, "address1": "9 Oak Road"}),
            ("modify_user_address", {"user_id": "yusuf_garcia_3055", **NEW_HOME}),
        ),
    ),
    "an exchange for the same item": (
        "G7",
        retail(
            f"Exchange the electric toothbrush of {BRUSH} for a new black one, PayPal.",
            swap(EXCHANGE, BRUSH, "8098621301", "8098621301"),
        ),
    ),
    "another customer's order": ("G7", retail("Cancel #W5199551, no longer needed.", cancel("#W5199551"))),
    "an address after an items change": (
        "G7",
        retail(
            f"Change the boots in {BOOTS} to waterproof no, original payment method. Then send it to 12 Mill Street, "
            "Austin, TX 78701.",
            swap(MODIFY, BOOTS, "6159919747", "5676696062", GIFT),
            move(BOOTS),
        ),
    ),
    "a refund to a card that did not pay": (
        "G7",
        retail(f"Return the T-Shirt of {LAMP} to your card ending in 3762.", give_back(LAMP, [TSHIRT], CARD)),
    ),
    "too expensive is no reason": (
        "G7",
        retail(f"Cancel {BACKPACK} because it is too expensive.", cancel(BACKPACK)),
    ),
    "a write after a transfer": ("G7", retail(f"Cancel {BACKPACK}, no longer needed.", TRANSFER, cancel(BACKPACK))),
    "a transfer alone": ("G8", retail("You want a bulk discount.", TRANSFER)),
    "a judge decides": (
        "G8",
        {
            **GOOD,
            "evaluation_criteria": {
                **GOOD["evaluation_criteria"],
                "nl_assertions": ["The agent is polite."],
                "reward_basis": ["DB", "NL_ASSERTION"],
            },
        },
    ),
    "nothing is graded": ("G8", {**GOOD, "evaluation_criteria": {**GOOD["evaluation_criteria"], "reward_basis": []}}),
    "a cancellation that nobody wants": (
        "G9",
        retail(f"Return the T-Shirt of {LAMP} to PayPal.", give_back(LAMP, [TSHIRT]), cancel(BACKPACK)),
    ),
    "another kind of payment": (
        "G9",
        retail(f"Return the T-Shirt of {LAMP}, refund to your gift card.", give_back(LAMP, [TSHIRT], PAYPAL)),
    ),
    "a size that nobody names": (
        "G9",
        retail("Change the boots of #W2564042 to brown ones, PayPal.", swap(MODIFY, BOOTS, "6159919747", "3812493782")),
    ),
    "another variant than the one said": (
        "G9",
        retail("Modify the boots of #W2564042 to size 7, PayPal.", swap(MODIFY, BOOTS, "6159919747", "1437889264")),
    ),
    "an item that nobody names": (
        "G9",
        retail(f"Return the T-Shirt of {LAMP} to PayPal.", give_back(LAMP, [TSHIRT, DESK_LAMP])),
    ),
    "a street that nobody says": (
        "G9",
        retail(f"Order {BACKPACK} must go to your new home in Austin.", move(BACKPACK)),
    ),
    "an item's id": ("G11", retail(f"Return item 9647292434 of {LAMP}, the T-Shirt.", give_back(LAMP, [TSHIRT]))),
    "a policy verdict": (
        "G11",
        retail(f"Cancel {BACKPACK}, no longer needed. The policy does not allow a refund.", cancel(BACKPACK)),
    ),
    "the gold action": (
        "G11",
        retail(f"Cancel {BACKPACK}, no longer needed; that is the ground truth.", cancel(BACKPACK)),
    ),
    "two orders with such an item": (
        "G13",
        retail("Cancel the order with the hiking boots, it is no longer needed.", cancel(BOOTS)),
    ),
    "several items in one change": ("G14", row_of(official("retail")["20"])),
    "a word": (
        "G15",
        retail(f"Cancel {BACKPACK}, no longer needed.", cancel(BACKPACK), communicate_info=["cancelled"]),
    ),
    "a number of the text": (
        "G15",
        retail(f"Cancel {BACKPACK}, no longer needed; you paid 212.79.", cancel(BACKPACK), communicate_info=["212.79"]),
    ),
    "a number from nowhere": (
        "G15",
        retail(f"Cancel {BACKPACK}, no longer needed.", cancel(BACKPACK), communicate_info=["48120.55"]),
    ),
    "a request that is forgotten": (
        "G17",
        retail(f"Cancel {BACKPACK}, no longer needed. Cancel {MIXED} too, no longer needed.", cancel(BACKPACK)),
    ),
}
RETAIL_ACCEPTS = {
    "plain": GOOD,
    "without a look-up": retail(f"Cancel {BACKPACK}, you do not need it any more.", cancel(BACKPACK), find=False),
    "by its only item": retail("You do not want the backpack any longer: cancel that order.", cancel(BACKPACK)),
    "by accident": retail(f"You bought {BACKPACK} by accident. Cancel it.", cancel(BACKPACK, "ordered by mistake")),
    "in the first person": retail(f"I don't need {BACKPACK} anymore, please cancel.", cancel(BACKPACK)),
    "two items, listed backwards": retail(
        f"From {LAMP} you return the desk lamp and the T-Shirt; money back to PayPal.",
        give_back(LAMP, [TSHIRT, DESK_LAMP]),
    ),
    "back the way it was paid": retail(
        f"The kettle of {LAMP} goes back. Refund: the original payment method.", give_back(LAMP, [KETTLE])
    ),
    "a refund on the gift card": retail(
        f"Send back the T-Shirt of {LAMP}, refund to your gift card.", give_back(LAMP, [TSHIRT], GIFT)
    ),
    "an exchange by two options": retail(
        f"You want to exchange the toothbrush of {BRUSH} for a white one with low speed settings, through PayPal.",
        swap(EXCHANGE, BRUSH, "8098621301", "6164262152"),
    ),
    "another size": retail(
        f"Modify the hiking boots in {BOOTS} to size 7, everything else as it is, by PayPal.",
        swap(MODIFY, BOOTS, "6159919747", "3812493782"),
    ),
    "a card by its digits": retail(
        f"You want to pay {BACKPACK} with the credit card ending in 3762.",
        ("modify_pending_order_payment", {"order_id": BACKPACK, "payment_method_id": CARD}),
    ),
    "an address with short words": retail(
        f"Please ship {BACKPACK} to 12 Mill St, Austin TX 78701, USA.", move(BACKPACK)
    ),
    "the profile's address": retail(
        "You moved: your default address is now 12 Mill Street, Austin, TX 78701.",
        ("modify_user_address", {"user_id": "yusuf_garcia_3055", **NEW_HOME}),
    ),
    "a refund that is asked for": retail(
        f"Cancel {BACKPACK}, no longer needed. How much do you get back?",
        ("get_order_details", {"order_id": BACKPACK}),
        cancel(BACKPACK),
        communicate_info=["212.79"],
    ),
    "a tracking number": retail(
        f"Return the T-Shirt of {LAMP} to PayPal, and you want to know the tracking number of that order.",
        ("get_order_details", {"order_id": LAMP}),
        give_back(LAMP, [TSHIRT]),
        communicate_info=["263958857111"],
    ),
    "two orders in any order": retail(
        f"Cancel {BACKPACK} and {MIXED}; you need neither, they are no longer needed.", cancel(BACKPACK), cancel(MIXED)
    ),
    "a what-if that ends": retail(
        f"Cancel {BACKPACK}, no longer needed. If {LAMP} cannot be cancelled, you keep it.", cancel(BACKPACK)
    ),
    "everyday words": retail(
        f"Cancel {BACKPACK}, no longer needed. You teach at a school, and your best score at golf is 71.",
        cancel(BACKPACK),
    ),
}
AIRLINE_REJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bags in words": ("G2", airline(MEI, "You want three bags on 1AKIA8.", bags("1AKIA8", "three"))),
    "a passenger without a birth date": (
        "G2",
        airline(MEI, "On 1AKIA8 Anya becomes Nora Becker.", people("1AKIA8", MEI_HERSELF, {"first_name": "Nora"})),
    ),
    "an amount in words": (
        "G2",
        airline(SOPHIA, "You want a compensation.", ("send_certificate", {"user_id": SOPHIA, "amount": "100"})),
    ),
    "a reservation that does not exist": ("G3", airline(MEI, "Cancel ZZZZZZ, you are sick.", off("ZZZZZZ"))),
    "one passenger fewer": ("G3", airline(MEI, "Take Anya Anderson off 1AKIA8.", people("1AKIA8", MEI_HERSELF))),
    "bags twice": (
        "G6",
        airline(MEI, "First 2 bags on 1AKIA8, then 3 bags in total.", bags("1AKIA8", 2), bags("1AKIA8", 3)),
    ),
    "paid bags for free": (
        "G7",
        airline(
            SOPHIA,
            "You want 2 bags on 6NSXQU, by the Visa ending in 9796.",
            bags("6NSXQU", 2, 0, "credit_card_5237144"),
        ),
    ),
    "fewer bags": (
        "G7",
        airline(SOPHIA, "Only 5 bags on J3SAZF.", bags("J3SAZF", 5, 0, "credit_card_5237144")),
    ),
    "no ground to cancel": ("G7", airline(SOPHIA, "Your plans changed: cancel PEP4E0.", off("PEP4E0"))),
    "insurance without illness": ("G7", airline(MEI, "Your plans changed: cancel R9QDGB.", off("R9QDGB"))),
    "a flown trip": ("G7", airline("ava_davis_9130", "You are sick: cancel UAUH1S.", off("UAUH1S"))),
    "a compensation without a cause": (
        "G7",
        airline(SOPHIA, "You want a compensation.", ("send_certificate", {"user_id": SOPHIA, "amount": 100})),
    ),
    "another destination": (
        "G7",
        airline(MEI, "Fly HAT070 on 2024-05-22 alone on 1AKIA8, by the Visa.", fly("1AKIA8", "economy", LAS_DFW[:1])),
    ),
    "a cancellation after a transfer": ("G7", airline(MEI, SICK, TRANSFER, off("R9QDGB"))),
    "no user id": ("G9", airline(MEI, SICK, off("R9QDGB"), known="You are Mei Hernandez.")),
    "a cabin that nobody names": (
        "G9",
        airline(MEI, "Change 1AKIA8 to a better cabin, Visa ending in 3202.", fly("1AKIA8", "business", LAS_DFW)),
    ),
    "a number of bags that nobody names": ("G9", airline(MEI, "More bags for 1AKIA8.", bags("1AKIA8", 4))),
    "a passenger whom nobody names": (
        "G9",
        airline(MEI, "Change a passenger of 1AKIA8: somebody new flies.", people("1AKIA8", MEI_HERSELF, NORA)),
    ),
    "a birth date that nobody says": (
        "G9",
        airline(MEI, "On 1AKIA8, Anya Anderson becomes Nora Becker.", people("1AKIA8", MEI_HERSELF, NORA)),
    ),
    "another reservation": ("G9", airline(MEI, "Cancel 07S7FC, you are sick.", off("R9QDGB"))),
    "a certificate's id": ("G11", airline(MEI, f"{SICK} You have certificate_7502997.", off("R9QDGB"))),
    "one Visa of two": (
        "G13",
        airline(
            SOPHIA, "You want 2 bags on 6NSXQU, paid by your Visa card.", bags("6NSXQU", 2, 1, "credit_card_5237144")
        ),
    ),
    "passengers told in another order": (
        "G14",
        airline(
            MEI,
            "On 1AKIA8 fly Hugo Novak (born 1971-08-30) and Nora Becker (born 1990-05-03) in place of the passengers.",
            people("1AKIA8", NORA, HUGO),
        ),
    ),
    "a cancellation that is forgotten": ("G17", airline(MEI, f"{SICK} Cancel 79G8A9. ", off("R9QDGB"))),
}
AIRLINE_ACCEPTS = {
    "illness and insurance": airline(MEI, SICK, off("R9QDGB")),
    "business needs no reason": airline(MEI, "Your plans changed. Cancel your trip 07S7FC.", off("07S7FC")),
    "free bags, no card": airline(MEI, "You want 3 checked bags on 1AKIA8 in total.", bags("1AKIA8", 3)),
    "one more bag": airline(MEI, "Please add a bag to 1AKIA8.", bags("1AKIA8", 2)),
    "a date in words": airline(
        MEI,
        "On 1AKIA8 put Nora Becker, born May 3, 1990, in place of Anya Anderson.",
        people("1AKIA8", MEI_HERSELF, NORA),
    ),
    "passengers in their order": airline(
        MEI,
        "On 1AKIA8 fly Nora Becker (born 1990-05-03) and Hugo Novak (born 1971-08-30) in place of the passengers.",
        people("1AKIA8", NORA, HUGO),
    ),
    "who for whom": airline(
        MEI,
        "On 1AKIA8, Hugo Novak (born 1971-08-30) flies for Anya Anderson, and Nora Becker (born 1990-05-03) flies in place "
        "of Mei Hernandez.",
        people("1AKIA8", NORA, HUGO),
    ),
    "the only Visa": airline(
        MEI, "You want to fly business on 1AKIA8, same flights, paid by your Visa.", fly("1AKIA8", "business", LAS_DFW)
    ),
    "a card by its digits": airline(
        SOPHIA, "You want 2 bags on 6NSXQU, by the Visa ending in 9796.", bags("6NSXQU", 2, 1, "credit_card_5237144")
    ),
    "two requests": airline(
        MEI, "Cancel 07S7FC. On 1AKIA8 you want 2 bags in total.", off("07S7FC"), bags("1AKIA8", 2)
    ),
}
MOCK = {
    "create": make_row(
        "mock",
        "t",
        "You want a new task 'Buy milk' for user_1.",
        "You are user_1.",
        [("create_task", {"user_id": "user_1", "title": "Buy milk"})],
    ),
    "another title": make_row(
        "mock",
        "t",
        "You want a new task 'Buy milk' for user_1.",
        "You are user_1.",
        [("create_task", {"user_id": "user_1", "title": "Sell the car"})],
    ),
}


def failed(domain: str, row: dict[str, Any]) -> dict[str, str]:
    return Judge(domain, hold_out="none").judge_row(row, "row 1").failed


@pytest.mark.parametrize("name", RETAIL_REJECTS)
def test_retail_rejects(name: str) -> None:
    gate, row = RETAIL_REJECTS[name]
    assert gate in failed("retail", row)


@pytest.mark.parametrize("name", AIRLINE_REJECTS)
def test_airline_rejects(name: str) -> None:
    gate, row = AIRLINE_REJECTS[name]
    assert gate in failed("airline", row)


@pytest.mark.parametrize("name", RETAIL_ACCEPTS)
def test_retail_accepts(name: str) -> None:
    assert failed("retail", RETAIL_ACCEPTS[name]) == {}


@pytest.mark.parametrize("name", AIRLINE_ACCEPTS)
def test_airline_accepts(name: str) -> None:
    assert failed("airline", AIRLINE_ACCEPTS[name]) == {}


def test_mock() -> None:
    assert failed("mock", MOCK["create"]) == {}
    assert set(failed("mock", MOCK["another title"])) == {"G9"}
