"""Retail: the sentences for requests, and the words that fill them."""

from __future__ import annotations

from collections.abc import Mapping

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
WHY = {
    "no longer needed": ("it is no longer needed", "you no longer need it", "you do not need it any more"),
    "ordered by mistake": ("it was ordered by mistake", "you ordered it by mistake", "that order was a mistake"),
}
MATTERS = (
    "talk about a job application at the head office",
    "complain about the music in one of the shops",
    "arrange a gift wrapping for a friend's order",
    "discuss a bulk discount for a school",
    "report a broken link on the website",
    "ask for an extended warranty contract",
)
STREETS = (
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
PLACES = (
    *(("Austin", "TX", "78704"), ("Denver", "CO", "80203"), ("Portland", "OR", "97209"), ("Columbus", "OH", "43215")),
    *(("Madison", "WI", "53703"), ("Tucson", "AZ", "85719"), ("Raleigh", "NC", "27605"), ("Omaha", "NE", "68102")),
    *(("Boise", "ID", "83702"), ("Albany", "NY", "12207"), ("Tampa", "FL", "33602"), ("Reno", "NV", "89501")),
)
