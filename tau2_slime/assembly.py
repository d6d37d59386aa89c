"""From (args, sample) to the parts of one episode: configuration, policy, world, agent, user.

What is shared by every episode of a process (tokenizer, calibrated chat template, parser, tasks) is built once, off the
event loop; what belongs to one episode (environment, simulator, ledger) is built here each time.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_slime import run_stop
from tau2_slime.config import Tau2Config
from tau2_slime.episode import Limits
from tau2_slime.errors import ConfigError
from tau2_slime.flaws import Flaw
from tau2_slime.offload import Once, offload
from tau2_slime.samples import replay_spec
from tau2_slime.slime_compat import generation_trace, session_key
from tau2_slime.tokens import replay_probe
from tau2_slime.tokens.chat_delta import ChatDelta
from tau2_slime.tokens.chat_template import TemplateError
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.replay import ExpertShape
from tau2_slime.tokens.tool_calls import ToolCallParser, detect_parser, get_parser
from tau2_slime.trainable_agents import Policy, TrainableAgentMixin, agent_factory
from tau2_slime.transcript import Speaker
from tau2_slime.user_pool import Price
from tau2_slime.world import domains, scoring
from tau2_slime.world.users import LitellmUser, User, UserSpec
from tau2_slime.world.users.spec import SERVED_BY_SLIME
from tau2_slime.world.users.spending import listed_price, spending

SCRIPTED = "scripted"
DEFAULT_MAX_NEW_TOKENS = 8192


@dataclass(frozen=True)
class Language:
    """One checkpoint's tokenizer, proven chat template and tool-call format."""

    delta: ChatDelta
    parser: ToolCallParser
    context_length: int | None
    """What the checkpoint's config.json says, if it says."""

    @property
    def stop_ids(self) -> list[int]:
        """Token ids that the model surely knows."""
        return sorted(self.delta.stop_ids)


@dataclass
class Parts:
    """Everything that one episode needs."""

    config: Tau2Config
    agent: TrainableAgentMixin
    user: User | None
    user_model: str
    limits: Limits
    gate: tuple[Flaw, ...] = ()
    """What the simulator must not have done in an episode that counts."""


_languages: Once[Language] = Once()


def config_for(args: Any, sample: Any) -> Tau2Config:
    """The configuration of one sample: metadata > TAU2_* > the ``tau2:`` mapping > defaults.

    Raises:
        ConfigError: naming the key, where it came from and what is allowed.
    """
    return Tau2Config.resolve(getattr(args, "tau2", None), _metadata(sample))


async def language_for(checkpoint: str, config: Tau2Config, tokenizer: Any | None = None) -> Language:
    """The `Language` of ``checkpoint`` (loaded unless ``tokenizer`` is given), built once per process.

    Raises:
        ConfigError: no such checkpoint, or its chat template cannot be used token-exactly; the message says why.
    """
    key = (checkpoint, json.dumps(config.chat_template_kwargs, sort_keys=True), config.tool_call_parser)
    return await _languages.get(key, lambda: build_language(checkpoint, config, tokenizer))


def build_language(checkpoint: str, config: Tau2Config, tokenizer: Any | None = None) -> Language:
    """Load, calibrate and detect; takes up to seconds, call it off the loop."""
    if tokenizer is None:
        tokenizer = load_tokenizer(checkpoint)
    try:
        delta = ChatDelta.calibrate(
            tokenizer,
            template_kwargs=config.chat_template_kwargs,
            generation_stop_ids=_generation_stop_ids(checkpoint),
        )
    except TemplateError as error:
        raise ConfigError(f"the chat template of {checkpoint} cannot be used: {error}") from error
    try:
        name = config.tool_call_parser
        if name == "auto":
            name = detect_parser(delta.template.template_source, delta.template.control_tokens)
        parser = get_parser(name)
    except ValueError as error:  # ParserUnavailable, UnknownToolFormat
        raise ConfigError(f"tool_call_parser={config.tool_call_parser!r} for {checkpoint}: {error}") from error
    return Language(delta, parser, _context_length(checkpoint))


def load_tokenizer(checkpoint: str) -> Any:
    """transformers' tokenizer of a checkpoint folder or hub name.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=True)
    except Exception as error:  # a broken folder raises whatever the code meets that trips over it
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ConfigError(
            f"no tokenizer can be loaded from {checkpoint!r}: {type(error).__name__}: {reason}; "
            "hf_checkpoint must be a Hugging Face folder or hub name"
        ) from error


async def assemble(
    args: Any, sample: Any, sampling_params: Mapping[str, Any], *, evaluation: bool, tokenizer: Any | None = None
) -> Parts:
    """Everything for one episode.

    Raises:
        ConfigError: a setting, the task or the checkpoint is wrong, or the server cannot give what shall be replayed.
    """
    stop = run_stop.reason_to_stop()
    if stop is not None and not evaluation:
        raise ConfigError(stop)
    config = config_for(args, sample)
    checkpoint = getattr(args, "hf_checkpoint", None)
    if not checkpoint and tokenizer is None:
        raise ConfigError("args.hf_checkpoint is not set: the tokenizer and its chat template come from there")
    language = await language_for(str(checkpoint), config, tokenizer)
    task = await choose_task(config, task_id=_metadata(sample).get("task_id"), index=_task_index(sample))
    policy = _policy(args, sample, sampling_params, config, language, evaluation)
    if policy.replay.wanted:
        await replay_probe.require(router_url(args), language.stop_ids, policy.sampling_params, policy.replay)
    model = config.user_model_for(
        getattr(sample, "index", None), evaluation=evaluation, group_index=getattr(sample, "group_index", None)
    )
    parts = await cast(
        config, task, policy, model, lambda world: make_user(config, model, world, args, evaluation=evaluation)
    )
    parts.gate = () if evaluation else config.user_quality_gate
    return parts


async def choose_task(config: Tau2Config, *, task_id: str | None = None, index: int | None = None) -> Any:
    """The task of ``config``'s domain and split, by id or position, if τ² can score it.

    Raises:
        ConfigError: there is no such task, or it needs a judge that was not asked for.
    """
    find = functools.partial(domains.find_task, config.domain, config.task_split, task_id=task_id, index=index)
    task = find() if domains.is_loaded(config.domain, config.task_split) else await offload(find)
    scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
    return task


async def cast(
    config: Tau2Config,
    task: Any,
    policy: Speaker,
    user_model: str,
    user: Callable[[domains.World], User] | None = None,
) -> Parts:
    """A fresh world for ``task``, and who plays in it. ``user``: builds a simulator of one's own.

    Raises:
        ConfigError: this kind of agent cannot play the task, or the simulator's key is not set.
    """
    solo = config.agent_type == "solo"
    try:
        world = await domains.new_world(config.domain, config.task_split, task, solo=solo, env_kwargs=config.env_kwargs)
        world.audit_rate = config.audit_rate
        agent = agent_factory(config.agent_type, world, policy)
    except ConfigError:
        raise
    except ValueError as error:  # τ²'s own refusals: no solo mode, no ticket, no gold actions
        raise ConfigError(f"agent_type={config.agent_type!r} in {config.domain}: {error}") from error
    customer = None
    if not solo:
        customer = user(world) if user is not None else make_user(config, user_model, world)
    limits = Limits(max_steps=config.max_steps, max_errors=config.max_errors, max_turns=config.max_turns)
    return Parts(config, agent, customer, "" if solo else user_model, limits)


def make_user(
    config: Tau2Config, model: str, world: domains.World, args: Any = None, *, evaluation: bool = False
) -> User:
    """The simulator that plays ``world.task``'s user. ``model``: its name in the pool, or a model.

    Raises:
        ConfigError: its key variable is not set or its key was refused, or slime serves no model of that name.
    """
    plays = config.simulator(model).model
    if is_scripted(plays):
        from tau2_slime.local.scripted_user import STYLES, ScriptedUser

        if plays not in STYLES:
            raise ConfigError(f"user_model={plays!r} is unknown; users without a model are: {', '.join(STYLES)}")
        return ScriptedUser(world.task, world.domain, world.split, STYLES[plays])
    names = [model, *config.stand_ins_for(model, evaluation=evaluation)]
    specs = [user_spec(config, name, args) for name in names if not is_scripted(config.simulator(name).model)]
    if config.user_budget is not None and not evaluation:
        specs = [dataclasses.replace(spec, budget=config.user_budget) for spec in specs]
        for spec in specs:
            _check_budget(spec)
    for spec in specs:  # what is missing is told before the policy is asked anything
        spec.ready()
    return LitellmUser(specs[0], tools=world.user_tools, instructions=str(world.task.user_scenario), others=specs[1:])


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


def user_spec(config: Tau2Config, model: str, args: Any = None) -> UserSpec:
    """How to reach the simulator ``model``. ``args``: slime's, which know what slime serves; None outside a training job.

    Raises:
        ConfigError: slime serves no model of the name that its ``sglang:`` address gives.
    """
    simulator = config.simulator(model)
    base_url, price = simulator.base_url, simulator.price
    served = base_url is not None and base_url.startswith(SERVED_BY_SLIME)
    if served and price is None:
        price = Price(input=0, output=0)
    if base_url is not None and served and args is not None:
        base_url = f"{served_by_slime(args, base_url.removeprefix(SERVED_BY_SLIME), simulator.name)}/v1"
    return UserSpec(
        model=simulator.model,
        base_url=base_url,
        api_key_var=simulator.api_key_var,
        args=config.user_args if simulator.args is None else simulator.args,
        timeout=config.user_timeout,
        retries=config.user_retries,
        concurrency=simulator.concurrency or config.user_concurrency,
        name=simulator.name,
        price=price,
        patience=config.user_patience,
    )


def served_by_slime(args: Any, name: str, simulator: str) -> str:
    """``http://host:port`` of the router in front of that model of slime's ``--sglang-config``.

    slime's own `get_model_url` answers with the actor's router for a name that it does not know: the policy would play its
    own user.

    Raises:
        ConfigError: there is no such model.
    """
    routers = getattr(args, "sglang_model_routers", None) or {}
    if name not in routers:
        known = ", ".join(sorted(routers)) or "none: no --sglang-config, or a slime before v0.2.3"
        raise ConfigError(
            f"user simulator {simulator!r} wants the model {name!r} of slime's --sglang-config, which serves no model of "
            f"that name (there are: {known})"
        )
    host, port = routers[name]
    return f"http://{host}:{port}"


def router_url(args: Any) -> str:
    """``http://host:port`` of slime's router.

    Raises:
        ConfigError: slime did not set it.
    """
    host, port = getattr(args, "sglang_router_ip", None), getattr(args, "sglang_router_port", None)
    if not host or not port:
        raise ConfigError("args.sglang_router_ip and args.sglang_router_port are not set: no server to sample from")
    return f"http://{host}:{port}"


def context_limit(args: Any, language: Language, *, evaluation: bool) -> int | None:
    """Tokens that a whole trajectory may have: the smallest limit that slime, sglang and the checkpoint name."""
    named = [getattr(args, "sglang_context_length", None), language.context_length]
    train = getattr(args, "rollout_max_context_len", None)
    named.append((getattr(args, "eval_max_context_len", None) or train) if evaluation else train)
    known = [int(limit) for limit in named if limit]
    # sglang refuses input + max_new_tokens beyond its length; one token of reserve keeps every version content.
    return min(known) - 1 if known else None


def _policy(
    args: Any, sample: Any, sampling_params: Mapping[str, Any], config: Tau2Config, language: Language, evaluation: bool
) -> Policy:
    # In evaluation slime shares one dict between all samples of a dataset: never write to it.
    params = copy.deepcopy(dict(sampling_params))
    max_new = params.get("max_new_tokens") or getattr(args, "rollout_max_response_len", None) or DEFAULT_MAX_NEW_TOKENS
    replay = replay_spec(args, sample, evaluation=evaluation)
    if replay.top_p:  # slime's own word for it; here in case another rollout function left it out
        params["custom_params"] = {**(params.get("custom_params") or {}), "return_top_p_token_ids": True}
    key = session_key(sample)
    return Policy(
        delta=language.delta,
        parser=language.parser,
        engine=SglangEngine(router_url(args), timeout=config.request_timeout, retries=config.request_retries),
        sampling_params=params,
        max_new_tokens=int(max_new),
        context_limit=context_limit(args, language, evaluation=evaluation),
        routing_key=key,
        stop_mismatch=config.stop_mismatch,
        measure_drift=random.Random(key).random() < config.drift_rate,
        trace=generation_trace(sample),
        replay=replay,
    )


def _metadata(sample: Any) -> Mapping[str, Any]:
    return sample.metadata if isinstance(getattr(sample, "metadata", None), Mapping) else {}


def _task_index(sample: Any) -> int | None:
    """The task's position, if the data row gave one: metadata.index, or a number as the prompt (``--input-key index``)."""
    for value in (_metadata(sample).get("index"), getattr(sample, "prompt", None)):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().isdigit():
            return int(value)
    return None


def _generation_stop_ids(checkpoint: str) -> list[int]:
    eos = _read_json(checkpoint, "generation_config.json").get("eos_token_id")
    return [eos] if isinstance(eos, int) else [i for i in eos or [] if isinstance(i, int)]


def _context_length(checkpoint: str) -> int | None:
    config = _read_json(checkpoint, "config.json")
    value = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return value if isinstance(value, int) else None


def expert_shape(checkpoint: str) -> ExpertShape | None:
    """How a mixture of experts routes, as its config.json says; None for any other model."""
    config = _read_json(checkpoint, "config.json")
    config = config.get("text_config") or config
    layers, topk = config.get("num_hidden_layers"), config.get("num_experts_per_tok")
    return ExpertShape(layers, topk) if isinstance(layers, int) and isinstance(topk, int) else None


def _read_json(checkpoint: str, name: str) -> dict[str, Any]:
    """A JSON file of a checkpoint folder; empty if there is none (a hub name, a bare tokenizer).

    Raises:
        ConfigError: it holds no JSON object.
    """
    path = Path(checkpoint) / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return value
