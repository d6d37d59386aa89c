"""Runs as their writers leave them: a rollout's folder, slime's dumps, the hooks' episodes.jsonl."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROLLOUT = Path(__file__).resolve().parents[1] / "data" / "rollout-0.1.0"
"""Four real episodes of the embedded policy, one of them solved."""


def lines(name: str = "trajectories.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROLLOUT / name).read_text().splitlines()]


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_dump(file: Path, samples: Sequence[dict[str, Any]]) -> None:
    """As torch.save writes one, for data without tensors."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        content = {"rollout_id": int("".join(filter(str.isdecimal, file.stem))), "samples": list(samples)}
        archive.writestr(f"{file.stem}/data.pkl", pickle.dumps(content, 2))


def samples(*, step: int = 0, version: str | None = None) -> list[dict[str, Any]]:
    """The real episodes as slime's samples, with their conversations; ``version``: of the weights that sampled them."""
    talks = {line["index"]: line for line in lines()}
    out = lines("samples.jsonl")
    for place, sample in enumerate(out):
        talk = talks[sample["index"]]
        tau2 = sample["metadata"]["tau2"]
        tau2["segments"] = talk["ledger"]["segments"]
        for segment in tau2["segments"]:
            if version is not None and segment["kind"] == "sampled":
                segment["weight_version"] = version
        names = ("messages", "rejected_calls", "generations", "reward_info")
        sample["metadata"]["tau2_trajectory"] = {name: talk.get(name) for name in names}
        sample["index"], sample["group_index"] = step * len(out) + place, step
    return out
