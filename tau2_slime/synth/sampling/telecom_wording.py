"""Telecom: names and places of customers, and other words for what τ²'s own instructions say."""

from __future__ import annotations

import random
from collections.abc import Mapping

FIRST_NAMES = (
    *("Alice", "Marta", "Devon", "Priya", "Tomas", "Grace", "Omar", "Lucia", "Henry", "Naomi", "Felipe", "Ruth"),
    *("Ivan", "Clara", "Anton", "Beatriz", "Carlo", "Daniela", "Emre", "Farah", "Gustav", "Hana", "Idris", "Jana"),
)
LAST_NAMES = (
    *("Nguyen", "Ortega", "Fischer", "Kaplan", "Iverson", "Mehta", "Dubois", "Larsen", "Quinn", "Romano", "Silva"),
    *("Tanner", "Abbott", "Brandt", "Castillo", "Demir", "Ekström", "Fontaine", "Galvez", "Hoang", "Janssen"),
)
PLACES = (
    *("France", "Spain", "Italy", "Japan", "Portugal", "Norway", "Canada", "Greece", "Ireland", "Austria", "Chile"),
    *("Denmark", "Finland", "Hungary", "Iceland", "Kenya", "Malta", "Mexico", "Peru", "Poland", "Thailand"),
)

_REASONS = {
    "You are unable to send MMS messages using your messaging app for the past few hours. You want to fix it and "
    "successfully send an MMS message.": (
        "For a few hours, no MMS has left your messaging app. You want this repaired, and you want to see an MMS go out.",
        "Picture messages fail: your messaging app cannot send any MMS since this morning. It has to work again.",
        "You tried to send an MMS several times today and it never goes through. You want to be able to send one.",
        "Your phone does not send MMS messages any more. You call to have it fixed, and an MMS must be sent in the end.",
        "Sending photos by MMS stopped working some hours ago. You would like help until one MMS is really sent.",
    ),
    "You mobile data is not working properly. It either stops working or is very slow. You want to fix it and absolutely "
    "want to get excellent internet speed on your phone. You are not willing to accept any other internet speed (poor, fair "
    "or good). You do not have access to wifi.": (
        "The internet on your phone is very slow or gone. You want excellent speed on mobile data, and neither poor nor "
        "fair nor good will do. There is no wifi around you.",
        "Pages hardly load: your mobile data drops out or crawls. You insist on excellent internet speed; poor, fair or "
        "good is not enough for you. You cannot use wifi.",
        "Your mobile data has been unreliable all day. Only excellent speed satisfies you, nothing below it such as poor, "
        "fair or good. Wifi is not at hand.",
        "You need mobile internet and it does not work as it should. The speed must be excellent in the end; you turn down "
        "poor, fair and good. You have no wifi.",
    ),
    "Your phone has been showing 'No Service' for the past few hours.": (
        "Since a few hours your phone says 'No Service'.",
        "'No Service' is all that your phone shows, and has been for hours.",
        "Your phone lost its signal some hours ago: the status bar reads 'No Service'.",
    ),
}
_SENTENCES = {
    "If the agent suggests actions that don't immediately fix the issue, follow their guidance but express mild frustration "
    "after the first unsuccessful attempt.": (
        "You follow what the agent proposes. When the first attempt does not help, you sound a little annoyed.",
        "Do what the agent asks of you; after a first try that changes nothing, let some impatience show.",
        "You go along with the agent's steps, and you grumble a bit once one of them has not worked.",
    ),
    "If the tool call does not return updated status information, you might need to perform another tool call to get the "
    "updated status.": (
        "Where a tool does not show the new status, look again with another tool.",
        "A tool may not tell the status after a change; then use one that does.",
    ),
    "Whenever the agent asks you about your device, always ground your responses on the results of tool calls.": (
        "Answer questions about your device only with what your tools show.",
        "What you say about your phone comes from the results of your tools.",
    ),
    "Never make up the results of tool calls, always ground your responses on the results of tool calls.": (
        "You never invent what a tool shows.",
        "Do not guess results: look, and report what you see.",
    ),
    "If you are unsure about whether an action is necessary, always ask the agent for clarification.": (
        "When you do not know whether a step is needed, you ask the agent.",
        "Ask the agent if it is unclear to you what to do.",
    ),
    "You are willing to refuel 2.0 GB of data if necessary, but you do not want to change your mobile data plan.": (
        "If it takes more data, you are ready to refuel 2.0 GB, and you keep your mobile data plan.",
        "You would refuel 2.0 GB of data where that is needed. Another plan is out of the question.",
    ),
}
_KNOWN = (
    "You are {name} with phone number {phone}.{place}",
    "Your name is {name}, and the number of your phone is {phone}.{place}",
    "You are called {name}. The phone in question has the number {phone}.{place}",
    "Name: {name}. Phone number: {phone}.{place}",
)


def known_info(rng: random.Random, name: str, phone: str, place: str) -> str:
    """Who the customer is; ``place``: a sentence, or nothing."""
    return rng.choice(_KNOWN).format(name=name, phone=phone, place=f" {place}" if place else "")


def reworded(rng: random.Random, told: Mapping[str, str]) -> dict[str, str]:
    """``reason_for_call`` and ``task_instructions`` in other words, or as they are."""
    reason, manner = told["reason_for_call"], told["task_instructions"]
    reason = rng.choice((reason, *_REASONS.get(reason, ())))
    for sentence, others in _SENTENCES.items():
        manner = manner.replace(sentence, rng.choice((sentence, *others)))
    return {"reason_for_call": reason, "task_instructions": manner}
