"""Episodes in a terminal: the list, and one of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.inspector.conversation import Entry, conversation_of
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.runtime.console import Name, new_console, told_end

if TYPE_CHECKING:
    from rich.console import Console

    from tau2_slime.policy.checkpoint import Language


def show_list(trajectories: Sequence[Trajectory], unreadable: Sequence[str] = ()) -> None:
    """A row per episode, and what could not be read."""
    from rich.table import Table
    from rich.text import Text

    console = new_console()
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("episode", no_wrap=True)
    table.add_column("domain", no_wrap=True)
    # Names give way on a narrow terminal; half a number would be a wrong one.
    table.add_column("task", max_width=48)
    for name in ("msgs", "sampled", "errors", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended", no_wrap=True)
    users = {one.user_model for one in trajectories}
    if len(users) > 1:
        table.add_column("user")
    for one in trajectories:
        sampled = sum(piece.stop - piece.start for piece in one.pieces() if piece.kind == "sampled")
        table.add_row(
            Text(one.name),
            Text(one.domain),
            Name(_visible(one.task_id)),
            str(len(one.messages) or "-"),
            str(sampled or "-"),
            str(one.tool_errors() or ""),
            Text(one.reward_text, style=_reward_style(one)),
            Text(_visible(told_end(one.termination, one.blame, excluded=one.excluded))),
            *([Name(_visible(one.user_model))] if len(users) > 1 else []),
        )
    console.print(table)
    counted = [one.reward for one in trajectories if one.reward is not None and not one.excluded]
    mean = f"{sum(counted) / len(counted):.3f}" if counted else "-"
    console.print(
        f"{len(trajectories)} episodes, {sum(one.excluded for one in trajectories)} excluded, mean reward {mean}"
        + (f", user {_visible(next(iter(users)))}" if len(users) == 1 and any(users) else ""),
        markup=False,
    )
    known = telemetry_metrics(one.telemetry for one in trajectories if not one.excluded)
    if known:
        show_telemetry(console, known)
    for line in unreadable[:10]:
        console.print(f"unreadable: {line}", style="red", markup=False)
    if len(unreadable) > 10:
        console.print(f"... and {len(unreadable) - 10} more", style="red")


def show_telemetry(console: Console, known: Mapping[str, float]) -> None:
    """What the agents did on the way (`observe.telemetry`), in two tables: over all episodes, and tool by tool."""
    from rich.table import Table
    from rich.text import Text

    tools: dict[str, dict[str, float]] = {}
    measures = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    measures.add_column("measure")
    measures.add_column("value", justify="right")
    for name, value in known.items():
        if name.startswith("tool/"):
            tool, _, what = name.removeprefix("tool/").rpartition("/")
            tools.setdefault(tool, {})[what] = value
        else:
            measures.add_row(Text(name), f"{value:.3g}")
    console.print("", measures)
    if tools:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("tool")
        for name in ("calls", "without an error"):
            table.add_column(name, justify="right")
        for tool, values in sorted(tools.items()):
            share = f"{values['accuracy']:.1%}" if "accuracy" in values else "0.0%"
            shown = "(tools that only gave errors)" if tool == "never_answered" else tool
            table.add_row(Name(_visible(shown)), f"{values.get('calls', 0):g}", share)
        console.print("", table)


def show_episode(one: Trajectory, language: Language | None, *, world: bool = True) -> None:
    """The conversation, message by message, with where its tokens came from; the reward; the database."""
    from rich.text import Text

    console = new_console()

    def line(text: str, style: str = "") -> None:
        console.print(Text(_visible(text), style=style), soft_wrap=True)

    line(f"{one.name}: {one.domain}/{one.task_split}/{one.task_id}", "bold")
    line(f"reward {one.reward_text}, {one.termination}, blame {one.blame}, user {one.user_model or '-'} {one.detail}")
    for block in conversation_of(one, language):
        line("")
        line(_head(block), _STYLES.get(block.role, "bold"))
        if block.text:
            line(block.text)
        for call in block.calls:
            mark = " REJECTED" if call.rejected else ""
            line(f"  {call.name}({call.arguments}){mark}", "magenta")
    breakdown = one.reward_info.get("reward_breakdown")
    if breakdown:
        line(f"\nreward breakdown: {', '.join(f'{k} {v}' for k, v in breakdown.items())}", "bold")
    for name, value in sorted(one.telemetry.items()):
        line(f"{name} {value:g}")
    if world:
        from tau2_slime.inspector.world_diff import world_diff

        difference = world_diff(one)
        wrong = [change for change in difference.changes if not change.same]
        line(f"\ndatabase: {difference.note or ('not as gold leaves it' if wrong else 'as gold leaves it')}", "bold")
        for change in wrong:
            line(f"  {change.path}: before {change.before}, here {change.here}, gold {change.gold}", "red")


_STYLES = {"assistant": "bold cyan", "user": "bold green", "tool": "bold yellow", "prompt": "dim"}


def _head(block: Entry) -> str:
    parts = [block.title]
    if block.spans:
        kinds: dict[str, int] = {}
        for span in block.spans:
            kinds[span.kind] = kinds.get(span.kind, 0) + span.stop - span.start
        parts.append(", ".join(f"{count} {kind}" for kind, count in kinds.items()) + " tokens")
    parts += block.notes
    return " · ".join(parts)


def _reward_style(one: Trajectory) -> str:
    return "" if one.reward is None or one.excluded else "green" if one.reward >= 1 else "red"


def _visible(text: Any) -> str:
    """``text`` without what would steer the terminal: models write escape sequences too."""
    return "".join(c if c in "\n\t" or (c.isprintable()) else f"\\x{ord(c):02x}" for c in str(text))
