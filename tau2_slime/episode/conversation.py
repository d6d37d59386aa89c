"""The conversation: τ²'s half-duplex orchestration as one async loop.

Who speaks when, what counts as a step, an error or a stop, and which limit beats which, are τ²'s orchestrator to the
letter (`tests/test_parity.py` compares them message by message). What differs: nothing blocks, a failure is caught where it
happens and gets its cause, and the policy may end the episode for reasons that τ² cannot see (context, abort).

One hop is one message of one role: agent -> user or environment, user -> agent or environment, environment -> caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from tau2_slime.episode.history import Role, Standing, dump, load, replay, says_something, standing
from tau2_slime.episode.transcript import PolicyStopped
from tau2_slime.errors import (
    CannotResume,
    ConfigError,
    ContextOverflow,
    EngineError,
    EpisodeAborted,
    UserSimulatorError,
    first_time,
)
from tau2_slime.outcome import Termination
from tau2_slime.runtime.threads import offload, until_abort
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.users import User

logger = logging.getLogger(__name__)

_COUNTERS = ("steps", "agent_turns", "user_turns", "agent_errors", "user_errors")
_EXPLAINED = (Termination.AGENT_ERROR, Termination.TOO_MANY_ERRORS)


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
        self._from, self._to = Role.AGENT, Role.USER

    async def play(self, resume: Mapping[str, Any] | None = None) -> tuple[Termination, str]:
        """Play to the end: ``(termination, detail)``. ``resume``: the `state` of an earlier part of the same episode.

        Raises nothing but CancelledError and, with ``resume``, CannotResume: then start over with a new world.
        """
        try:
            if resume is None:
                await self._initialize()
            else:
                await self._resume(resume)
                if resume["ended"] is not None:
                    return Termination(resume["ended"][0]), str(resume["ended"][1])
            while self._termination is None:
                if self.aborted():
                    raise EpisodeAborted("aborted between turns")
                await self._step()
                self._check_limits()
            return self._termination, self._detail if self._termination in _EXPLAINED else ""
        except CannotResume:
            raise
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
            if first_time("unforeseen in an episode", cause):
                logger.exception("episode %s/%s failed: %s", self.world.domain, self.world.task.id, cause)
            return Termination.INFRASTRUCTURE_ERROR, cause

    # ---- initial state -----------------------------------------------------------------------------------------------

    def _history(self) -> list[Any]:
        """The messages that the task begins with; most tasks have none."""
        initial = self.world.task.initial_state
        return deepcopy(initial.message_history) if initial is not None and initial.message_history else []

    async def _initialize(self) -> None:
        t = tau2_compat.load()
        history = self._history()
        begin = datetime.now() - timedelta(seconds=len(history))
        for i, message in enumerate(history):
            message.turn_idx = None
            message.timestamp = (begin + timedelta(seconds=i)).isoformat()
        try:
            t.validate_message_history(history)
            if history or not self.world.quick:
                await until_abort(offload(self.world.set_state, history), self.aborted)
            else:
                self.world.set_state(history)
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
            self._message, self._from, self._to = greeting, Role.AGENT, Role.USER
        self.world.environment.sync_tools()

    def _start_from(self, history: list[Any]) -> None:
        """Take over after a task's message history: its last message is delivered to whom it was meant for."""
        t = tau2_compat.load()
        last = history[-1]
        try:
            self._stand(standing(history, join_results=False))
        except ValueError as error:
            raise ConfigError(f"task {self.world.task.id}: {error}") from error
        if isinstance(last, t.AssistantMessage) and self.agent.is_stop(last):
            self._termination = Termination.AGENT_STOP
        elif isinstance(last, t.UserMessage) and t.UserSimulator.is_stop(last):
            self._termination = Termination.USER_STOP
        self.messages = list(history)

    def _stand(self, at: Standing) -> None:
        self.agent.start(at.agent_history)
        if self.user is not None:
            self.user.start(at.user_history)
        self._message, self._from, self._to = at.message, at.sender, at.receiver

    # ---- interrupted and resumed -------------------------------------------------------------------------------------

    def state(self, ended: tuple[str, str] | None = None) -> dict[str, Any]:
        """What `play` needs to go on, as plain data: the messages, the counters, and what waits for the environment.

        ``ended``: (termination, detail), if the conversation is over and only the reward is missing.
        """
        waiting = self._turn.rejected if self._turn is not None and self._to is Role.ENV else {}
        return {
            "ended": list(ended) if ended is not None else None,
            "messages": dump(self.messages),
            "rejected": [[index, positions] for index, positions in self.rejected.items()],
            "refused": [[position, text] for position, text in waiting.items() if self._from is Role.AGENT],
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    async def _resume(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken: the words first, then the environment, by playing every tool call again.

        Raises:
            CannotResume: the state is damaged, or a tool answers otherwise than it did.
        """
        try:
            for name in _COUNTERS:
                setattr(self, name, int(state[name]))
            self.rejected = {int(index): list(positions) for index, positions in state["rejected"]}
            refused = {int(position): str(text) for position, text in state["refused"]}
            self.messages = load(state["messages"])
            if self.messages:
                self._stand(standing(self.messages, join_results=True))
                self._turn = AgentTurn(self._message, refused)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CannotResume(f"the saved conversation is damaged: {type(error).__name__}: {error}") from error
        if not self.messages:
            await self._initialize()
            return
        work = offload(replay, self.world, self._history(), self.messages, self.rejected)
        await until_abort(work, self.aborted)

    # ---- one hop -----------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        if self._to is Role.USER:
            await self._user_speaks()
        elif self._to is Role.AGENT:
            await self._agent_speaks(self._message)
        else:
            self._environment_answers()
        self.steps += 1
        self.world.environment.sync_tools()

    async def _user_speaks(self) -> None:
        reply = await until_abort(self._user().reply(self._message), self.aborted)
        if not says_something(reply):
            raise UserSimulatorError("the user simulator sent an empty message")
        self.user_turns += 1
        if tau2_compat.load().UserSimulator.is_stop(reply):
            self._termination = Termination.USER_STOP
        self._record(reply)
        self._message, self._from = reply, Role.USER
        self._to = Role.ENV if reply.is_tool_call() else Role.AGENT

    async def _agent_speaks(self, incoming: Any | None) -> None:
        self._turn = await self.agent.respond(incoming)
        message = self._turn.message
        if not says_something(message):
            raise PolicyStopped(Termination.AGENT_ERROR, "the policy sent an empty message")
        self.agent_turns += 1
        # As with the user, a stop token beside tool calls does not count: their results could not be delivered.
        if self.agent.is_stop(message) and not message.is_tool_call():
            self._termination = Termination.AGENT_STOP
        self._record(message)
        self._message, self._from = message, Role.AGENT
        if message.is_tool_call():
            self._to = Role.ENV
            return
        self._to = Role.USER
        if self.world.solo and self._termination is None:
            # Not raised: a limit that is reached on the same hop beats it, as it beats a stop.
            self._termination = Termination.AGENT_ERROR
            self._detail = "text in a solo episode, where only tool calls are allowed"

    def _environment_answers(self) -> None:
        t = tau2_compat.load()
        index = len(self.messages) - 1
        refused = self._turn.rejected if self._turn is not None and self._from is Role.AGENT else {}
        results = []
        for position, call in enumerate(self._message.tool_calls):
            if position in refused:
                result, reached = self.world.error_result(call, refused[position]), False
            else:
                result, reached = self.world.call(call)
            if not reached:
                self.rejected.setdefault(index, []).append(position)
            if result.error:
                if self._from is Role.AGENT:
                    self.agent_errors += 1
                else:
                    self.user_errors += 1
            results.append(result)
        for result in results:
            self._record(result)
        self._message = results[0] if len(results) == 1 else t.MultiToolMessage(role="tool", tool_messages=results)
        self._to, self._from = self._from, Role.ENV

    def _record(self, message: Any) -> None:
        # τ² sorts a trajectory by time stamps: stamp in the order of events, whenever the message was built.
        message.timestamp = tau2_compat.load().get_now()
        self.messages.append(message)

    def _check_limits(self) -> None:
        """τ²'s order: limits are looked at only when nothing waits for the environment, and beat a stop on that hop."""
        if self._to is Role.ENV:
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
