"""What crosses between slime's process and a worker: the part of slime's arguments and sample that an episode reads, and
what it leaves in the sample.

Workers do not import slime (nor torch): a worker fills a `StandaloneSample`, and slime's own sample takes over its fields.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tau2_slime.slime_adapter import weights
from tau2_slime.slime_adapter.compat import RecordMeta, argument, count_calls, has_field, set_fields
from tau2_slime.slime_adapter.sample import StandaloneSample, is_interrupted
from tau2_slime.slime_adapter.workers.traces import TracedCall, taken_down, trace_calls

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample

SLIMES_ARGUMENTS: dict[str, object] = {
    "hf_checkpoint": None,
    "sglang_router_ip": None,
    "sglang_router_port": None,
    "sglang_context_length": None,
    "rollout_max_response_len": None,
    "rollout_max_context_len": None,
    "eval_max_context_len": None,
    "rollout_top_p": 1.0,
    "use_rollout_routing_replay": False,
    "num_layers": None,
    "moe_router_topk": None,
    "num_experts": None,
    "save_debug_rollout_data": None,
}
"""What an episode reads of slime's command line, with what stands for an argument that this slime does not have."""
OTHER_ARGUMENTS = (
    "tau2",
    "tau2_trust_remote_code",
    "sglang_model_routers",
    "custom_config_path",
    "prompt_data",
    "eval_config",
)
"""What it reads of the namespace if it is there."""

_TOLD = ("index", "group_index", "prompt", "session_id", "metadata")
_TOLD_IF_INTERRUPTED = (
    *("tokens", "response", "response_length", "loss_mask", "rollout_log_probs", "weight_versions"),
    *("reward", "remove_sample", "non_generation_time"),
    *("rollout_top_p_token_ids", "rollout_top_p_token_offsets", "rollout_routed_experts"),
)
_REPLAY = ("rollout_top_p_token_ids", "rollout_top_p_token_offsets", "rollout_routed_experts")


class _Calls:
    """In the place of slime's ``prefix_cache_info``: keeps what each call of the server said, for slime's own counts."""

    def __init__(self) -> None:
        self.metas: list[dict[str, Any]] = []

    def add(self, meta: dict[str, Any]) -> None:
        self.metas.append({name: meta[name] for name in _COUNTED if name in meta})


_COUNTED = (
    *("cached_tokens", "prompt_tokens", "completion_tokens"),
    *("spec_accept_token_num", "spec_draft_token_num", "spec_verify_ct"),
)
"""What slime's counts read of a ``meta_info``."""


@dataclass
class WorkerSample(StandaloneSample):
    """The sample that a worker fills."""

    prefix_cache_info: _Calls = field(default_factory=_Calls)
    calls: list[TracedCall] = field(default_factory=list)
    """For slime's tracing."""

    def own_trace(self, max_new_tokens: int) -> AbstractContextManager[RecordMeta]:
        """Takes down one call; see `compat.generation_trace`."""
        return taken_down(self.calls, max_new_tokens)


@dataclass(frozen=True)
class Task:
    """One call of `generate`, as a worker is told it."""

    args: dict[str, Any]
    status: str
    """Name of the sample's status."""
    fields: dict[str, Any]
    """Of the sample."""
    sampling_params: dict[str, Any]
    evaluation: bool
    newest_weights: int | None
    """That slime's process knows of."""

    @classmethod
    def of(cls, args: SlimeArgs, sample: SlimeSample, sampling_params: Mapping[str, Any], *, evaluation: bool) -> Task:
        """What `generate` was called with."""
        given = {name: argument(args, name, default) for name, default in SLIMES_ARGUMENTS.items()}
        given |= {name: getattr(args, name) for name in OTHER_ARGUMENTS if hasattr(args, name)}
        given["save_debug_rollout_data"] = bool(given["save_debug_rollout_data"])
        given["eval_datasets"] = [
            SimpleNamespace(path=getattr(one, "path", None)) for one in getattr(args, "eval_datasets", None) or ()
        ]
        if not has_field(sample, "rollout_top_p_token_ids"):  # a slime that trains without kept sets
            given["rollout_top_p"] = 1.0
        names = _TOLD + (_TOLD_IF_INTERRUPTED if is_interrupted(sample) else ())
        status = getattr(getattr(sample, "status", None), "name", "PENDING")
        fields = {name: getattr(sample, name) for name in names if hasattr(sample, name)}
        return cls(given, status, fields, dict(sampling_params), evaluation, weights.newest())

    def arguments(self, aborted: Callable[[], bool]) -> SlimeArgs:
        """The namespace that stands for slime's. ``aborted``: slime's abort flag, as this process knows it."""
        args: Any = SimpleNamespace(**self.args, tau2_aborted=aborted)
        return args  # type: ignore[no-any-return]

    def sample(self) -> WorkerSample:
        """The sample that stands for slime's."""
        weights.saw([self.newest_weights])
        return WorkerSample(**self.fields, status=StandaloneSample.Status[self.status])


@dataclass(frozen=True)
class Played:
    """What an episode left in its sample. Numbers travel as arrays: they are bit for bit the same, and cheap to read."""

    status: str
    tokens: array[int]
    loss_mask: bytes | None
    log_probs: array[float] | None
    fields: dict[str, Any]
    """The other ones."""
    metas: list[dict[str, Any]]
    """What slime counts of each call of the server."""
    calls: list[TracedCall]

    @classmethod
    def of(cls, sample: WorkerSample) -> Played:
        """What the worker's sample holds."""
        names = (
            *("response", "response_length", "weight_versions", "reward", "remove_sample", "metadata", "session_id"),
            "non_generation_time",
            *(name for name in _REPLAY if getattr(sample, name) is not None),
        )
        return cls(
            status=sample.status.name,
            tokens=array("q", sample.tokens),
            loss_mask=None if sample.loss_mask is None else bytes(sample.loss_mask),
            log_probs=None if sample.rollout_log_probs is None else array("d", sample.rollout_log_probs),
            fields={name: getattr(sample, name) for name in names},
            metas=sample.prefix_cache_info.metas,
            calls=sample.calls,
        )

    def put_into(self, sample: SlimeSample) -> None:
        """Write it into slime's own sample."""
        statuses: type[Enum] = type(sample).Status  # type: ignore[attr-defined]  # each release nests its own
        set_fields(
            sample,
            **self.fields,
            tokens=self.tokens.tolist(),
            loss_mask=None if self.loss_mask is None else list(self.loss_mask),
            rollout_log_probs=None if self.log_probs is None else self.log_probs.tolist(),
            status=statuses[self.status],
        )
        count_calls(sample, self.metas)
        trace_calls(sample, self.calls)
