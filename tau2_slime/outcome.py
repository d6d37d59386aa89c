"""How an episode ended and who is to blame: the words that every part of the package uses.

`Termination` extends τ²'s reasons by those that only a token-level rollout can meet. `blame_for` maps each to a cause.
"""

from __future__ import annotations

from enum import StrEnum

SUCCESS = 1 - 1e-6
"""The least reward that τ² calls a success: 1, give or take a millionth."""


class Termination(StrEnum):
    """Why the conversation ended. The first block are τ²'s own values."""

    AGENT_STOP = "agent_stop"
    USER_STOP = "user_stop"
    MAX_STEPS = "max_steps"
    TOO_MANY_ERRORS = "too_many_errors"
    AGENT_ERROR = "agent_error"
    USER_ERROR = "user_error"
    # What τ²'s message-level orchestrator cannot see:
    MAX_TURNS = "max_turns"
    RESPONSE_LENGTH = "response_length"
    CONTEXT_LENGTH = "context_length"
    ABORTED = "aborted"
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    CONFIG_ERROR = "config_error"


class Blame(StrEnum):
    """Whose doing the end was. Only `AGENT` and `LIMIT` episodes may reach the gradient."""

    AGENT = "agent"
    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    LIMIT = "limit"


class Status(StrEnum):
    """slime's `Sample.Status` values, so that nothing here needs slime."""

    COMPLETED = "completed"
    TRUNCATED = "truncated"
    ABORTED = "aborted"
    FAILED = "failed"


_LIMITS = {Termination.MAX_STEPS, Termination.MAX_TURNS, Termination.RESPONSE_LENGTH, Termination.CONTEXT_LENGTH}
_INFRASTRUCTURE = {Termination.INFRASTRUCTURE_ERROR, Termination.CONFIG_ERROR, Termination.ABORTED}


def blame_for(termination: Termination, *, agent_errors: int = 0, user_errors: int = 0, agent_turns: int = 1) -> Blame:
    """The cause behind ``termination``.

    τ² counts the tool errors of agent and user together: when they end the episode, the side with more of them did it
    (a tie is the agent's). A user who hangs up before the agent said anything leaves nothing that the agent did.
    """
    if termination in _LIMITS:
        return Blame.LIMIT
    if termination in _INFRASTRUCTURE:
        return Blame.INFRASTRUCTURE
    if termination is Termination.USER_ERROR:
        return Blame.USER
    if termination is Termination.USER_STOP and agent_turns == 0:
        return Blame.USER
    if termination is Termination.TOO_MANY_ERRORS and user_errors > agent_errors:
        return Blame.USER
    return Blame.AGENT


class Flaw(StrEnum):
    """What a user simulator can do that no customer would; `world.users.quality` finds it."""

    PREMATURE_STOP = "premature_stop"
    """It hangs up in the message that answers the agent's request to confirm an action, without declining it: the action is
    never done."""
    ROLE_FLIP = "role_flip"
    """It speaks as the agent: offers help, asks for the customer's data, reports what it did to the customer's order."""
    TOOL_CALL = "tool_call"
    """It calls a tool, or spells a call out, though this user has none."""
    LEAK = "leak"
    """It says its instructions: six words in a row of the scenario that speak to the simulator ("you want ...", "the
    agent"), eight of τ²'s guidelines, or a heading of either."""
    EMPTY = "empty"
    """It says nothing and calls nothing."""
    REPEAT = "repeat"
    """It says five words or more that it has said before, word for word, though the agent said something else."""
    INVENTED = "invented"
    """It states an id, an e-mail address, a number of four digits or more, an amount of money, or a name of its own that
    neither the scenario nor the agent nor a tool has mentioned."""
