"""Who plays the user of an episode: scripted, a model at its endpoint, a class of one's own, or a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tau2_slime.config.settings import HUMAN, Tau2Config
from tau2_slime.config.simulators import Price, seed_of_attempt
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Flaw
from tau2_slime.runtime import run_stop
from tau2_slime.world.environment import World
from tau2_slime.world.litellm_client import load_litellm
from tau2_slime.world.users import LitellmUser, User, UserContext, UserSpec
from tau2_slime.world.users.custom import custom_user
from tau2_slime.world.users.spec import SERVED_BY_SLIME
from tau2_slime.world.users.spending import listed_price, spending

SCRIPTED = "scripted"


class PlayedBy(StrEnum):
    """Who plays the user."""

    NOBODY = "nobody"
    """A solo agent works on a ticket."""
    PERSON = "person"
    """Somebody at this terminal: ``user_strategy: human``."""
    OWN_CLASS = "own class"
    """The class, or τ²'s registered user, of ``user_path``."""
    SCRIPT = "script"
    """The task's gold script: no model, no key, no network."""
    MODEL = "model"


@dataclass(frozen=True)
class UserRole:
    """Who plays the user of an episode, as its results tell it."""

    played_by: PlayedBy
    label: str = ""
    """The model, or the class of ``user_path`` with the model that was chosen for it; empty if nobody plays."""
    strategy: str = "llm"
    """How the user comes to a message; only a model that is asked here has a choice."""


def user_role(config: Tau2Config, model: str) -> UserRole:
    """Who plays the user where ``config`` names the simulator ``model``.

    >>> user_role(Tau2Config(user_strategy="reflection"), "gpt-4o")
    UserRole(played_by=<PlayedBy.MODEL: 'model'>, label='gpt-4o', strategy='reflection')
    """
    if config.agent_type == "solo":
        return UserRole(PlayedBy.NOBODY)
    if config.user_strategy == HUMAN:
        return UserRole(PlayedBy.PERSON, HUMAN, HUMAN)
    if config.user_path is not None:
        chosen = "user_model" in config.model_fields_set or config.user_pool
        return UserRole(PlayedBy.OWN_CLASS, f"{config.user_path}:{model}" if chosen else config.user_path)
    simulator = config.simulator(model)
    if is_scripted(simulator.model):
        return UserRole(PlayedBy.SCRIPT, model)
    return UserRole(PlayedBy.MODEL, model, simulator.strategy or config.user_strategy)


Routers = Mapping[str, tuple[str, int]]
"""What slime's ``--sglang-config`` serves beside the policy: a model's name -> host and port of its router."""


def make_user(
    config: Tau2Config,
    spec: UserSpec,
    world: World,
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
        if verifier.budget is not None:
            _check_budget(verifier)
        verifier.ready()
    return LitellmUser(
        specs[0],
        tools=world.user_tools,
        instructions=scenario,
        others=specs[1:],
        strategy=user_role(config, spec.name).strategy,
        gate=config.user_quality_gate or tuple(Flaw),
        verifier=verifier,
    )


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
        args=seeded(args, attempt),
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


def models_of(config: Tau2Config, *, training: bool = True) -> list[str]:
    """The user models that an episode under ``config`` may talk to."""
    if config.agent_type == "solo":
        return []
    pool = [simulator.name for simulator in config.user_pool] if training else []
    return pool or [config.user_model]
