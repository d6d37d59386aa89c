"""From an `InteractionResult` to the slime `Sample` that was given.

The sample is mutated, never replaced: slime sorts and groups by fields that it set itself. Whatever the episode did, the
trainer can take the sample: prompt tokens, at least one response token, mask and log-probs of its length, a reward.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Status
from tau2_slime.slime_adapter.compat import argument, count_calls, has_field, set_fields
from tau2_slime.slime_adapter.shaping import shaped_reward
from tau2_slime.tokens.digest import trajectory_digest
from tau2_slime.tokens.replay import NOTHING, ExpertShape, Replay, ReplaySpec

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample
    from tau2_slime.tokens.template.chat_template import ChatTemplate

SampleT = TypeVar("SampleT", bound="SlimeSample")

TRAJECTORY = "tau2_trajectory"
"""Where a sample's metadata holds the conversation, if it does."""
INTERRUPTED = "tau2_resume"
"""Where a sample's metadata holds what `resume.read` needs, if its episode was interrupted."""
_CONVERSATION = ("messages", "rejected_calls", "generations", "reward_info")


@dataclass
class StandaloneSample:
    """The fields of slime's ``Sample`` that a rollout fills, for use without slime (`tau2-slime rollout`, tests)."""

    class Status(Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    index: int | None = None
    group_index: int | None = None
    prompt: Any = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    reward: float | dict[str, Any] | None = None
    loss_mask: list[int] | None = None
    rollout_log_probs: list[float] | None = None
    rollout_top_p_token_ids: Any = None
    rollout_top_p_token_offsets: Any = None
    rollout_routed_experts: Any = None
    weight_versions: list[str] = field(default_factory=list)
    remove_sample: bool = False
    status: Status = Status.PENDING
    metadata: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    non_generation_time: float = 0.0

    def row(self) -> dict[str, Any]:
        """A line of samples.jsonl; `of_row` reads it."""
        return {**vars(self), "status": self.status.value}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> StandaloneSample:
        """Raises TypeError, ValueError or KeyError: this is not a line that `row` made."""
        return cls(**{**row, "status": cls.Status(row["status"])})


def replay_spec(args: SlimeArgs, sample: SlimeSample, *, evaluation: bool) -> ReplaySpec:
    """What slime's trainer will want to replay of this sample: ``--rollout-top-p``, ``--use-rollout-routing-replay``.

    A slime without the fields for kept sets (before v0.3.1) trains without them, whatever its top-p.

    Raises:
        ConfigError: routed experts are wanted, but the model's sizes are not among slime's arguments.
    """
    if evaluation:
        return NOTHING
    top_p = argument(args, "rollout_top_p", 1.0) not in (None, 1.0) and has_field(sample, "rollout_top_p_token_ids")
    if not argument(args, "use_rollout_routing_replay", False):
        return ReplaySpec(top_p)
    layers, topk = argument(args, "num_layers", None), argument(args, "moe_router_topk", None)
    if not layers or not topk:
        raise ConfigError(
            f"--use-rollout-routing-replay needs --num-layers and --moe-router-topk of the model; they are {layers} and "
            f"{topk}: does slime's scripts/models/ file for this model belong to the command line?"
        )
    return ReplaySpec(top_p, ExpertShape(int(layers), int(topk), argument(args, "num_experts", None)))


def fill_sample(
    sample: SampleT,
    result: InteractionResult,
    *,
    template: ChatTemplate | None = None,
    replay: ReplaySpec = NOTHING,
    shaping: RewardShaping | None = None,
    keep_trajectory: bool = False,
) -> SampleT:
    """Write ``result`` into ``sample`` and return the same object.

    Failures (the user simulator's, the infrastructure's) get ``remove_sample``, an all-zero mask, zero log-probs and the
    reward 0.0 that slime needs as a number; ``metadata["tau2"]`` says ``excluded`` and what τ² itself would have paid.
    Aborted samples keep what was sampled, and ``metadata["tau2_resume"]`` what the next rollout needs to go on.

    Args:
        template: decodes the response and gives the id that fills empty places; None if no checkpoint was loaded.
        replay: what every sample of the batch must carry, whatever became of this one.
        shaping: changes ``reward``, never ``metadata["raw_reward"]``.
        keep_trajectory: adds the conversation as ``metadata["tau2_trajectory"]``, for a debug file.
    """
    pad_id = min(template.stop_ids) if template is not None else 0
    ledger = result.ledger
    tokens = list(ledger.tokens) if ledger is not None else []
    prompt_length = ledger.prompt_length if ledger is not None else 0
    mask = list(ledger.loss_mask) if ledger is not None else []
    log_probs = list(ledger.log_probs) if ledger is not None else []
    response = template.decode(tokens[prompt_length:]) if template is not None and ledger is not None else ""
    if not prompt_length:
        tokens = [pad_id, *tokens]
    if not mask:  # slime's trainer cannot take an empty response: one token that counts for nothing
        tokens.append(pad_id)
        mask, log_probs = [0], [0.0]
    removed = not result.trainable
    if removed and result.status is not Status.ABORTED:
        mask, log_probs = [0] * len(mask), [0.0] * len(log_probs)

    reward = result.reward if result.reward is not None and not removed else 0.0
    stats = result.stats
    # slime compares by identity, so it must be a member of the sample's own enumeration.
    statuses: type[Enum] = type(sample).Status  # type: ignore[attr-defined]  # each release nests its own
    set_fields(
        sample,
        tokens=tokens,
        response=response,
        response_length=len(mask),
        loss_mask=mask,
        rollout_log_probs=log_probs,
        weight_versions=list(ledger.weight_versions) if ledger is not None else [],
        remove_sample=removed,
        reward=reward if shaping is None or removed or result.reward is None else shaped_reward(result, shaping),
        status=statuses[result.status.name],
        non_generation_time=max(0.0, stats.total_time - stats.generation_time),
    )
    if replay != NOTHING:
        _set_replay(sample, ledger.replay if ledger is not None else None, replay, len(tokens), len(mask))
    count_calls(sample, result.generations[result.earlier_generations :])  # the sample counts on over its rollouts
    metadata = dict(metadata_of(sample))
    metadata.update(
        raw_reward=reward,
        round_number=stats.agent_turns,
        tau2={
            "domain": result.domain,
            "task_split": result.task_split,
            "task_id": result.task_id,
            "agent_type": result.agent_type,
            "agent_path": result.agent_path,
            "agent_strategy": result.agent_strategy,
            **({"examples": result.examples} if result.examples else {}),
            "user_model": result.user_model,
            "user_strategy": result.user_strategy,
            **({"retrieval_variant": result.retrieval_variant} if result.retrieval_variant else {}),
            "user_played": list(stats.user_played),
            "termination": str(result.termination),
            "blame": str(result.blame),
            "excluded": removed,
            "official_reward": result.reward,
            "detail": result.detail,
            "restarted": result.restarted,
            "reward_breakdown": (result.reward_info or {}).get("reward_breakdown"),
            # A removed sample's mask no longer says where the tokens came from.
            "tokens": {
                "prompt": ledger.prompt_length if ledger is not None else 0,
                "sampled": ledger.sampled_count if ledger is not None else 0,
                "context": ledger.context_count if ledger is not None else 0,
            },
            "segments": [{**vars(segment)} for segment in ledger.segments] if ledger is not None else [],
            "fingerprint": trajectory_digest(tokens, log_probs),
            "stats": stats.plain(),
            "telemetry": result.telemetry,
        },
    )
    if keep_trajectory:
        whole = result.to_dict(tokens=False)
        metadata[TRAJECTORY] = {name: whole[name] for name in _CONVERSATION}
    if result.saved is not None:
        metadata[INTERRUPTED] = result.saved
    else:
        metadata.pop(INTERRUPTED, None)
    sample.metadata = metadata
    return sample


def _set_replay(sample: SlimeSample, replay: Replay | None, spec: ReplaySpec, total: int, response: int) -> None:
    """slime takes these fields from all samples of a batch or crashes: padding tokens get empty values."""
    replay = replay if replay is not None and replay.spec == spec else Replay(spec)
    if spec.top_p:
        ids, offsets = replay.kept_sets(response)
        set_fields(sample, rollout_top_p_token_ids=ids, rollout_top_p_token_offsets=offsets)
    if spec.experts is not None:
        set_fields(sample, rollout_routed_experts=replay.expert_rows(total))


def is_interrupted(sample: SlimeSample) -> bool:
    """True if an earlier rollout left ``sample`` in the middle of its episode."""
    status = getattr(getattr(sample, "status", None), "name", None)
    return status == "ABORTED" and INTERRUPTED in metadata_of(sample)


def read_metadata(sample: SlimeSample) -> dict[str, Any]:
    """The sample's metadata, which says what is played. JSON text, as parquet and exports write it, is parsed.

    Raises:
        ConfigError: it is something other than a mapping.
    """
    metadata: object = getattr(sample, "metadata", None)
    found = metadata
    if isinstance(metadata, str):
        try:
            found = json.loads(metadata)
        except (ValueError, RecursionError):
            found = None
    elif metadata is None:
        found = {}
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"the sample's metadata is {reprlib.repr(metadata)}, not a mapping such as "
            '{"domain": "retail", "task_split": "train", "task_id": "0"}: check slime\'s --metadata-key'
        )
    return found if isinstance(found, dict) else dict(found)


def metadata_of(sample: SlimeSample) -> Mapping[str, Any]:
    """The sample's metadata; empty if it has none, or something other than a mapping."""
    metadata = getattr(sample, "metadata", None)
    return metadata if isinstance(metadata, Mapping) else {}
