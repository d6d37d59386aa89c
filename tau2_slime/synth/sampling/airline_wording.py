"""Airline: the sentences for requests, and the words that fill them."""

from __future__ import annotations

from collections.abc import Mapping

FRAMES: Mapping[str, tuple[str, ...]] = {
    "cancel": (
        "You want to cancel {trip} because {why}.",
        "Please have {trip} cancelled: {why}.",
        "Your wish is that {trip} is cancelled, since {why}.",
        "Cancel {trip} for you, as {why}.",
    ),
    "bags": (
        "You want to add {more} to {trip}, so that it has {total} checked bags in total; if there is a fee, you use {pay}.",
        "For {trip} you need {more} more than booked, {total} checked bags altogether, and any fee goes to {pay}.",
        "Please raise the checked bags of {trip} to {total} in total, which is {more} extra; charge {pay} if needed.",
    ),
    "rename": (
        "On {trip}, the passenger {old} should be replaced by {new}, born {dob}.",
        "You want to change the passenger {old} of {trip} to {new}, date of birth {dob}.",
        "In place of {old}, the passenger on {trip} should be {new}, born {dob}.",
    ),
    "cabin": (
        "You want to move {trip} to {cabin} on the same flights; the difference goes through {pay}.",
        "Please change the cabin of {trip} to {cabin} and keep the flights; use {pay} for the difference.",
        "For {trip} you would like to fly {cabin} on the flights you have, and you settle the difference with {pay}.",
    ),
    "flight": (
        (
            "You want to change {trip} from its flight {old} to flight {new} on {day}, in the same cabin; the "
            "difference goes through {pay}."
        ),
        (
            "Please rebook {trip}: instead of {old} you take flight {new} on {day}, same cabin, and {pay} covers "
            "the difference."
        ),
        (
            "For {trip} you would like flight {new} on {day} in place of {old}. The cabin stays, and you settle "
            "the difference with {pay}."
        ),
    ),
    "book": (
        "You want to book a one-way flight from {origin} to {destination} on {day} with flight {flight} in "
        "{cabin} for {people}, "
        "with {bags}, {insurance}, paid with {pay}.",
        "Please book flight {flight} from {origin} to {destination} on {day}, one way, in {cabin}, for "
        "{people}; you take {bags}, "
        "{insurance}, and you pay with {pay}.",
    ),
    "certificate": (
        "You complain about the cancelled flight in {trip} and ask for compensation.",
        "The flight in {trip} was cancelled by the airline, and you want a compensation for that.",
        "Because the airline cancelled a flight of {trip}, you ask for a compensation.",
    ),
    "refund": (
        "You want to know how much money comes back to you for {trip}.",
        "Ask for the exact amount that is refunded for {trip}.",
        "Let the agent tell you the total refund for {trip}.",
    ),
    "difference": (
        "You want to know the exact difference in price of the change to {trip}.",
        "Ask by how many dollars the price of {trip} changes.",
        "Let the agent tell you what the change to {trip} amounts to in dollars.",
    ),
    "price": (
        "You want to know the total price of the new booking.",
        "Ask what the new booking costs in total.",
        "Let the agent tell you the total that you pay for the new booking.",
    ),
}
WHY = {
    "health": (
        "you fell ill",
        "you are sick and cannot travel",
        "your doctor advised you not to fly for health reasons",
    ),
    "weather": ("a storm is forecast there", "the weather at your destination is dangerous"),
    "other": ("your plans have changed", "a meeting was moved", "the event that you wanted to see does not take place"),
}
FIRST_NAMES = ("Nora", "Elias", "Clara", "Hugo", "Ines", "Oscar", "Lena", "Felix", "Mara", "Jonas", "Alma", "Bruno")
LAST_NAMES = ("Becker", "Lindgren", "Moreau", "Novak", "Sandoval", "Okafor", "Tanaka", "Whitfield", "Rinaldi", "Haugen")
