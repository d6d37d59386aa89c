"""τ² as a `vf.MultiTurnEnv` (verifiers' v0 API): every turn of the model is one `TurnEpisode.reply`.

The episode has the tools, the user simulator with its own tools, the limits and the reward; this module passes messages on.
An episode that failed without the model's fault ends with ``state["error"]``, so that nobody takes it for a reward of 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import verifiers as vf

from tau2_slime.backends.chat_wire import with_call_ids
from tau2_slime.backends.turns import TurnEpisode, TurnRequest
from tau2_slime.backends.verifiers.messages import said_in, to_verifiers_message, to_verifiers_tool
from tau2_slime.backends.verifiers.results import Evaluation, evaluation_score, run_or_return
from tau2_slime.backends.verifiers.rubric import tau2_rubric
from tau2_slime.backends.verifiers.settings import (
    WITHOUT_EFFECT,
    EnvironmentRequest,
    evaluation_split,
    model_endpoint,
    require_model,
    require_user_key,
    resolve,
    training_split,
)
from tau2_slime.backends.verifiers.state_view import EPISODE_KEY, update_state
from tau2_slime.chat.faults import UnusableMessage
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.history import agent_sees
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.setup import playable
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Status, Termination
from tau2_slime.world import domains
from tau2_slime.world.environment import World
from tau2_slime.world.users import User

if TYPE_CHECKING:
    from datasets import Dataset

_ARGUMENTS = ("num_train_examples", "num_eval_examples", "user_llm", "eval_split", "user")
"""Arguments of `load_environment` that are not settings."""
_WITHOUT_EFFECT = {
    **WITHOUT_EFFECT,
    **dict.fromkeys(("request_timeout", "request_retries"), "verifiers' own client asks the model"),
}


def build(request: EnvironmentRequest) -> Tau2Env:
    """The environment that `load_environment`, which lists the errors, was asked for."""
    config = resolve(
        {**request.given(), "task_split": request.task_split}, also=_ARGUMENTS, without_effect=_WITHOUT_EFFECT
    )
    train = training_split(config, request.task_split)
    test = evaluation_split(config, request.eval_split or request.task_split)
    return Tau2Env(
        config,
        dataset=_rows(config, train, request.num_train_examples),
        eval_dataset=_rows(config, test, request.num_eval_examples),
        user=request.user,
    )


class Tau2Env(vf.MultiTurnEnv):
    """One τ² domain. A row names a task; prompt and tools come from the episode when its rollout begins."""

    def __init__(
        self,
        config: Tau2Config,
        *,
        dataset: Callable[[], Dataset],
        eval_dataset: Callable[[], Dataset],
        user: Callable[[World], User] | None = None,
    ) -> None:
        """``dataset``, ``eval_dataset``: build the rows. ``user``: builds a user of your own from the episode's world.

        Raises:
            ConfigError: the user simulator's key is not set.
        """
        require_user_key(config)
        self.tau2_config, self._user = config, user
        super().__init__(rubric=tau2_rubric(), max_turns=-1, dataset=dataset, eval_dataset=eval_dataset)

    async def setup_state(self, state: vf.State) -> vf.State:
        """Begin the row's episode and put its prompt and tools into ``state``.

        Raises:
            vf.InfraError: the row's task or the configuration cannot be played.
        """
        info = state["info"]
        config = self.tau2_config.model_copy(update={"domain": info["domain"], "task_split": info["task_split"]})
        try:
            episode = await TurnEpisode.create(config, task_id=info["task_id"], user=self._user)
        except ConfigError as error:
            raise vf.InfraError(str(error)) from error
        update_state(state, episode)  # before the first await: `end_episode` finds the episode even if it is cancelled
        request = await episode.begin()
        update_state(state, episode)
        state["tool_defs"] = [to_verifiers_tool(tool) for tool in episode.setup.agent.transcript.offered]
        if request is None:
            self._finish(state, episode)
        else:
            state["prompt"] = [to_verifiers_message(message) for message in request.chat]
        return state

    async def env_response(self, messages: vf.Messages, state: vf.State, **_: object) -> vf.Messages:
        """What the model is told next: tool results, or the user's message after the user's own tool calls."""
        episode: TurnEpisode = state[EPISODE_KEY]
        assert episode.conversation is not None
        known = len(episode.conversation.messages)
        request: TurnRequest | None = None
        if state["trajectory"][-1].get("is_truncated"):
            await episode.stop(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
        else:
            try:
                turn = episode.understood(said_in(messages[-1]))
            except UnusableMessage as error:
                await episode.stop(Termination.AGENT_ERROR, f"the policy's message cannot be used: {error}")
            else:
                request = await episode.reply(turn)
        update_state(state, episode)
        if request is not None:
            told = request.new
        else:
            result = self._finish(state, episode)
            later = [m for m in result.messages[known:] if m.role != "assistant"]
            told = episode.setup.agent.shown([message for message in later if agent_sees(message)])
        calls = messages[-1].tool_calls or []
        out = [to_verifiers_message(message) for message in with_call_ids(told, [call.id for call in calls])]
        if request is None:
            state["final_env_response"] = out
        return out

    def _finish(self, state: vf.State, episode: TurnEpisode) -> InteractionResult:
        """The result of an episode that is over. A failure goes into ``state["error"]``."""
        result = episode.result
        assert result is not None
        state["final_env_response"] = []
        _set_error(state, result)
        return result

    @vf.cleanup
    async def end_episode(self, state: vf.State) -> None:
        """End the episode with its rollout, whatever ended that; what the model did until then is scored."""
        episode: TurnEpisode | None = state.get(EPISODE_KEY)
        if state.get("timed_out") and (episode is None or episode.result is None):
            state["error"] = vf.InfraError("the rollout took longer than timeout_seconds")
        if episode is None:
            return
        if not episode.over:
            await self._stop(episode, state)
        update_state(state, episode)
        if episode.result is not None:
            _set_error(state, episode.result)

    async def _stop(self, episode: TurnEpisode, state: vf.State) -> None:
        """End an episode for which verifiers has no further turn."""
        error = state.get("error")
        if state.get("timed_out") or not state.get("is_completed"):  # out of time or cancelled: nobody waits for it
            await episode.close()
        elif state.get("prompt_too_long"):
            await episode.stop(Termination.CONTEXT_LENGTH, "the prompt does not fit the model's context")
        elif isinstance(error, vf.EmptyModelResponseError):
            state["error"] = None  # as in every door: an empty message is the agent's fault, and τ² scores it
            await episode.stop(Termination.AGENT_ERROR, f"the policy sent an empty message: {error}")
        elif error is not None:
            reason = str(error) or repr(error.__cause__)  # a ModelError has no text of its own
            await episode.stop(Termination.INFRASTRUCTURE_ERROR, f"{type(error).__name__}: {reason}")
        elif state["trajectory"] and state["trajectory"][-1].get("is_truncated"):
            await episode.stop(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
        else:  # verifiers' own max_turns or token budget
            await episode.stop(Termination.MAX_TURNS, f"stopped by {state.get('stop_condition')}")

    def evaluate(
        self,
        client: vf.Client | vf.ClientConfig | None = None,
        model: str | None = None,
        *args: Any,
        base_url: str | None = None,
        api_key_var: str = "OPENAI_API_KEY",
        **kwargs: Any,
    ) -> Evaluation | Coroutine[Any, Any, Evaluation]:
        """verifiers' `evaluate`, which can also find the model without a ``client``.

        Args:
            client: verifiers' client or its configuration; None asks an OpenAI-compatible server.
            model: the model's name, which must be given.
            args, kwargs: verifiers' own (``num_examples``, ``rollouts_per_example``, ``max_concurrent``, ...).
            base_url: the server's address with ``/v1``; None takes ``OPENAI_BASE_URL``, else OpenAI's.
            api_key_var: the name of the environment variable that has its key.

        Returns:
            verifiers' ``outputs`` and ``metadata``, and the keys of `results.evaluation_score`; a coroutine of that where
            an event loop runs.

        Raises:
            ConfigError: ``model`` is missing, or OpenAI is asked without a key.
        """
        name = require_model(model)
        if client is None:
            client = vf.ClientConfig(api_key_var=api_key_var, api_base_url=model_endpoint(base_url, api_key_var))
        return run_or_return(_with_score(super().evaluate(client, name, *args, **kwargs)))


def _set_error(state: vf.State, result: InteractionResult) -> None:
    if result.status in (Status.FAILED, Status.ABORTED) and state.get("error") is None:
        state["error"] = vf.InfraError(f"{result.termination} ({result.blame}): {result.detail}")


async def _with_score(work: Coroutine[Any, Any, vf.GenerateOutputs]) -> Evaluation:
    results = await work
    rewards = [row["reward"] for row in results["outputs"] if not row.get("error")]
    return {**results, **evaluation_score(rewards, len(results["outputs"]))}


def _rows(config: Tau2Config, split: str, count: int) -> Callable[[], Dataset]:
    """Builds the rows when verifiers first needs them. Tasks that only an LLM judge can grade are left out with a warning.

    Raises:
        ConfigError: the domain has no such split; raised now, not when the rows are built.
    """
    domains.tasks(config.domain, split)

    def build_rows() -> Dataset:
        from datasets import Dataset

        kept = playable(config, split)
        return Dataset.from_list(
            [
                {
                    "prompt": [{"role": "user", "content": f"{config.domain}/{split}/{task.id}"}],
                    "answer": "",
                    "info": json.dumps({"domain": config.domain, "task_split": split, "task_id": str(task.id)}),
                }
                for task in (kept if count < 0 else kept[:count])
            ]
        )

    return build_rows
