"""The v1 `Env` of one τ² domain, and `load_environment` with the recipe's signature over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import verifiers.v1 as vf

from tau2_slime.backends.verifiers.settings import (
    evaluation_split,
    model_endpoint,
    require_user,
    resolve,
    simulator_of,
)
from tau2_slime.backends.verifiers.v1.taskset import Tau2Taskset
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains
from tau2_slime.world.users import User

ID = "tau2-bench"


class Tau2EnvConfig(vf.SingleAgentEnvConfig):
    """One agent; its harness runs in this process, so no container or sandbox is asked for."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class Tau2Env(vf.SingleAgentEnv, vf.Env[Tau2EnvConfig]):
    """verifiers' single-agent environment over `Tau2Taskset` and `Tau2Harness`."""

    taskset: Tau2Taskset

    def __init__(self, config: Tau2EnvConfig) -> None:
        super().__init__(config)
        require_user(self.taskset.tau2_config)

    def evaluate(self, client: Any = None, model: str | None = None, **kwargs: Any) -> Any:
        """Rollouts of the first tasks; see `_evaluate`. A coroutine where a loop runs, else the results themselves."""
        work = self._evaluate(client, model, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        return work

    async def _evaluate(
        self,
        client: Any,
        model: str | None,
        *,
        num_examples: int = -1,
        rollouts_per_example: int = 1,
        max_concurrent: int | None = 128,
        sampling_args: dict[str, Any] | None = None,
        base_url: str | None = None,
        api_key_var: str = "OPENAI_API_KEY",
    ) -> dict[str, Any]:
        """``outputs``: verifiers' traces, in the order of the tasks; ``score``: mean reward of the rollouts that count
        (None if none does), ``completed`` and ``failed``: how many do and do not.

        ``client``: a `vf.ClientConfig`; without one the OpenAI-compatible endpoint of ``base_url`` (else OPENAI_BASE_URL,
        else OpenAI) with the key in ``api_key_var``. ``max_concurrent``: rollouts at once; -1 or None: no limit.
        """
        if model is None:
            raise ConfigError("evaluate needs a model: env.evaluate(model='gpt-4', num_examples=10)")
        if client is None:
            client = vf.EvalClientConfig(base_url=model_endpoint(base_url, api_key_var), api_key_var=api_key_var)
        context = vf.ModelContext(model=model, client=client, sampling=vf.SamplingConfig(**(sampling_args or {})))
        tasks = list(self.taskset if num_examples < 0 else self.taskset.take(num_examples))
        gate = asyncio.Semaphore(max_concurrent) if max_concurrent and max_concurrent > 0 else None
        async with self.serving():
            slots = [slot for task in tasks for slot in self.slots(task, rollouts_per_example)]
            work = [asyncio.ensure_future(self.run_slot(slot, context, gate)) for slot in slots]
            try:
                episodes = await asyncio.gather(*work)
            except BaseException:  # cancelled: nothing of it may go on when this returns
                for rollout in work:
                    rollout.cancel()
                await asyncio.gather(*work, return_exceptions=True)
                raise
        traces = [trace for episode in episodes for trace in episode.traces]
        rewards = [trace.reward for trace in traces if trace.ok]
        return {
            "outputs": traces,
            "score": sum(rewards) / len(rewards) if rewards else None,
            "completed": len(rewards),
            "failed": len(episodes) - len(rewards),
        }


def load_environment(
    domain: str | None = None,
    num_train_examples: int = -1,
    num_eval_examples: int = -1,
    user_llm: str | None = None,
    task_split: str | None = None,
    eval_split: str | None = None,
    *,
    user: Callable[[Any], User] | None = None,
    **settings: Any,
) -> Tau2Env:
    """The environment of one domain, as the v0 door's, for `Tau2Env.evaluate`.

    ``num_eval_examples``: the first so many tasks, -1 for all. ``user_llm``: the user simulator (`user_model`). Tasks come
    from ``eval_split``, else ``task_split``, else the domain's test split. ``user``: builds a user of one's own from the
    world. ``settings``: any other key of the taskset.

    Raises:
        ConfigError: an unknown setting or one that would change nothing, an unknown domain or split, the simulator's key
            is not set, or the package `tau2_bench` is not installed.
    """
    if num_train_examples != -1:
        raise ConfigError(
            "num_train_examples: on verifiers >= 0.4 an environment has one taskset: load another one with "
            "task_split='train' and num_eval_examples"
        )
    given = {**settings, "domain": domain, "user_model": simulator_of(user_llm, settings.get("user_model"))}
    given = {name: value for name, value in given.items() if value is not None}
    config = resolve(given, also=("num_eval_examples", "user_llm", "eval_split", "user"))
    taskset = {"id": ID, **given, "domain": config.domain}
    taskset["task_split"] = evaluation_split(config, eval_split or task_split)
    domains.tasks(config.domain, taskset["task_split"])  # an unknown split is told now
    try:
        env = vf.load_environment(vf.resolve_env_config({"taskset": taskset}))
    except ModuleNotFoundError as error:
        if error.name not in (None, "tau2_bench"):
            raise
        raise ConfigError(
            "verifiers finds environments as installed modules, and there is no module tau2_bench: "
            "pip install -e environments/tau2_bench"
        ) from error
    env.taskset.user = user
    if num_eval_examples >= 0:
        env.taskset = env.taskset.take(num_eval_examples)
    return env
