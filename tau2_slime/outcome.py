"""How an episode ended and who is to blame: the words that every part of the package uses.

`Termination` extends τ²'s reasons by those that only a token-level rollout can meet. `blame_for` maps each to a cause.
"""

from __future__ import annotations

from enum import StrEnum

SUCCESS = 1 - 1e-6
"""The least reward that τ² calls a success: 1 within a millionth. A lower reward is a failure, however close it is."""


class Termination(StrEnum):
    """Why a conversation ended. The first six values are τ²'s own."""

    AGENT_STOP = "agent_stop"
    """The agent ended the conversation (solo: its stop word or stop tool). Set by `Conversation`."""
    USER_STOP = "user_stop"
    """The user said one of τ²'s stop words: satisfied, transferred to a human, or out of scope. Set by `Conversation`."""
    MAX_STEPS = "max_steps"
    """The episode reached ``max_steps``. Set by `Conversation`."""
    TOO_MANY_ERRORS = "too_many_errors"
    """Agent and user together reached ``max_errors`` tool errors. Set by `Conversation`."""
    AGENT_ERROR = "agent_error"
    """The policy's turn cannot be used: empty, text in a solo episode, more calls than its template knows. Set where the
    turn is read (`episode.agents`, `policy.sampling`, `Conversation`)."""
    USER_ERROR = "user_error"
    """The user simulator gave no usable message after every retry (`UserSimulatorError`). Set by `Conversation`."""
    MAX_TURNS = "max_turns"
    """The episode reached ``max_turns``. Set by `Conversation`, and by frameworks with a limit of their own."""
    RESPONSE_LENGTH = "response_length"
    """One turn reached the limit of new tokens. Set by `policy.sampling` and by the backends."""
    CONTEXT_LENGTH = "context_length"
    """The next prompt or turn does not fit the model's context. Set by `policy.sampling` and by the backends."""
    ABORTED = "aborted"
    """slime stopped the rollout in the middle of the episode, which may be taken up again. Set where something waits."""
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    """The policy's server failed, the reward could not be computed, or a bug was met. Set where it is caught."""
    CONFIG_ERROR = "config_error"
    """A setting, the task or the checkpoint is wrong, or a key or budget is used up (`ConfigError`)."""


class Blame(StrEnum):
    """Who or what ended an episode. Only `AGENT` and `LIMIT` episodes may reach the gradient."""

    AGENT = "agent"
    """The agent's own behaviour led to the end: a normal end, or its own mistakes."""
    USER = "user"
    """The user simulator failed, or behaved as no customer would (`Flaw`, ``user_quality_gate``)."""
    INFRASTRUCTURE = "infrastructure"
    """Servers, settings, bugs, or an abort: nothing that the agent or the user did."""
    LIMIT = "limit"
    """A limit of steps, turns or tokens. It counts as the agent's: τ² pays 0."""


class Status(StrEnum):
    """The values of slime's ``Sample.Status`` that a finished sample can have. `InteractionResult.status` decides."""

    COMPLETED = "completed"
    """The end is the agent's own doing (`Blame.AGENT`), and the episode has a reward."""
    TRUNCATED = "truncated"
    """A limit ended the episode."""
    ABORTED = "aborted"
    """slime stopped the rollout."""
    FAILED = "failed"
    """The user simulator or the infrastructure is to blame, or the reward is missing: the sample is not trained on."""


_LIMITS = {Termination.MAX_STEPS, Termination.MAX_TURNS, Termination.RESPONSE_LENGTH, Termination.CONTEXT_LENGTH}
_INFRASTRUCTURE = {Termination.INFRASTRUCTURE_ERROR, Termination.CONFIG_ERROR, Termination.ABORTED}


def blame_for(termination: Termination, *, agent_errors: int = 0, user_errors: int = 0, agent_turns: int = 1) -> Blame:
    """Who is to blame for ``termination``.

    τ² counts the tool errors of agent and user together: when they end the episode, the side with more errors is to blame,
    and the agent if both have the same number. A user who hangs up before the agent said anything is to blame itself.

    >>> blame_for(Termination.TOO_MANY_ERRORS, agent_errors=3, user_errors=7)
    <Blame.USER: 'user'>

    Args:
        termination: why the episode ended.
        agent_errors: tool errors of the agent.
        user_errors: tool errors of the user.
        agent_turns: messages of the agent.
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
    """What a user simulator does and no customer would. `world.users.quality` finds it in its messages."""

    PREMATURE_STOP = "premature_stop"
    """The agent asks it to confirm an action, and it hangs up without declining, so that the action is never done."""
    ROLE_FLIP = "role_flip"
    """It speaks as the agent: offers help, asks for the customer's data, reports what it did to the customer's order."""
    TOOL_CALL = "tool_call"
    """It calls a tool, or writes a call as text, although this user has no tools."""
    LEAK = "leak"
    """It repeats its instructions: six words in a row of the scenario that speak to the simulator ("you want ...", "the
    agent"), eight words in a row of τ²'s guidelines, or a heading of either."""
    EMPTY = "empty"
    """Its message has neither text nor a tool call."""
    REPEAT = "repeat"
    """It repeats an earlier message of five words or more, word for word, although the agent said something new."""
    INVENTED = "invented"
    """It states an id, an e-mail address, a number of four digits or more, an amount of money, or a name of its own that
    neither the scenario nor the agent nor a tool has mentioned."""
