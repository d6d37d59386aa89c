"""A simulator's answer as τ²'s `UserMessage`, and what of it an interrupted episode takes along."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.chat.completion import Completion, Ending, RequestedCall, providers_own
from tau2_slime.chat.faults import CallFailed, Fault
from tau2_slime.errors import first_time
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import ToolCall, UserMessage

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 100_000
"""Of a user's message. No customer writes a tenth of it, and every later prompt would carry it."""

SPOKEN_BY = "tau2_slime_simulator"
"""Which simulator said a message: its provider's data means nothing to another one's."""


def user_message(label: str, answer: Completion, cost: float, tools: list[dict[str, Any]] | None) -> UserMessage:
    """The reply as τ²'s `UserMessage`, tool calls flipped to the user.

    Raises:
        CallFailed: empty, cut, filtered, unparsable, far too long, or a tool call where the user has no tools.
    """
    said = answer.said
    content = said.content or ""
    if said.aloud and first_time(f"reasoning of {label}"):
        logger.warning(
            "tau2_slime: user model %s sends its reasoning as text, which is cut off. Serve it with a reasoning "
            "parser, or without thinking",
            label,
        )
    if answer.ending is Ending.CUT:
        raise CallFailed(
            Fault.CUT,
            f"the message was cut at a limit of tokens after {len(content):,} characters (finish_reason length); "
            "give the simulator more room with max_tokens",
        )
    if answer.ending is Ending.FILTERED:
        raise CallFailed(Fault.CONTENT_FILTER, "the provider's content filter took the message")
    if answer.ending is Ending.FAILED:
        raise CallFailed(Fault.UNAVAILABLE, "the server stopped in the middle of the message")
    if not content.strip() and not said.calls:
        raise CallFailed(Fault.GARBAGE, "an empty message")
    if len(content) > MAX_CHARACTERS:
        raise CallFailed(Fault.GARBAGE, f"a message of {len(content):,} characters, more than {MAX_CHARACTERS:,}")
    if said.calls and not tools:
        raise CallFailed(Fault.GARBAGE, f"a call of tool {said.calls[0].name!r}, but this user has no tools")
    return tau2_compat.load().UserMessage(
        role="user",
        content=said.content,
        tool_calls=[_tool_call(call) for call in said.calls] or None,
        cost=cost,
        usage={
            "completion_tokens": answer.usage.completion_tokens,
            "prompt_tokens": answer.usage.prompt_tokens,
        },
        raw_data={**(answer.raw or {}), SPOKEN_BY: label},
    )


def kept_for_provider(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Of a message's ``raw_data``, what an interrupted episode takes along; None if its provider wants nothing back."""
    came = (raw or {}).get("message")
    if raw is None or SPOKEN_BY not in raw or not isinstance(came, dict):
        return None
    if not providers_own(came) and not any(set(call) - _PLAIN_CALL for call in came.get("tool_calls") or ()):
        return None
    message = {**providers_own(came), "tool_calls": came.get("tool_calls")}
    return {SPOKEN_BY: raw[SPOKEN_BY], "message": message}


_PLAIN_CALL = {"id", "type", "function", "index"}


def _tool_call(call: RequestedCall) -> ToolCall:
    """The user's call in τ²'s form. Raises CallFailed if its arguments are not a JSON object."""
    return tau2_compat.load().ToolCall(id=call.id, name=call.name, arguments=call.values(), requestor="user")
