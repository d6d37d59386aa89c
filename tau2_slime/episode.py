"""The conversation: τ²'s half-duplex orchestration as one async loop.

Who speaks when, what counts as a step, an error or a stop, and which limit beats which, are τ²'s orchestrator to the
letter (`tests/test_parity.py` compares them message by message). What differs: nothing blocks, a failure is caught where it
happens and gets its cause, and the policy may end the episode for reasons that τ² cannot see (context, abort).

One hop is one message of one role: agent -> user or environment, user -> agent or environment, environment -> caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from tau2_slime.errors import (
    ConfigError,
    ContextOverflow,
    EngineError,
    EpisodeAborted,
    Tau2SlimeError,
    UserSimulatorError,
    first_time,
)
from tau2_slime.offload import offload, until_abort
from tau2_slime.outcome import Termination
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.users import User

logger = logging.getLogger(__name__)

_EXPLAINED = (Termination.AGENT_ERROR, Termination.TOO_MANY_ERRORS)


class PolicyStopped(Tau2SlimeError):
    """The policy cannot or must not go on: its turn ended the episode."""

    def __init__(self, termination: Termination, detail: str) -> None:
        super().__init__(detail)
        self.termination = termination


@dataclass
class AgentTurn:
    """One message of the policy."""

    message: Any
    """τ²'s AssistantMessage: text, tool calls, or both; never neither."""
    rejected: dict[int, str] = field(default_factory=dict)
    """Position of a call that cannot reach the environment -> the error text that answers it."""


class Agent(Protocol):
    """The policy's side of the conversation."""

    def start(self, history: list[Any]) -> None:
        """Take over after ``history`` (τ² messages that the agent has seen, the greeting included)."""

    async def respond(self, message: Any | None) -> AgentTurn:
        """The next turn after ``message`` (UserMessage, ToolMessage, MultiToolMessage; None opens a solo episode)."""

    def is_stop(self, message: Any) -> bool:
        """True if ``message`` ends the episode (solo only)."""


@dataclass(frozen=True)
class Limits:
    """When an episode is cut off."""

    max_steps: int = 200
    max_errors: int = 10
    max_turns: int = 30


class _Role(StrEnum):
    AGENT = "agent"
    USER = "user"
    ENV = "env"


class Conversation:
    """One episode in progress. After `play`, the attributes hold what happened."""

    def __init__(
        self,
        world: World,
        agent: Agent,
        user: User | None,
        limits: Limits,
        *,
        aborted: Callable[[], bool] = lambda: False,
    ) -> None:
        """``user`` is None exactly in solo mode."""
        self.world, self.agent, self.user, self.limits, self.aborted = world, agent, user, limits, aborted
        self.messages: list[Any] = []
        self.rejected: dict[int, list[int]] = {}
        """Message index -> positions of calls that never reached the environment."""
        self.steps = self.agent_turns = self.user_turns = 0
        self.agent_errors = self.user_errors = 0
        self._termination: Termination | None = None
        self._detail = ""
        self._message: Any = None
        self._turn: AgentTurn | None = None
        self._from, self._to = _Role.AGENT, _Role.USER

    async def play(self) -> tuple[Termination, str]:
        """Play to the end: ``(termination, detail)``. Raises nothing but CancelledError."""
        try:
            await self._initialize()
            while self._termination is None:
                if self.aborted():
                    raise EpisodeAborted("aborted between turns")
                await self._step()
                self._check_limits()
            return self._termination, self._detail if self._termination in _EXPLAINED else ""
        except PolicyStopped as error:
            return error.termination, str(error)
        except EpisodeAborted as error:
            return Termination.ABORTED, str(error)
        except ContextOverflow as error:
            return Termination.CONTEXT_LENGTH, str(error)
        except UserSimulatorError as error:
            return Termination.USER_ERROR, str(error)
        except EngineError as error:
            return Termination.INFRASTRUCTURE_ERROR, str(error)
        except ConfigError as error:
            return Termination.CONFIG_ERROR, str(error)
        except Exception as error:  # an episode must never take the trainer down: whatever it was is logged and blamed
            cause = f"{type(error).__name__}: {error}"
            if first_time(cause):
                logger.exception("episode %s/%s failed: %s", self.world.domain, self.world.task.id, cause)
            return Termination.INFRASTRUCTURE_ERROR, cause

    # ---- initial state -----------------------------------------------------------------------------------------------

    async def _initialize(self) -> None:
        t = tau2_compat.load()
        initial = self.world.task.initial_state
        history = deepcopy(initial.message_history) if initial is not None and initial.message_history else []
        begin = datetime.now() - timedelta(seconds=len(history))
        for i, message in enumerate(history):
            message.turn_idx = None
            message.timestamp = (begin + timedelta(seconds=i)).isoformat()
        try:
            t.validate_message_history(history)
            await until_abort(offload(self.world.set_state, history), self.aborted)
        except (ValueError, AssertionError) as error:  # how τ² says that a task's own beginning does not hold together
            raise ConfigError(f"task {self.world.task.id} has no playable initial state: {error}") from error
        if history:
            self._start_from(history)
        elif self.world.solo:
            self.agent.start([])
            await self._agent_speaks(None)
        else:
            greeting = deepcopy(t.FIRST_AGENT_MESSAGE)
            greeting.timestamp = t.get_now()
            self.messages = [greeting]
            self.agent.start([greeting])
            self._user().start([])
            self._message, self._from, self._to = greeting, _Role.AGENT, _Role.USER
        self.world.environment.sync_tools()

    def _start_from(self, history: list[Any]) -> None:
        """Resume after a task's message history: its last message is delivered to whom it was meant for."""
        t = tau2_compat.load()
        last = history[-1]
        if isinstance(last, t.AssistantMessage):
            self._from, self._to = _Role.AGENT, _Role.ENV if last.is_tool_call() else _Role.USER
            if self.agent.is_stop(last):
                self._termination = Termination.AGENT_STOP
        elif isinstance(last, t.UserMessage):
            self._from, self._to = _Role.USER, _Role.ENV if last.is_tool_call() else _Role.AGENT
            if t.UserSimulator.is_stop(last):
                self._termination = Termination.USER_STOP
        elif isinstance(last, t.ToolMessage):
            self._from = _Role.ENV
            self._to = _Role.AGENT if last.requestor == "assistant" else _Role.USER
        else:
            raise ConfigError(f"task {self.world.task.id}: its history ends with a {type(last).__name__}")
        # The receiver of the last message gets it delivered; for everyone else it is history already.
        agent_history = history[:-1] if self._to is _Role.AGENT else history
        user_history = history[:-1] if self._to is _Role.USER else history
        self.agent.start([m for m in agent_history if _agent_sees(m)])
        if self.user is not None:
            self.user.start([m for m in user_history if _user_sees(m)])
        self.messages = list(history)
        self._message = last

    # ---- one hop -----------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        if self._to is _Role.USER:
            await self._user_speaks()
        elif self._to is _Role.AGENT:
            await self._agent_speaks(self._message)
        else:
            self._environment_answers()
        self.steps += 1
        self.world.environment.sync_tools()

    async def _user_speaks(self) -> None:
        reply = await until_abort(self._user().reply(self._message), self.aborted)
        if not _says_something(reply):
            raise UserSimulatorError("the user simulator sent an empty message")
        self.user_turns += 1
        if tau2_compat.load().UserSimulator.is_stop(reply):
            self._termination = Termination.USER_STOP
        self._record(reply)
        self._message, self._from = reply, _Role.USER
        self._to = _Role.ENV if reply.is_tool_call() else _Role.AGENT

    async def _agent_speaks(self, incoming: Any | None) -> None:
        self._turn = await self.agent.respond(incoming)
        message = self._turn.message
        if not _says_something(message):
            raise PolicyStopped(Termination.AGENT_ERROR, "the policy sent an empty message")
        self.agent_turns += 1
        # As with the user, a stop token beside tool calls does not count: their results could not be delivered.
        if self.agent.is_stop(message) and not message.is_tool_call():
            self._termination = Termination.AGENT_STOP
        self._record(message)
        self._message, self._from = message, _Role.AGENT
        if message.is_tool_call():
            self._to = _Role.ENV
            return
        self._to = _Role.USER
        if self.world.solo and self._termination is None:
            # Not raised: a limit that is reached on the same hop beats it, as it beats a stop.
            self._termination = Termination.AGENT_ERROR
            self._detail = "text in a solo episode, where only tool calls are allowed"

    def _environment_answers(self) -> None:
        t = tau2_compat.load()
        index = len(self.messages) - 1
        refused = self._turn.rejected if self._turn is not None and self._from is _Role.AGENT else {}
        results = []
        for position, call in enumerate(self._message.tool_calls):
            if position in refused:
                result, reached = self.world.error_result(call, refused[position]), False
            else:
                result, reached = self.world.call(call)
            if not reached:
                self.rejected.setdefault(index, []).append(position)
            if result.error:
                if self._from is _Role.AGENT:
                    self.agent_errors += 1
                else:
                    self.user_errors += 1
            results.append(result)
        for result in results:
            self._record(result)
        self._message = results[0] if len(results) == 1 else t.MultiToolMessage(role="tool", tool_messages=results)
        self._to, self._from = self._from, _Role.ENV

    def _record(self, message: Any) -> None:
        # τ² sorts a trajectory by time stamps: stamp in the order of events, whenever the message was built.
        message.timestamp = tau2_compat.load().get_now()
        self.messages.append(message)

    def _check_limits(self) -> None:
        """τ²'s order: limits are looked at only when nothing waits for the environment, and beat a stop on that hop."""
        if self._to is _Role.ENV:
            return
        if self.steps >= self.limits.max_steps:
            self._termination = Termination.MAX_STEPS
        if self.agent_errors + self.user_errors >= self.limits.max_errors:
            self._termination = Termination.TOO_MANY_ERRORS
            self._detail = f"tool errors: {self.agent_errors} of the agent, {self.user_errors} of the user"
        if self._termination is None and self.agent_turns + self.user_turns >= self.limits.max_turns:
            self._termination = Termination.MAX_TURNS

    def _user(self) -> User:
        if self.user is None:
            raise ConfigError("a solo episode has no user to talk to")
        return self.user


def _says_something(message: Any) -> bool:
    """False for what τ² itself would crash on: neither text nor a call, or an empty list of calls."""
    return bool(message.tool_calls) if message.is_tool_call() else message.has_text_content()


def _agent_sees(message: Any) -> bool:
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return message.requestor == "assistant"
    return isinstance(message, t.AssistantMessage) or (
        isinstance(message, t.UserMessage) and not message.is_tool_call()
    )


def _user_sees(message: Any) -> bool:
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return message.requestor == "user"
    return isinstance(message, t.UserMessage) or (
        isinstance(message, t.AssistantMessage) and not message.is_tool_call()
    )
