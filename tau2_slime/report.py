"""What a rollout looks like on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.outcome import InteractionResult, Status

if TYPE_CHECKING:
    from rich.table import Table

    from tau2_slime.rollout import Played


def rollout_table(played: Sequence[Played]) -> Table:
    """One row per episode: what was played, how long it was, what it earned, how it ended."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", no_wrap=True, min_width=7)
    # Only these two give way on a narrow terminal; why an episode failed is printed below the table.
    table.add_column("task", overflow="ellipsis", max_width=40)
    for name in ("turns", "sampled", "context", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended", overflow="ellipsis")
    for item in played:
        result = item.result
        ledger = result.ledger
        table.add_row(
            item.job.domain,
            Text(result.task_id or item.job.task_id),
            str(result.stats.agent_turns + result.stats.user_turns),
            str(ledger.sampled_count if ledger else 0),
            str(len(ledger.tokens) - ledger.sampled_count if ledger else 0),
            _reward(result),
            Text(_ended(result)),
        )
    return table


def _reward(result: InteractionResult) -> str:
    if not result.trainable or result.reward is None:
        return "[red]-[/]"
    return f"[green]{result.reward:g}[/]" if result.reward == 1 else f"{result.reward:g}"


def _ended(result: InteractionResult) -> str:
    if result.status is Status.FAILED:
        return f"{result.termination} ({result.blame})"
    return str(result.termination)
