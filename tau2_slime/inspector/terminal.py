"""Episodes in a terminal: the list, and one of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.inspector.conversation import Entry, conversation_of
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime.console import ShortenedCell, describe_end, new_console
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tau2_slime.policy.checkpoint import CheckpointProfile

_STYLES = {"assistant": "bold cyan", "user": "bold green", "tool": "bold yellow", "prompt": "dim"}


LONGEST_NAME = 40
"""Columns of an episode's name in the list: telecom's are 200 characters long, and would leave no room for the others."""


def show_list(trajectories: Sequence[Trajectory], unreadable: Sequence[str] = ()) -> None:
    """A row per episode, the telemetry of all, and what could not be read."""
    from rich.text import Text

    console = new_console()
    table = _new_table()
    table.add_column(
        "episode", no_wrap=all(len(one.name) <= LONGEST_NAME for one in trajectories), max_width=LONGEST_NAME
    )
    table.add_column("domain", no_wrap=True)
    # On a narrow terminal names are shortened, and numbers never: half a number would be a wrong one.
    table.add_column("task", max_width=48)
    for name in ("msgs", "sampled", "errors", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended", no_wrap=True)
    users = {one.user_model for one in trajectories}
    if len(users) > 1:
        table.add_column("user")
    for one in trajectories:
        table.add_row(
            ShortenedCell(shown(one.name)) if len(one.name) > LONGEST_NAME else Text(shown(one.name)),
            Text(shown(one.domain)),
            ShortenedCell(shown(one.task_id)),
            str(len(one.messages) or "-"),
            str(one.sampled_count() or "-"),
            str(one.tool_errors() or ""),
            Text(one.reward_text, style=_reward_style(one)),
            Text(shown(describe_end(one.termination, one.blame, excluded=one.excluded))),
            *([ShortenedCell(shown(one.user_model))] if len(users) > 1 else []),
        )
    console.print(table)
    rewards = [one.counted_reward for one in trajectories if one.counted_reward is not None]
    mean = f"{sum(rewards) / len(rewards):.3f}" if rewards else "-"
    user = f", user {shown(next(iter(users)))}" if len(users) == 1 and any(users) else ""
    excluded = sum(one.excluded for one in trajectories)
    console.print(f"{len(trajectories)} episodes, {excluded} excluded, mean reward {mean}{user}", markup=False)
    _show_telemetry(console, telemetry_metrics(one.telemetry for one in trajectories if not one.excluded))
    for line in unreadable[:10]:
        console.print(f"unreadable: {shown(line)}", style="red", markup=False)
    if len(unreadable) > 10:
        console.print(f"... and {len(unreadable) - 10} more", style="red")


def _new_table() -> Table:
    from rich.table import Table

    return Table(box=None, padding=(0, 1, 0, 0), header_style="bold")


def _show_telemetry(console: Console, metrics: Mapping[str, float]) -> None:
    """`episode.telemetry` in two tables: over all episodes, and tool by tool."""
    from rich.text import Text

    by_tool: dict[str, dict[str, float]] = {}
    measures, tools = _new_table(), _new_table()
    measures.add_column("measure")
    measures.add_column("value", justify="right")
    for name, value in metrics.items():
        if name.startswith("tool/"):
            tool, _, what = name.removeprefix("tool/").rpartition("/")
            by_tool.setdefault(tool, {})[what] = value
        else:
            note = " (calls made, also those that failed)" if name in ("checks/actions", "gold/done") else ""
            measures.add_row(Text(shown(f"{name}{note}")), f"{value:.3g}")
    tools.add_column("tool")
    tools.add_column("calls", justify="right")
    tools.add_column("without an error", justify="right")
    for tool, values in sorted(by_tool.items()):
        name = "(tools that only gave errors)" if tool == "never_answered" else tool
        tools.add_row(ShortenedCell(shown(name)), f"{values.get('calls', 0):g}", f"{values.get('accuracy', 0.0):.1%}")
    for table in (measures, tools):
        if table.row_count:
            console.print("", table)


def show_episode(one: Trajectory, language: CheckpointProfile | None, *, world: bool = True) -> None:
    """The conversation, message by message, with the number of its tokens; the reward; the database.

    ``world``: replay the tool calls in τ² to compare databases.
    """
    from rich.text import Text

    console = new_console()

    def line(text: str, style: str = "") -> None:
        console.print(Text(shown(text, lines=True), style=style), soft_wrap=True)

    line(f"{one.name}: {one.domain}/{one.task_split}/{one.task_id}", "bold")
    line(f"reward {one.reward_text}, {one.termination}, blame {one.blame}, user {one.user_model or '-'} {one.detail}")
    for entry in conversation_of(one, language):
        line("")
        line(_heading(entry), _STYLES.get(entry.role, "bold"))
        if entry.text:
            line(entry.text)
        for call in entry.calls:
            line(f"  {call.name}({call.arguments}){' REJECTED' if call.rejected else ''}", "magenta")
    breakdown = one.reward_info.get("reward_breakdown")
    if breakdown:
        line(f"\nreward breakdown: {', '.join(f'{k} {v}' for k, v in breakdown.items())}", "bold")
    for name, value in sorted(one.telemetry.items()):
        line(f"{name} {value:g}")
    if world:
        from tau2_slime.inspector.database_diff import compare_with_gold

        diff = compare_with_gold(one)
        wrong = [change for change in diff.changes if not change.same]
        line(f"\ndatabase: {diff.note or ('not as gold leaves it' if wrong else 'as gold leaves it')}", "bold")
        for change in wrong:
            line(f"  {change.path}: before {change.before}, here {change.here}, gold {change.gold}", "red")


def _heading(entry: Entry) -> str:
    counts: dict[str, int] = {}
    for span in entry.spans:
        counts[span.kind] = counts.get(span.kind, 0) + span.stop - span.start
    tokens = [", ".join(f"{count} {kind}" for kind, count in counts.items()) + " tokens"] if counts else []
    return " · ".join([entry.title, *tokens, *entry.notes])


def _reward_style(one: Trajectory) -> str:
    reward = one.counted_reward
    return "" if reward is None else "green" if reward >= SUCCESS else "red"
