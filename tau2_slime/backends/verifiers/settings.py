"""What both of verifiers' doors are told: the configuration, the model's endpoint, and what is counted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tau2_slime.config.settings import Tau2Config, check_keys
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.users import is_scripted, user_spec
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Blame
from tau2_slime.world import domains

RECORD = "tau2"
"""Under this key a rollout keeps `record_of` its episode: v0's ``state``, v1's ``trace.info``."""

PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION")
"""τ²'s `RewardType`s; the reward is the product of those that the task is graded on."""
COUNTERS = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors")

NOT_HERE = {
    **dict.fromkeys(
        ("tool_call_parser", "chat_template_kwargs", "stop_mismatch", "drift_rate"), "tokens are the model server's"
    ),
    **dict.fromkeys(
        ("user_model_rotation", "user_rotation", "user_failover", "user_quality_gate", "user_budget"),
        "it is for training through slime or Tinker",
    ),
    **dict.fromkeys(
        ("reward_shaping", "simulator_baseline", "min_valid_samples"), "verifiers' trainer uses τ²'s reward"
    ),
}
"""Keys of `Tau2Config` that would change nothing here -> why."""


def resolve(
    given: Mapping[str, Any], *, also: Iterable[str] = (), not_here: Mapping[str, str] = NOT_HERE
) -> Tau2Config:
    """The configuration: ``given`` (None: not given) over ``TAU2_*`` over the defaults. ``also``: further keys that the
    door takes, for the message.

    Raises:
        ConfigError: an unknown setting, domain or split, one of ``not_here``, or a value that is not allowed.
    """
    check_keys(given, "the tau2_bench environment", also=also, not_here=not_here)
    try:
        config = Tau2Config.resolve(metadata=given)
    except ConfigError as error:
        raise ConfigError(re.sub(r"sample\.metadata\['(\w+)'\]", r"\1", str(error))) from None
    domains.splits(config.domain)
    return config


def simulator_of(user_llm: str | None, user_model: str | None) -> str | None:
    """Which of the two words for the user simulator was given, None if neither.

    Raises:
        ConfigError: both were, and they differ.
    """
    if user_llm is not None and user_model not in (None, user_llm):
        raise ConfigError(f"user_llm={user_llm!r} and user_model={user_model!r} are two words for one thing")
    return user_llm or user_model


def training_split(config: Tau2Config, given: str | None) -> str:
    """``given``, else the configured one (train); all tasks where that is the default and the domain has no such split."""
    default = Tau2Config.model_fields["task_split"].default
    whole = config.task_split == default and default not in domains.splits(config.domain)
    return given or ("base" if whole else config.task_split)


def evaluation_split(config: Tau2Config, given: str | None) -> str:
    """``given``, else τ²'s test split, else (a domain without one) all tasks."""
    return given or ("test" if "test" in domains.splits(config.domain) else "base")


def model_endpoint(base_url: str | None, key_var: str) -> str:
    """Where `evaluate` finds the model: ``base_url``, else OPENAI_BASE_URL, else OpenAI.

    Raises:
        ConfigError: it is OpenAI, and there is no key.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL")
    if not url and not os.environ.get(key_var):
        raise ConfigError(
            f"evaluate asks OpenAI with the key in the environment variable {key_var}, which is not set; export it, name "
            "another one with api_key_var, or give the base_url of a server of your own (or OPENAI_BASE_URL)"
        )
    return url or "https://api.openai.com/v1"


def require_user(config: Tau2Config) -> None:
    """A simulator whose key is missing is told now, and not by every rollout.

    Raises:
        ConfigError: naming the variable.
    """
    if config.agent_type == "solo":
        return
    plays = config.simulator(config.user_model).model
    if not is_scripted(plays):
        user_spec(config, config.user_model).connection()


def record_of(result: InteractionResult) -> dict[str, Any]:
    """The episode as plain data: `InteractionResult.to_dict` as JSON, because wires and files know nothing else."""
    record: dict[str, Any] = json.loads(result.to_json(tokens=False))
    return record


def figures(reward_info: Mapping[str, Any] | None, stats: Mapping[str, Any], blame: str) -> dict[str, float]:
    """An episode's metrics: the reward's parts (1.0 where the task is not graded on one), counters, blame."""
    breakdown = (reward_info or {}).get("reward_breakdown") or {}
    unasked = 1.0 if breakdown else 0.0
    out = {f"reward_{part.lower()}": float(breakdown.get(part, unasked)) for part in PARTS}
    out |= {f"tau2_{name}": float(stats[name]) for name in COUNTERS}
    return out | {f"blame_{name}": float(blame == name) for name in Blame}
