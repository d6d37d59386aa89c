"""The console that the commands print on, and what fits into a line of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

WIDTH_OF_A_FILE = 140
"""Columns of an output that is not a terminal, such as a log or a pipe: rich's 80 would break names in two."""


def new_console() -> Console:
    """A console as wide as the terminal, or as the environment variable COLUMNS says."""
    from rich.console import Console

    known = os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()
    return Console(width=None if known else WIDTH_OF_A_FILE)


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
