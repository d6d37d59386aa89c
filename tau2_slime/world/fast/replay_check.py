"""Every reason why τ²'s replay of an episode might not lead where the episode's own environment is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.types import Message, ToolCall, ToolMessage

NOT_REPEATABLE = {"refuel_data": re.compile(r"\bB[0-9a-f]{8}\b")}
"""Tools that invent an id, and what it looks like where a later answer shows it."""

_DIGITS = re.compile(r"\d{4000}")


class ReplayNeededError(Exception):
    """The environment of the episode cannot stand in for a replay of it; the message says why."""


def require_equal_replay(messages: Sequence[Message], world: World) -> None:
    """Make sure that τ², replaying ``messages`` in a fresh environment, would arrive where ``world`` is.

    Raises:
        ReplayNeededError: it might not.
    """
    if world.began_with is None or world.began_with[0] is not world.task:
        raise ReplayNeededError("the environment did not begin with the task's initial state")
    if world.solo and any(isinstance(message, tau2_compat.load().UserMessage) for message in messages):
        raise ReplayNeededError("a user speaks in a solo episode")
    wanted, done = _calls_with_results(messages), [*_calls_with_results(world.began_with[1]), *world.ran]
    if len(wanted) != len(done):
        raise ReplayNeededError("the environment ran more or fewer calls than the trajectory shows")
    invented: list[re.Pattern[str]] = []
    for (call, result), (ran, answer) in zip(wanted, done, strict=True):
        if not (call is ran or call == ran) or result.content != answer.content:
            raise ReplayNeededError("the environment ran other calls than the trajectory shows")
        text = answer.content or ""
        if "NaN" in text or _DIGITS.search(text):
            # τ² compares what the JSON reads as: not-a-number is unequal to itself, and so many digits cannot be read.
            raise ReplayNeededError("an answer does not equal itself")
        if any(pattern.search(text) for pattern in invented):
            raise ReplayNeededError("an answer shows an id that a replay would not invent again")
        if call.name in NOT_REPEATABLE and not answer.error:
            invented.append(NOT_REPEATABLE[call.name])


def _calls_with_results(messages: Sequence[Message]) -> list[tuple[ToolCall, ToolMessage]]:
    """The calls of a trajectory, each with its result.

    Raises:
        ReplayNeededError: a call or a result stands alone; τ²'s replay stops there with an error.
    """
    t = tau2_compat.load()
    found = []
    rest = iter(messages)
    for message in rest:
        if isinstance(message, t.ToolMessage):
            raise ReplayNeededError("the calls do not match their results")
        for call in getattr(message, "tool_calls", None) or ():
            result = next(rest, None)
            if not isinstance(result, t.ToolMessage) or result.id != call.id:
                raise ReplayNeededError("the calls do not match their results")
            found.append((call, result))
    return found
