"""slime's arguments and samples, as far as this package reads and writes them.

slime has neither a type for its arguments nor one module for its samples that every release shares, so both are protocols:
slime's own objects, `StandaloneSample` and a test's namespace fit them alike. Which fields a release lacks is `compat`'s
business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SlimeArgs(Protocol):
    """slime's namespace of command-line arguments; ``None`` stands for "not given"."""

    hf_checkpoint: str | None
    """Folder or hub name that the tokenizer and its chat template come from."""
    sglang_router_ip: str | None
    sglang_router_port: int | None
    rollout_max_response_len: int | None
    """Tokens that the policy may sample in one turn."""
    rollout_max_context_len: int | None
    """Tokens of a whole trajectory."""
    tau2: Mapping[str, Any] | None
    """The ``tau2:`` mapping of ``--custom-config-path``."""


class SlimeSample(Protocol):
    """slime's ``Sample``: T prompt and response tokens, of which the last R are the response."""

    index: int | None
    group_index: int | None
    prompt: str | list[dict[str, Any]]
    """What slime read under ``--input-key``: a task's position, or chat messages."""
    tokens: list[int]
    """Shape (T,): prompt, then response."""
    response: str
    response_length: int
    """R."""
    loss_mask: list[int] | None
    """Shape (R,): 1 for a token that the policy sampled and that is trained on."""
    rollout_log_probs: list[float] | None
    """Shape (R,): natural logarithms; 0.0 where the mask is 0 because nothing was sampled."""
    rollout_top_p_token_ids: NDArray[np.int32] | None
    rollout_top_p_token_offsets: NDArray[np.int32] | None
    rollout_routed_experts: NDArray[np.int32] | None
    """Shape (T - 1, layers, experts per token)."""
    weight_versions: list[str]
    reward: Any
    """A number, or what a custom reward function makes of it."""
    remove_sample: bool
    """True: slime keeps the sample out of the loss."""
    metadata: dict[str, Any]
    session_id: str | None
    non_generation_time: float
    """Seconds."""

    @property
    def status(self) -> Any: ...  # a member of the class's own Status enumeration
