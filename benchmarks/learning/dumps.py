"""The checks of ``make learn`` over a run of slime on GPUs, from the files that slime itself writes.

    python -m benchmarks.learning.dumps 'RUN/rollouts/{rollout_id}.pt' ['RUN/train_{rollout_id}.pt']

The first is what ``--save-debug-rollout-data`` was given, the second what ``--save-debug-train-data`` was given. Without the
second the log-probs of server and trainer cannot be compared. Prints the curve, a line for each claim, and PASS or FAIL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.learning.rows import Row, difference, of_samples, reward_of, task_of
from benchmarks.learning.verdict import MOST_DIFFERENCE, Curve, judge


def read(rollouts: str, train: str | None = None) -> Curve:
    """The curve of the run whose dumps these templates name (``{rollout_id}`` stands for a number)."""
    rows: list[Row] = []
    numbers = sorted(_numbers(rollouts))
    for number in numbers:
        samples = _load(rollouts, number)["samples"]
        newest = max((int(v) for sample in samples for v in sample["weight_versions"]), default=0)
        row = Row(step=number) | of_samples(samples, str(newest))
        if train is not None:
            trained = _load(train, number)["samples"]
            places = [sample["rollout_position"] for sample in trained]
            scores = [_floats(sample["log_probs"]) for sample in trained]
            row["difference"] = difference([samples[place] for place in places], scores, str(newest))
        if Path(rollouts.format(rollout_id=f"eval_{number}")).is_file():
            row["evaluation"] = _evaluation(rollouts, number)
        rows.append(row)
    return Curve(Path(rollouts).parent.name, rows)


def _evaluation(rollouts: str, number: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample in _load(rollouts, f"eval_{number}")["samples"]:
        if not sample["remove_sample"]:
            found.setdefault(f"train/{task_of(sample)}", []).append(reward_of(sample))
    return found


def _numbers(template: str) -> Iterator[int]:
    before, after = Path(template).name.split("{rollout_id}")
    for path in Path(template).parent.glob(f"{before}*{after}"):
        number = path.name.removeprefix(before).removesuffix(after)
        if number.isdigit():
            yield int(number)


def _load(template: str, number: int | str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(template.format(rollout_id=number), map_location="cpu", weights_only=False)
    return found


def _floats(values: Any) -> list[float]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def main(arguments: list[str] | None = None) -> int:
    """0: every claim holds; 1: one does not. ``arguments``: the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(description="The checks of `make learn` over the dumps of a run of slime.")
    parser.add_argument("rollouts", help="what --save-debug-rollout-data was given")
    parser.add_argument("train", nargs="?", help="what --save-debug-train-data was given")
    parser.add_argument(
        "--most-difference", type=float, default=MOST_DIFFERENCE, help="of log-probs (default: %(default)g)"
    )
    options = parser.parse_args(arguments)
    for template in filter(None, (options.rollouts, options.train)):
        if "{rollout_id}" not in template or next(_numbers(template), None) is None:
            parser.error(f"{template}: no dumps; give what slime was given, with {{rollout_id}} in it")
    curve = read(options.rollouts, options.train)
    for row in curve.rows:
        told = f"step {row['step']:3}, reward {row['reward']:.2f} of {row['episodes']} episodes ({row['excluded']} excluded)"
        print(f"{told}, weights {','.join(row['weight_versions'])}, off-policy {row['off_policy_share']:.0%}")
    checks = list(judge({"sync": [curve]}, most_difference=options.most_difference))
    print("\n".join(map(str, checks)))
    holds = all(check.holds for check in checks)
    print("PASS" if holds else "FAIL")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
