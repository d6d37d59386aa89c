"""Did it learn?  Every claim of `docs/learning.md` as a check over the curves of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

from benchmarks.learning.settings import Settings

Row = dict[str, Any]

START = (0.1, 0.45)
MOST_DIFFERENCE = 1e-4
LEAST_GAIN = 0.3
MOST_GAIN_OF_SHUFFLED = 0.1
GOAL = 0.9
LAST_STEPS = 5
WHOLE = Settings().steps
"""Steps of a whole run. Of a shorter one (``--small``) nobody expects the goal."""


@dataclass(frozen=True)
class Check:
    """One claim, and whether the curves bear it out."""

    claim: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'} {self.claim}: {self.found}"


@dataclass(frozen=True)
class Curve:
    """The lines of a run's ``curve.jsonl``."""

    name: str
    rows: Sequence[Row]

    @property
    def steps(self) -> list[Row]:
        """The lines of training steps; the last evaluation has none."""
        return [row for row in self.rows if "reward" in row]

    def evaluation(self, row: Row, dataset: str = "train") -> float:
        """Mean reward of an evaluation, each task counted once; of the step itself where it has none."""
        tasks = [statistics.fmean(v) for k, v in row.get("evaluation", {}).items() if k.startswith(f"{dataset}/")]
        return statistics.fmean(tasks) if tasks else float(row["reward"])

    def variance(self, row: Row, dataset: str = "train") -> float:
        """Of `evaluation`, from the spread of the episodes within each task."""
        tasks = [v for k, v in row.get("evaluation", {}).items() if k.startswith(f"{dataset}/")]
        if not tasks:
            return float(row["reward"] * (1 - row["reward"]) / max(1, row["episodes"]))
        return sum(statistics.variance(v) / len(v) for v in tasks if len(v) > 1) / len(tasks) ** 2

    def ends(self, dataset: str = "train") -> tuple[float, float]:
        """Mean reward on the tasks of ``dataset`` before the first step, and after the last one."""
        return self.evaluation(self.rows[0], dataset), self.evaluation(self.rows[-1], dataset)

    @property
    def last_reward(self) -> float:
        """Mean reward of the last training steps."""
        return statistics.fmean(row["reward"] for row in self.steps[-LAST_STEPS:])


def gain_interval(runs: Sequence[Curve], dataset: str = "train") -> tuple[float, float, float]:
    """Mean gain and its 95 % interval: over the seeds, or over the episodes where there is one seed."""
    gains = [after - before for before, after in (run.ends(dataset) for run in runs)]
    mean = statistics.fmean(gains)
    if len(runs) > 1:
        half = float(student.ppf(0.975, len(runs) - 1)) * statistics.stdev(gains) / len(runs) ** 0.5
    else:
        half = 1.96 * sum(runs[0].variance(row, dataset) for row in (runs[0].rows[0], runs[0].rows[-1])) ** 0.5
    return mean, mean - half, mean + half


def judge(curves: Mapping[str, Sequence[Curve]], *, most_difference: float = MOST_DIFFERENCE) -> Iterator[Check]:
    """The checks that the given runs allow.

    Args:
        curves: kind -> its runs, one for each seed. Kinds are sync, partial, async, unseen, shuffle, context and shift.
        most_difference: mean difference of the log-probs of server and trainer that is still right.
    """
    learning = [curve for kind in ("sync", "partial", "async", "unseen") for curve in curves.get(kind, ())]
    for curve in (*curves.get("sync", ()), *curves.get("unseen", ())):
        first = int(curve.steps[0]["weight_versions"][0]) - curve.steps[0]["step"]
        wrong = [row["step"] for row in curve.steps if row["weight_versions"] != [str(first + row["step"])]]
        yield Check(f"{curve.name}: each rollout's weights are those just pushed", f"not in steps {wrong}", not wrong)
    for curve in [*learning, *curves.get("shuffle", ())]:
        if "difference" not in curve.steps[0]:
            continue
        worst = max(row["difference"] for row in curve.steps)
        claim = f"{curve.name}: log-probs of server and trainer differ by less than {most_difference:g} in every step"
        yield Check(claim, f"at most {worst:.1e}", worst < most_difference)
    for kind in ("context", "shift"):
        for curve in curves.get(kind, ()):
            found = curve.steps[0]["train"]["train_rollout_logprob_abs_diff"]
            yield Check(f"{curve.name}: the fault shows in the first step", f"{found:.2g}", found > most_difference)
    yield from _gains(curves)


def _gains(curves: Mapping[str, Sequence[Curve]]) -> Iterator[Check]:
    if runs := curves.get("sync", ()):
        start = statistics.fmean(run.ends()[0] for run in runs)
        low, high = START
        yield Check(f"the start lies within {low} to {high}", f"{start:.2f}", low <= start <= high)
    for kind in ("sync", "partial", "async", "unseen"):
        if runs := curves.get(kind, ()):
            dataset = "held_out" if kind == "unseen" else "train"
            told = _gain(runs, dataset)
            lower = gain_interval(runs, dataset)[1]
            yield Check(f"{kind}: the gain's lower bound is above {LEAST_GAIN}", told, lower > LEAST_GAIN)
    if runs := curves.get("shuffle", ()):
        claim = f"shuffled rewards gain less than {MOST_GAIN_OF_SHUFFLED}"
        yield Check(claim, _gain(runs), gain_interval(runs)[0] < MOST_GAIN_OF_SHUFFLED)
    if len(runs := [run for run in curves.get("sync", ()) if len(run.steps) >= WHOLE]) >= 4:
        reached = [run.last_reward for run in runs]
        claim = f"3 of 4 seeds end at {GOAL} or more (mean of the last {LAST_STEPS} steps)"
        told = ", ".join(f"{value:.2f}" for value in reached)
        yield Check(claim, told, sum(value >= GOAL for value in reached) >= 3 * len(reached) / 4)


def _gain(runs: Sequence[Curve], dataset: str = "train") -> str:
    gain, lower, upper = gain_interval(runs, dataset)
    ends = ", ".join(f"{before:.2f} to {after:.2f}" for before, after in (run.ends(dataset) for run in runs))
    return f"{gain:.2f} ({lower:.2f} to {upper:.2f}) in {len(runs)} seeds, {ends}"
