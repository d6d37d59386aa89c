"""Diagnoses in a terminal: one line for each failure, the clusters, and two runs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tau2_slime.diagnosis.clusters import Change, Cluster
from tau2_slime.diagnosis.findings import Diagnosis, Evidence, Who
from tau2_slime.runtime.console import ShortenedCell, new_console
from tau2_slime.runtime.text import shown

MOST = 60
"""Rows of a table; the file has them all."""


def show_failures(diagnoses: Sequence[Diagnosis], *, total: int, several_runs: bool) -> None:
    """A row for each failure, and who was at fault how often. ``total``: episodes that were read."""
    from rich.table import Table
    from rich.text import Text

    console = new_console()
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in (*(["run"] if several_runs else []), "domain"):
        table.add_column(name, no_wrap=True)
    table.add_column("task", max_width=28)
    for name in ("trial", "reward", "turn"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for name in ("who", "what"):
        table.add_column(name, no_wrap=True)
    table.add_column("evidence")
    failed = [one for one in diagnoses if one.failed]
    judged = any(one.judge is not None for one in failed)
    if judged:
        table.add_column("judge", no_wrap=True)
    for one in failed[:MOST]:
        found = one.finding
        table.add_row(
            *([ShortenedCell(shown(one.key.run))] if several_runs else []),
            Text(shown(one.key.domain)),
            ShortenedCell(shown(one.key.task_id)),
            Text(shown(one.key.trial)),
            "-" if one.reward is None else f"{one.reward:.3g}",
            "-" if found.turn is None else str(found.turn),
            found.who.value,
            Text(shown(f"{found.what}.{found.detail}" if found.detail else str(found.what))),
            ShortenedCell(shown(words_of(found.evidence))),
            *([_opinion(one)] if judged else []),
        )
    if failed:
        console.print(table)
    if len(failed) > MOST:
        console.print(f"... and {len(failed) - MOST} more: --jsonl FILE has them all")
    console.print(f"{total} episodes, {len(failed)} failures{blamed(failed)}", markup=False)


def _opinion(one: Diagnosis) -> str:
    if one.judge is None:
        return "-"
    return "agrees" if one.judge["agrees"] else shown(f"{one.judge['who']} {one.judge['what']} at {one.judge['turn']}")


def blamed(failed: Sequence[Diagnosis]) -> str:
    """Who was at fault how often, for the end of a sentence."""
    if not failed:
        return ""
    counts = Counter(one.finding.who for one in failed)
    return ": " + ", ".join(
        f"{who.value} {counts[who]} ({counts[who] / len(failed):.0%})" for who in Who if counts[who]
    )


def words_of(evidence: Sequence[Evidence]) -> str:
    """The first piece of evidence on one line."""
    if not evidence:
        return ""
    first = evidence[0]
    if first.text is not None:
        return " ".join(first.text.split())
    gold = f", gold {first.gold}" if first.gold is not None else ""
    return f"{first.name}: {first.here}{gold}"


def show_clusters(clusters: Sequence[Cluster]) -> None:
    """A row for each kind of failure, the largest first."""
    from rich.table import Table

    if not clusters:
        return
    console = new_console()
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title="Kinds of failure", title_justify="left")
    for name in ("domain", "who", "what"):
        table.add_column(name, no_wrap=True)
    table.add_column("tool, argument or clause")
    for name in ("count", "of failures", "of episodes (95%)", "tasks", "solved at times"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in clusters[:MOST]:
        about = one.kind.about if one.kind.tool in one.kind.about else " ".join(filter(None, one.kind[3:]))
        table.add_row(
            shown(one.kind.domain),
            one.kind.who,
            shown(one.kind.what),
            ShortenedCell(shown(about)),
            str(one.count),
            f"{one.share:.0%}",
            f"{one.low:.1%} to {one.high:.1%}",
            str(len(one.tasks)),
            str(len(one.unreliable)),
        )
    console.print("", table)


def show_comparison(changes: Sequence[Change], names: tuple[str, str], rates: tuple[str, str]) -> None:
    """What training cured and what it broke. ``rates``: the pass rate of each run, as text."""
    from rich.table import Table

    console = new_console()
    title = f"{shown(names[0])} ({rates[0]}) -> {shown(names[1])} ({rates[1]}), tasks of both"
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title=title, title_justify="left")
    for name in ("domain", "who", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cured")
    table.add_column("broken")
    for one in changes:
        table.add_row(
            *map(shown, one.kind),
            str(one.before),
            str(one.after),
            f"{one.after - one.before:+d}",
            ShortenedCell(shown(", ".join(one.cured))),
            ShortenedCell(shown(", ".join(one.broken))),
        )
    console.print("", table)
