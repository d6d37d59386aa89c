"""What both of verifiers' doors are given: the arguments of `load_environment`, the configuration, the model's endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.sources import check_keys
from tau2_slime.episode.users import check_user
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.users import User

WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("tool_call_parser", "chat_template_kwargs", "stop_mismatch", "drift_rate"), "the model's server has the tokens"
    ),
    **dict.fromkeys(
        ("user_model_rotation", "user_rotation", "user_failover", "user_quality_gate", "user_budget"),
        "it is for training through slime or Tinker",
    ),
    **dict.fromkeys(
        ("reward_shaping", "simulator_baseline", "min_valid_samples"), "verifiers' trainer uses τ²'s reward"
    ),
    "metrics": "a metric of your own is a function of verifiers' rubric",
}
"""Settings of `Tau2Config` that both doors refuse, and why each would change nothing here."""


@dataclass(frozen=True)
class EnvironmentRequest:
    """The arguments of `load_environment`, which documents them."""

    domain: str | None
    num_train_examples: int
    num_eval_examples: int
    user_llm: str | None
    task_split: str | None
    eval_split: str | None
    user: Callable[[World], User] | None
    settings: Mapping[str, object]

    def given(self) -> dict[str, object]:
        """The settings that were given, domain and user simulator included, splits and numbers of tasks left out.

        Raises:
            ConfigError: `user_llm` and the setting ``user_model`` disagree.
        """
        given = {**self.settings, "domain": self.domain}
        given["user_model"] = choose_user_model(self.user_llm, self.settings.get("user_model"))
        return {name: value for name, value in given.items() if value is not None}


def resolve(
    given: Mapping[str, object], *, also: Iterable[str] = (), without_effect: Mapping[str, str] = WITHOUT_EFFECT
) -> Tau2Config:
    """The configuration: ``given`` beats ``TAU2_*`` variables, which beat the defaults.

    Args:
        given: settings by name; a value of None counts as not given.
        also: further arguments of the door, for the list of names in the error message.
        without_effect: settings that are refused, and why.

    Raises:
        ConfigError: a setting is unknown, without effect or out of range, or the domain is unknown.
    """
    check_keys(given, "the tau2_bench environment", Tau2Config.model_fields, also=also, not_here=without_effect)
    try:
        config = Tau2Config.resolve(metadata=given)
    except ConfigError as error:
        raise ConfigError(re.sub(r"sample\.metadata\['(\w+)'\]", r"\1", str(error))) from None
    domains.splits(config.domain)
    return config


def choose_user_model(user_llm: str | None, user_model: object) -> object:
    """The user simulator from its two names, of which at most one is needed; None if neither is given.

    Raises:
        ConfigError: both are given, and they differ.
    """
    if user_llm is not None and user_model not in (None, user_llm):
        raise ConfigError(
            f"user_llm={user_llm!r} and user_model={user_model!r} both name the user simulator: give one of them"
        )
    return user_llm or user_model


def training_split(config: Tau2Config, given: str | None) -> str:
    """``given``, else the configured split. A domain without the default split (train) takes all its tasks (base)."""
    default = Tau2Config.model_fields["task_split"].default
    missing = config.task_split == default and default not in domains.splits(config.domain)
    return given or ("base" if missing else config.task_split)


def evaluation_split(config: Tau2Config, given: str | None) -> str:
    """``given``, else test. A domain without a test split takes all its tasks (base)."""
    return given or ("test" if "test" in domains.splits(config.domain) else "base")


def model_endpoint(base_url: str | None, key_var: str) -> str:
    """Where `evaluate` finds the model: ``base_url``, else ``OPENAI_BASE_URL``, else OpenAI.

    Raises:
        ConfigError: it is OpenAI, and the environment variable ``key_var`` is not set.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL")
    if not url and not os.environ.get(key_var):
        raise ConfigError(
            f"evaluate asks OpenAI with the key in the environment variable {key_var}, which is not set; set it, name "
            "another variable with api_key_var, or give the base_url of your own server (or set OPENAI_BASE_URL)"
        )
    return url or "https://api.openai.com/v1"


def require_model(model: str | None) -> str:
    """``model``, which `evaluate` cannot do without.

    Raises:
        ConfigError: it is None.
    """
    if model is None:
        raise ConfigError("evaluate needs a model: env.evaluate(model='gpt-4', num_examples=10)")
    return model


def require_user_key(config: Tau2Config) -> None:
    """Check now, and not in every rollout, that the user simulator's key is set. A solo episode has no user.

    Raises:
        ConfigError: naming the environment variable that is not set.
    """
    if config.agent_type == "solo":
        return
    check_user(config, config.user_model)
