"""GRPO's group normalisation over the samples that count, with an optional baseline for each user simulator.

slime's own normalisation (`RolloutManager._post_process_rewards`) with two differences: a removed sample's reward takes no
part in its group's mean and standard deviation, and groups are found by `group_index`, not by position. On whole groups
without removed samples it gives what slime gives.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tau2_slime.errors import first_time
from tau2_slime.slime_adapter.compat import argument
from tau2_slime.slime_adapter.sample import metadata_of

logger = logging.getLogger(__name__)

CENTRED = ("grpo", "gspo", "cispo", "reinforce_plus_plus_baseline")
"""Values of --advantage-estimator for which slime subtracts the group's mean."""
SCALED = ("grpo", "gspo", "cispo")
"""Those of them that it divides by the group's standard deviation."""

EPSILON = 1e-6
"""What slime adds to the standard deviation."""

SHRINKAGE = 8.0
"""A simulator's effect is shrunk as if it had been seen in this many more samples without any effect."""


def reward_value(args: Any, sample: Any) -> float:
    """The reward that the trainer is given, 0.0 where there is none."""
    reward = getattr(sample, "reward", None)
    if isinstance(reward, Mapping):
        reward = reward[args.reward_key]
    return 0.0 if reward is None else float(reward)


def counts(sample: Any) -> bool:
    """True if the sample's reward says something about the policy: neither removed, nor aborted, nor without a reward, nor
    without a token of the policy's (a first prompt that fills the context)."""
    status = getattr(getattr(sample, "status", None), "name", "")
    return (
        not getattr(sample, "remove_sample", False)
        and status != "ABORTED"
        and getattr(sample, "reward", None) is not None
        and not _never_asked(sample)
    )


def _never_asked(sample: Any) -> bool:
    tau2 = metadata_of(sample).get("tau2")
    tokens = tau2.get("tokens") if isinstance(tau2, Mapping) else None
    return isinstance(tokens, Mapping) and tokens.get("sampled") == 0


def normalise(
    args: Any, samples: Sequence[Any], *, simulator_baseline: bool = False
) -> tuple[list[float], list[float]]:
    """``(rewards, normalised rewards)``, one of each for every sample, in order.

    A sample that does not count gets 0.0, as does everything in a group with fewer than two that count or without spread.
    ``args``: advantage_estimator, rewards_normalization, grpo_std_normalization, n_samples_per_prompt, reward_key. Without
    --advantage-estimator of the GRPO kind, or with --disable-rewards-normalization, rewards pass unchanged, as in slime.
    """
    rewards = [reward_value(args, sample) for sample in samples]
    estimator = argument(args, "advantage_estimator", None)
    if estimator not in CENTRED or not args.rewards_normalization:
        return rewards, list(rewards)
    scaled = estimator in SCALED and args.grpo_std_normalization
    groups = [[i for i in group if counts(samples[i])] for group in group_positions(args, samples)]
    groups = [group for group in groups if len({rewards[i] for i in group}) > 1]
    effects = _simulator_effects(samples, rewards, groups) if simulator_baseline else {}
    out = [0.0] * len(samples)
    for group in groups:
        expected = _expected(samples, rewards, group, effects)
        scale = _std([rewards[i] for i in group]) + EPSILON if scaled else 1.0
        for i in group:
            out[i] = (rewards[i] - expected[i]) / scale
    return rewards, out


def group_positions(args: Any, samples: Sequence[Any]) -> list[list[int]]:
    """Positions of the samples of each prompt: by `group_index`, or, where samples carry none, by slime's order."""
    indices = [getattr(sample, "group_index", None) for sample in samples]
    size = int(argument(args, "n_samples_per_prompt", 0) or 0)
    if any(index is None for index in indices):
        if not size or len(samples) % size:
            if first_time("advantages: no group_index"):
                logger.warning("samples without group_index, and not a multiple of n_samples_per_prompt: one group")
            size = max(1, len(samples))
        indices = [position // size for position in range(len(samples))]
    groups: dict[Hashable, list[int]] = {}
    for position, index in enumerate(indices):
        groups.setdefault(index, []).append(position)
    return list(groups.values())


# ---- simulators --------------------------------------------------------------------------------------------------------


def _simulator(sample: Any) -> Hashable:
    """How easy a simulator is depends on the domain: they are told apart by both."""
    tau2 = metadata_of(sample).get("tau2")
    return (tau2.get("domain"), tau2.get("user_model")) if isinstance(tau2, Mapping) else None


def _simulator_effects(
    samples: Sequence[Any], rewards: Sequence[float], groups: Sequence[Sequence[int]]
) -> dict[Hashable, float]:
    """How much more than its group a simulator's samples earn: reward = group + simulator + noise, by ridge regression.

    Fitted over the whole batch, because two or three samples of one simulator in a group say next to nothing about it.
    """
    names = sorted({_simulator(samples[i]) for group in groups for i in group}, key=repr)
    column = {name: k for k, name in enumerate(names)}
    size = len(names)
    matrix = [[SHRINKAGE if i == j else 0.0 for j in range(size)] for i in range(size)]
    target = [0.0] * size
    for group in groups:
        n = len(group)
        mean = math.fsum(rewards[i] for i in group) / n
        seen = [0.0] * size
        for i in group:
            seen[column[_simulator(samples[i])]] += 1.0
            target[column[_simulator(samples[i])]] += rewards[i] - mean
        for a in range(size):
            if seen[a]:
                matrix[a][a] += seen[a]
                for b in range(size):
                    matrix[a][b] -= seen[a] * seen[b] / n
    return dict(zip(names, _solve(matrix, target), strict=True))


def _expected(
    samples: Sequence[Any], rewards: Sequence[float], group: Sequence[int], effects: Mapping[Hashable, float]
) -> dict[int, float]:
    """What each sample of ``group`` was expected to earn; without effects the group's mean.

    Kept within what the group earned: no simulator makes the best outcome of a group a bad one, or the worst a good one.
    """
    effect = {i: effects.get(_simulator(samples[i]), 0.0) for i in group}
    level = math.fsum(rewards[i] - effect[i] for i in group) / len(group)
    low, high = min(rewards[i] for i in group), max(rewards[i] for i in group)
    return {i: min(high, max(low, level + effect[i])) for i in group}


def _solve(matrix: list[list[float]], target: list[float]) -> list[float]:
    """Gaussian elimination for a symmetric positive definite matrix (the shrinkage makes it one)."""
    rows = [[*row, value] for row, value in zip(matrix, target, strict=True)]
    size = len(rows)
    for k in range(size):
        for j in range(k + 1, size):
            factor = rows[j][k] / rows[k][k]
            rows[j] = [b - factor * a for a, b in zip(rows[k], rows[j], strict=True)]
    out = [0.0] * size
    for k in reversed(range(size)):
        known = math.fsum(rows[k][j] * out[j] for j in range(k + 1, size))
        out[k] = (rows[k][size] - known) / rows[k][k]
    return out


def _std(values: Sequence[float]) -> float:
    """With Bessel's correction, as torch's default."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
