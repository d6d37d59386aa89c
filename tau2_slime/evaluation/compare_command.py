"""`tau2-slime compare`: the comparison as tables, on the terminal and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.evaluation.compare import Comparison, Difference, Pair, compare
from tau2_slime.evaluation.report.table import Table, markdown_page, print_page
from tau2_slime.evaluation.statistics.summary import read_folder
from tau2_slime.evaluation.store.manifest import protocol_digest
from tau2_slime.runtime.files import check_output, write_atomically

if TYPE_CHECKING:
    from rich.console import Console


def run(first: Path, second: Path, allow: list[str], output: Path | None, fail_if_worse: bool, console: Console) -> int:
    """Compare two folders; exit status 1 if ``fail_if_worse`` and the second is worse beyond noise.

    Raises:
        ConfigError: a folder does not hold an evaluation, or the runs are not comparable.
    """
    check_output("--output", output, [first, second])
    found = compare(read_folder(first), read_folder(second), allow)
    print_page(heading(found), tables(found), console)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, render(found))
        console.print(f"written to {output}", markup=False, soft_wrap=True)
    return 1 if fail_if_worse and found.overall.words == "worse" else 0


def heading(found: Comparison) -> list[str]:
    """What was compared, the answer, and what a reader must know about it."""
    return [
        f"first: {found.first['subject']['name']} (run {protocol_digest(found.first)}); "
        f"second: {found.second['subject']['name']} (run {protocol_digest(found.second)}).",
        sentence(found.overall),
        *(f"ALLOWED TO DIFFER: {words}" for words in found.allowed),
        *found.notes,
    ]


def sentence(overall: Difference) -> str:
    """One difference in words."""
    change = f"pass^1 {overall.first:.3f} -> {overall.second:.3f}, {overall.value:+.3f}"
    chance = "< 0.001" if overall.p < 0.001 else f"= {overall.p:.3f}"
    spread = f"95% interval {overall.low:+.3f} to {overall.high:+.3f}, permutation p {chance}"
    if overall.significant:
        return f"The second run is {overall.words}: {change} ({spread})."
    return f"The difference is within noise: {change} ({spread})."


def tables(found: Comparison) -> list[Table]:
    """The differences; and the tasks that changed, if any did."""
    rows = [
        [
            d.name if d.kind == "dataset" else f"{d.kind}: {d.name}",
            d.words,
            str(d.tasks),
            f"{d.first:.3f}",
            f"{d.second:.3f}",
            f"{d.value:+.3f}",
            f"{d.low:+.2f} to {d.high:+.2f}",
            "< 0.001" if d.p < 0.001 else f"{d.p:.3f}",
        ]
        for d in found.differences
    ]
    columns = ["", "", "tasks", "first", "second", "change", "95% interval", "p"]
    note = (
        "Paired by task; intervals: Student's t over tasks, reaching 0 where p is not below 0.05; p: sign-flip permutation "
        f"over tasks. Nothing corrects for reading {len(rows)} lines: by chance, one line in twenty has p below 0.05."
    )
    emphasised = frozenset({len(rows) - 1})
    out = [Table("Difference in pass^1", columns, rows, note, text_columns=2, emphasised=emphasised)]
    changed = sorted((p for p in found.pairs if p.difference), key=lambda p: (-abs(p.difference), p.first.dataset))
    if changed:
        flips = sum(bool(p.flip) for p in changed)
        title = f"Tasks that changed: {flips} flips, {len(changed) - flips} smaller changes"
        out.append(Table(title, ["dataset", "task", "flip", "first", "second"], [_row(p) for p in changed], "", 3))
    return out


def _row(pair: Pair) -> list[str]:
    a, b = pair.first, pair.second
    return [a.dataset, a.task.split("/", 2)[2], pair.flip, f"{a.c}/{a.n}", f"{b.c}/{b.n}"]


def render(found: Comparison) -> str:
    """The comparison as Markdown."""
    return markdown_page("Comparison", heading(found), tables(found))
