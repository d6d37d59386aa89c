"""The conversations on which a chat template is tried. Every text occurs once, so that it can be found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tau2_slime.tokens.template.chat_template import ChatMessage

PROBE = "Grüße, 世界! 🙂 ½ ﬁ e\u0301 don't 12345 \t\n\n  x <|im_end|> </think>"
"""Encoded to tell tokenizers apart, their normalisation of Unicode included."""


TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string", "description": "As the customer gave it."}},
                "required": [argument],
            },
        },
    }
    for name, description, argument in (
        ("find_booking_probe", "Find a booking.", "booking_id"),
        ("cancel_seat_probe", "Cancel a seat.", "seat_id"),
    )
)

BASE: tuple[ChatMessage, ...] = (
    {"role": "system", "content": "You help travellers politely."},
    {"role": "assistant", "content": "Welcome aboard, how may I help?"},
    {"role": "user", "content": "Please look up my trip."},
)


DUMMY_BASE: tuple[ChatMessage, ...] = ({"role": "system", "content": "d"}, {"role": "user", "content": "d"})
"""Stands for the history where calibration has shown that the delta does not depend on it."""

DUMMY_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {"name": "d", "description": "d", "parameters": {"type": "object", "properties": {}}},
    },
)
"""Stands for the tools in that case: rendering some fifteen real schemas is most of what a delta costs."""


@dataclass(frozen=True)
class Transition:
    """`before` ends in an assistant turn and follows BASE; `after` is what the environment adds."""

    before: tuple[ChatMessage, ...]
    after: tuple[ChatMessage, ...]
    required: bool = True
    """A template on which it fails is refused; else the report says so."""


def _call(number: int, tool: int, argument: str, value: str) -> dict[str, Any]:
    function = {"name": TOOLS[tool]["function"]["name"], "arguments": {argument: value}}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _calls(*calls: Mapping[str, Any], content: str | None = None) -> ChatMessage:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def _result(number: int, tool: int, text: str) -> ChatMessage:
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": TOOLS[tool]["function"]["name"], "content": text}


def _user(text: str) -> ChatMessage:
    return {"role": "user", "content": text}


def _text(text: str) -> ChatMessage:
    return {"role": "assistant", "content": text}


_FIND = _call(1, 0, "booking_id", "QX81")
_CANCEL = _call(2, 1, "seat_id", "14C")
_FOUND = _result(1, 0, "Booking found, two seats.")
_CANCELLED = _result(2, 1, "Seat is free again.")

TRANSITIONS: dict[str, Transition] = {
    "user": Transition((_text("Which booking is it?"),), (_user("The one on Friday."),)),
    "tool": Transition((_calls(_FIND),), (_FOUND,)),
    "late_tool": Transition(
        (_calls(_FIND), _FOUND, _text("I see two seats."), _user("Free the aisle one."), _calls(_CANCEL)), (_CANCELLED,)
    ),
    "late_user": Transition((_calls(_FIND), _FOUND, _text("I see two seats.")), (_user("Good, what do they cost?"),)),
    "tools2": Transition((_calls(_FIND, _CANCEL),), (_FOUND, _CANCELLED), required=False),
    "text_tool": Transition((_calls(_FIND, content="One moment please."),), (_FOUND,), required=False),
    "sys": Transition(
        (_text("Which booking is it?"),),
        ({"role": "system", "content": "The office closes soon."}, _user("The one on Friday.")),
        required=False,
    ),
}


def _acts(text: str) -> ChatMessage:
    return _text(f'Action:\n{{"name": "find_booking_probe", "arguments": {{"booking_id": "{text}"}}}}')


_TEXT_ONLY: dict[str, Transition] = {
    "user": Transition((_text("Which booking is it?"),), (_user("The one on Friday."),)),
    "tool": Transition((_acts("QX81"),), (_user("API output: Booking found."),)),
    "late_tool": Transition(
        (_acts("QX81"), _user("API output: Booking found."), _text("I see it."), _user("And 14C?"), _acts("14C")),
        (_user("API output: Seat is free again."),),
    ),
    "late_user": Transition(
        (_acts("QX81"), _user("API output: Booking found."), _text("I see two seats.")), (_user("What do they cost?"),)
    ),
}


@dataclass(frozen=True)
class Battery:
    """What a template is tried on: every transition follows `base`."""

    base: tuple[ChatMessage, ...]
    tools: tuple[dict[str, Any], ...]
    dummy_tools: tuple[dict[str, Any], ...]
    transitions: Mapping[str, Transition]


NATIVE = Battery(BASE, TOOLS, DUMMY_TOOLS, TRANSITIONS)
"""The template tells the tools, writes the calls, and shows τ²'s greeting as a turn of the assistant."""
TEXT_ONLY = Battery((BASE[0], BASE[2]), (), (), _TEXT_ONLY)
"""Actions are text (`calls.action_text`): the template knows of no tools, and its first turn is the user's."""


def with_reasoning(message: ChatMessage) -> ChatMessage:
    """An assistant message as it is handed in by those who keep reasoning apart; others unchanged."""
    if message["role"] != "assistant":
        return message
    thought = "They want the trip details."
    return {**message, "reasoning_content": thought, "thinking": thought}
