"""The rules of airline's policy, A1 to A22; `airline` checks them."""

from __future__ import annotations

from tau2_slime.policy_rules.rules import Rule, by_id, ends_with_a_transfer

rules = by_id(
    Rule(
        "A1",
        "the customer gives the user id before anything is changed",
        soft=True,
        pattern=r"must first obtain the user id",
    ),
    Rule("A2", "a reservation that is changed belongs to the customer", pattern=r"must provide their user id"),
    Rule("A3", "a reservation has at most five passengers", pattern=r"at most five passengers"),
    Rule(
        "A4",
        "payments come from the profile: at most one certificate, one credit card and three gift cards, sum exact",
        pattern=r"at most one travel certificate",
    ),
    Rule(
        "A5",
        "a new flight is available on its date and has seats for all passengers",
        pattern=r"status is \**available",
    ),
    Rule(
        "A6",
        "paid bags are those beyond the allowance of the membership and the cabin, 50 dollars each",
        pattern=r"free checked bag for each|each extra baggage",
    ),
    Rule("A7", "segments connect, in order of time, and fit origin, destination and trip type"),
    Rule(
        "A8",
        "flights of a basic economy reservation cannot be changed",
        pattern=r"basic economy flights cannot be modified",
    ),
    Rule(
        "A9",
        "origin, destination and trip type of a reservation stay",
        pattern=r"without changing the origin, destination",
    ),
    Rule("A10", "the cabin cannot change once any segment is flown", pattern=r"cabin cannot be changed if any flight"),
    Rule("A11", "a flown segment cannot be replaced"),
    Rule("A12", "checked bags can be added, not removed", pattern=r"can add but not remove checked bags"),
    Rule("A13", "insurance cannot be added after the booking", pattern=r"cannot add insurance after"),
    Rule("A14", "the number of passengers cannot change", pattern=r"cannot modify the number of passengers"),
    Rule(
        "A15",
        "a change is paid or refunded by one gift card or credit card of the profile",
        pattern=r"single gift card or credit card",
    ),
    Rule(
        "A16",
        "a reservation with a flown segment cannot be cancelled",
        pattern=r"any portion of the flight has already been flown",
    ),
    Rule(
        "A17",
        "cancel only within 24 hours of the booking, if the airline cancelled a flight, in business, or if insured and "
        "for health or weather",
        pattern=r"flight can be cancelled if any of the following|cancellation rules",
    ),
    Rule(
        "A18",
        "a certificate is sent only if the customer asks, and is a silver or gold member, insured, or flies business",
        pattern=r"only compensate if the user is",
    ),
    Rule("A19", "a cancelled flight is worth 100 dollars a passenger", pattern=r"cancelled flights in a"),
    Rule(
        "A20",
        "a delayed flight is worth 50 dollars a passenger, after the reservation was changed or cancelled",
        pattern=r"delayed flights in a",
    ),
    Rule("A21", "a cancelled reservation stays as it is"),
    ends_with_a_transfer("A22"),
)
