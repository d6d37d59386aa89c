"""What a path holds: the episodes that were found, and the rows that are none."""

from __future__ import annotations

from dataclasses import dataclass, field

from tau2_slime.inspector.trajectory import Trajectory

ACCEPTED = (
    "a folder or file of `tau2-slime rollout` (samples.jsonl, trajectories.jsonl), a .pt of slime's "
    "--save-debug-rollout-data or a --dump-details folder, episodes.jsonl of the hooks, simulations.jsonl of "
    "`tau2-slime eval`, or τ²'s results .json "
    "(in τ² 1.0 also a folder of results.json and simulations/)"
)
NOT_AN_EPISODE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)
"""What `row_formats` raises for a row that nobody of the package wrote."""


@dataclass
class FoundEpisodes:
    """What a path holds."""

    trajectories: list[Trajectory] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """One line for each row that is not an episode, naming file and position."""
    checkpoint: str | None = None
    """Folder or hub name of the policy's tokenizer, where the files say it."""
    embedded: bool = False
    """True if the package's own embedded policy played."""
    strategies: set[str] = field(default_factory=set)
    """How agents acted whose episodes are not among `trajectories`."""


def make_names_unique(trajectories: list[Trajectory]) -> None:
    """The user chooses episodes by name: a second one of the same name gets its position."""
    seen: set[str] = set()
    for position, trajectory in enumerate(trajectories):
        if trajectory.name in seen:
            trajectory.name = f"{trajectory.name}@{position}"
        seen.add(trajectory.name)
