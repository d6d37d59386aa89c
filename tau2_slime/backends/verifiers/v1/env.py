"""The v1 `Env` of one τ² domain, and how `load_environment` builds it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import verifiers.v1 as vf

from tau2_slime.backends.verifiers.results import Evaluation, evaluation_score, run_or_return
from tau2_slime.backends.verifiers.settings import (
    EnvironmentRequest,
    evaluation_split,
    model_endpoint,
    require_model,
    require_user_key,
    resolve,
)
from tau2_slime.backends.verifiers.v1.taskset import Tau2Taskset
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains

if TYPE_CHECKING:
    from verifiers.v1.clients import BaseClientConfig

TASKSET_ID = "tau2-bench"
"""The id under which verifiers finds the package `tau2_bench`."""
_ARGUMENTS = ("num_eval_examples", "user_llm", "eval_split", "user")
"""Arguments of `load_environment` that are not settings."""


class Tau2EnvConfig(vf.SingleAgentEnvConfig):
    """One agent. Its harness runs in this process and needs no container or sandbox."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class Tau2Env(vf.SingleAgentEnv, vf.Env[Tau2EnvConfig]):
    """verifiers' single-agent environment over `Tau2Taskset` and `Tau2Harness`."""

    taskset: Tau2Taskset

    def __init__(self, config: Tau2EnvConfig) -> None:
        """Raises ConfigError if the user simulator's key is not set."""
        super().__init__(config)
        require_user_key(self.taskset.tau2_config)

    def evaluate(
        self,
        client: BaseClientConfig | None = None,
        model: str | None = None,
        *,
        num_examples: int = -1,
        rollouts_per_example: int = 1,
        max_concurrent: int | None = 128,
        sampling_args: dict[str, Any] | None = None,
        base_url: str | None = None,
        api_key_var: str = "OPENAI_API_KEY",
    ) -> Evaluation | Coroutine[Any, Any, Evaluation]:
        """Play the first tasks with a model, as v0's `evaluate` does.

        Args:
            client: verifiers' configuration of a client; None asks an OpenAI-compatible server.
            model: the model's name, which must be given.
            num_examples: how many tasks, from the first; -1 takes all.
            rollouts_per_example: rollouts of each task.
            max_concurrent: rollouts at once; None or -1 sets no limit.
            sampling_args: fields of verifiers' `SamplingConfig`.
            base_url: the server's address with ``/v1``; None takes ``OPENAI_BASE_URL``, else OpenAI's.
            api_key_var: the name of the environment variable that has its key.

        Returns:
            ``outputs``, verifiers' traces in the order of the tasks, and the keys of `results.evaluation_score`; a
            coroutine of that where an event loop runs.

        Raises:
            ConfigError: ``model`` is missing, or OpenAI is asked without a key.
        """
        name = require_model(model)
        if client is None:
            client = vf.EvalClientConfig(base_url=model_endpoint(base_url, api_key_var), api_key_var=api_key_var)
        context = vf.ModelContext(model=name, client=client, sampling=vf.SamplingConfig(**(sampling_args or {})))
        return run_or_return(self._evaluate(context, num_examples, rollouts_per_example, max_concurrent))

    async def _evaluate(
        self, context: vf.ModelContext, num_examples: int, rollouts_per_example: int, max_concurrent: int | None
    ) -> Evaluation:
        tasks = list(self.taskset if num_examples < 0 else self.taskset.take(num_examples))
        gate = asyncio.Semaphore(max_concurrent) if max_concurrent and max_concurrent > 0 else None
        async with self.serving():
            slots = [slot for task in tasks for slot in self.slots(task, rollouts_per_example)]
            work = [asyncio.ensure_future(self.run_slot(slot, context, gate)) for slot in slots]
            try:
                episodes = await asyncio.gather(*work)
            except BaseException:  # cancelled: no rollout may go on when this returns
                for rollout in work:
                    rollout.cancel()
                await asyncio.gather(*work, return_exceptions=True)
                raise
        traces = [trace for episode in episodes for trace in episode.traces]
        rewards = [trace.reward for trace in traces if trace.ok]
        return {"outputs": traces, **evaluation_score(rewards, len(episodes))}


def build(request: EnvironmentRequest) -> Tau2Env:
    """The environment that `load_environment`, which lists the errors, was asked for."""
    if request.num_train_examples != -1:
        raise ConfigError(
            "num_train_examples: on verifiers >= 0.4 an environment has one taskset: load another environment with "
            "task_split='train' and num_eval_examples"
        )
    given = request.given()
    config = resolve(given, also=_ARGUMENTS)
    split = evaluation_split(config, request.eval_split or request.task_split)
    domains.tasks(config.domain, split)  # an unknown split is an error now
    taskset = {"id": TASKSET_ID, **given, "domain": config.domain, "task_split": split}
    try:
        env: Tau2Env = vf.load_environment(vf.resolve_env_config({"taskset": taskset}))
    except ModuleNotFoundError as error:
        if error.name not in (None, "tau2_bench"):
            raise
        raise ConfigError(
            "verifiers finds environments as installed modules, and the module tau2_bench is not installed: "
            "pip install -e environments/tau2_bench"
        ) from error
    env.taskset.user = request.user
    if request.num_eval_examples >= 0:
        env.taskset = env.taskset.take(request.num_eval_examples)
    return env
