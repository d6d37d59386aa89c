"""`synth verify`: what the customer asks for and nobody grants, and what nobody can know, beside near misses."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.synth.verify import Judge
from tests.synth.tasks import make_row

Action = tuple[str, dict[str, Any]]

# Ethan Lopez and Lucas Brown, with their records as they stand in τ²'s database.
EMAIL = "ethan.lopez8943@example.com"
FIND: Action = ("find_user_id_by_email", {"email": EMAIL})
CANCEL: Action = ("cancel_pending_order", {"order_id": "#W6779827", "reason": "no longer needed"})
NO_NEED = "You no longer need #W6779827, so cancel it."
GREEN = "xchange the backpack of #W8632528 for the green small polyester laptop one."
LUCAS = "lucas_brown_4047"
BOOK = "Book HAT289 from Chicago to Philadelphia on May 23, one way, economy, with your Mastercard"


def retail(text: str, action: Action = CANCEL, known: str = f"You are Ethan Lopez. Your email is {EMAIL}.") -> Any:
    return make_row("retail", "t", text, known, [FIND, action])


def booking(text: str) -> Any:
    fields = {"user_id": LUCAS, "origin": "ORD", "destination": "PHL", "flight_type": "one_way", "cabin": "economy"}
    lists = {
        "flights": [{"flight_number": "HAT289", "date": "2024-05-23"}],
        "passengers": [{"first_name": "Lucas", "last_name": "Brown", "dob": "1965-01-01"}],
        "payment_methods": [{"payment_id": "credit_card_7872117", "amount": 138}],
    }
    more = {"total_baggages": 0, "nonfree_baggages": 0, "insurance": "no"}
    known = f"You are Lucas Brown. Your user id is {LUCAS}."
    return make_row("airline", "t", text, known, [("book_reservation", {**fields, **lists, **more})])


def mistake(text: str) -> Any:
    return retail(text, ("cancel_pending_order", {**CANCEL[1], "reason": "ordered by mistake"}))


CASES: dict[str, tuple[str, Any]] = {
    "no email": ("G9", retail(NO_NEED, known="You are Ethan Lopez and do not remember your email.")),
    "the profile's id alone": ("G9", retail(NO_NEED, known="Your user id is ethan_lopez_6291.")),
    "name and zip code": ("", retail(NO_NEED, known="You are Ethan Lopez, zip code 43275.")),
    "a mistake that nobody made": ("G9", mistake("Please cancel #W6779827.")),
    "a slip": ("", mistake("#W6779827 was placed by accident: please undo it.")),
    "an exchange": ("G17", retail(f"{NO_NEED} E{GREEN}")),
    "an exchange, perhaps": ("", retail(f"{NO_NEED} If possible, e{GREEN}")),
    "an exchange for what is sold out": (
        "",
        retail(f"{NO_NEED} E{GREEN}".replace("green small polyester laptop", "black medium nylon hydration")),
    ),
    "a payment": ("G17", retail(f"{NO_NEED} Change the payment of #W8073920 to your Mastercard.")),
    "a gift card that holds too little": ("", retail(f"{NO_NEED} Change the payment of #W9409203 to your gift card.")),
    "an address": ("G17", retail(f"{NO_NEED} Change the address of #W8073920 to 7 Birch Lane, Dayton, OH 45402.")),
    "arguments that are none": ("G2", retail(NO_NEED, ("cancel_pending_order", {**CANCEL[1], "order_id": ["#W6"]}))),
    "a booking": ("", booking(f"{BOOK}. You need no bags, and you don't want insurance.")),
    "insurance": ("G9", booking(f"{BOOK} and with travel insurance.")),
    "bags": ("G9", booking(f"{BOOK}, 2 checked bags.")),
    "a seat for a friend": ("G9", booking(f"{BOOK}, for Daiki Lopez.")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gate_is_the_right_one(name: str) -> None:
    gate, row = CASES[name]
    found = Judge(row["user_scenario"]["instructions"]["domain"], hold_out="none").judge_row(row, "row 1").failed
    assert gate in found if gate else found == {}


def test_writes_that_the_reward_does_not_look_at_are_refused() -> None:
    row = make_row("retail", "t", NO_NEED, f"Your email is {EMAIL}.", [FIND, CANCEL], communicate_info=["4079.45"])
    row["evaluation_criteria"]["reward_basis"] = ["COMMUNICATE"]
    assert "not graded" in Judge("retail", hold_out="none").judge_row(row, "row 1").failed["G8"]
