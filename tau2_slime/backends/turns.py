"""Plays an episode turn by turn, for frameworks that hold the policy themselves.

slime pulls: the episode asks the policy for each turn. Tinker and verifiers push: they ask the environment for the next
messages and then bring the policy's reply. `TurnEpisode` turns one into the other: the same episode runs as an asyncio
task, waits where the policy is asked, and goes on with the reply. It handles messages only; tokens are the framework's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tau2_slime.chat.completion import Said
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.conversation import Conversation
from tau2_slime.episode.play import EpisodeSetup, play_and_score
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.setup import build_episode, choose_task
from tau2_slime.episode.transcript import PolicyStopped, Transcript
from tau2_slime.outcome import Termination
from tau2_slime.tokens.calls.parsers.chat_server import chat_turn
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world.environment import World
from tau2_slime.world.users import User

ChatMessage: TypeAlias = dict[str, Any]
"""A message in OpenAI's chat format, except that the arguments of a tool call are a mapping and not JSON text."""


@dataclass(frozen=True)
class TurnRequest:
    """What the policy must answer next."""

    new: list[ChatMessage]
    """Messages that the policy has not seen yet. The first request has the system prompt, the task's message history (or
    τ²'s greeting) and the user's first message."""
    chat: list[ChatMessage]
    """The whole conversation so far, `new` included. The policy's own turns are here as they were parsed."""
    tools: list[Tool]
    """OpenAI function schemas that the policy is offered; none where the system prompt tells them (``agent_strategy``)."""


_attempts: Counter[tuple[str, str, str]] = Counter()
"""Task -> episodes of it so far in this process: frameworks do not say which attempt they ask for."""


class TurnEpisode:
    """One episode whose policy answers from outside: call `begin`, then `reply` until one of them returns None."""

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
        user: Callable[[World], User] | None = None,
        training: bool = False,
    ) -> TurnEpisode:
        """The episode of one task, ready to `begin`.

        Args:
            config: names the domain and the split that have the task.
            task_id: the task's id in that split.
            user_model: the user simulator; None takes ``config.user_model``.
            user: builds a user of your own from the episode's world; it replaces the simulator.
            training: apply the settings that are for training only (failover, budget, quality gate).

        Raises:
            ConfigError: a setting or the task is wrong; the message says which one.
        """
        task = await choose_task(config, task_id=task_id)
        policy = TurnPolicy()
        model = user_model or config.user_model
        name = (config.domain, config.task_split, task_id)
        attempt, _attempts[name] = _attempts[name], _attempts[name] + 1
        setup = await build_episode(config, task, policy, model, user=user, training=training, attempt=attempt)
        return cls(setup, policy)

    async def begin(self) -> TurnRequest | None:
        """Start the episode: the first request, or None if the episode ended before the policy had a turn.

        If the caller is cancelled here or in `reply`, the episode is dropped, as `close` does it.
        """
        assert self._task is None, "an episode is played once"
        self._task = asyncio.create_task(play_and_score(self.setup))
        return await self._next()

    async def reply(self, turn: ParsedTurn) -> TurnRequest | None:
        """Give the policy's turn to the episode: the next request, or None if the episode is over."""
        self._policy.answers.put_nowait(turn)
        return await self._next()

    async def stop(self, termination: Termination, detail: str) -> InteractionResult:
        """End the episode where it waits for the policy, because the framework has no further turn; returns its result.

        ``detail``: one line that says why. An episode that is over keeps its result.
        """
        if not self.over:
            self._policy.answers.put_nowait(PolicyStopped(termination, detail))
        assert self._task is not None, "only an episode that has begun can be stopped"
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """Cancel whatever is still running. An episode that is over keeps its result; any other has none."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def understood(self, said: Said) -> ParsedTurn:
        """What a chat-completion server's message means in this episode; give it to `reply`."""
        return chat_turn(said, self.setup.agent.tools, self.setup.agent.transcript.actions)

    @property
    def over(self) -> bool:
        """True once the episode has ended, was stopped or was closed."""
        return self._task is not None and self._task.done()

    @property
    def result(self) -> InteractionResult | None:
        """The whole trajectory once the episode is over; None before that, and after `close`."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.result()

    @property
    def conversation(self) -> Conversation | None:
        """The conversation's own state, None before `begin`. Read it, never write it."""
        return self.setup.conversation

    async def _next(self) -> TurnRequest | None:
        assert self._task is not None
        request = asyncio.ensure_future(self._policy.requests.get())
        try:
            await asyncio.wait({request, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return request.result() if request.done() else None
        except asyncio.CancelledError:  # nobody waits for the episode any more: do not pay a simulator for it
            self._task.cancel()
            raise
        finally:
            request.cancel()


class TurnPolicy:
    """The `transcript.Speaker` of one `TurnEpisode`: requests and answers go through two queues."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[TurnRequest] = asyncio.Queue()
        self.answers: asyncio.Queue[ParsedTurn | PolicyStopped] = asyncio.Queue()

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _TurnTranscript(self, tools)


class _TurnTranscript(Transcript):
    """The conversation without a ledger, because the framework keeps the tokens."""

    def __init__(self, policy: TurnPolicy, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._policy = policy

    async def turn(self, messages: list[ChatMessage]) -> ParsedTurn:
        self.chat += messages
        self._policy.requests.put_nowait(TurnRequest(list(messages), list(self.chat), self.offered))
        answer = await self._policy.answers.get()
        if isinstance(answer, PolicyStopped):
            raise answer
        self.turns += 1
        return answer
