"""From a configuration to one episode: the task, a fresh world, the agent, the user, the judge. Knows nothing of slime."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.config.settings import HUMAN, Tau2Config
from tau2_slime.config.simulators import Price, seed_of_attempt
from tau2_slime.episode.agents import build_agent
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.examples import examples_of
from tau2_slime.episode.play import EpisodeSetup
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Flaw
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.loops import offload
from tau2_slime.world import domains, retrieval, scoring
from tau2_slime.world.judge import JudgeSpec
from tau2_slime.world.litellm_client import load_litellm
from tau2_slime.world.users import LitellmUser, User, UserContext, UserSpec
from tau2_slime.world.users.custom import custom_user
from tau2_slime.world.users.spec import SERVED_BY_SLIME
from tau2_slime.world.users.spending import listed_price, spending

if TYPE_CHECKING:
    from tau2_slime.episode.transcript import Speaker
    from tau2_slime.world.types import Task

logger = logging.getLogger(__name__)


async def choose_task(config: Tau2Config, *, task_id: str | None = None, index: int | None = None) -> Task:
    """The task of ``config``'s domain and split, by id or position from 0, if τ² can score it.

    Raises:
        ConfigError: no such task exists, or it needs a judge that was not asked for.
    """
    find = functools.partial(domains.find_task, config.domain, config.task_split, task_id=task_id, index=index)
    task = find() if (config.domain, config.task_split) in domains.loaded else await offload(find)
    scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
    return task


def playable(config: Tau2Config, split: str) -> list[Task]:
    """The split's tasks. Those that only an LLM judge can grade are left out, with a warning, unless that is allowed.

    Raises:
        ConfigError: the domain has no such split, needs a retrieval variant, or ``few_shot`` cannot be used.
    """
    retrieval.require(config.domain, config.environment)
    tasks = domains.tasks(config.domain, split)
    kept = [task for task in tasks if config.allow_llm_judge or not scoring.needs_judge(task)]
    if len(kept) < len(tasks):
        logger.warning(
            "%s/%s: %d tasks are graded by an LLM judge and left out (allow_llm_judge=True keeps them)",
            config.domain,
            split,
            len(tasks) - len(kept),
        )
    if kept:  # what is wrong with the examples is told before anything is played
        examples_of(config, config.domain, split, str(kept[0].id))
    return kept


async def build_episode(
    config: Tau2Config,
    task: Task,
    policy: Speaker,
    user_model: str,
    *,
    user: Callable[[domains.World], User] | None = None,
    routers: Routers | None = None,
    training: bool = False,
    attempt: int = 0,
) -> EpisodeSetup:
    """A fresh world for ``task``, and who plays in it.

    Args:
        user_model: name of the simulator that plays the user.
        user: builds a user of one's own from the world; it replaces the simulator.
        routers: what slime serves beside the policy; None outside a training job.
        training: the settings that are for training only count (the quality gate, reward parts, failover, budget).
        attempt: which of several attempts at the task this is, from 0; each has a seed of its own (`user_args`).

    Raises:
        ConfigError: this kind of agent cannot play the task, or the simulator's key is not set.
    """
    solo = config.agent_type == "solo"
    retrieval.require(config.domain, config.environment)
    try:
        world = await domains.new_world(
            config.domain, config.task_split, task, solo=solo, env_kwargs=config.environment
        )
        agent = build_agent(world, policy, config)
    except ConfigError:
        raise
    except ValueError as error:  # τ²'s own refusals: no solo mode, no ticket, no gold actions
        raise ConfigError(f"agent_type={config.agent_type!r} in {config.domain}: {error}") from error
    limits = Limits(max_steps=config.max_steps, max_errors=config.max_errors, max_turns=config.max_turns)
    setup = EpisodeSetup(agent, None, limits, metrics=config.metrics)
    if config.allow_llm_judge and scoring.needs_judge(task):
        setup.judge = judge_of(config, training=training)
    if training and config.reward_shaping is not None:
        setup.reward_parts = tuple(config.reward_shaping.parts)
    if not solo:
        setup.user_model = user_label(config, user_model)
        setup.examine_user = asks_a_model(config, user_model) or config.user_path is not None
        setup.excluded_flaws = config.user_quality_gate if training else ()
        if user is not None:
            setup.user = user(world)
            return setup
        spec = user_spec(config, user_model, routers, attempt=attempt)
        setup.user = make_user(config, spec, world, routers, evaluation=not training, attempt=attempt)
        setup.user_strategy = strategy_of(config, user_model)
        if setup.examine_user:
            seed = spec.args.get("seed")
            setup.seeds = {"user": seed} if isinstance(seed, int) else {}
    return setup


def judge_of(config: Tau2Config, *, training: bool) -> JudgeSpec:
    """Who judges the tasks that need an LLM judge.

    Raises:
        ConfigError: the judge's key is not set.
    """
    spec = JudgeSpec(
        config.judge_model or "",
        base_url=config.judge_base_url,
        api_key_var=config.judge_api_key_var,
        budget=config.user_budget if training else None,
    ).resolved()
    spec.connection()  # what is missing is told before anything is played
    return spec


# ---- who plays the user: scripted, a model at its endpoint, or a class of one's own ----

SCRIPTED = "scripted"


Routers = Mapping[str, tuple[str, int]]
"""What slime's ``--sglang-config`` serves beside the policy: a model's name -> host and port of its router."""


def make_user(
    config: Tau2Config,
    spec: UserSpec,
    world: domains.World,
    routers: Routers | None = None,
    *,
    evaluation: bool = False,
    attempt: int = 0,
) -> User:
    """The simulator that plays ``world.task``'s user, from its `user_spec`.

    ``routers``, ``attempt``: those of ``spec``, for whoever takes over. ``evaluation``: nobody takes over, no budget.

    Raises:
        ConfigError: its key variable is not set or its key was refused, or slime serves no model of that name.
    """
    scenario = str(world.task.user_scenario)
    if config.user_strategy == HUMAN:
        from tau2_slime.local.person import HumanUser
        from tau2_slime.local.terminal import require_terminal

        require_terminal(f"user_strategy {HUMAN}")
        return HumanUser(world)
    if config.user_path is not None:
        context = UserContext(world.task, world.domain, world.split, scenario, world.user_tools, spec)
        return custom_user(config.user_path)(context)
    if is_scripted(spec.model):
        from tau2_slime.local.scripted_user import ScriptedUser, style_of

        return ScriptedUser(world.task, world.domain, world.split, style_of(spec.model))
    stop = None if evaluation else run_stop.reason_to_stop()
    if stop is not None:
        raise ConfigError(stop)
    stand_ins = config.stand_ins_for(spec.name, evaluation=evaluation)
    specs = [spec, *(user_spec(config, name, routers, attempt=attempt) for name in stand_ins)]
    specs = [one for one in specs if not is_scripted(one.model)]
    if config.user_budget is not None and not evaluation:
        specs = [dataclasses.replace(spec, budget=config.user_budget) for spec in specs]
        for spec in specs:
            _check_budget(spec)
    for spec in specs:  # what is missing is told before the policy is asked anything
        spec.ready()
    named = config.simulator(spec.name).verifier
    verifier = user_spec(config, named, routers, attempt=attempt) if named else None
    if verifier is not None:
        verifier = dataclasses.replace(verifier, budget=specs[0].budget)
        verifier.ready()
    return LitellmUser(
        specs[0],
        tools=world.user_tools,
        instructions=scenario,
        others=specs[1:],
        strategy=strategy_of(config, spec.name),
        gate=config.user_quality_gate or tuple(Flaw),
        verifier=verifier,
    )


def strategy_of(config: Tau2Config, model: str) -> str:
    """How the simulator ``model`` comes to a message; only a model that is asked here has a choice."""
    if config.user_strategy == HUMAN:
        return HUMAN
    return (config.simulator(model).strategy or config.user_strategy) if asks_a_model(config, model) else "llm"


def asks_a_model(config: Tau2Config, model: str) -> bool:
    """True if ``model`` plays the user: not a person, nor a class of one's own, nor a script."""
    own = config.user_strategy == HUMAN or config.user_path is not None
    return not own and not is_scripted(config.simulator(model).model)


def _check_budget(spec: UserSpec) -> None:
    """Raises ConfigError: the budget is spent, or what this simulator adds to the bill would not be known."""
    own = spec.base_url is not None
    if spec.price is None and (own or listed_price(spec.model) is None):
        raise ConfigError(
            f"user_budget needs the price of the user simulator {spec.label!r}, which litellm's table does not list"
            f"{' for an endpoint of your own' if own else ''}: give the entry of user_simulators a price: {{input: ..., "
            "output: ...}, US dollars for a million tokens, zeros if it costs nothing"
        )
    spending.check(spec.budget)


def is_scripted(model: str) -> bool:
    """True for the users that need no model, no key and no network."""
    return model == SCRIPTED or model.startswith(f"{SCRIPTED}-")


def user_spec(config: Tau2Config, model: str, routers: Routers | None = None, *, attempt: int = 0) -> UserSpec:
    """How to reach the simulator ``model``. ``routers``: what slime serves; None outside a training job.

    ``attempt``: of several at one task; a ``seed`` among the arguments is another one for each.

    Raises:
        ConfigError: slime serves no model of the name that its ``sglang:`` address gives.
    """
    simulator = config.simulator(model)
    args = config.user_args if simulator.args is None else simulator.args
    base_url, price = simulator.base_url, simulator.price
    served = base_url is not None and base_url.startswith(SERVED_BY_SLIME)
    if served and price is None:
        price = Price(input=0, output=0)
    if base_url is not None and served and routers is not None:
        base_url = f"{_served_by_slime(routers, base_url.removeprefix(SERVED_BY_SLIME), simulator.name)}/v1"
    return UserSpec(
        model=simulator.model,
        base_url=base_url,
        api_key_var=simulator.api_key_var,
        args=seeded(args, attempt) if attempt else args,
        timeout=config.user_timeout,
        retries=config.user_retries,
        concurrency=simulator.concurrency or config.user_concurrency,
        name=simulator.name,
        price=price,
        patience=config.user_patience,
    )


def seeded(args: dict[str, Any], attempt: int) -> dict[str, Any]:
    """``args`` with the seed of this attempt, if they have one."""
    seed = args.get("seed")
    return {**args, "seed": seed_of_attempt(seed, attempt)} if isinstance(seed, int) and attempt else args


def _served_by_slime(routers: Routers, name: str, simulator: str) -> str:
    """``http://host:port`` of the router in front of that model of slime's ``--sglang-config``.

    slime's own `get_model_url` answers with the actor's router for a name that it does not know: the policy would play its
    own user.

    Raises:
        ConfigError: slime serves no such model.
    """
    if name not in routers:
        known = ", ".join(sorted(routers)) or "none: no --sglang-config, or a slime before v0.2.3"
        raise ConfigError(
            f"user simulator {simulator!r} wants the model {name!r} of slime's --sglang-config, which serves no model of "
            f"that name (there are: {known})"
        )
    host, port = routers[name]
    return f"http://{host}:{port}"


def check_user(config: Tau2Config, model: str) -> str:
    """The user can play, as far as that is known before its first call. The text says with which key, never the key itself.

    Raises:
        ConfigError: the class of ``user_path`` cannot be used, or the model has no key, or its key was refused.
    """
    if config.user_strategy == HUMAN:
        from tau2_slime.local.terminal import require_terminal

        require_terminal(f"user_strategy {HUMAN}")
        return "a person at this terminal"
    if config.user_path is not None:
        custom_user(config.user_path)
        return f"plays as {config.user_path}"
    spec = user_spec(config, model)
    if is_scripted(spec.model):
        from tau2_slime.local.scripted_user import style_of

        style_of(spec.model)
        return "needs no key"
    if (spec.base_url or "").startswith(SERVED_BY_SLIME):
        return f"served by slime's own --sglang-config, as {(spec.base_url or '').removeprefix(SERVED_BY_SLIME)!r}"
    spec.ready()
    if spec.api_key_var is None and spec.base_url is None:
        missing = load_litellm().validate_environment(spec.model).get("missing_keys") or []
        if missing:
            raise ConfigError(
                f"user model {model!r} needs {' and '.join(missing)} in the environment, or its key in a variable that "
                "user_api_key_var names"
            )
    return f"key in {spec.api_key_var}" if spec.api_key_var else "key as its provider wants it"


def user_label(config: Tau2Config, model: str) -> str:
    """What results call the user: ``model``, or the class of ``user_path`` with the model that was chosen for it."""
    if config.user_strategy == HUMAN:
        return HUMAN
    if config.user_path is None:
        return model
    chosen = "user_model" in config.model_fields_set or config.user_pool
    return f"{config.user_path}:{model}" if chosen else config.user_path


def models_of(config: Tau2Config, *, training: bool = True) -> list[str]:
    """The user models that an episode under ``config`` may talk to."""
    if config.agent_type == "solo":
        return []
    pool = [simulator.name for simulator in config.user_pool] if training else []
    return pool or [config.user_model]
