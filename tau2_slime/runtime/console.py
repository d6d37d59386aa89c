"""What the commands print on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_A_FILE = 140
"""Columns where nothing says how many there are: a log, a pipe. rich would take 80 and break names in two."""


def new_console() -> Console:
    """A console as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console

    known = os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()
    return Console(width=None if known else WIDTH_OF_A_FILE)


def middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters, its end kept rather than its beginning: that is where task names differ.

    >>> middle("[mobile_data_issue]data_mode_off[PERSONA:None]", 30)
    '[mobile_d…de_off[PERSONA:None]'
    """
    if len(text) <= width:
        return text
    head = max(0, width - 1) // 3
    return (text[:head] + "…" + text[len(text) - (width - 1 - head) :])[: max(width, 0)]


def told_end(termination: str, blame: str, *, excluded: bool) -> str:
    """How an episode ended, and whose doing it was where that is why it does not count and the name does not say so."""
    if not excluded or not blame or termination.startswith(blame) or termination == "config_error":
        return str(termination)
    return f"{termination} ({blame})"


class Name:
    """A table cell that gives way in the middle."""

    LEAST = 16

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        yield Text(middle(self.text, options.max_width), no_wrap=True, overflow="crop")

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        return Measurement(min(len(self.text), self.LEAST), len(self.text))
