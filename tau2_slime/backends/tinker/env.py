"""One τ² episode as an `Env` of the cookbook, and a group of them over one task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tinker
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, InitialObservationOverflow, StepResult
from tinker_cookbook.utils import logtree

from tau2_slime.backends.tinker.report import conversation_of, logs_of, metrics_of
from tau2_slime.backends.tinker.words import Words, words_for
from tau2_slime.backends.turns import Ask, TurnEpisode
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ConfigError, Tau2SlimeError
from tau2_slime.outcome import Blame, Termination
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.threads import offload
from tau2_slime.slime_adapter.shaping import shaped_reward
from tau2_slime.tokens.calls.types import ParsedTurn


class EpisodeFailed(Tau2SlimeError):
    """Not the agent's doing: raised, so that it is never scored 0. The cookbook counts such errors by the class's name."""


class UserSimulatorFailed(EpisodeFailed):
    """The simulator's doing."""


class InfrastructureFailed(EpisodeFailed):
    """Nobody's: scoring, configuration, a cancelled episode."""


class Tau2Env(Env):
    """One conversation; a step is one turn of the agent. Single use."""

    def __init__(
        self,
        config: Tau2Config,
        task_id: str,
        words: Words,
        *,
        user_model: str | None = None,
        max_tokens: int = 0,
        max_trajectory_tokens: int | None = None,
        evaluation: bool = False,
    ) -> None:
        """``max_tokens``: what a turn may sample, kept free below ``max_trajectory_tokens``, the whole episode's limit.

        ``evaluation``: what the configuration has for training only (reward shaping, quality gate, ...) does not count.
        """
        self.config, self.task_id, self.words, self.user_model = config, task_id, words, user_model or config.user_model
        self.max_tokens, self.max_trajectory_tokens, self.evaluation = max_tokens, max_trajectory_tokens, evaluation
        self.turns: list[ParsedTurn] = []
        """What the agent said so far."""
        self.tokens: list[int] = []
        """The last observation."""
        self.episode: TurnEpisode | None = None
        """Built by `initial_observation`."""
        self.replaced = False
        """True once another one is played in its place."""
        self._raised = False
        self._rollout: asyncio.Task[Any] | None = None
        self._ask: Ask | None = None
        self._before = 0
        self._cut = ""
        self._closed = False

    async def initial_observation(self) -> Any:
        """Raises EpisodeFailed if the episode ended for a reason that is not the agent's, or cannot be played."""
        self._rollout = asyncio.current_task()
        with self._noticed():
            return await self._begin()

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Raises EpisodeFailed if the episode ended for a reason that is not the agent's."""
        with self._noticed():
            return await self._step(action, extra)

    @property
    def failed(self) -> bool:
        """True once it has raised, or its rollout has, as when sampling fails: the cookbook plays another one instead."""
        task = self._rollout
        return self._raised or (task is not None and task.done() and (task.cancelled() or task.exception() is not None))

    async def close(self) -> None:
        """Drop whatever is under way."""
        self._closed = True
        if self.episode is not None:
            await self.episode.close()

    async def _begin(self) -> Any:
        stop = None if self.evaluation else run_stop.reason_to_stop()
        if stop is not None:  # every call would fail: the dataset ends the run, see `Tau2Dataset.get_batch`
            raise InfrastructureFailed(stop)
        try:
            self.episode = await TurnEpisode.create(
                self.config, task_id=self.task_id, user_model=self.user_model, training=not self.evaluation
            )
        except ConfigError as error:
            raise InfrastructureFailed(f"{self._name()}: {error}") from error
        self._ask = await self.episode.begin()
        if self._ask is None:
            return self._nothing_to_say(self._finished())
        self._before = sum(message["role"] == "assistant" for message in self._ask.chat)
        self.tokens = await offload(self.words.first, self._ask.chat, self._ask.tools)
        if self._overflows():
            return self._nothing_to_say(
                await self._stop(Termination.CONTEXT_LENGTH, "the first prompt leaves no room for a turn")
            )
        return tinker.ModelInput.from_ints(self.tokens), self.words.stop_ids

    async def _step(self, action: list[int], extra: Any) -> StepResult:
        assert self.episode is not None and self._ask is not None, "initial_observation comes first"
        action = list(action)
        if (extra or {}).get("stop_reason") == "length" or not self.words.ended(action):
            self._cut = self.words.text(action)
            return self._last(await self._stop(Termination.RESPONSE_LENGTH, "the turn did not end by itself"))
        turn = await offload(self.words.read, action, self._ask.tools)
        self.turns.append(turn)
        ask = await self.episode.reply(turn)
        if ask is None:
            return self._last(self._finished())
        names = _names(ask.chat)
        self._ask = ask
        self.tokens = await offload(self.words.then, [*self.tokens, *action], ask.new, names)
        if self._overflows():
            return self._last(await self._stop(Termination.CONTEXT_LENGTH, "no room for another turn"))
        return StepResult(
            reward=0.0,
            episode_done=False,
            next_observation=tinker.ModelInput.from_ints(self.tokens),
            next_stop_condition=self.words.stop_ids,
        )

    def _overflows(self) -> bool:
        limit = self.max_trajectory_tokens
        return limit is not None and len(self.tokens) + self.max_tokens > limit

    async def _stop(self, termination: Termination, detail: str) -> InteractionResult:
        assert self.episode is not None
        await self.episode.stop(termination, detail)
        return self._finished()

    def _finished(self) -> InteractionResult:
        assert self.episode is not None
        result = self.episode.result
        if self._closed and result is None:  # a rollout that outlives its group, which was given up
            raise asyncio.CancelledError(f"{self._name()}: closed")
        if result is None:
            raise InfrastructureFailed(f"{self._name()}: cancelled")
        if not result.trainable or result.reward is None:
            kind = UserSimulatorFailed if result.blame is Blame.USER else InfrastructureFailed
            told = f"{self._name()}: {result.termination} ({result.blame}): {result.detail}"
            logtree.details(
                self._conversation(result), summary=f"{kind.__name__}: {told}"
            )  # no transition will show it
            raise kind(told)
        return result

    def _reward(self, result: InteractionResult) -> float:
        assert result.reward is not None
        shaping = None if self.evaluation else self.config.reward_shaping
        return result.reward if shaping is None else shaped_reward(result, shaping)

    def _nothing_to_say(self, result: InteractionResult) -> InitialObservationOverflow:
        return InitialObservationOverflow(
            reward=self._reward(result), metrics=metrics_of(result), logs=logs_of(result, self._conversation(result))
        )

    def _last(self, result: InteractionResult) -> StepResult:
        return StepResult(
            reward=self._reward(result),
            episode_done=True,
            next_observation=tinker.ModelInput.empty(),
            next_stop_condition=self.words.stop_ids,
            metrics=metrics_of(result),
            logs=logs_of(result, self._conversation(result)),
        )

    def _conversation(self, result: InteractionResult) -> str:
        return conversation_of(result, self.turns, self._before, self._cut)

    def _name(self) -> str:
        return f"{self.config.domain}/{self.task_id} with {self.user_model}"

    @contextlib.contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # a time-out of the cookbook's cancels
            self._raised = True
            raise


@dataclass
class Tau2EnvGroupBuilder(EnvGroupBuilder):
    """The environments of one group: one task, env i with simulator ``user_models[i % n]``. Plain data: it pickles."""

    config: Tau2Config
    task_id: str
    group_size: int
    model_name: str
    renderer_name: str | None = None
    user_models: tuple[str, ...] = ()
    """Empty: ``config.user_model`` for all."""
    max_tokens: int = 0
    max_trajectory_tokens: int | None = None
    evaluation: bool = False
    """See `Tau2Env`."""
    _envs: list[Tau2Env] = field(default_factory=list, repr=False, compare=False)

    async def make_envs(self) -> Sequence[Env]:
        """The whole group; asked again, as the cookbook does for a failed one, the first takes that one's place."""
        words = await offload(words_for, self.model_name, self.renderer_name)
        dealt = self.user_models or (self.config.user_model,)
        models = [dealt[i % len(dealt)] for i in range(self.group_size)]
        lost = next((env for env in self._envs if env.failed and not env.replaced), None)
        if lost is not None:
            models[0], lost.replaced = lost.user_model, True
        envs = [
            Tau2Env(
                self.config,
                self.task_id,
                words,
                user_model=model,
                max_tokens=self.max_tokens,
                max_trajectory_tokens=self.max_trajectory_tokens,
                evaluation=self.evaluation,
            )
            for model in models
        ]
        self._envs += envs
        return envs

    async def cleanup(self) -> None:
        envs, self._envs = self._envs, []
        for env in envs:
            with contextlib.suppress(Exception):  # the cookbook: cleanup must not raise
                await env.close()

    def logging_tags(self) -> list[str]:
        return ["tau2", f"tau2_{self.config.domain}"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_envs": []}  # what is being played stays in its process


def _names(chat: list[dict[str, Any]]) -> dict[str, str]:
    return {call["id"]: call["function"]["name"] for message in chat for call in message.get("tool_calls") or []}
