"""The console that the commands print on, and what fits into a line of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text


class Advance(Protocol):
    """Told how much is done, of how much, and what else is worth a note."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


WIDTH_OF_A_FILE = 140
"""Columns of an output that is not a terminal, such as a log or a pipe: rich's 80 would break names in two."""


def new_console() -> Console:
    """A console as wide as the terminal, or as the environment variable COLUMNS says.

    Whatever is printed on it, no text of it steers the terminal: `shown` is applied to every piece.
    """
    from rich.console import Console, ConsoleRenderable, RenderHook
    from rich.segment import Segment

    class Harmless:
        def __init__(self, renderable: ConsoleRenderable) -> None:
            self.renderable = renderable

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            for segment in console.render(self.renderable, options):
                # rich's own control codes are segments of a kind of their own.
                yield segment if segment.control else Segment(shown(segment.text, lines=True), segment.style)

    class Escape(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Harmless(renderable) for renderable in renderables]

    known = os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()
    console = Console(width=None if known else WIDTH_OF_A_FILE)
    console.push_render_hook(Escape())
    return console


def resume_command(folder: Path) -> str:
    """The command that was given, with ``folder`` as its --output-dir."""
    arguments = list(sys.argv[1:])
    if not any(a in ("--output-dir", "-o") or a.startswith("--output-dir=") for a in arguments):
        arguments += ["--output-dir", str(folder)]
    return shlex.join(["tau2-slime", *arguments])


@contextlib.contextmanager
def progress(what: str, console: Console | None = None, *, hidden: bool = False) -> Iterator[Advance]:
    """A bar with the time left. The function that it yields is told how much is done, and of how much.

    Where the output is not a terminal, nothing is printed but one line at the end. ``hidden``: nothing at all, because
    somebody types there.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console or new_console(), disable=hidden) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {shown(note)}" if note else what)

        yield advance


def shorten_middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters. More of its end is kept than of its beginning: there task names differ.

    >>> shorten_middle("[mobile_data_issue]data_mode_off[PERSONA:None]", 30)
    '[mobile_d…de_off[PERSONA:None]'
    """
    if len(text) <= width:
        return text
    head = max(0, width - 1) // 3
    return (text[:head] + "…" + text[len(text) - (width - 1 - head) :])[: max(width, 0)]


def describe_end(termination: str, blame: str, *, excluded: bool) -> str:
    """How an episode ended; if it is excluded and the termination does not name who is to blame, that stands in brackets.

    >>> describe_end("too_many_errors", "user", excluded=True), describe_end("user_error", "user", excluded=True)
    ('too_many_errors (user)', 'user_error')
    """
    if not excluded or not blame or termination.startswith(blame) or termination == "config_error":
        return str(termination)
    return f"{termination} ({blame})"


class ShortenedCell:
    """A cell of a rich table whose text loses its middle where the column is too narrow for it."""

    LEAST = 16

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        yield Text(shorten_middle(self.text, options.max_width), no_wrap=True, overflow="crop")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(min(len(self.text), self.LEAST), len(self.text))
