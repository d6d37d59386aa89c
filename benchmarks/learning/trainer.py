"""Optimizer steps with slime's loss on a transformers model: the part of slime's actor that Megatron plays on GPUs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.learning.forward import log_probs, response_logits

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

    from benchmarks.learning.slime_code import LossModule

GRADIENT_CLIP = 1.0


@dataclass
class Episodes:
    """What slime hands to its trainer, as tensors; one entry for each episode. Responses have shape ``(T,)``."""

    tokens: list[list[int]]
    response_lengths: list[int]
    loss_masks: list[torch.Tensor]
    rollout_log_probs: list[torch.Tensor]
    rewards: list[float] = field(default_factory=list)
    steps: list[list[list[int]]] = field(default_factory=list)
    """Optimizer steps -> micro-batches -> episodes: slime's own schedule."""

    @classmethod
    def from_slime(cls, data: Mapping[str, Any]) -> Episodes:
        """``data``: what `RolloutManager.generate` returns for the only rank."""
        micro_batches, steps = iter(data["micro_batch_indices"]), []
        for count in data["num_microbatches"]:
            steps.append([list(next(micro_batches)) for _ in range(count)])
        return cls(
            [torch.as_tensor(tokens).tolist() for tokens in data["tokens"]],
            [int(length) for length in data["response_lengths"]],
            [torch.as_tensor(mask, dtype=torch.float32) for mask in data["loss_masks"]],
            [torch.as_tensor(values, dtype=torch.float32) for values in data["rollout_log_probs"]],
            [float(reward) for reward in data["rewards"]],
            steps,
        )

    def response(self, index: int) -> list[int]:
        """Token ids ``(T,)`` of an episode's response."""
        return self.tokens[index][-self.response_lengths[index] :]


class Trainer:
    """AdamW on a model, with the loss that ``args.loss_type`` names in slime."""

    def __init__(self, loss: LossModule, args: Namespace, model: Qwen3ForCausalLM) -> None:
        self.args, self.model = args, model
        self._loss = loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def train(
        self, episodes: Episodes, rate: float, log_probs: list[torch.Tensor] | None = None
    ) -> list[dict[str, float]]:
        """One pass over ``episodes`` in slime's schedule; slime's metrics and the gradient's norm for each optimizer step.

        Args:
            rate: AdamW's learning rate.
            log_probs: of every response ``(T,)`` before the first step, as slime's actor computes them (`score`). Only the
                policy loss needs them.
        """
        fields = self._policy_fields(episodes, log_probs) if log_probs is not None else {}
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return [self._step(episodes, step, fields) for step in episodes.steps]

    def _policy_fields(self, episodes: Episodes, log_probs: list[torch.Tensor]) -> dict[str, list[Any]]:
        """Log-probs, and slime's advantages."""
        fields: dict[str, list[Any]] = {"rollout_log_probs": episodes.rollout_log_probs, "log_probs": log_probs}
        data = {
            "rewards": episodes.rewards,
            "response_lengths": episodes.response_lengths,
            "total_lengths": [length + 1 for length in episodes.response_lengths],
            "loss_masks": episodes.loss_masks,
            **fields,
        }
        self._loss.compute_advantages_and_returns(self.args, data)
        return {**fields, "advantages": data["advantages"]}

    def score(self, model: Qwen3ForCausalLM, episodes: Episodes) -> list[torch.Tensor]:
        """Log-probs ``(T,)`` of every response under ``model``."""
        found: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for batch in (batch for step in episodes.steps for batch in step):
                for index, logits in zip(batch, self._logits(model, episodes, batch), strict=True):
                    scaled = logits / self.args.rollout_temperature  # as slime's loss and the server
                    found[index] = log_probs(scaled, episodes.response(index)).cpu()
        return [found.get(i, values) for i, values in enumerate(episodes.rollout_log_probs)]

    def _step(
        self, episodes: Episodes, micro_batches: Sequence[Sequence[int]], fields: Mapping[str, list[Any]]
    ) -> dict[str, float]:
        size = sum(map(len, micro_batches))
        self.optimizer.zero_grad()
        told: dict[str, float] = {}
        tokens = 0.0
        for indices in micro_batches:
            logits = self._logits(self.model, episodes, indices)
            # slime's loss reads whole sequences packed one after another. It uses the rows that predict the response; the
            # last row of a sequence predicts nothing.
            packed = torch.cat([part for one in logits for part in (one, one[-1:].detach())])[None]
            batch = {
                "response_lengths": [episodes.response_lengths[i] for i in indices],
                "total_lengths": [episodes.response_lengths[i] + 1 for i in indices],
                "loss_masks": [episodes.loss_masks[i] for i in indices],
                "rollout_mask_sums": [episodes.loss_masks[i].sum() for i in indices],
                "unconcat_tokens": [
                    torch.as_tensor(episodes.tokens[i][-episodes.response_lengths[i] - 1 :]) for i in indices
                ],
                **{name: [values[i] for i in indices] for name, values in fields.items()},
            }
            batch = {name: [_to(value, self.model.device) for value in values] for name, values in batch.items()}
            loss, normalizer, report = self._loss.loss_function(self.args, batch, len(micro_batches), size, packed)
            tokens += float(normalizer)
            (loss / (1 if self.args.calculate_per_token_loss else len(micro_batches))).backward()
            for name, value in zip(report["keys"], report["values"][1:].tolist(), strict=True):
                told[name] = told.get(name, 0.0) + value
        if self.args.calculate_per_token_loss:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= tokens
        told = {name: value / (tokens if self.args.calculate_per_token_loss else size) for name, value in told.items()}
        told["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP))
        self.optimizer.step()
        return told

    @staticmethod
    def _logits(model: Qwen3ForCausalLM, episodes: Episodes, indices: Sequence[int]) -> list[torch.Tensor]:
        sequences = [episodes.tokens[i] for i in indices]
        return response_logits(model, sequences, [episodes.response_lengths[i] for i in indices])


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
