"""What `tau2-slime eval` is asked for, and the plan and the policy that follow from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.config import secret_names
from tau2_slime.config.task_split import named, names_a_file
from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from tau2_slime.evaluation.plan.datasets import Plan
    from tau2_slime.evaluation.runner.api_agent import ApiSpec
    from tau2_slime.evaluation.runner.policies import PolicyBackend


TRAINING_ONLY = (
    *("user_model_rotation", "user_rotation", "user_failover", "user_quality_gate", "user_budget"),
    "reward_shaping",
)
"""Settings without an effect in an evaluation."""


@dataclass
class Request:
    """The options of the command line; `tau2-slime eval --help` describes each."""

    output_dir: Path
    config: Path | None = None
    domains: list[str] = field(default_factory=list)
    split: str | None = None
    tasks: int | None = None
    task_ids: list[str] = field(default_factory=list)
    attempts: int | None = None
    users: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    options: frozenset[str] = frozenset()
    """Those of `overrides` that came by an option of their own, not by ``--set``."""
    router: str | None = None
    hf_checkpoint: str | None = None
    trust_remote_code: bool = False
    policy_model: str | None = None
    policy_base_url: str | None = None
    policy_api_key_var: str | None = None
    policy_args: dict[str, Any] = field(default_factory=dict)
    policy_name: str = ""
    max_context_len: int | None = None
    sampling: dict[str, object] = field(default_factory=dict)
    """By sglang's names; wins over the file's."""
    gold_rate: float = 1.0
    mistakes: float | None = None
    policy_noise: float | None = None
    spelling: float | None = None
    concurrency: int = 16
    retries: int = 2
    max_cost: float | None = None
    prices: list[str] = field(default_factory=list)
    retry_excluded: bool = False
    keep_tokens: bool = False
    with_baselines: bool = True
    wandb_project: str | None = None
    fail_under: list[str] = field(default_factory=list)

    @property
    def embedded(self) -> bool:
        """The package's own scripted policy plays."""
        return self.router is None and self.policy_model is None


def make_plan(request: Request) -> Plan:
    """The episodes to play: those of the config file, or of the domains and users that are named.

    Raises:
        ConfigError: the file is wrong, or a domain, split or setting is unknown.
    """
    from tau2_slime.config.settings import HUMAN, Tau2Config
    from tau2_slime.config.sources import check_keys
    from tau2_slime.evaluation.plan.datasets import default_plan, load_plan
    from tau2_slime.world.domains import domain_of_file, splits

    check_keys(
        request.overrides, "--set", Tau2Config.model_fields, not_here=dict.fromkeys(TRAINING_ONLY, "training only")
    )
    if request.config is not None:
        if request.domains or request.users or request.tasks or request.task_ids or request.split:
            raise ConfigError(
                "--domain, --split, --tasks, --task-ids and --user-model are the config file's business: change it there"
            )
        try:
            return _with_a_use(
                request,
                load_plan(
                    request.config,
                    overrides=request.overrides,
                    attempts=request.attempts,
                    sampling=request.sampling,
                ),
            )
        except ConfigError as error:
            raise _as_typed(request, error) from None
    for key, option in {"domain": "--domain", "task_split": "--split"}.items():
        if key in request.overrides:
            raise ConfigError(f"--set {key} would change nothing here: give {option}")
    try:
        settings = Tau2Config.resolve(None, request.overrides)  # what the environment says counts here as well
    except ConfigError as error:
        raise _as_typed(request, error) from None
    said = settings.model_fields_set
    overrides = dict(request.overrides)
    if request.embedded and "max_turns" not in said:
        # Gold play of telecom asks the user for every step: longer than what a trained agent is allowed by default.
        overrides["max_turns"] = 200
    split = request.split or (settings.task_split if "task_split" in said else None)
    split = None if split is None else named(split, settings.task_files)
    domains = [settings.domain] if "domain" in said else ["airline", "retail", "telecom"]
    if request.task_ids and split is None and "domain" not in said:
        domains = [name for name in domains if set(request.task_ids) <= set(splits(name)["base"])] or domains
    if split is not None and names_a_file(split) and "domain" not in said and not request.domains:
        domains = [domain_of_file(split)]
    users = [settings.user_model] if "user_model" in said else ["scripted", "scripted-terse", "scripted-chatty"]
    if settings.user_strategy == HUMAN:
        users = [HUMAN]
    plan = default_plan(
        request.domains or domains,
        request.users or users,
        split=split,
        tasks=request.tasks or 10,
        task_ids=request.task_ids,
        attempts=request.attempts or 4,
        sampling=request.sampling,
        overrides=overrides,
    )
    return _with_a_use(request, plan)


def _with_a_use(request: Request, plan: Plan) -> Plan:
    """``plan``, if what was asked for changes something in it. Raises ConfigError: it does not."""
    from tau2_slime.config.settings import HUMAN
    from tau2_slime.episode.users import PlayedBy, user_role

    given = request.overrides.get("user_strategy")
    configs = [dataset.config for dataset in plan.datasets]
    if given not in (None, HUMAN) and not any(
        user_role(config, config.user_model).played_by is PlayedBy.MODEL for config in configs
    ):
        raise ConfigError(
            "--user-strategy would change nothing: no model plays the user; name one with --user-model, or in --config"
        )
    if given == HUMAN and request.users:
        raise ConfigError("--user-model would change nothing: a person plays the user (user_strategy human)")
    return plan


def _as_typed(request: Request, error: ConfigError) -> ConfigError:
    """``error`` in the words of the command line."""
    words = str(error)
    for key in request.overrides:
        option = f"--{key.replace('_', '-')}" if key in request.options else f"--set {key}"
        words = words.replace(f"sample.metadata[{key!r}]", option)
    return ConfigError(words)


def make_policy(request: Request, plan: Plan) -> PolicyBackend:
    """The policy to evaluate, not yet entered.

    Raises:
        ConfigError: the options contradict one another, hold a key, or name a user that the embedded policy cannot talk to.
    """
    from tau2_slime.episode.users import PlayedBy, user_role
    from tau2_slime.evaluation.runner.policies import ApiPolicy, EmbeddedPolicy, RouterPolicy

    config = plan.datasets[0].config
    if request.router is not None and request.policy_model is not None:
        raise ConfigError("--router and --policy-model name two policies: give one")
    if request.policy_model is not None:
        base_url, key_var, args = request.policy_base_url, request.policy_api_key_var, request.policy_args
        spec = policy_spec(request.policy_model, base_url, key_var, args, concurrency=request.concurrency)
        return ApiPolicy(spec, name=request.policy_name)
    if request.router is not None:
        if request.hf_checkpoint is None:
            raise ConfigError("--router needs --hf-checkpoint: the tokenizer and chat template of the model it serves")
        return RouterPolicy(
            request.router,
            request.hf_checkpoint,
            config,
            max_context_len=request.max_context_len,
            name=request.policy_name,
            trust_remote_code=request.trust_remote_code,
        )
    for dataset in plan.datasets:
        user = dataset.config
        if user_role(user, user.user_model).played_by is PlayedBy.MODEL:
            raise ConfigError(
                f"dataset {dataset.name} has the user model {user.user_model}, and the embedded policy only talks to "
                "scripted users: name a policy with --router and --hf-checkpoint, or --policy-model; or try the file out "
                "with --set user_model=scripted"
            )
    return EmbeddedPolicy(
        config,
        checkpoint=request.hf_checkpoint,
        gold_rate=request.gold_rate,
        mistakes=request.mistakes,
        noise=request.policy_noise,
        spelling=request.spelling,
        max_context_len=request.max_context_len,
        name=request.policy_name,
        trust_remote_code=request.trust_remote_code,
        played={(item.config.domain, item.config.task_split) for dataset in plan.datasets for item in dataset.items},
    )


def policy_spec(
    model: str, base_url: str | None, key_var: str | None, args: dict[str, Any], *, concurrency: int = 1
) -> ApiSpec:
    """The model behind an API that plays the agent.

    Raises:
        ConfigError: one of its options holds a key; all of this is kept with the results.
    """
    from tau2_slime.evaluation.runner.api_agent import ApiSpec

    try:
        secret_names.variable_name(key_var)
        secret_names.keyless_text(model, "--policy-api-key-var")
        secret_names.keyless_url(base_url, "--policy-api-key-var")
        secret_names.keyless_arguments(args, "--policy-api-key-var")
    except ValueError as error:
        raise ConfigError(f"--policy-model: {error}") from None
    return ApiSpec(model, base_url, key_var, args, concurrency=concurrency)


def parse_threshold(text: str) -> tuple[str, int, float]:
    """The score that must not be lower, as (``pass^`` or ``pass@``, k, limit).

    >>> parse_threshold("0.5"), parse_threshold("pass@4=0.8")
    (('pass^', 1, 0.5), ('pass@', 4, 0.8))

    Raises:
        ConfigError: the text has another form.
    """
    match = re.fullmatch(r"(?:(pass[\^@])(\d+)=)?([01](?:\.\d*)?|\.\d+)", text.strip())
    if match is None or not 0 <= float(match[3]) <= 1 or match[2] == "0":
        raise ConfigError(
            f"--fail-under {text!r}: give a number from 0 to 1 (for pass^1), pass^K=NUMBER or pass@K=NUMBER"
        )
    return match[1] or "pass^", int(match[2] or 1), float(match[3])


def parse_settings(given: list[str]) -> dict[str, Any]:
    """Settings for every dataset's configuration from texts ``KEY=VALUE``, the value in YAML.

    >>> parse_settings(["max_turns=50", "env_kwargs={a: 1}"])
    {'max_turns': 50, 'env_kwargs': {'a': 1}}

    Raises:
        ConfigError: a text has another form.
    """
    from tau2_slime.runtime.yaml_text import UnreadableYaml, load_plain

    out: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text!r}: write KEY=VALUE, such as max_turns=50")
        try:
            out[key] = load_plain(value)
        except UnreadableYaml as error:
            raise ConfigError(f"--set {text!r}: {error}") from None
    return out


def parse_json(text: str | None, option: str) -> dict[str, Any]:
    """The JSON object in ``text``; empty for no text. ``option``: what messages call it.

    Raises:
        ConfigError: it is not a JSON object.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{option} is not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{option} must be a JSON object")
    return dict(value)
