"""From slime's (args, sample) to one episode: its configuration, how the policy is sampled, and who plays."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.play import EpisodeSetup
from tau2_slime.episode.setup import build_episode, choose_task
from tau2_slime.errors import ConfigError
from tau2_slime.policy.checkpoint import CheckpointProfile, profile_for
from tau2_slime.policy.sampling import Policy
from tau2_slime.runtime.text import first_position
from tau2_slime.slime_adapter.compat import argument, generation_trace, session_key
from tau2_slime.slime_adapter.sample import metadata_of
from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample
from tau2_slime.tokens import replay_probe
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.replay import NOTHING, ReplaySpec
from tau2_slime.tokens.tokenizer import Tokenizer

DEFAULT_MAX_NEW_TOKENS = 8192


async def profile_from_slime(args: SlimeArgs, config: Tau2Config, tokenizer: Tokenizer | None) -> CheckpointProfile:
    """The checkpoint's profile, built once per process. ``tokenizer``: slime's own, if it has loaded one.

    Raises:
        ConfigError: the checkpoint cannot be used.
    """
    checkpoint = argument(args, "hf_checkpoint", None)
    if not checkpoint and tokenizer is None:
        raise ConfigError("args.hf_checkpoint is not set: the tokenizer and its chat template come from there")
    # slime itself loads its checkpoint's tokenizer so; a rollout or an evaluation without slime says whether it may.
    trusted = bool(getattr(args, "tau2_trust_remote_code", True))
    return await profile_for(str(checkpoint), config, tokenizer, trust_remote_code=trusted)


async def setup_from_slime(
    args: SlimeArgs,
    sample: SlimeSample,
    sampling_params: Mapping[str, Any],
    config: Tau2Config,
    profile: CheckpointProfile,
    *,
    replay: ReplaySpec,
    evaluation: bool,
) -> EpisodeSetup:
    """What the episode of ``sample`` is played with.

    Raises:
        ConfigError: a setting or the task is wrong, or the server cannot give what shall be replayed.
    """
    config.require_named_task()
    index = first_position(metadata_of(sample).get("index"), getattr(sample, "prompt", None))
    task = await choose_task(config, task_id=metadata_of(sample).get("task_id"), index=index)
    # In evaluation slime shares one dict between all samples of a dataset: never write to it.
    params = copy.deepcopy(dict(sampling_params))
    max_new = params.get("max_new_tokens")
    if max_new is None:
        max_new = argument(args, "rollout_max_response_len", None) or DEFAULT_MAX_NEW_TOKENS
    check_sampling_params({**params, "max_new_tokens": max_new})
    if replay.top_p:  # slime's own request for it; another rollout function may have left it out
        params["custom_params"] = {**(params.get("custom_params") or {}), "return_top_p_token_ids": True}
    host, port = argument(args, "sglang_router_ip", None), argument(args, "sglang_router_port", None)
    if not host or not port:
        raise ConfigError("args.sglang_router_ip and args.sglang_router_port are not set: no server to sample from")
    url, key = f"http://{host}:{port}", session_key(sample)
    if replay != NOTHING:
        await replay_probe.require(url, profile.stop_ids, params, replay)
    policy = Policy(
        delta=profile.delta,
        parser=profile.parser,
        engine=SglangEngine(
            url, timeout=config.request_timeout, retries=config.request_retries, vocabulary=profile.vocabulary
        ),
        sampling_params=params,
        max_new_tokens=int(max_new),
        context_limit=context_limit(args, profile, evaluation=evaluation),
        routing_key=key,
        stop_mismatch=config.stop_mismatch,
        measure_drift=random.Random(key).random() < config.drift_rate,
        trace=generation_trace(sample),
        replay=replay,
    )
    model = config.user_model_for(
        getattr(sample, "index", None), evaluation=evaluation, group_index=getattr(sample, "group_index", None)
    )
    routers = getattr(args, "sglang_model_routers", None) or {}
    attempt = first_position(getattr(sample, "index", None)) or 0
    return await build_episode(
        config, task, policy, model, routers=routers, training=not evaluation, attempt=max(0, attempt)
    )


def context_limit(args: SlimeArgs, profile: CheckpointProfile, *, evaluation: bool) -> int | None:
    """Tokens that a whole trajectory may have: the smallest limit that slime, sglang and the checkpoint name."""
    named = [argument(args, "sglang_context_length", None), profile.context_length]
    train = argument(args, "rollout_max_context_len", None)
    named.append((argument(args, "eval_max_context_len", None) or train) if evaluation else train)
    known = [int(limit) for limit in named if limit]
    # sglang refuses input + max_new_tokens beyond its length; some versions count one token more.
    return min(known) - 1 if known else None


_RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, math.inf, True),
    "top_p": (0, 1, False),
    "min_p": (0, 1, True),
    "frequency_penalty": (-2, 2, True),
    "presence_penalty": (-2, 2, True),
    "repetition_penalty": (0, 2, False),
    "max_new_tokens": (1, math.inf, True),
    "min_new_tokens": (0, math.inf, True),
}
"""Sampling parameter -> (least, greatest, is the least itself allowed), as sglang's `SamplingParams.verify` has it."""


def check_sampling_params(params: Mapping[str, Any]) -> None:
    """Nothing, if the server would take ``params``, and one call samples one turn. None stands for the server's default.

    Raises:
        ConfigError: naming the parameter, its value and what is allowed.
    """
    for name, (least, greatest, inclusive) in _RANGES.items():
        value = params.get(name)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not least <= value <= greatest or (value == least and not inclusive):
            wanted = f"{'at least' if inclusive else 'above'} {least:g}" + (
                "" if greatest == math.inf else f", at most {greatest:g}"
            )
            raise ConfigError(f"sampling parameter {name}={value!r}: it must be a number, {wanted}")
    top_k = params.get("top_k")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or (top_k < 1 and top_k != -1)):
        raise ConfigError(f"sampling parameter top_k={top_k!r}: it must be -1 (off) or an integer of at least 1")
    if params.get("n") not in (None, 1):
        raise ConfigError(f"sampling parameter n={params['n']!r}: an episode samples one turn at a time; leave it out")
    if params.get("ignore_eos"):
        raise ConfigError("sampling parameter ignore_eos: no turn would end before its limit of tokens; leave it out")
