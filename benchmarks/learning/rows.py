"""A step of a run as plain numbers: from slime's samples as dictionaries, in memory or in the dumps of a run on GPUs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
SampleDict = Mapping[str, Any]
"""What slime's `Sample.to_dict` gives."""


def of_samples(samples: Sequence[SampleDict], version: str) -> Row:
    """Rewards, lengths and weight versions of a rollout; failures count nowhere but in ``excluded``.

    Args:
        version: of the weights that the trainer has. Tokens that others sampled are off-policy.
    """
    kept = [sample for sample in samples if not sample["remove_sample"]]
    tasks: dict[str, list[float]] = {}
    groups: dict[int, set[float]] = {}
    for sample in kept:
        tasks.setdefault(task_of(sample), []).append(reward_of(sample))
        groups.setdefault(sample["group_index"], set()).add(reward_of(sample))
    lags = np.array(
        [(int(version) - int(part["weight_version"]), part["stop"] - part["start"]) for _, part in _sampled(kept)]
    ).reshape(-1, 2)
    return Row(
        reward=float(np.mean([reward_of(sample) for sample in kept])) if kept else 0.0,
        episodes=len(kept),
        excluded=len(samples) - len(kept),
        by_task={task: sum(values) / len(values) for task, values in sorted(tasks.items())},
        groups_without_spread=sum(len(rewards) == 1 for rewards in groups.values()),
        response_length=float(np.mean([sample["response_length"] for sample in kept])) if kept else 0.0,
        sampled_tokens=int(lags[:, 1].sum()),
        weight_versions=sorted({str(v) for sample in kept for v in sample["weight_versions"]}, key=int),
        off_policy_share=float(lags[lags[:, 0] > 0, 1].sum() / max(1, lags[:, 1].sum())),
        greatest_lag=int(lags[:, 0].max(initial=0)),
    )


def task_of(sample: SampleDict) -> str:
    """The τ² task that the sample played."""
    return str(sample["metadata"]["task_id"])


def reward_of(sample: SampleDict) -> float:
    """τ²'s official reward, before any shaping."""
    return float(sample["metadata"]["tau2"]["official_reward"] or 0.0)


def difference(samples: Sequence[SampleDict], scores: Sequence[Sequence[float]], version: str) -> float:
    """Mean absolute difference of the trainer's and the server's log-probs, over the tokens that ``version`` sampled.

    Args:
        scores: the trainer's log-probs ``(T,)`` of each sample's response.
    """
    places = {id(sample): place for place, sample in enumerate(samples)}
    found: list[np.ndarray] = []
    for sample, part in _sampled([sample for sample in samples if not sample["remove_sample"]]):
        if part["weight_version"] == version:
            start = len(sample["tokens"]) - sample["response_length"]
            here = slice(part["start"] - start, part["stop"] - start)
            ours, theirs = scores[places[id(sample)]], sample["rollout_log_probs"]
            found.append(np.abs(np.asarray(ours[here], dtype=float) - np.asarray(theirs[here], dtype=float)))
    return float(np.concatenate(found).mean()) if found else 0.0


def _sampled(samples: Sequence[SampleDict]) -> list[tuple[SampleDict, Mapping[str, Any]]]:
    """Every run of tokens that one set of weights sampled, with its sample."""
    return [
        (sample, part)
        for sample in samples
        for part in sample["metadata"]["tau2"]["segments"]
        if part["kind"] == "sampled" and part["weight_version"] is not None
    ]


def read_curve(folder: Path) -> list[Row]:
    """The lines of ``curve.jsonl``; a last one that a kill has cut is left out."""
    path, rows = folder / "curve.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
