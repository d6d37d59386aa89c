"""A table as text in cells: for the terminal, for Markdown, and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tau2_slime.runtime.text import markdown, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Rows of cells under a heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text_columns: int = 1
    """How many of the first columns hold text; the others are numbers."""
    emphasised: frozenset[int] = field(default_factory=frozenset)
    """Rows that matter most."""

    def markdown(self) -> str:
        """The table under a second-level heading; nothing that a model, an endpoint or a file says is markup in it."""
        head = "| " + " | ".join(map(markdown, self.columns)) + " |"
        rule = "|" + "|".join(" --- " if i < self.text_columns else " ---: " for i in range(len(self.columns))) + "|"
        body = ["| " + " | ".join(map(markdown, row)) + " |" for row in self.rows]
        note = f"\n\n{markdown(self.note)}" if self.note else ""
        return f"## {markdown(self.title)}\n\n" + "\n".join([head, rule, *body]) + note + "\n"

    def rich(self) -> RichTable:
        """The table for a terminal."""
        from rich.table import Table as Grid
        from rich.text import Text

        out = Grid(title=self.title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
        for i, column in enumerate(self.columns):
            text = i < self.text_columns
            # Only text gives way on a narrow terminal: half a number is a wrong number.
            width = max([len(column), *(len(shown(row[i])) for row in self.rows)])
            out.add_column(
                Text(shown(column)),
                justify="left" if text else "right",
                no_wrap=not text,
                overflow="fold",
                min_width=min(width, 16) if text else width,
            )
        for i, row in enumerate(self.rows):
            out.add_row(*(Text(shown(cell)) for cell in row), style="bold" if i in self.emphasised else None)
        return out


def markdown_page(title: str, facts: Iterable[str], tables: Iterable[Table]) -> str:
    """A page with the facts as a list and the tables after it."""
    head = f"# {title}\n\n" + "\n".join(f"- {markdown(line)}" for line in facts) + "\n"
    return "\n".join([head, *(table.markdown() for table in tables)])


def print_page(facts: Iterable[str], tables: Iterable[Table], console: Console) -> None:
    """Print the facts, and each table with its note, an empty line before it."""
    for line in facts:
        console.print(shown(line), markup=False, highlight=False, soft_wrap=True)
    for table in tables:
        console.print()
        console.print(table.rich())
        if table.note:
            console.print(table.note, markup=False, highlight=False, style="dim")
