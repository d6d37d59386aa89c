"""The curves of a campaign as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.learning.verdict import Curve

_COLOURS = {"sync": "#0b6bcb", "partial": "#2e9e5b", "async": "#8a4fbf", "unseen": "#d9822b", "shuffle": "#8c8c8c"}
_NAMES = {
    "sync": "GRPO",
    "partial": "partial rollout",
    "async": "fully async",
    "unseen": "GRPO, 300 tasks of one kind",
    "shuffle": "rewards shuffled in the group",
}


def draw(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Rewards of the training rollouts, and evaluations of trained and held-out tasks, by optimizer's rollout."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for kind, colour in _COLOURS.items():
        for number, curve in enumerate(curves.get(kind, ())):
            label = _NAMES[kind] if number == 0 else None
            steps = [row["step"] for row in curve.steps]
            left.plot(steps, [row["reward"] for row in curve.steps], color=colour, alpha=0.75, lw=1.2, label=label)
            evaluated = [row for row in curve.rows if "evaluation" in row]
            for dataset, style in (("train", "-"), ("held_out", ":")):
                values = [curve.evaluation(row, dataset) for row in evaluated]
                right.plot([row["step"] for row in evaluated], values, style, color=colour, lw=1.2)
    left.set(title="training rollouts", xlabel="step", ylabel="mean reward", ylim=(0, 1))
    right.set(title="evaluations", xlabel="step")
    for name, style in (("trained tasks", "-"), ("unseen tasks", ":")):
        right.plot([], [], style, color="black", lw=1.2, label=name)
    for axes, place in ((left, "lower right"), (right, "upper left")):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc=place)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
