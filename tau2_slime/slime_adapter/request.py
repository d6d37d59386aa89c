"""From slime's (args, sample) to one episode: its configuration, how the policy is sampled, and its cast."""

from __future__ import annotations

import copy
import numbers
import random
from collections.abc import Mapping
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.setup import Parts, cast, choose_task
from tau2_slime.episode.users import make_user
from tau2_slime.errors import ConfigError
from tau2_slime.policy.checkpoint import Language, language_for
from tau2_slime.policy.sampling import Policy
from tau2_slime.runtime import run_stop
from tau2_slime.slime_adapter.compat import argument, generation_trace, session_key
from tau2_slime.slime_adapter.sample import replay_spec
from tau2_slime.tokens import replay_probe
from tau2_slime.tokens.engine import SglangEngine

DEFAULT_MAX_NEW_TOKENS = 8192


def config_for(args: Any, sample: Any) -> Tau2Config:
    """The configuration of one sample: metadata > TAU2_* > the ``tau2:`` mapping > defaults.

    Raises:
        ConfigError: naming the key, where it came from and what is allowed.
    """
    return Tau2Config.resolve(getattr(args, "tau2", None), _metadata(sample))


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
    checkpoint = argument(args, "hf_checkpoint", None)
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


def router_url(args: Any) -> str:
    """``http://host:port`` of slime's router.

    Raises:
        ConfigError: slime did not set it.
    """
    host, port = argument(args, "sglang_router_ip", None), argument(args, "sglang_router_port", None)
    if not host or not port:
        raise ConfigError("args.sglang_router_ip and args.sglang_router_port are not set: no server to sample from")
    return f"http://{host}:{port}"


def context_limit(args: Any, language: Language, *, evaluation: bool) -> int | None:
    """Tokens that a whole trajectory may have: the smallest limit that slime, sglang and the checkpoint name."""
    named = [argument(args, "sglang_context_length", None), language.context_length]
    train = argument(args, "rollout_max_context_len", None)
    named.append((argument(args, "eval_max_context_len", None) or train) if evaluation else train)
    known = [int(limit) for limit in named if limit]
    # sglang refuses input + max_new_tokens beyond its length; one token of reserve keeps every version content.
    return min(known) - 1 if known else None


def _policy(
    args: Any, sample: Any, sampling_params: Mapping[str, Any], config: Tau2Config, language: Language, evaluation: bool
) -> Policy:
    # In evaluation slime shares one dict between all samples of a dataset: never write to it.
    params = copy.deepcopy(dict(sampling_params))
    max_new = params.get("max_new_tokens") or argument(args, "rollout_max_response_len", None) or DEFAULT_MAX_NEW_TOKENS
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
        if isinstance(value, str) and value.strip().isdigit():
            return int(value)
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer():
            return int(float(value))  # a data source of one's own may give numpy's numbers, or pandas' 3.0
    return None
