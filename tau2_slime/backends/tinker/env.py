"""One τ² episode as an `Env` of the cookbook, and a group of them over one task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tinker
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, InitialObservationOverflow, StepResult
from tinker_cookbook.utils import logtree

from tau2_slime.backends.tinker.rendering import TurnRenderer, turn_renderer
from tau2_slime.backends.tinker.report import conversation_text, transition_logs, transition_metrics
from tau2_slime.backends.turns import ChatMessage, TurnEpisode, TurnRequest
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ConfigError, Tau2SlimeError
from tau2_slime.outcome import Blame, Termination
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.loops import offload
from tau2_slime.slime_adapter.shaping import shaped_reward
from tau2_slime.tokens.calls.types import ParsedTurn

if TYPE_CHECKING:
    from tinker_cookbook.rl.types import ActionExtra


class EpisodeFailed(Tau2SlimeError):
    """The episode does not count, and that is not the agent's fault. The cookbook counts such errors by their class."""


class UserSimulatorFailed(EpisodeFailed):
    """The user simulator is to blame."""


class InfrastructureFailed(EpisodeFailed):
    """Nobody who speaks is to blame: scoring or the configuration failed, or the episode was cancelled."""


class Tau2Env(Env):
    """One conversation; a step is one turn of the agent. It can be played once."""

    def __init__(
        self,
        config: Tau2Config,
        task_id: str,
        renderer: TurnRenderer,
        *,
        user_model: str | None = None,
        max_tokens: int = 0,
        max_trajectory_tokens: int | None = None,
        evaluation: bool = False,
    ) -> None:
        """The environment of one task; nothing is built before `initial_observation`.

        Args:
            config: names the domain and the split that have the task.
            task_id: the task's id in that split.
            renderer: of the model that is trained; see `rendering.turn_renderer`.
            user_model: the user simulator; None takes ``config.user_model``.
            max_tokens: tokens that one turn may sample; as many are kept free below ``max_trajectory_tokens``.
            max_trajectory_tokens: tokens of the whole episode, prompt included; None sets no limit.
            evaluation: leave out what the configuration has for training only (reward shaping, quality gate, ...).
        """
        self.config, self.task_id, self.renderer = config, task_id, renderer
        self.user_model = user_model or config.user_model
        self.max_tokens, self.max_trajectory_tokens, self.evaluation = max_tokens, max_trajectory_tokens, evaluation
        self.turns: list[ParsedTurn] = []
        """What the agent has said so far."""
        self.episode: TurnEpisode | None = None
        """Built by `initial_observation`."""
        self.replaced = False
        """True once another environment is played in this one's place."""
        self._observation: list[int] = []
        self._request: TurnRequest | None = None
        self._given_turns = 0
        self._cut_turn = ""
        self._raised = False
        self._rollout: asyncio.Task[Any] | None = None
        self._closed = False

    async def initial_observation(self) -> tuple[tinker.ModelInput, list[int]] | InitialObservationOverflow:
        """The first prompt and the stop tokens; or the end, if the agent has no turn or no room for one.

        Raises:
            EpisodeFailed: the episode cannot be played, or it ended for a reason that is not the agent's.
        """
        self._rollout = asyncio.current_task()
        with self._remember_failure():
            return await self._begin()

    async def step(self, action: list[int], *, extra: ActionExtra | None = None) -> StepResult:
        """Play the sampled turn ``action`` (token ids) and what follows it, up to the agent's next turn or the end.

        Raises:
            EpisodeFailed: the episode ended for a reason that is not the agent's.
        """
        with self._remember_failure():
            return await self._step(action, extra)

    @property
    def failed(self) -> bool:
        """True once it has raised, or its rollout has (for example in sampling): the cookbook then plays another one."""
        task = self._rollout
        return self._raised or (task is not None and task.done() and (task.cancelled() or task.exception() is not None))

    async def close(self) -> None:
        """Cancel whatever is still running."""
        self._closed = True
        if self.episode is not None:
            await self.episode.close()

    async def _begin(self) -> tuple[tinker.ModelInput, list[int]] | InitialObservationOverflow:
        stop = None if self.evaluation else run_stop.reason_to_stop()
        if stop is not None:  # every episode would fail; `Tau2Dataset.get_batch` ends the run
            raise InfrastructureFailed(stop)
        try:
            self.episode = await TurnEpisode.create(
                self.config, task_id=self.task_id, user_model=self.user_model, training=not self.evaluation
            )
        except ConfigError as error:
            raise InfrastructureFailed(f"{self._name()}: {error}") from error
        self._request = await self.episode.begin()
        if self._request is None:
            return self._end_before_first_turn(self._finish())
        self._given_turns = sum(message["role"] == "assistant" for message in self._request.chat)
        self._observation = await offload(self.renderer.first_prompt, self._request.chat, self._request.tools)
        if self._has_no_room():
            return self._end_before_first_turn(
                await self._stop(Termination.CONTEXT_LENGTH, "the first prompt leaves no room for a turn")
            )
        return tinker.ModelInput.from_ints(self._observation), self.renderer.stop_ids

    async def _step(self, action: list[int], extra: ActionExtra | None) -> StepResult:
        assert self.episode is not None and self._request is not None, "initial_observation comes first"
        action = list(action)
        if (extra or {}).get("stop_reason") == "length" or not self.renderer.ended(action):
            self._cut_turn = self.renderer.decode(action)
            return self._end(await self._stop(Termination.RESPONSE_LENGTH, "the turn did not end by itself"))
        agent = self.episode.setup.agent
        turn = await offload(self.renderer.parse, action, agent.tools, agent.transcript.actions)
        self.turns.append(turn)
        request = await self.episode.reply(turn)
        if request is None:
            return self._end(self._finish())
        self._request = request
        so_far, names = [*self._observation, *action], _tool_names(request.chat)
        self._observation = await offload(self.renderer.next_prompt, so_far, request.new, names)
        if self._has_no_room():
            return self._end(await self._stop(Termination.CONTEXT_LENGTH, "no room for another turn"))
        return StepResult(
            reward=0.0,
            episode_done=False,
            next_observation=tinker.ModelInput.from_ints(self._observation),
            next_stop_condition=self.renderer.stop_ids,
        )

    def _has_no_room(self) -> bool:
        limit = self.max_trajectory_tokens
        return limit is not None and len(self._observation) + self.max_tokens > limit

    async def _stop(self, termination: Termination, detail: str) -> InteractionResult:
        assert self.episode is not None
        await self.episode.stop(termination, detail)
        return self._finish()

    def _finish(self) -> InteractionResult:
        """The result of an episode that is over. Raises EpisodeFailed if it does not count."""
        assert self.episode is not None
        result = self.episode.result
        if self._closed and result is None:  # the group was given up while this rollout was still running
            raise asyncio.CancelledError(f"{self._name()}: closed")
        if result is None:
            raise InfrastructureFailed(f"{self._name()}: cancelled")
        if not result.trainable or result.reward is None:
            kind = UserSimulatorFailed if result.blame is Blame.USER else InfrastructureFailed
            message = f"{self._name()}: {result.termination} ({result.blame}): {result.detail}"
            # Logged here, because a failed episode has no transition whose logs could show it.
            logtree.details(self._conversation(result), summary=f"{kind.__name__}: {message}")
            raise kind(message)
        return result

    def _reward(self, result: InteractionResult) -> float:
        assert result.reward is not None
        shaping = None if self.evaluation else self.config.reward_shaping
        return result.reward if shaping is None else shaped_reward(result, shaping)

    def _end_before_first_turn(self, result: InteractionResult) -> InitialObservationOverflow:
        return InitialObservationOverflow(
            reward=self._reward(result),
            metrics=transition_metrics(result),
            logs=transition_logs(result, self._conversation(result)),
        )

    def _end(self, result: InteractionResult) -> StepResult:
        return StepResult(
            reward=self._reward(result),
            episode_done=True,
            next_observation=tinker.ModelInput.empty(),
            next_stop_condition=self.renderer.stop_ids,
            metrics=transition_metrics(result),
            logs=transition_logs(result, self._conversation(result)),
        )

    def _conversation(self, result: InteractionResult) -> str:
        return conversation_text(result, self.turns, self._given_turns, self._cut_turn)

    def _name(self) -> str:
        return f"{self.config.domain}/{self.task_id} with {self.user_model}"

    @contextlib.contextmanager
    def _remember_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # CancelledError too: a time-out of the cookbook's cancels
            self._raised = True
            raise


@dataclass
class Tau2EnvGroupBuilder(EnvGroupBuilder):
    """The environments of one group over one task. It is plain data, so it pickles."""

    config: Tau2Config
    task_id: str
    group_size: int
    """Environments, that is episodes, of the group."""
    model_name: str
    """The model that is trained: it decides the tokenizer and the renderer."""
    renderer_name: str | None = None
    """None: the cookbook's recommendation for the model."""
    user_models: tuple[str, ...] = ()
    """Environment i talks to ``user_models[i % n]``. Empty: ``config.user_model`` for all of them."""
    max_tokens: int = 0
    """See `Tau2Env`."""
    max_trajectory_tokens: int | None = None
    """See `Tau2Env`."""
    evaluation: bool = False
    """See `Tau2Env`."""
    _envs: list[Tau2Env] = field(default_factory=list, init=False, repr=False, compare=False)

    async def make_envs(self) -> Sequence[Env]:
        """The whole group. Where the cookbook asks again to replace a failed episode, the first one takes its simulator.

        Raises:
            ConfigError: the model's renderer cannot be used.
        """
        renderer = await offload(turn_renderer, self.model_name, self.renderer_name)
        simulators = self.user_models or (self.config.user_model,)
        models = [simulators[i % len(simulators)] for i in range(self.group_size)]
        lost = next((env for env in self._envs if env.failed and not env.replaced), None)
        if lost is not None:
            models[0], lost.replaced = lost.user_model, True
        envs = [
            Tau2Env(
                self.config,
                self.task_id,
                renderer,
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
        """Close every environment of the group. It raises nothing, as the cookbook asks."""
        envs, self._envs = self._envs, []
        for env in envs:
            with contextlib.suppress(Exception):
                await env.close()

    def logging_tags(self) -> list[str]:
        """``tau2`` and ``tau2_<domain>``, under which the cookbook averages metrics."""
        return ["tau2", f"tau2_{self.config.domain}"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_envs": []}  # episodes stay in their process


def _tool_names(chat: list[ChatMessage]) -> dict[str, str]:
    return {call["id"]: call["function"]["name"] for message in chat for call in message.get("tool_calls") or []}
