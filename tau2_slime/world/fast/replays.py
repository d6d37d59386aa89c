"""Would τ²'s evaluator, replaying a trajectory in a fresh environment, arrive where the episode's own environment is?

`evaluate_simulation` builds an environment and runs every tool call of the trajectory again, comparing the answers. The
episode's environment has run the same calls once. `why_replay_needed` names every reason why the two might differ; then τ²
replays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, ToolCall, ToolMessage

NOT_REPEATABLE = {"refuel_data": re.compile(r"\bB[0-9a-f]{8}\b")}
"""Tools that invent an id, and what it looks like where a later answer shows it."""

_DIGITS = re.compile(r"\d{4000}")

Executed = list[tuple["ToolCall", "ToolMessage"]]
"""Tool calls and their results in the order in which the environment ran them."""


def calls_with_results(messages: Sequence[Message]) -> Executed | None:
    """The calls of a trajectory, each with its result; None where τ²'s replay would stop with an error."""
    t = tau2_compat.load()
    found: Executed = []
    rest = iter(messages)
    for message in rest:
        if isinstance(message, t.ToolMessage):
            return None
        for call in getattr(message, "tool_calls", None) or ():
            result = next(rest, None)
            if not isinstance(result, t.ToolMessage) or result.id != call.id:
                return None
            found.append((call, result))
    return found


def why_replay_needed(messages: Sequence[Message], executed: Executed | None, *, solo: bool) -> str | None:
    """Why the episode's own environment cannot stand in for a replay of ``messages``; None if it can.

    ``executed``: what the environment ran since it was built; None if it did not begin with the task's state.
    """
    if executed is None:
        return "the environment did not begin with the task's initial state"
    if solo and any(isinstance(message, tau2_compat.load().UserMessage) for message in messages):
        return "a user speaks in a solo episode"
    wanted = calls_with_results(messages)
    if wanted is None or len(wanted) != len(executed):
        return "the calls do not match their results"
    invented: list[re.Pattern[str]] = []
    for (call, result), (ran, answer) in zip(wanted, executed, strict=True):
        if not (call is ran or call == ran) or result.content != answer.content:
            return "the environment ran other calls than the trajectory shows"
        text = answer.content or ""
        if "NaN" in text or (len(text) >= 4000 and _DIGITS.search(text)):
            return "an answer that does not equal itself"  # for τ², which compares what the JSON reads as
        if any(pattern.search(text) for pattern in invented):
            return "an answer shows an id that a replay would not invent again"
        if call.name in NOT_REPEATABLE and not answer.error:
            invented.append(NOT_REPEATABLE[call.name])
    return None
