"""GRPO's group normalisation over the samples that count, with an optional baseline for each user simulator.

slime's own normalisation (`RolloutManager._post_process_rewards`) with two differences: a removed sample's reward takes no
part in its group's mean and standard deviation, and groups are found by `group_index`, not by position. On whole groups
without removed samples it gives what slime gives.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau2_slime.errors import first_time
from tau2_slime.slime_adapter.compat import argument
from tau2_slime.slime_adapter.sample import metadata_of

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

CENTRED = ("grpo", "gspo", "cispo", "reinforce_plus_plus_baseline")
"""Values of --advantage-estimator for which slime subtracts the group's mean."""
SCALED = ("grpo", "gspo", "cispo")
"""Those of them that it divides by the group's standard deviation."""

EPSILON = 1e-6
"""What slime adds to the standard deviation."""

SHRINKAGE = 8.0
"""A simulator's effect is shrunk as if it had been seen in this many more samples without any effect."""


def reward_value(args: SlimeArgs, sample: SlimeSample) -> float:
    """The reward that the trainer is given; 0.0 if there is none. A reward of several parts is read by ``--reward-key``."""
    reward: Any = sample.reward
    if isinstance(reward, Mapping):
        reward = reward[args.reward_key]
    return 0.0 if reward is None else float(reward)


def counts(sample: SlimeSample) -> bool:
    """True if the sample's reward says something about the policy.

    A sample does not count if it was removed or aborted, if it has no reward, or if the policy sampled no token (its first
    prompt filled the context).
    """
    aborted = sample.status.name == "ABORTED"
    return not (sample.remove_sample or aborted or sample.reward is None or _never_asked(sample))


def _never_asked(sample: SlimeSample) -> bool:
    tau2 = metadata_of(sample).get("tau2")
    tokens = tau2.get("tokens") if isinstance(tau2, Mapping) else None
    return isinstance(tokens, Mapping) and tokens.get("sampled") == 0


def normalise(
    args: SlimeArgs, samples: Sequence[SlimeSample], *, simulator_baseline: bool
) -> tuple[list[float], list[float]]:
    """``(rewards, normalised rewards)``, one of each for every sample, in order.

    A sample that does not count gets 0.0. So does every sample of a group in which fewer than two count, or in which those
    that count have equal rewards. Without an --advantage-estimator of the GRPO kind, or with
    --disable-rewards-normalization, rewards pass unchanged, as in slime.

    Args:
        args: advantage_estimator, rewards_normalization, grpo_std_normalization, n_samples_per_prompt and reward_key.
        samples: a whole batch, in any order.
        simulator_baseline: also take out how easy each user simulator is, as estimated over the batch.
    """
    rewards = [reward_value(args, sample) for sample in samples]
    estimator = argument(args, "advantage_estimator", None)
    if estimator not in CENTRED or not args.rewards_normalization:
        return rewards, list(rewards)
    scaled = estimator in SCALED and args.grpo_std_normalization
    groups = [[i for i in group if counts(samples[i])] for group in group_positions(args, samples)]
    groups = [group for group in groups if len({rewards[i] for i in group}) > 1]
    effects = _simulator_effects(samples, rewards, groups) if simulator_baseline else defaultdict(float)
    out = np.zeros(len(samples))
    for group in groups:
        earned = np.array([rewards[i] for i in group])
        expected = _expected(earned, np.array([effects[_simulator(samples[i])] for i in group]))
        scale = earned.std(ddof=1) + EPSILON if scaled else 1.0  # with Bessel's correction, as torch's default
        out[group] = (earned - expected) / scale
    return rewards, out.tolist()


def group_positions(args: SlimeArgs, samples: Sequence[SlimeSample]) -> list[list[int]]:
    """Positions of the samples of each prompt, by `group_index`.

    Where a sample has none, groups are as in slime: ``n_samples_per_prompt`` samples in a row, or, if the batch is not a
    multiple of that, one group of the whole batch.
    """
    indices = [sample.group_index for sample in samples]
    size = int(argument(args, "n_samples_per_prompt", None) or 0)
    if any(index is None for index in indices):
        if not size or len(samples) % size:
            if first_time("advantages: no group_index"):
                logger.warning(
                    "%d samples without group_index are not a multiple of n_samples_per_prompt (%d): all of them are "
                    "normalised as one group",
                    len(samples),
                    size,
                )
            return [list(range(len(samples)))]
        indices = [position // size for position in range(len(samples))]
    groups: dict[Hashable, list[int]] = {}
    for position, index in enumerate(indices):
        groups.setdefault(index, []).append(position)
    return list(groups.values())


# ---- simulators --------------------------------------------------------------------------------------------------------


def _simulator(sample: SlimeSample) -> Hashable:
    """``(domain, user simulator)``: how easy a simulator is depends on the domain."""
    tau2 = metadata_of(sample).get("tau2")
    return (tau2.get("domain"), tau2.get("user_model")) if isinstance(tau2, Mapping) else None


def _simulator_effects(
    samples: Sequence[SlimeSample], rewards: Sequence[float], groups: Sequence[Sequence[int]]
) -> dict[Hashable, float]:
    """How much more than its group a simulator's samples earn: reward = group + simulator + noise, by ridge regression.

    Fitted over the whole batch, because two or three samples of one simulator in a group say next to nothing about it.
    """
    names = sorted({_simulator(samples[i]) for group in groups for i in group}, key=repr)
    column = {name: k for k, name in enumerate(names)}
    matrix = SHRINKAGE * np.eye(len(names))  # positive definite, so the system has one solution
    target = np.zeros(len(names))
    for group in groups:
        earned = np.array([rewards[i] for i in group])
        member = np.zeros((len(group), len(names)))
        member[np.arange(len(group)), [column[_simulator(samples[i])] for i in group]] = 1.0
        member -= member.mean(axis=0)  # the group's own level takes no part
        matrix += member.T @ member
        target += member.T @ earned
    solution = np.linalg.solve(matrix, target)
    return {name: float(solution[k]) for name, k in column.items()}


def _expected(earned: FloatArray, effects: FloatArray) -> FloatArray:
    """What each sample of a group was expected to earn, given its simulator's effect; without effects the group's mean.

    Kept within what the group earned: no simulator makes the best outcome of a group a bad one, or the worst a good one.
    """
    expected: FloatArray = earned.mean() - effects.mean() + effects
    return expected.clip(earned.min(), earned.max())
