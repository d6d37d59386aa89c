"""The shares of each cause as metrics of training and evaluation: ``tau2: {metrics: [tau2_slime.diagnosis.metric.shares]}``.

It replays the episode's writes, some ten milliseconds in the threads beside the event loop: so a run asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2_slime.diagnosis.decide import diagnose
from tau2_slime.diagnosis.findings import What, Who
from tau2_slime.inspector.row_formats import from_trajectory

if TYPE_CHECKING:
    from tau2_slime.episode.result import InteractionResult


def shares(result: InteractionResult) -> dict[str, float]:
    """1 for the cause of a failed episode and 0 for every other one, so that their means are shares of all episodes.

    ``failed_by/<who>`` for agent, user, task and infrastructure; ``failed_by/agent/<what>`` for the agent's kinds.
    """
    found = diagnose(from_trajectory(result.to_dict(tokens=False), "")).finding
    sides = {f"failed_by/{who}": float(found.who is who) for who in Who if who is not Who.NONE}
    mine = found.who is Who.AGENT
    return sides | {f"failed_by/agent/{what}": float(mine and found.what == what) for what in _AGENTS}


_AGENTS = (*list(What)[1 : [*What].index(What.LENGTH_LIMIT) + 1], What.OTHER)
"""What can be said of the agent: from wrong_tool to length_limit, and other."""
