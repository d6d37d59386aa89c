"""``episodes.jsonl``: a short line for each episode of each step, for `tau2-slime view` while the job runs.

It says what happened and not what was said: that stands in slime's own dumps. The file is bounded: beyond `LARGEST` bytes
the oldest lines go. A job that goes on from an earlier step replaces the steps that it plays again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.observe.episodes import episode_of, flatten
from tau2_slime.runtime.files import ends_with_a_whole_line, json_lines, write_atomically
from tau2_slime.slime_adapter.sample import metadata_of

if TYPE_CHECKING:
    from tau2_slime.observe.episodes import Episode
    from tau2_slime.slime_adapter.types import SlimeSample

FILE = "episodes.jsonl"
TRAINING = "train"
"""Kind of the episodes that are trained on."""
LARGEST = 32_000_000
"""Bytes of the file, about 50,000 episodes; then the oldest lines go until half of it is left."""
_STATS = ("agent_turns", "user_turns", "agent_errors", "user_errors", "user_flaws", "user_faults")
_CAUSE = "failed_by/"
"""In the telemetry of a run that measures `diagnosis.metric.shares`."""

_written: dict[tuple[Path, str], int] = {}
"""File and kind -> the newest step that this process has written."""


def write_episodes(folder: Path, step: int, kind: str, samples: Iterable[SlimeSample | list[SlimeSample]]) -> None:
    """Add the episodes of one step to ``folder/episodes.jsonl``; samples of other data sources are left out.

    ``kind``: `TRAINING`, or an evaluation's dataset by a name that is not that.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    if step <= _written.get((file, kind), step):  # the first time, and after a step back
        _drop(file, step, kind)
    _written[file, kind] = step
    lines = "".join(
        json.dumps(_line(step, kind, sample, episode), ensure_ascii=False) + "\n"
        for sample in flatten(samples)
        if (episode := episode_of(sample)) is not None
    )
    if not lines:
        return
    broken = not ends_with_a_whole_line(file)
    with file.open("ab") as opened:
        opened.write((("\n" if broken else "") + lines).encode("utf-8", "replace"))
    if file.stat().st_size > LARGEST:
        _halve(file)


def _line(step: int, kind: str, sample: SlimeSample, episode: Episode) -> dict[str, Any]:
    tau2 = metadata_of(sample).get("tau2") or {}
    sampled: Counter[str] = Counter()
    for segment in tau2.get("segments") or ():
        if segment.get("kind") == "sampled":
            sampled[str(segment.get("weight_version") or "")] += int(segment["stop"]) - int(segment["start"])
    causes = {name: value for name, value in episode.telemetry.items() if _CAUSE in name}
    return {
        "step": step,
        "kind": kind,
        "index": getattr(sample, "index", None),
        "group": getattr(sample, "group_index", None),
        "domain": episode.domain,
        "task_split": episode.task_split,
        "task_id": episode.task_id,
        "agent_type": episode.agent_type,
        "user_model": episode.user_model,
        "status": str(getattr(getattr(sample, "status", None), "value", "")),
        "termination": episode.termination,
        "blame": episode.blame,
        "excluded": episode.excluded,
        "detail": str(tau2.get("detail") or "")[:200],
        "reward": episode.reward,
        "trained_reward": episode.trained_reward,
        "sampled": dict(sampled),
        "stats": {name: episode.stats[name] for name in _STATS if episode.stats.get(name)},
        "telemetry": {name: value for name, value in causes.items() if value or name.count("/") < 3},
    }


def _drop(file: Path, step: int, kind: str) -> None:
    """Take out what an earlier process has written of this step and of later ones."""
    rows = list(json_lines(file))
    kept = [row for row in rows if row is None or not _is_later(row, step, kind)]
    if len(kept) < len(rows):
        write_atomically(file, (json.dumps(row, ensure_ascii=False) + "\n" for row in kept if row is not None))


def _is_later(row: Mapping[str, Any], step: int, kind: str) -> bool:
    return row.get("kind") == kind and isinstance(row.get("step"), int) and row["step"] >= step


def _halve(file: Path) -> None:
    content = file.read_bytes()
    start = content.find(b"\n", len(content) - LARGEST // 2) + 1
    write_atomically(file, content[start:])
