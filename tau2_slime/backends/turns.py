"""An episode played turn by turn, for frameworks that hold the policy themselves.

slime's door pulls: the episode asks the policy. Tinker, verifiers and their like push: they ask the environment what comes
next and bring the policy's reply. `TurnEpisode` turns one into the other: `play_and_score` runs as a task, stops where the
policy is asked, and goes on with the reply. It knows messages; tokens are the framework's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.conversation import Conversation
from tau2_slime.episode.play import EpisodeSetup, play_and_score
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.setup import build_episode, choose_task
from tau2_slime.episode.transcript import PolicyStopped, Transcript
from tau2_slime.episode.users import make_user
from tau2_slime.outcome import Termination
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world.users import User


@dataclass(frozen=True)
class Ask:
    """What the policy is to answer."""

    new: list[dict[str, Any]]
    """Chat messages that it has not been shown yet; the first time: system prompt, history, the user's first words."""
    chat: list[dict[str, Any]]
    """The whole conversation up to now, `new` included; assistant turns as they were understood."""
    tools: list[Tool]
    """OpenAI function schemas."""


class TurnEpisode:
    """One episode whose policy answers from outside: `begin`, then `reply` until there is a `result`."""

    def __init__(self, setup: EpisodeSetup, policy: TurnPolicy) -> None:
        self.setup = setup
        self._policy = policy
        self._task: asyncio.Task[InteractionResult] | None = None

    @classmethod
    async def create(
        cls,
        config: Tau2Config,
        *,
        task_id: str,
        user_model: str | None = None,
        user: Callable[[Any], User] | None = None,
        training: bool = False,
    ) -> TurnEpisode:
        """The episode of one task, not begun.

        ``user_model``: the simulator, if not ``config.user_model``; ``user``: builds one's own from the world.
        ``training``: what the configuration has for training only counts too (stand-ins, budget, quality gate).

        Raises:
            ConfigError: a setting or the task is wrong; the message says which.
        """
        task = await choose_task(config, task_id=task_id)
        policy = TurnPolicy()
        model = user_model or config.user_model
        build = user or (lambda world: make_user(config, model, world, evaluation=not training))
        return cls(await build_episode(config, task, policy, model, build, training=training), policy)

    async def begin(self) -> Ask | None:
        """What the policy is to answer first; None if the episode is over without its doing.

        Cancelled here or in `reply`, the episode is dropped, as by `close`.
        """
        assert self._task is None, "an episode is played once"
        self._task = asyncio.create_task(play_and_score(self.setup))
        return await self._next()

    async def reply(self, turn: ParsedTurn) -> Ask | None:
        """Go on with the policy's turn: what it is to answer next, or None if the episode is over."""
        self._policy.answers.put_nowait(turn)
        return await self._next()

    async def stop(self, termination: Termination, detail: str) -> InteractionResult:
        """End the episode where the policy's turn is due, because the framework will not bring one."""
        if not self.over:
            self._policy.answers.put_nowait(PolicyStopped(termination, detail))
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """Drop whatever is under way; an episode that is over keeps its result."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def over(self) -> bool:
        return self._task is not None and self._task.done()

    @property
    def result(self) -> InteractionResult | None:
        """The whole trajectory, once the episode is over."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.result()

    @property
    def conversation(self) -> Conversation | None:
        """The core's own state, while it is being played and afterwards; read, never written."""
        return self.setup.conversation

    async def _next(self) -> Ask | None:
        assert self._task is not None
        asked = asyncio.ensure_future(self._policy.asks.get())
        try:
            await asyncio.wait({asked, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else None
        except asyncio.CancelledError:  # who asked has given up; a simulator that still works is paid for nothing
            self._task.cancel()
            raise
        finally:
            asked.cancel()


class TurnPolicy:
    """A `transcript.Speaker` that is asked over a queue; it belongs to one episode."""

    def __init__(self) -> None:
        self.asks: asyncio.Queue[Ask] = asyncio.Queue()
        self.answers: asyncio.Queue[ParsedTurn | PolicyStopped] = asyncio.Queue()

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _TurnTranscript(self, tools)


class _TurnTranscript(Transcript):
    """The conversation without a ledger: its tokens are in the framework's hands."""

    def __init__(self, policy: TurnPolicy, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._queues = policy

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        self.chat += messages
        self._queues.asks.put_nowait(Ask(list(messages), list(self.chat), self.tools))
        answer = await self._queues.answers.get()
        if isinstance(answer, PolicyStopped):
            raise answer
        self.turns += 1
        return answer
