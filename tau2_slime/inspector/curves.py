"""Rows -> curves: what happened at each step, for all episodes, by domain and by simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import fmean
from typing import Any

from tau2_slime.inspector.rows import EpisodeRow
from tau2_slime.outcome import SUCCESS

Interval = Callable[[Sequence[str], Sequence[Hashable], Sequence[float]], tuple[float, float]]
"""(domain of each episode, its task, 1 or 0) -> limits of the share of ones, which counts tasks and not attempts."""
Splits = tuple[tuple[str, Callable[[EpisodeRow], str]], ...]
SPLITS: Splits = (("all", lambda row: ""), ("domain", lambda row: row.domain), ("simulator", lambda row: row.user))
"""How a curve may be taken apart: name -> which part an episode belongs to."""
Key = tuple[str, str, str, int]
"""Split, part, series, step."""


class Curves:
    """Points that are computed again only where episodes were added."""

    def __init__(self, interval: Interval) -> None:
        self._interval = interval
        self._rows: dict[Key, list[EpisodeRow]] = {}
        self._points: dict[Key, dict[str, Any]] = {}

    def add(self, rows: Iterable[EpisodeRow]) -> None:
        """Count ``rows`` too."""
        for row in rows:
            for key in _keys(row):
                self._rows.setdefault(key, []).append(row)
                self._points.pop(key, None)

    def changed(self, row: EpisodeRow) -> None:
        """A row that was added is known better now."""
        for key in _keys(row):
            self._points.pop(key, None)

    def shown(self) -> dict[str, list[dict[str, Any]]]:
        """Split -> its curves, each with ``series``, ``part`` and ``points`` in the order of their steps."""
        out: dict[str, list[dict[str, Any]]] = {name: [] for name, _ in SPLITS}
        curves: dict[tuple[str, str, str], list[int]] = {}
        for split, part, series, step in self._rows:
            curves.setdefault((split, part, series), []).append(step)
        for (split, part, series), steps in sorted(curves.items()):
            points: list[dict[str, Any]] = []
            newest: int | None = None
            for step in sorted(steps):
                key = (split, part, series, step)
                if key not in self._points:
                    self._points[key] = point_of(self._rows[key], self._interval)
                versions = _versions(self._rows[key])
                newest = max([*([] if newest is None else [newest]), *versions], default=None)
                points.append({"step": step, **self._points[key], **_off_policy(versions, newest)})
            out[split].append({"series": series, "part": part, "points": points})
        return out


def _keys(row: EpisodeRow) -> list[Key]:
    return [(name, part(row), row.series, row.step) for name, part in SPLITS if name == "all" or part(row)]


def point_of(rows: Sequence[EpisodeRow], interval: Interval) -> dict[str, Any]:
    """What ``rows`` say together. A mean over no episode is None; shares of ends and of blame are of all episodes."""
    counted = [row for row in rows if row.reward is not None]
    passed = [float(row.reward is not None and row.reward >= SUCCESS) for row in counted]
    low, high = (
        interval([row.domain for row in counted], [row.task_key for row in counted], passed)
        if counted
        else (None, None)
    )
    valid = [row for row in rows if not row.excluded]
    known = [row for row in rows if row.who]
    return {
        "episodes": len(rows),
        "run": rows[0].run,
        "reward": _mean(row.reward for row in counted),
        "pass": _mean(passed),
        "low": low,
        "high": high,
        "turns": _mean(row.turns for row in valid),
        "tokens": _mean(row.sampled for row in valid if row.sampled),
        "excluded": _mean(float(row.excluded) for row in rows),
        "faulty": _mean(float(row.faulty) for row in rows),
        "ended": _shares(row.ended for row in rows),
        "blame": _shares(row.blame for row in rows),
        "diagnosed": len(known),
        "failed_by": _shares(_cause(row) for row in known),
    }


def _cause(row: EpisodeRow) -> str:
    return f"agent {row.what}" if row.who == "agent" else row.who if row.who != "none" else "solved"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _shares(names: Iterable[str]) -> dict[str, float]:
    counts = Counter(name or "unknown" for name in names)
    return {name: count / counts.total() for name, count in counts.most_common()}


def _versions(rows: Sequence[EpisodeRow]) -> Counter[int]:
    """Weight version -> tokens, where versions are numbers."""
    out: Counter[int] = Counter()
    for row in rows:
        for version, tokens in row.versions.items():
            if version.isdecimal() and len(version) < 12:
                out[int(version)] += tokens
    return out


def _off_policy(versions: Counter[int], newest: int | None) -> dict[str, float | None]:
    """``stale``: share of the sampled tokens from older weights than the newest that have answered so far. ``lag``: by how
    many versions a token was behind them, in the mean."""
    total = versions.total()
    if newest is None or not total:
        return {"stale": None, "lag": None}
    return {
        "stale": sum(tokens for version, tokens in versions.items() if version < newest) / total,
        "lag": sum((newest - version) * tokens for version, tokens in versions.items()) / total,
    }
