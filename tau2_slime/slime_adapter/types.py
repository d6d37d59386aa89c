"""slime's arguments and samples, as far as this package reads and writes them.

slime's arguments have no type, and its releases differ in what a ``Sample`` holds, so both are protocols here. slime's own
objects, `StandaloneSample` and a test's namespace fit them alike. `compat` knows what a release lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SlimeArgs(Protocol):
    """slime's namespace of command-line arguments; ``None`` stands for "not given"."""

    hf_checkpoint: str | None
    """Folder or hub name that the tokenizer and its chat template come from."""
    sglang_router_ip: str | None
    sglang_router_port: int | None
    sglang_server_concurrency: int
    """Requests that slime keeps in flight per engine."""
    sglang_context_length: int | None
    """Tokens that the server accepts in one request, prompt and answer together."""
    rollout_num_gpus: int
    rollout_num_gpus_per_engine: int
    rollout_max_response_len: int | None
    """Tokens that the policy may sample in one turn."""
    rollout_max_context_len: int | None
    """Tokens of a whole trajectory."""
    eval_max_context_len: int | None
    """Tokens of a whole trajectory in evaluation; unset: ``rollout_max_context_len``."""
    rollout_top_p: float
    use_rollout_routing_replay: bool
    num_layers: int | None
    moe_router_topk: int | None
    num_experts: int | None
    """The model's own sizes, which the replay of routed experts needs."""
    n_samples_per_prompt: int
    """Size of a group in training."""
    n_samples_per_eval_prompt: int
    eval_datasets: Sequence[EvalDataset]
    log_passrate: bool
    """slime logs a pass@k of its own."""
    advantage_estimator: str
    rewards_normalization: bool
    grpo_std_normalization: bool
    reward_key: str | None
    """Which part of a reward of several parts is the reward."""
    save_debug_rollout_data: str | None
    load_debug_rollout_data: str | None
    """File that the samples are read from instead of being played."""
    tau2: Mapping[str, Any] | None
    """The ``tau2:`` mapping of ``--custom-config-path``; slime's namespace lacks it where the file has none."""


class EvalDataset(Protocol):
    """One dataset of ``--eval-config``."""

    name: str
    n_samples_per_eval_prompt: int | None


class DynamicFilterOutput(Protocol):
    """What a dynamic sampling filter answers."""

    keep: bool
    reason: str | None


class MaskGenerator(Protocol):
    """slime's ``MultiTurnLossMaskGenerator``."""

    def get_loss_mask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
    ) -> tuple[list[int], list[int]]:
        """Token ids and loss mask of a conversation, both of shape (T,)."""


class SlimeSample(Protocol):
    """slime's ``Sample``: T tokens, prompt and response, of which the last R are the response."""

    index: int | None
    """Position among all samples of a run, or of an evaluation dataset."""
    group_index: int | None
    """The same for all samples of one prompt; None in evaluation."""
    prompt: str | list[dict[str, Any]]
    """What slime read under ``--input-key``: a task's position, or chat messages."""
    tokens: list[int]
    """Shape (T,): prompt, then response."""
    response: str
    """The response as text."""
    response_length: int
    """R."""
    loss_mask: list[int] | None
    """Shape (R,): 1 for a token that the policy sampled and that is trained on."""
    rollout_log_probs: list[float] | None
    """Shape (R,): natural logarithms; 0.0 where the mask is 0 because nothing was sampled."""
    rollout_top_p_token_ids: NDArray[np.int32] | None
    """Shape (number of kept tokens,): the sets that top-p kept, one after the other."""
    rollout_top_p_token_offsets: NDArray[np.int32] | None
    """Shape (R + 1,): where the set of each response token begins, and the end of the last."""
    rollout_routed_experts: NDArray[np.int32] | None
    """Shape (T - 1, layers, experts per token)."""
    weight_versions: list[str]
    """One for each call of the server."""
    reward: float | dict[str, Any] | None
    """None until the sample was scored. A mapping only if another reward function of a mixed batch gave one."""
    remove_sample: bool
    """True: slime keeps the sample out of the loss."""
    metadata: dict[str, Any]
    """The data row's metadata; `fill_sample` adds ``raw_reward``, ``round_number`` and ``tau2``."""
    session_id: str | None
    """The routing key of its requests; None in evaluation."""
    non_generation_time: float
    """Seconds."""

    @property
    def status(self) -> Enum: ...  # a member of the class's own `Status`


Samples: TypeAlias = Sequence[SlimeSample] | Sequence[list[SlimeSample]]
"""Samples as slime hands them to hooks: flat, or group by group."""
