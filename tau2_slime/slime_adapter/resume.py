"""An interrupted episode between two rollouts: what stays in the sample, and how it is read back.

slime stops a rollout in the middle of its episodes and, with ``--partial-rollout``, hands the same samples to the next one.
Tokens, loss mask, log-probs and weight versions stay where slime knows them, in the sample's own fields;
``metadata["tau2_resume"]`` holds the rest as plain data (JSON, some kilobytes): counters, and the messages, from which the
environment and the user are built again. It is gone when the episode ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tau2_slime.episode.interrupted import VERSION, EpisodeIdentity, Saved
from tau2_slime.episode.result import EpisodeStats
from tau2_slime.errors import CannotResume
from tau2_slime.slime_adapter.sample import INTERRUPTED
from tau2_slime.slime_adapter.types import SlimeSample
from tau2_slime.tokens.ledger import LedgerError, TokenLedger
from tau2_slime.tokens.replay import NOTHING, Replay, ReplaySpec

_WITHOUT = {"agent_strategy": "native", "user_strategy": "llm"}
"""What a state that was saved before there was a choice stands for."""


def read(sample: SlimeSample, identity: EpisodeIdentity, replay: ReplaySpec = NOTHING) -> Saved:
    """What an earlier rollout left in ``sample``; it must be of the same task, played by the same agent and user.

    ``replay``: what the training run replays beside the tokens; the sample must hold it too.

    Raises:
        CannotResume: another version, another episode, or a part that does not fit the others.
    """
    state = sample.metadata[INTERRUPTED]
    try:
        if state["version"] != VERSION:
            raise CannotResume(f"the saved state has version {state['version']}, this package reads {VERSION}")
        for name, value in identity.items():
            before = state["identity"].get(name, _WITHOUT.get(name, ""))
            if before != value:
                raise CannotResume(f"the saved state is of {name}={before!r}, now it is {value!r}")
        return Saved(
            state["conversation"], state["transcript"], EpisodeStats(**state["stats"]), _ledger(sample, state, replay)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # LedgerError is a ValueError
        raise CannotResume(f"the saved state is damaged: {type(error).__name__}: {error}") from error


def _ledger(sample: SlimeSample, state: Mapping[str, Any], spec: ReplaySpec) -> TokenLedger | None:
    length, count = int(state["length"]), sample.response_length
    if not length:
        return None
    prompt = len(sample.tokens) - count
    # Where nothing was sampled yet the sample has one token that stands for nothing, because slime needs a response.
    kept = length - prompt
    mask, log_probs = sample.loss_mask or [], sample.rollout_log_probs or []
    if not 0 <= kept <= count or len(mask) != count or len(log_probs) != count:
        raise LedgerError(f"{len(sample.tokens)} tokens, {count} of them response, do not hold {length} saved ones")
    return TokenLedger.resume(
        sample.tokens[:length],
        mask[:kept],
        log_probs[:kept],
        sample.weight_versions,
        state["segments"],
        _replay(sample, spec, length, kept) if spec != NOTHING else None,
    )


def _replay(sample: SlimeSample, spec: ReplaySpec, length: int, kept: int) -> Replay:
    offsets = getattr(sample, "rollout_top_p_token_offsets", None)
    experts = getattr(sample, "rollout_routed_experts", None) if spec.experts is not None else None
    return Replay.restored(
        spec,
        kept_ids=getattr(sample, "rollout_top_p_token_ids", None),
        kept_offsets=offsets[: kept + 1] if offsets is not None else None,
        experts=experts[: length - 1] if experts is not None else None,
    )
