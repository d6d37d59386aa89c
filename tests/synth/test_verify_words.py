"""More labelled tasks for `synth verify`: words that only look alike, and what each domain's policy makes of clear cases."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from tau2_slime.synth.verify import Judge
from tests.synth.tasks import make_row, official, row_of
from tests.synth.test_verify_corpus import (
    ANYA,
    BACKPACK,
    BOOTS,
    BRUSH,
    EXCHANGE,
    GIFT,
    KETTLE,
    LAMP,
    LAS_DFW,
    MEI,
    MEI_HERSELF,
    MIXED,
    MODIFY,
    NORA,
    PAYPAL,
    SOPHIA,
    TRANSFER,
    TSHIRT,
    VISA,
    Action,
    airline,
    bags,
    cancel,
    fly,
    give_back,
    move,
    off,
    people,
    retail,
    swap,
)

SPEAKER = "6455132774"  # black, 20 hours, water resistance yes
RED, RED_DRY, BLUE = "7617930199", "1052700637", "3254583681"
HOME = {
    **{"address1": "794 Park Avenue", "address2": "Suite 828", "city": "Washington"},
    **{"state": "DC", "country": "USA", "zip": "20080"},
}
PLAIN = f"Cancel {BACKPACK}, you no longer need it."
LEI, NOAH = "lei_rossi_4874", "noah_garcia_4365"  # silver both; 15EN70 was cancelled, SCVMEC is delayed and insured


def look(order: str) -> Action:
    return "get_order_details", {"order_id": order}


def money(user: str, amount: int) -> Action:
    return "send_certificate", {"user_id": user, "amount": amount}


def book(flight: str, day: str, price: int, pay: str = VISA, **more: Any) -> Action:
    arguments = {
        **{"user_id": MEI, "origin": "LAS", "destination": "DFW", "flight_type": "one_way", "cabin": "economy"},
        **{"flights": [{"flight_number": flight, "date": day}], "passengers": [MEI_HERSELF]},
        **{"payment_methods": [{"payment_id": pay, "amount": price}], "total_baggages": 0, "nonfree_baggages": 0},
        **{"insurance": "no", **more},
    }
    return "book_reservation", arguments


def with_persona(row: dict[str, Any], persona: str) -> dict[str, Any]:
    out = deepcopy(row)
    out["user_scenario"]["persona"] = persona
    return out


RETAIL: dict[str, tuple[str, dict[str, Any]]] = {
    # '' means: to be accepted.
    "a Bluetooth speaker is not blue": (
        "",
        retail(
            f"You no longer like the Bluetooth speaker of {BRUSH}: exchange it for a red one, the rest as it is, by PayPal.",
            swap(EXCHANGE, BRUSH, SPEAKER, RED),
        ),
    ),
    "without water resistance": (
        "",
        retail(
            f"Exchange the Bluetooth speaker of {BRUSH} for a red one without water resistance, same battery, PayPal.",
            swap(EXCHANGE, BRUSH, SPEAKER, RED_DRY),
        ),
    ),
    "blue for red": (
        "G9",
        retail(
            f"Exchange the Bluetooth speaker of {BRUSH} for a red one, the rest as it is, by PayPal.",
            swap(EXCHANGE, BRUSH, SPEAKER, BLUE),
        ),
    ),
    "boots that let water in": (
        "",
        retail(
            f"In {BOOTS}, the hiking boots should not be waterproof; all else stays. Use the original payment method.",
            swap(MODIFY, BOOTS, "6159919747", "5676696062", GIFT),
        ),
    ),
    "Wi-Fi with Cellular is longer than Wi-Fi": (
        "",
        retail(
            f"Exchange the e-reader of {LAMP} for the 7-inch one with Wi-Fi + Cellular and 8GB, PayPal.",
            swap(EXCHANGE, LAMP, "7609274509", "5418781403"),
        ),
    ),
    "the default address": ("", retail(f"Send {BOOTS} to your default address.", move(BOOTS, **HOME))),
    "another than the default address": ("G9", retail(f"Send {BOOTS} to your default address.", move(BOOTS))),
    "a refund without a word about payment": ("", retail(f"Return the T-Shirt of {LAMP}.", give_back(LAMP, [TSHIRT]))),
    "a gift card without a word about payment": (
        "G13",
        retail(f"Return the T-Shirt of {LAMP}.", give_back(LAMP, [TSHIRT], GIFT)),
    ),
    "PayPal is said, a gift card is used": (
        "G9",
        retail(f"Return the T-Shirt of {LAMP}, money to PayPal.", give_back(LAMP, [TSHIRT], GIFT)),
    ),
    "a question with a guarded answer": (
        "",
        retail(f"You only want to know the total of order {MIXED}.", look(MIXED), communicate_info=["1484.51"]),
    ),
    "two refunds in one sum": (
        "",
        retail(
            f"You no longer need {BACKPACK} and {MIXED}: cancel both, and ask how much you get back in total.",
            *(look(BACKPACK), look(MIXED), cancel(BACKPACK), cancel(MIXED)),
            communicate_info=["1697.30"],
        ),
    ),
    "a balance of two digits": (
        "G15",
        retail(f"{PLAIN} What is on your gift card?", cancel(BACKPACK), communicate_info=["15"]),
    ),
    "a sentence": ("G15", retail(PLAIN, cancel(BACKPACK), communicate_info=["The refund is 212.79 dollars"])),
    "a policy's number": (
        "G15",
        retail(f"Return the T-Shirt of {LAMP}.", give_back(LAMP, [TSHIRT]), communicate_info=["5 to 7"]),
    ),
    "a reason of one's own": ("G7", retail(f"Cancel {BACKPACK}, changed your mind.", cancel(BACKPACK, "changed mind"))),
    "paid that way already": (
        "G7",
        retail(
            f"Pay {BACKPACK} by PayPal.",
            ("modify_pending_order_payment", {"order_id": BACKPACK, "payment_method_id": PAYPAL}),
        ),
    ),
    "two calls for one delivered order": (
        "G7",
        retail(
            f"Return the T-Shirt and the kettle of {LAMP} to PayPal.",
            give_back(LAMP, [TSHIRT]),
            give_back(LAMP, [KETTLE]),
        ),
    ),
    "the address of somebody else": (
        "G7",
        retail(
            "Set the default address of Fatima Johnson to 794 Park Avenue, Suite 828, Washington, DC 20080.",
            ("modify_user_address", {"user_id": "fatima_johnson_7581", **HOME}),
        ),
    ),
    "an item twice": (
        "G7",
        retail(f"Return both T-Shirts of {LAMP} to PayPal.", give_back(LAMP, [TSHIRT, TSHIRT])),
    ),
    "a tool in the persona": ("G11", with_persona(retail(PLAIN, cancel(BACKPACK)), "You know get_order_details.")),
    "a stop token in what is unknown": (
        "G11",
        retail(PLAIN, cancel(BACKPACK), task_instructions="At the end say ###TRANSFER###."),
    ),
    "a verdict in the instructions": (
        "G11",
        retail(PLAIN, cancel(BACKPACK), task_instructions="The agent must deny everything else."),
    ),
    "what is graded": ("G11", retail(f"{PLAIN} You will be graded on this.", cancel(BACKPACK))),
    "a third grader": (
        "",
        retail(f"{PLAIN} Your son, a third grader, scored a goal; he had an eye evaluation.", cancel(BACKPACK)),
    ),
    "how the agent should call you": (
        "",
        retail(
            f"{PLAIN} You think that the agent should call you Yusuf, and should use simple words.", cancel(BACKPACK)
        ),
    ),
    "which tool the agent should use": (
        "G11",
        retail(f"{PLAIN} The agent should use the cancellation tool.", cancel(BACKPACK)),
    ),
    "a transfer at the end": (
        "",
        retail(f"{PLAIN} In the end you want a human agent for a bulk discount.", cancel(BACKPACK), TRANSFER),
    ),
    "another item of the order is asked for": (
        "G9",
        retail(f"Return the kettle of {LAMP} to PayPal.", give_back(LAMP, [TSHIRT])),
    ),
    "text that changes nothing beside a number as a text": (
        "G2",
        retail(PLAIN, ("cancel_pending_order", {"order_id": 6885344, "reason": "no longer needed"})),
    ),
    "an id that is a number": ("G1", {**retail(PLAIN, cancel(BACKPACK)), "id": 7}),
}
RETAIL |= {
    "what is wanted is said without a verb of change": (
        "",
        retail(
            f"You want the boots of {BOOTS} in size 7, otherwise the same, paid by PayPal.",
            swap(MODIFY, BOOTS, "6159919747", "3812493782"),
        ),
    ),
    "it goes back": ("", retail(f"The kettle of {LAMP} goes back, refund by PayPal.", give_back(LAMP, [KETTLE]))),
    "the cheapest": (
        "",
        retail(
            f"Exchange the kettle of {LAMP} for the cheapest one of 1L, PayPal.",
            swap(EXCHANGE, LAMP, KETTLE, "1240311797"),
        ),
    ),
    "a material that nobody names": (
        "G9",
        retail(f"Exchange the kettle of {LAMP} for a black one, PayPal.", swap(EXCHANGE, LAMP, KETTLE, "7602931732")),
    ),
    "another one, whichever": (
        "G13",
        retail(f"Exchange the kettle of {LAMP} for another one, PayPal.", swap(EXCHANGE, LAMP, KETTLE, "7602931732")),
    ),
    "too slow, without because": ("G7", retail(f"Cancel {BACKPACK}, the delivery is too slow.", cancel(BACKPACK))),
    "a wish for a cheaper one is no reason": (
        "",
        retail(
            f"Cancel {BACKPACK}, and exchange the kettle of {LAMP} for the cheaper 1L one in silver glass, PayPal.",
            *(cancel(BACKPACK), swap(EXCHANGE, LAMP, KETTLE, "1240311797")),
        ),
    ),
    "the kettle that is not delivered": (
        "",
        retail("Cancel your order with the kettle; you don't need it.", cancel(MIXED)),
    ),
    "another zip code": (
        "G9",
        retail(f"Send {BACKPACK} to 12 Mill Street, Austin, TX 78702, USA.", move(BACKPACK)),
    ),
    "an address on file is asked for and left out": (
        "G17",
        retail(
            f"Return the T-Shirt of {LAMP} to PayPal. Update your default address to 12 Mill Street, Austin, TX 78701.",
            give_back(LAMP, [TSHIRT]),
        ),
    ),
}
COMPLAINT = "The airline cancelled your flight in 15EN70. You ask for a compensation"
DELAYED = "You fell ill: cancel SCVMEC. You also complain that its flight was delayed"
AIRLINE: dict[str, tuple[str, dict[str, Any]]] = {
    "the airline cancelled the flight": (
        "",
        airline(LEI, "The airline cancelled the flight: cancel 15EN70.", off("15EN70")),
    ),
    "a compensation for a cancelled flight": ("", airline(LEI, f"{COMPLAINT}.", money(LEI, 200))),
    "half of a compensation": ("G7", airline(LEI, f"{COMPLAINT}.", money(LEI, 100))),
    "a compensation that nobody asked for": (
        "G7",
        airline(LEI, "The airline cancelled the flight: cancel 15EN70.", off("15EN70"), money(LEI, 200)),
    ),
    "a compensation after a delay": (
        "",
        airline(NOAH, f"{DELAYED} and ask for a compensation.", off("SCVMEC"), money(NOAH, 100)),
    ),
    "a compensation for a delay alone": (
        "G7",
        airline(
            NOAH, "You complain that the flight of SCVMEC was delayed and ask for a compensation.", money(NOAH, 100)
        ),
    ),
    "other flights in basic economy": (
        "G7",
        airline(
            SOPHIA,
            "Change 6NSXQU to HAT202 on 2024-05-28, by the Visa ending in 9796.",
            fly("6NSXQU", "basic_economy", [{"flight_number": "HAT202", "date": "2024-05-28"}], "credit_card_5237144"),
        ),
    ),
    "bags paid by a certificate": (
        "G7",
        airline(MEI, "You want 3 bags on 1AKIA8, by your certificate.", bags("1AKIA8", 3, 0, "certificate_7502997")),
    ),
    "bags on a cancelled trip": (
        "G7",
        airline(MEI, "You are sick: cancel R9QDGB. Then 2 bags on it.", off("R9QDGB"), bags("R9QDGB", 2)),
    ),
    "cancelled twice": ("G7", airline(MEI, "You are sick: cancel R9QDGB.", off("R9QDGB"), off("R9QDGB"))),
    "three bags said, two booked": ("G9", airline(MEI, "You want 3 bags on 1AKIA8.", bags("1AKIA8", 2))),
    "another suitcase": ("", airline(MEI, "You need another suitcase on 1AKIA8.", bags("1AKIA8", 2))),
    "economy said, business booked": (
        "G9",
        airline(MEI, "Keep economy on 1AKIA8, same flights, Visa.", fly("1AKIA8", "business", LAS_DFW)),
    ),
    "oneself for a friend": (
        "",
        airline(MEI, "On 07S7FC you fly yourself in place of Sophia Jackson.", people("07S7FC", ANYA, MEI_HERSELF)),
    ),
    "a birth date with another year": (
        "G9",
        airline(
            MEI,
            "On 1AKIA8 Nora Becker, born 1991-05-03, flies in place of Anya Anderson.",
            people("1AKIA8", MEI_HERSELF, NORA),
        ),
    ),
    "somebody else's reservation": (
        "G7",
        airline(
            MEI, "Cancel 6NSXQU, you are sick.", off("6NSXQU"), known=(f"You are Mei Hernandez. Your user id is {MEI}.")
        ),
    ),
    "a cancelled flight is no wish to cancel": (
        "",
        airline(LEI, f"{COMPLAINT} for 15EN70, which was cancelled by the airline.", money(LEI, 200)),
    ),
    "a flight that does not go there": (
        "G7",
        airline(
            MEI,
            "Book HAT175 on 2024-05-29 from LAS to DFW, one way, economy, for yourself, no bags, no insurance, Visa.",
            book("HAT175", "2024-05-29", 1),
        ),
    ),
    "a sum that is not due": (
        "G7",
        airline(
            MEI,
            "Book HAT070 on 2024-05-24 from LAS to DFW, one way, economy, for yourself, no bags, no insurance, Visa.",
            book("HAT070", "2024-05-24", 1),
        ),
    ),
    "a verdict on insurance": (
        "G11",
        airline(MEI, "You are sick: cancel R9QDGB. It is allowed by the policy.", off("R9QDGB")),
    ),
    "a value from the text": (
        "G15",
        airline(MEI, "You are sick: cancel R9QDGB, you paid 1911.", off("R9QDGB"), communicate_info=["1911"]),
    ),
    "the refund": (
        "",
        airline(
            MEI,
            "You are sick: cancel R9QDGB. How much comes back?",
            ("get_reservation_details", {"reservation_id": "R9QDGB"}),
            off("R9QDGB"),
            communicate_info=["1911"],
        ),
    ),
}


for ground in (
    *(
        "Due to food poisoning you cannot fly",
        "You broke a leg",
        "Your physician forbids flying",
        "You had a heart attack",
    ),
    *("Heavy rain is forecast in Boston", "A cyclone is coming"),
):
    AIRLINE[ground] = ("", airline(MEI, f"{ground}: cancel R9QDGB.", off("R9QDGB")))
for no_ground in (
    "A relative died",
    "Your boss moved the meeting",
    "You saw a rainbow of cheaper flights",
    "You are homesick",
):
    AIRLINE[no_ground] = ("G7", airline(MEI, f"{no_ground}: cancel R9QDGB.", off("R9QDGB")))


def failed(domain: str, row: dict[str, Any]) -> dict[str, str]:
    return Judge(domain, hold_out="none").judge_row(row, "row 1").failed


@pytest.mark.parametrize(
    ("domain", "name"), [*(("retail", name) for name in RETAIL), *(("airline", name) for name in AIRLINE)]
)
def test_the_gate_is_the_right_one(domain: str, name: str) -> None:
    gate, row = {"retail": RETAIL, "airline": AIRLINE}[domain][name]
    found = failed(domain, row)
    assert gate in found if gate else found == {}


Change = Callable[[dict[str, Any]], None]


@cache
def _phone_task(fault: str) -> dict[str, Any]:
    """The shortest official task with the fault, as a row."""
    tasks = [t for t in official("telecom").values() if fault in t.id and "[PERSONA:None]" in t.id]
    return row_of(min(tasks, key=lambda t: len(t.id)))


def gold(row: dict[str, Any]) -> list[dict[str, Any]]:
    actions: list[dict[str, Any]] = row["evaluation_criteria"]["actions"]
    return actions


def tell(row: dict[str, Any], words: str) -> None:
    row["user_scenario"]["instructions"]["reason_for_call"] += f" {words}"


def _another_phone(row: dict[str, Any]) -> None:
    told = row["user_scenario"]["instructions"]
    told["known_info"] = told["known_info"].replace("555-123-2002", "555-123-9999").replace("John Smith", "Ann Bell")


def _first(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(action for action in gold(row) if action["name"] == name)


PHONES: dict[str, tuple[str, str, Change]] = {
    "as it is": ("", "data_usage_exceeded", lambda row: None),
    "device tools may be named": ("", "data_usage_exceeded", lambda row: tell(row, "You can run `run_speed_test`.")),
    "a tool of the agent": ("G11", "data_usage_exceeded", lambda row: tell(row, "You want refuel_data.")),
    "an id of a line": ("G11", "data_usage_exceeded", lambda row: tell(row, "Your line is L1002.")),
    "a fault that does not exist": (
        "G2",
        "data_usage_exceeded",
        lambda row: row["initial_state"]["initialization_actions"][-1].update(func_name="set_on_fire"),
    ),
    "a check that does not exist": (
        "G2",
        "data_usage_exceeded",
        lambda row: row["evaluation_criteria"]["env_assertions"][0].update(func_name="assert_all_is_well"),
    ),
    "a customer's tool in the agent's hands": (
        "G2",
        "airplane_mode_on",
        lambda row: _first(row, "toggle_airplane_mode").update(requestor="assistant"),
    ),
    "a repair is left out": ("G8", "airplane_mode_on", lambda row: gold(row).clear()),
    "a switch is turned twice more": (
        "G6",
        "airplane_mode_on",
        lambda row: gold(row).extend(
            {"action_id": f"x{n}", "requestor": "user", "name": "toggle_data_saver_mode", "arguments": {}}
            for n in (1, 2)
        ),
    ),
    "nobody who can be found": ("G9", "data_usage_exceeded", _another_phone),
    "another customer's line": (
        "G3",
        "data_usage_exceeded",
        lambda row: _first(row, "refuel_data")["arguments"].update(customer_id="C1002"),
    ),
    "a bill that is not due": (
        "G7",
        "data_usage_exceeded",
        lambda row: gold(row).append(
            {
                **{"action_id": "x", "requestor": "assistant", "name": "send_payment_request"},
                "arguments": {"customer_id": "C1001", "bill_id": "B1001"},
            }
        ),
    ),
}


@pytest.mark.parametrize("name", PHONES)
def test_telecom(name: str) -> None:
    gate, fault, change = PHONES[name]
    row = deepcopy(_phone_task(fault))
    change(row)
    found = failed("telecom", row)
    assert gate in found if gate else found == {}


CREATE: Action = ("create_task", {"user_id": "user_1", "title": "Buy milk"})
DONE: Action = ("update_task_status", {"task_id": "task_1", "status": "completed"})
MOCK = {
    "complete": ("", "Mark task_1 as completed.", [DONE]),
    "both": ("", "You want a task 'Buy milk' for user_1, and task_1 is completed.", [CREATE, DONE]),
    "a status of one's own": (
        "G2",
        "Put task_1 on hold.",
        [("update_task_status", {"task_id": "task_1", "status": "on hold"})],
    ),
    "a user who does not exist": (
        "G3",
        "A task 'Buy milk' for user_9.",
        [("create_task", {"user_id": "user_9", "title": "Buy milk"})],
    ),
    "no title": ("G7", "A task for user_1.", [("create_task", {"user_id": "user_1", "title": ""})]),
    "completed twice": ("G6", "Mark task_1 as completed.", [DONE, DONE]),
}


@pytest.mark.parametrize("name", MOCK)
def test_mock(name: str) -> None:
    gate, text, actions = MOCK[name]
    found = failed("mock", make_row("mock", "t", text, "You are user_1.", actions))
    assert gate in found if gate else found == {}
