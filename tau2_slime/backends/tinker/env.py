"""One τ² episode as an `Env` of the cookbook, and a group of them over one task."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tinker
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, InitialObservationOverflow, StepResult, StopReason

from tau2_slime.backends.tinker.words import Words, words_for
from tau2_slime.backends.turns import Ask, TurnEpisode
from tau2_slime.config import Tau2Config
from tau2_slime.errors import Tau2SlimeError
from tau2_slime.offload import offload
from tau2_slime.outcome import Blame, InteractionResult, Status, Termination
from tau2_slime.tokens.tool_calls import ParsedTurn

_STOPS = {
    Termination.AGENT_STOP: StopReason.COMPLETED,
    Termination.USER_STOP: StopReason.COMPLETED,
    Termination.MAX_STEPS: StopReason.MAX_TURNS,
    Termination.MAX_TURNS: StopReason.MAX_TURNS,
    Termination.RESPONSE_LENGTH: StopReason.MAX_TOKENS,
    Termination.CONTEXT_LENGTH: StopReason.CONTEXT_OVERFLOW,
    Termination.AGENT_ERROR: StopReason.PARSE_ERROR,
}
"""Ours -> the cookbook's, where it has one; the others keep their own name."""


class EpisodeFailed(Tau2SlimeError):
    """Not the agent's doing (simulator, infrastructure, configuration): raised, so that it is never scored 0."""


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
    ) -> None:
        """``max_tokens``: what a turn may sample, kept free below ``max_trajectory_tokens``, the whole episode's limit."""
        self.config, self.task_id, self.words, self.user_model = config, task_id, words, user_model or config.user_model
        self.max_tokens, self.max_trajectory_tokens = max_tokens, max_trajectory_tokens
        self.turns: list[ParsedTurn] = []
        """What the agent said so far."""
        self.tokens: list[int] = []
        """The last observation."""
        self.episode: TurnEpisode | None = None
        """Built by `initial_observation`."""
        self._ask: Ask | None = None

    async def initial_observation(self) -> Any:
        self.episode = await TurnEpisode.create(self.config, task_id=self.task_id, user_model=self.user_model)
        self._ask = await self.episode.begin()
        if self._ask is None:
            result = self._finished()
            return InitialObservationOverflow(reward=result.reward or 0.0, metrics=metrics_of(result))
        self.tokens = await offload(self.words.first, self._ask.chat, self._ask.tools)
        if self._overflows():
            result = await self._stop(Termination.CONTEXT_LENGTH, "the first prompt leaves no room for a turn")
            return InitialObservationOverflow(reward=result.reward or 0.0, metrics=metrics_of(result))
        return tinker.ModelInput.from_ints(self.tokens), self.words.stop_ids

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Raises EpisodeFailed if the episode ended for a reason that is not the agent's."""
        assert self.episode is not None and self._ask is not None, "initial_observation comes first"
        action = list(action)
        if (extra or {}).get("stop_reason") == "length" or not self.words.ended(action):
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

    async def close(self) -> None:
        """Drop whatever is under way."""
        if self.episode is not None:
            await self.episode.close()

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
        if result is None or result.status in (Status.FAILED, Status.ABORTED):
            why = "cancelled" if result is None else f"{result.termination} ({result.blame}): {result.detail}"
            raise EpisodeFailed(f"{self.config.domain}/{self.task_id} with {self.user_model}: {why}")
        return result

    def _last(self, result: InteractionResult) -> StepResult:
        return StepResult(
            reward=result.reward or 0.0,
            episode_done=True,
            next_observation=tinker.ModelInput.empty(),
            next_stop_condition=self.words.stop_ids,
            metrics=metrics_of(result),
            logs={
                "task": f"{result.domain}/{result.task_id}",
                "user_model": result.user_model,
                "end": str(result.termination),
            },
        )


def metrics_of(result: InteractionResult) -> dict[str, float]:
    """The last transition's metrics: why it stopped (the cookbook's one-hot), whose doing that was, counters."""
    stop = _STOPS.get(result.termination, result.termination)
    found = {f"stop/{stop}": 1.0}
    found.update({f"tau2/termination/{t}": float(result.termination is t) for t in Termination})
    found.update({f"tau2/blame/{b}": float(result.blame is b) for b in (Blame.AGENT, Blame.LIMIT)})
    stats = result.stats
    found.update({f"tau2/{name}": float(getattr(stats, name)) for name in ("agent_turns", "user_turns", "steps")})
    found.update({f"tau2/{name}": float(getattr(stats, name)) for name in ("agent_errors", "user_errors", "user_cost")})
    return found


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
    _envs: list[Tau2Env] = field(default_factory=list, repr=False, compare=False)

    async def make_envs(self) -> Sequence[Env]:
        words = await offload(words_for, self.model_name, self.renderer_name)
        models = self.user_models or (self.config.user_model,)
        envs = [
            Tau2Env(
                self.config,
                self.task_id,
                words,
                user_model=models[i % len(models)],
                max_tokens=self.max_tokens,
                max_trajectory_tokens=self.max_trajectory_tokens,
            )
            for i in range(self.group_size)
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
