"""What a rollout looks like on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.episode.result import InteractionResult
from tau2_slime.outcome import Status

if TYPE_CHECKING:
    from rich.table import Table

    from tau2_slime.rollout import Played


def rollout_table(played: Sequence[Played]) -> Table:
    """One row per episode: what was played, how long it was, what it earned, how it ended."""
    from rich.table import Table
    from rich.text import Text

    from tau2_slime.runtime.console import ShortenedCell, describe_end

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", no_wrap=True, min_width=7)
    # Only these two give way on a narrow terminal; why an episode failed is printed below the table.
    table.add_column("task", max_width=48)
    for name in ("turns", "sampled", "context", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended")
    for item in played:
        result = item.result
        ledger = result.ledger
        ended = describe_end(result.termination, result.blame, excluded=result.status is Status.FAILED)
        table.add_row(
            item.job.domain,
            ShortenedCell(result.task_id or item.job.task_id),
            str(result.stats.agent_turns + result.stats.user_turns),
            str(ledger.sampled_count if ledger else 0),
            str(len(ledger.tokens) - ledger.sampled_count if ledger else 0),
            _reward(result),
            Text(ended, no_wrap=True, overflow="ellipsis"),
        )
    return table


def _reward(result: InteractionResult) -> str:
    if not result.trainable or result.reward is None:
        return "[red]-[/]"
    return f"[green]{result.reward:g}[/]" if result.reward == 1 else f"{result.reward:g}"
