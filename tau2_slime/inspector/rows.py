"""What the viewer keeps of every episode: one short row, and the words that were said, packed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tau2_slime.inspector.trajectory import Trajectory

MOST_TEXT = 200_000
"""Characters of one episode that can be searched."""
_NUMBER = re.compile(r"(?<!\d)\d{1,9}(?!\d)")


@dataclass(slots=True)
class EpisodeRow:
    """One episode in the list. What a reader of the list, the filters and the curves need, and nothing else."""

    name: str
    """Unique in the viewer."""
    run: str
    """Which of the paths it comes from, as the reader calls it."""
    series: str
    """The curve that it belongs to."""
    step: int
    """The curve's place: slime's rollout, or the number of the run."""
    group: str
    """Episodes of one prompt at one step; empty if the file knows no groups."""
    task_key: str
    domain: str
    task: str
    user: str
    reward: float | None
    """τ²'s; None if excluded or without one."""
    excluded: bool
    ended: str
    blame: str
    turns: int
    sampled: int
    """Tokens."""
    errors: int
    faulty: bool
    """The simulator behaved as no customer would, or a call of it gave nothing usable."""
    talk: bool
    """The file keeps the conversation."""
    versions: dict[str, int] = field(default_factory=dict)
    """Weight version -> tokens that it sampled."""
    stepless: bool = False
    """The file knows no steps."""
    who: str = ""
    """Who failed the episode; empty as long as nobody has looked."""
    what: str = ""

    def shown(self) -> dict[str, Any]:
        """As the page reads it."""
        out = asdict(self)
        del out["versions"]
        return out


def row_of(trajectory: Trajectory, *, name: str, run: str, series: str, step: int) -> EpisodeRow:
    """The row of an episode. ``name``, ``run``, ``series`` and ``step``: what the viewer calls it and where it stands."""
    stats = trajectory.stats
    turns = stats.get("agent_turns")
    who, what = _logged_cause(trajectory.telemetry)
    return EpisodeRow(
        name=name,
        run=run,
        series=series,
        step=step,
        group=trajectory.group,
        task_key=trajectory.task_key,
        domain=trajectory.domain,
        task=trajectory.task_id,
        user=trajectory.user_model,
        reward=trajectory.counted_reward,
        excluded=trajectory.excluded,
        ended=trajectory.termination,
        blame=trajectory.blame,
        turns=int(turns) if turns is not None else sum(m.get("role") == "assistant" for m in trajectory.messages),
        sampled=trajectory.sampled_count(),
        errors=trajectory.tool_errors(),
        faulty=any(_any_count(stats.get(kind)) for kind in ("user_flaws", "user_faults")),
        talk=bool(trajectory.messages or trajectory.ledger),
        versions=trajectory.versions(),
        who=who,
        what=what,
    )


def _any_count(value: object) -> bool:
    return isinstance(value, Mapping) and any(value.values())


def _logged_cause(telemetry: Mapping[str, float]) -> tuple[str, str]:
    """What `diagnosis.metric.shares` said while the episode was played, if the run asked it."""
    named = {name.rpartition("failed_by/")[2]: value for name, value in telemetry.items() if "failed_by/" in name}
    if not named:
        return "", ""
    found = [name for name, value in named.items() if value]
    what = next((name.partition("/")[2] for name in found if "/" in name), "")
    who = next((name for name in found if "/" not in name), "none")
    return who, what or ("none" if who == "none" else "other")


def number_in(name: str) -> int | None:
    """The last number of a run's name, such as 100 of ``eval-iter_0000100``; None without one, and for a date or a time.

    >>> number_in("eval-iter_0000100"), number_in("rollout-20260101-120000-ab12cd"), number_in("best")
    (100, None, None)
    """
    if re.search(r"\d{8}-\d{6}", name):
        return None
    found = _NUMBER.findall(name)
    return int(found[-1]) if found else None


def words_of(trajectory: Trajectory) -> bytes:
    """Everything that was said, called and answered in small letters, packed: for the search over all conversations."""
    parts = [trajectory.task_id, trajectory.detail]
    for message in trajectory.messages:
        parts.append(str(message.get("content") or ""))
        for call in message.get("tool_calls") or []:
            parts.append(f"{call.get('name')} {call.get('arguments')}")
    if not trajectory.messages:
        parts.append(trajectory.response)
    return zlib.compress("\n".join(parts)[:MOST_TEXT].lower().encode("utf-8", "replace"), 1)


def says(packed: bytes, wanted: str) -> bool:
    """True if the words hold ``wanted``, whatever its capitals."""
    return wanted.lower().encode("utf-8", "replace") in zlib.decompress(packed)
