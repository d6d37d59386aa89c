"""τ² as a `vf.MultiTurnEnv` (verifiers' v0 API): every turn of the model is one `TurnEpisode.reply`.

Tools, the user simulator with its own tools, stops, limits and the reward are the core's; this file moves messages. An
episode that failed for no fault of the model ends with ``state["error"]``, so that it is never taken for a reward of 0.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import verifiers as vf

from tau2_slime.backends.chat_wire import under_ids_said
from tau2_slime.backends.turns import Ask, TurnEpisode
from tau2_slime.backends.verifiers.messages import to_turn, to_vf, tool_def
from tau2_slime.backends.verifiers.rubric import tau2_rubric
from tau2_slime.backends.verifiers.settings import (
    NOT_HERE,
    evaluation_split,
    model_endpoint,
    require_user,
    resolve,
    simulator_of,
    training_split,
)
from tau2_slime.backends.verifiers.view import EPISODE, show
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.agents import chat_message
from tau2_slime.episode.history import agent_sees
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.setup import playable
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Status, Termination
from tau2_slime.world import domains

_OWN = ("num_train_examples", "num_eval_examples", "user_llm", "eval_split")
_NOT_IN_V0 = dict.fromkeys(("request_timeout", "request_retries"), "verifiers' own client asks the model")


def load_environment(
    domain: str | None = None,
    num_train_examples: int = -1,
    num_eval_examples: int = -1,
    user_llm: str | None = None,
    task_split: str | None = None,
    eval_split: str | None = None,
    **settings: Any,
) -> Tau2Env:
    """The environment of one domain.

    ``num_*_examples``: the first so many tasks, -1 for all. ``user_llm``: the user simulator (`user_model`). Training rows
    come from ``task_split`` (train), evaluation rows from ``eval_split`` (test, or ``task_split`` if that is given).
    ``settings``: any other key of `Tau2Config` that changes something here; unset ones come from ``TAU2_*`` and the
    defaults, as in slime's door.

    Raises:
        ConfigError: an unknown setting or one that would change nothing, an unknown domain or split, or the simulator's
            key is not set.
    """
    simulator = simulator_of(user_llm, settings.get("user_model"))
    given = {**settings, "domain": domain, "user_model": simulator, "task_split": task_split}
    config = resolve(given, also=_OWN, not_here={**NOT_HERE, **_NOT_IN_V0})
    train = training_split(config, task_split)
    test = evaluation_split(config, eval_split or task_split)
    return Tau2Env(
        config,
        dataset=_rows(config, train, num_train_examples),
        eval_dataset=_rows(config, test, num_eval_examples),
    )


class Tau2Env(vf.MultiTurnEnv):
    """One τ² domain. Rows name a task; prompt and tools come from the episode when its rollout begins."""

    def __init__(self, config: Tau2Config, **kwargs: Any) -> None:
        require_user(config)
        self.tau2_config = config
        super().__init__(rubric=tau2_rubric(), max_turns=-1, **kwargs)

    async def setup_state(self, state: Any) -> Any:
        info = state["info"]
        config = self.tau2_config.model_copy(update={"domain": info["domain"], "task_split": info["task_split"]})
        try:
            episode = await TurnEpisode.create(config, task_id=info["task_id"])
        except ConfigError as error:
            raise vf.InfraError(str(error)) from error
        show(state, episode)  # before the first wait: a rollout that is cut there is ended by what stands in its state
        ask = await episode.begin()
        show(state, episode)
        state["tool_defs"] = [tool_def(tool) for tool in episode.setup.agent.tools]
        if ask is None:
            self._ended(state, episode)
        else:
            state["prompt"] = [to_vf(message) for message in ask.chat]
        return state

    async def env_response(self, messages: Any, state: Any, **_: Any) -> list[Any]:
        """What the model is told next: tool results, or the user's words after whatever the user did on its side."""
        episode: TurnEpisode = state[EPISODE]
        assert episode.conversation is not None
        known = len(episode.conversation.messages)
        ask: Ask | None = None
        if state["trajectory"][-1].get("is_truncated"):
            await episode.stop(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
        else:
            ask = await episode.reply(to_turn(messages[-1], episode.setup.agent.tools))
        show(state, episode)
        if ask is not None:
            told = ask.new
        else:
            result = self._ended(state, episode)
            later = [m for m in result.messages[known:] if m.role != "assistant"]
            told = [chat_message(message) for message in later if agent_sees(message)]
        calls = messages[-1].tool_calls or []
        out = [to_vf(message) for message in under_ids_said(told, [call.id for call in calls])]
        if ask is None:
            state["final_env_response"] = out
        return out

    def _ended(self, state: Any, episode: TurnEpisode) -> InteractionResult:
        """The episode is over: its result; a failure goes into ``state["error"]``."""
        result = episode.result
        assert result is not None
        state["final_env_response"] = []
        _blame(state, result)
        return result

    @vf.cleanup
    async def end_episode(self, state: Any) -> None:
        """However the rollout ended, the episode ends with it, and what the model did until then is scored."""
        episode: TurnEpisode | None = state.get(EPISODE)
        if state.get("timed_out") and (episode is None or episode.result is None):
            state["error"] = vf.InfraError("the rollout took longer than timeout_seconds")
        if episode is None:
            return
        if not episode.over:
            await self._stop(episode, state)
        show(state, episode)
        if episode.result is not None:
            _blame(state, episode.result)

    async def _stop(self, episode: TurnEpisode, state: Any) -> None:
        """End the episode that verifiers has no further turn for."""
        error = state.get("error")
        if state.get("timed_out") or not state.get("is_completed"):  # out of time, or cancelled: nobody waits for it
            await episode.close()
        elif state.get("prompt_too_long"):
            await episode.stop(Termination.CONTEXT_LENGTH, "the prompt does not fit the model's context")
        elif isinstance(error, vf.EmptyModelResponseError):
            state["error"] = None  # as in every door: an empty message is the agent's fault, and τ² scores it
            await episode.stop(Termination.AGENT_ERROR, f"the policy sent an empty message: {error}")
        elif error is not None:
            said = str(error) or repr(error.__cause__)  # a ModelError itself says nothing
            await episode.stop(Termination.INFRASTRUCTURE_ERROR, f"{type(error).__name__}: {said}")
        elif state["trajectory"] and state["trajectory"][-1].get("is_truncated"):
            await episode.stop(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
        else:  # verifiers' own max_turns or token budget
            await episode.stop(Termination.MAX_TURNS, f"stopped by {state.get('stop_condition')}")

    def evaluate(self, client: Any = None, model: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """verifiers' `evaluate`; without a ``client`` it asks the OpenAI-compatible endpoint of the usual variables.

        Keywords of ours: ``base_url`` (else OPENAI_BASE_URL) and ``api_key_var`` (OPENAI_API_KEY). A coroutine where a loop
        runs, else the results themselves: verifiers' ``outputs`` and ``metadata``, and ``score`` (mean reward of the
        rollouts that count), ``completed`` and ``failed`` (how many do and do not).
        """
        base_url, key_var = kwargs.pop("base_url", None), kwargs.pop("api_key_var", "OPENAI_API_KEY")
        if model is None:
            raise ConfigError("evaluate needs a model: env.evaluate(model='gpt-4', num_examples=10)")
        if client is None:
            client = vf.ClientConfig(api_key_var=key_var, api_base_url=model_endpoint(base_url, key_var))
        work = _with_score(super().evaluate(client, model, *args, **kwargs))
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        return work


def _blame(state: Any, result: InteractionResult) -> None:
    if result.status in (Status.FAILED, Status.ABORTED) and state.get("error") is None:
        state["error"] = vf.InfraError(f"{result.termination} ({result.blame}): {result.detail}")


async def _with_score(work: Any) -> dict[str, Any]:
    results: dict[str, Any] = await work
    outputs = results["outputs"]
    rewards = [row["reward"] for row in outputs if not row.get("error")]
    return {
        **results,
        "score": sum(rewards) / len(rewards) if rewards else None,
        "completed": len(rewards),
        "failed": len(outputs) - len(rewards),
    }


def _rows(config: Tau2Config, split: str, count: int) -> Any:
    """Builds the rows when they are first needed. A task that only an LLM judge can grade is left out, with a warning."""
    domains.tasks(config.domain, split)  # an unknown split is told now

    def build() -> Any:
        from datasets import Dataset

        kept = playable(config, split)
        rows = [
            {
                "prompt": [{"role": "user", "content": f"{config.domain}/{split}/{task.id}"}],
                "answer": "",
                "info": json.dumps({"domain": config.domain, "task_split": split, "task_id": str(task.id)}),
            }
            for task in (kept if count < 0 else kept[:count])
        ]
        return Dataset.from_list(rows)

    return build
