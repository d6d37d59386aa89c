"""What a user simulator is: the contract of everything that plays the user, and what a simulator of one's own is built with.

A simulator of one's own is a class with the methods of `User` whose constructor takes one `UserContext`:

>>> from tau2.data_model.message import UserMessage
>>> class Impatient:
...     def __init__(self, context: UserContext) -> None:
...         self.stats = UserStats()
...         self.wish = context.instructions
...         self.turns = 0
...     def start(self, history: list[Message]) -> None:
...         self.turns = sum(message.role == "user" for message in history)
...     async def reply(self, message: Delivered) -> UserMessage:
...         self.turns += 1
...         text = self.wish if self.turns == 1 else "Never mind. ###STOP###"
...         return UserMessage(role="user", content=text)

`custom.custom_user` builds it from its dotted path.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, Task, Tau2Tool, UserMessage
    from tau2_slime.world.users.spec import UserSpec


@dataclass
class UserStats:
    """What the simulator cost this episode. A simulator of one's own fills what it knows; the rest stays 0."""

    calls: int = 0
    """Calls of a model, usable or not."""
    retries: int = 0
    seconds: float = 0.0
    """Waiting for the reply, everything included."""
    cost: float = 0.0
    """US dollars, as far as the price is known."""
    waited: float = 0.0
    """Of `seconds`: because an endpoint was out, or between two tries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """Calls that gave nothing usable, by `faults.Fault`."""
    played: dict[str, int] = field(default_factory=dict)
    """Messages by the simulator that wrote them, in the order in which they took over."""
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    """With a `user_strategy`: calls, tokens, cost and seconds by what was asked for: draft, verdict, reflection."""
    unverified: int = 0
    """Messages that the strategy sent although nobody had approved of them."""


class User(Protocol):
    """The other side of the conversation, for one episode."""

    stats: UserStats
    """Read after the episode. In a resumed episode it is set, before `start`, to what the earlier part had counted."""

    def start(self, history: list[Message]) -> None:
        """Called once, before the first `reply`: take over after ``history``.

        ``history`` holds the messages that the user has seen, oldest first. It is empty in nearly every episode. A task
        with a message history, or a resumed episode, brings the texts of the agent, the user's own messages, and the
        results of the user's own tool calls.
        """

    async def reply(self, message: Delivered) -> UserMessage:
        """The user's next message after ``message``.

        ``message`` is the agent's text (`AssistantMessage`; the first one is τ²'s greeting), or what the user's own tool
        calls returned: a `ToolMessage`, or a `MultiToolMessage` after several calls at once. Calls are never nested: the
        next one comes after this one has returned.

        The answer holds text, or tool calls with ``requestor="user"`` where the user has tools. A text with
        ``###STOP###``, ``###TRANSFER###`` or ``###OUT-OF-SCOPE###`` ends the conversation.

        The call may be cancelled while it waits (slime's abort): let `asyncio.CancelledError` pass. Blocking work belongs
        into a thread; it would stop every other episode of the process.

        Raises:
            UserSimulatorError: no usable message came. The user is to blame: the episode does not count.
            ConfigError: no message can be had in this run (a refused key, a spent budget): infrastructure is to blame.
        Any other exception counts as a bug: it is logged once with its traceback, and infrastructure is to blame.
        """


@dataclass(frozen=True)
class UserContext:
    """What a simulator of one's own is built with, for one episode."""

    task: Task
    """τ²'s task. Shared by every episode: read it, never write to it."""
    domain: str
    split: str
    """As the configuration's ``task_split`` names it."""
    instructions: str
    """The user's scenario in the text that τ² gives its own simulator: ``str(task.user_scenario)``."""
    tools: list[Tau2Tool] | None
    """The user's tools for their names and schemas; None if this user has none. Calls are made by `User.reply`'s message."""
    spec: UserSpec
    """The configured user model and how to reach it, for a simulator that asks one. The key stays out of it:
    ``spec.connection()`` reads it from the environment."""

    @property
    def args(self) -> dict[str, Any]:
        """The configuration's ``user_args``: settings of the simulator's own, or sampling arguments of its model."""
        return copy.deepcopy(dict(self.spec.args))  # settings are shared between episodes: a simulator gets its own
