"""The conversation: τ²'s half-duplex orchestration as one async loop.

Who speaks when, what counts as a step, an error or a stop, and which limit wins, are τ²'s orchestrator to the letter:
`tests/test_parity.py` compares the two message by message. Three things differ. Nothing blocks the event loop. A failure
becomes the cause of the episode's end. The policy may end the episode for reasons that τ² cannot see (context, abort).

One hop is one message of one role: agent to user or environment, user to agent or environment, environment to the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from tau2_slime.episode import interrupted
from tau2_slime.episode.history import Position, Role, position_after
from tau2_slime.episode.transcript import PolicyStopped
from tau2_slime.errors import CannotResume, ConfigError, EpisodeAborted, Tau2SlimeError, UserSimulatorError, first_time
from tau2_slime.outcome import Termination
from tau2_slime.policy_rules.check import BROKEN, WRITES, broken_rules
from tau2_slime.runtime import tracebacks
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import is_cancelled, offload, take_turn
from tau2_slime.runtime.secrets import described
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.users import User

if TYPE_CHECKING:
    from tau2_slime.world.types import AssistantMessage, Delivered, Message, ToolMessage

logger = logging.getLogger(__name__)

_CANCELLED_BY_OTHERS = "CancelledError: something that the episode awaited was cancelled, but not the episode"
_NO_USER = "nobody plays the user: only a solo episode is played without one"
_EXPLAINED = (Termination.AGENT_ERROR, Termination.TOO_MANY_ERRORS)


@dataclass
class AgentTurn:
    """One message of the policy."""

    message: AssistantMessage
    """Text, tool calls, or both; never neither."""
    rejected: dict[int, str] = field(default_factory=dict)
    """Position of a call that cannot reach the environment -> the error text that answers it."""


class Agent(Protocol):
    """The policy's side of the conversation."""

    def start(self, history: list[Message]) -> None:
        """Take over after ``history``: the messages that the agent has seen, the greeting included."""

    async def respond(self, message: Delivered | None) -> AgentTurn:
        """The next turn after ``message`` (from the user or the tools; None opens a solo episode).

        Raises:
            PolicyStopped: the policy cannot go on; its ``termination`` ends the episode.
            EngineError: the policy cannot be asked.
        """

    def is_stop(self, message: AssistantMessage) -> bool:
        """True if ``message`` ends the episode (solo only)."""


@dataclass(frozen=True)
class Limits:
    """When an episode is cut off."""

    max_steps: int = 200
    """Hops, as τ² counts them."""
    max_errors: int = 10
    """Tool errors of agent and user together."""
    max_turns: int = 30
    """Messages of agent and user together."""


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
        after_hop: Callable[[], object] | None = None,
    ) -> None:
        """``user`` is None exactly in solo mode. ``after_hop``: called after each hop, the last one too."""
        self._after_hop = after_hop
        self.world, self.agent, self.user, self.limits, self.aborted = world, agent, user, limits, aborted
        self.messages: list[Message] = []
        self.rejected: dict[int, list[int]] = {}
        """Message index -> positions of calls that never reached the environment."""
        self.steps = self.agent_turns = self.user_turns = 0
        self.agent_errors = self.user_errors = 0
        self.policy: Counter[str] = Counter()
        """See `EpisodeStats.policy`."""
        self._termination: Termination | None = None
        self._detail = ""
        self._message: Any = None
        """What the next speaker is given: `Delivered`, or None before the first message."""
        self.refused: dict[int, str] = {}
        """Of the agent's last turn: `AgentTurn.rejected`."""
        self.sender, self.receiver = Role.AGENT, Role.USER
        """Of the last message."""

    @property
    def ended(self) -> tuple[Termination, str] | None:
        """How it ended, and why, once somebody stopped or a limit was reached; None before that."""
        return self._ending(self._termination) if self._termination is not None else None

    def _ending(self, termination: Termination) -> tuple[Termination, str]:
        return termination, self._detail if termination in _EXPLAINED else ""

    async def play(self, resume: Mapping[str, Any] | None = None) -> tuple[Termination, str]:
        """Play to the end: ``(termination, detail)``. ``resume``: `interrupted.state_of` an earlier part of this episode.

        Raises:
            CancelledError: the caller was cancelled.
            CannotResume: ``resume`` does not fit; then start over with a new world. Every other failure is a termination.
        """
        try:
            if resume is not None:
                await interrupted.take_up(self, resume)
            if not self.messages:
                await self._initialize()
            if resume is not None and resume["ended"] is not None:
                self._termination = Termination(resume["ended"][0])
                return self._termination, str(resume["ended"][1])
            while self._termination is None:
                if self.aborted():
                    raise EpisodeAborted("aborted between turns")
                await take_turn()
                if self.receiver is Role.USER:
                    await self._user_speaks()
                elif self.receiver is Role.AGENT:
                    await self._agent_speaks(self._message)
                else:
                    await self._environment_answers()
                self.steps += 1
                self.world.environment.sync_tools()
                self._check_limits()
                if self._after_hop is not None:
                    self._after_hop()
            return self._ending(self._termination)
        except CannotResume:
            raise
        except Tau2SlimeError as error:
            return Termination(error.termination), str(error)
        except (Exception, asyncio.CancelledError) as error:  # an episode must never take the trainer down
            if is_cancelled(error):
                raise
            cause = described(error) if isinstance(error, Exception) else _CANCELLED_BY_OTHERS
            if first_time("unforeseen in an episode", cause):
                tracebacks.log(logger, f"episode {self.world.domain}/{self.world.task.id} failed: {cause}", error)
            return Termination.INFRASTRUCTURE_ERROR, cause

    # ---- initial state -----------------------------------------------------------------------------------------------

    async def _initialize(self) -> None:
        t = tau2_compat.load()
        history = deepcopy(self.world.history)
        begin = datetime.now() - timedelta(seconds=len(history))
        for i, message in enumerate(history):
            message.turn_idx = None
            message.timestamp = (begin + timedelta(seconds=i)).isoformat()
        try:
            t.validate_message_history(history)
            if history or not self.world.quick:
                async with UntilAbort(self.aborted):
                    await offload(self.world.set_state, history)
            else:
                self.world.set_state(history)
        except (
            ValueError,
            AssertionError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:  # how τ² says that a task's own beginning does not hold together
            raise ConfigError(f"task {self.world.task.id} has no playable initial state: {error}") from error
        if history:
            self._start_from(history)
        elif self.world.solo:
            self.agent.start([])
            await self._agent_speaks(None)
        elif self.user is None:
            raise ConfigError(_NO_USER)
        else:
            greeting = deepcopy(t.FIRST_AGENT_MESSAGE)
            greeting.timestamp = t.get_now()
            self.messages = [greeting]
            self.agent.start([greeting])
            self.user.start([])
            self._message, self.sender, self.receiver = greeting, Role.AGENT, Role.USER
        self.world.environment.sync_tools()

    def _start_from(self, history: list[Message]) -> None:
        """Take over after a task's message history: its last message goes to its receiver."""
        t = tau2_compat.load()
        last = history[-1]
        try:
            self.take_position(position_after(history, join_results=False))
        except ValueError as error:
            raise ConfigError(f"task {self.world.task.id}: {error}") from error
        if isinstance(last, t.AssistantMessage) and self.agent.is_stop(last):
            self._termination = Termination.AGENT_STOP
        elif isinstance(last, t.UserMessage) and t.UserSimulator.is_stop(last):
            self._termination = Termination.USER_STOP
        self.messages = list(history)

    def take_position(self, at: Position) -> None:
        """Go on from ``at``: agent and user are told what each of them has heard."""
        self.agent.start(at.agent_history)
        if self.user is not None:
            self.user.start(at.user_history)
        self._message, self.sender, self.receiver = at.message, at.sender, at.receiver

    # ---- one hop -----------------------------------------------------------------------------------------------------

    async def _user_speaks(self) -> None:
        if self.user is None:
            raise ConfigError(_NO_USER)
        async with UntilAbort(self.aborted):
            reply = await self.user.reply(self._message)
        if not isinstance(reply, tau2_compat.load().UserMessage):
            who, what = type(self.user).__name__, type(reply).__name__
            wanted = "return τ²'s UserMessage(role='user', content=...)"
            raise ConfigError(f"user simulator {who}: its reply is {what}, not a message; {wanted}")
        if not says_something(reply):
            raise UserSimulatorError("the user simulator sent an empty message")
        self.user_turns += 1
        if tau2_compat.load().UserSimulator.is_stop(reply):
            self._termination = Termination.USER_STOP
        self._record([reply])
        self._message, self.sender = reply, Role.USER
        self.receiver = Role.ENV if reply.is_tool_call() else Role.AGENT

    async def _agent_speaks(self, incoming: Delivered | None) -> None:
        turn = await self.agent.respond(incoming)
        message, self.refused = turn.message, turn.rejected
        if not says_something(message):
            raise PolicyStopped(Termination.AGENT_ERROR, "the policy sent an empty message")
        self.agent_turns += 1
        # As with the user, a stop token beside tool calls does not count: their results could not be delivered.
        if self.agent.is_stop(message) and not message.is_tool_call():
            self._termination = Termination.AGENT_STOP
        self._record([message])
        self._message, self.sender = message, Role.AGENT
        self.receiver = Role.ENV if message.is_tool_call() else Role.USER
        if self.world.solo and self.receiver is Role.USER and self._termination is None:
            # Not raised: a limit that is reached on the same hop wins, as it wins over a stop.
            self._termination = Termination.AGENT_ERROR
            self._detail = "text in a solo episode, where only tool calls are allowed"

    async def _environment_answers(self) -> None:
        t = tau2_compat.load()
        index = len(self.messages) - 1
        refused = self.refused if self.sender is Role.AGENT else {}
        results: list[ToolMessage] = []
        for position, call in enumerate(self._message.tool_calls):
            if position:  # a message may hold a hundred calls, each of some work
                await take_turn()
            if position in refused:
                result, reached = self.world.error_result(call, refused[position]), False
            else:
                earlier = [*self.messages, *results]
                broken = broken_rules(self.world, call, earlier) if self.sender is Role.AGENT else None
                result, reached = self.world.call(call)
                if broken is not None and not result.error:
                    self.policy.update([WRITES, *broken, *([BROKEN] if broken else [])])
            if not reached:
                self.rejected.setdefault(index, []).append(position)
            if result.error:
                if self.sender is Role.AGENT:
                    self.agent_errors += 1
                else:
                    self.user_errors += 1
            results.append(result)
        self._record(results)
        self._message = results[0] if len(results) == 1 else t.MultiToolMessage(role="tool", tool_messages=results)
        self.receiver, self.sender = self.sender, Role.ENV

    def _record(self, messages: Sequence[Message]) -> None:
        # τ² sorts a trajectory by time stamps: stamp in the order of events, whenever the message was built.
        for message in messages:
            message.timestamp = tau2_compat.load().get_now()
            self.messages.append(message)

    def _check_limits(self) -> None:
        """τ²'s order: it looks at limits only when nothing waits for the environment; they win over a stop on that hop."""
        if self.receiver is Role.ENV:
            return
        if self.steps >= self.limits.max_steps:
            self._termination = Termination.MAX_STEPS
        if self.agent_errors + self.user_errors >= self.limits.max_errors:
            self._termination = Termination.TOO_MANY_ERRORS
            self._detail = f"tool errors: {self.agent_errors} of the agent, {self.user_errors} of the user"
        if self._termination is None and self.agent_turns + self.user_turns >= self.limits.max_turns:
            self._termination = Termination.MAX_TURNS


def says_something(message: Message) -> bool:
    """False for what τ² itself would crash on: neither text nor a call, or an empty list of calls."""
    return bool(message.tool_calls if message.is_tool_call() else message.has_text_content())
