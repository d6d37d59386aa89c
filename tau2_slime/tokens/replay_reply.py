"""The replay data in a server's answer: slime's patched sglang sends base64 of little-endian int32 in ``meta_info``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_slime.errors import ReplayUnavailable, TokenTruthError
from tau2_slime.tokens.replay import CallReplay, ReplayRequest, check_offsets, decode_int32

_KEPT_IDS = ("top_p_token_ids", "top_p_kept_token_ids")
_KEPT_OFFSETS = ("top_p_token_offsets", "top_p_kept_token_offsets")
_EXPERTS = ("routed_experts",)
META_KEYS = frozenset((*_KEPT_IDS, *_KEPT_OFFSETS, *_EXPERTS))
"""What a reply's ``meta_info`` carries for the replay: megabytes, which only `Replay` keeps."""

_DIRECT = (
    "Use slime's own router and sglang (its Docker image has both), or give one sglang server itself as "
    "--sglang-router-ip and --sglang-router-port"
)
_NO_KEPT_SETS = (
    "the server's reply has no top_p_token_ids, without which --rollout-top-p other than 1 cannot be trained on: the stock "
    "sglang-router drops sampling_params.custom_params, and an sglang without slime's top_p patch ignores it. "
    + _DIRECT
)
_NO_EXPERTS = (
    "the server's reply has no routed_experts, without which --use-rollout-routing-replay cannot be trained on: the stock "
    "sglang-router drops return_routed_experts, and an sglang without --enable-return-routed-experts (or a model without "
    "experts) ignores it. " + _DIRECT
)


def read_call_replay(meta: Mapping[str, Any], request: ReplayRequest, *, given: int, sampled: int) -> CallReplay:
    """Take the replay data out of a reply to ``given`` input ids that brought ``sampled`` more.

    Args:
        meta: the reply's ``meta_info``.
        request: what was asked for.
        given: number of input ids.
        sampled: number of sampled ids.

    Raises:
        ReplayUnavailable: a field that was asked for is not there.
        TokenTruthError: its size contradicts the tokens.
    """
    kept_ids = kept_offsets = experts = None
    start = 0
    if request.spec.top_p and sampled:
        kept_ids, kept_offsets = _int32(meta, _KEPT_IDS), _int32(meta, _KEPT_OFFSETS)
        if kept_ids is None or kept_offsets is None:
            raise ReplayUnavailable(_NO_KEPT_SETS)
        check_offsets(kept_offsets, sampled, len(kept_ids))
    if request.spec.experts is not None and sampled:
        experts = _int32(meta, _EXPERTS)
        if experts is None:
            raise ReplayUnavailable(_NO_EXPERTS)
        shape, rows = request.spec.experts, given + sampled - 1
        if len(experts) == (rows - request.start) * shape.row:
            start = request.start
        elif len(experts) != rows * shape.row:  # a server that does not know the field sends all rows
            raise TokenTruthError(
                f"routed_experts has {len(experts)} numbers; {rows} positions of {shape.layers} layers with {shape.topk} "
                f"experts (from position {request.start} or 0) are expected: do --num-layers and --moe-router-topk fit "
                "the served model?"
            )
    return CallReplay(kept_ids, kept_offsets, experts, start)


def _int32(meta: Mapping[str, Any], keys: Sequence[str]) -> array[int] | None:
    """The field as numbers, None if it is not there.

    Raises:
        TokenTruthError: it is there, but it does not hold int32 numbers.
    """
    value = next((meta[key] for key in keys if meta.get(key) is not None), None)
    if value is None:
        return None
    try:
        return decode_int32(value) if isinstance(value, str) else array("i", value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TokenTruthError(f"{keys[0]} cannot be read: {error}") from error
