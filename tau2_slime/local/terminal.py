"""The terminal of whoever sits at this process: one line after another, with history and completion."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.console import new_console

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

Complete = Callable[[str], tuple[list[str], int]]
"""The line up to the cursor -> (what may stand there, how many characters it replaces)."""


def require_terminal(why: str) -> None:
    """Raises ConfigError if nobody can type here. ``why``: what needs a terminal, for the message."""
    if importlib.util.find_spec("prompt_toolkit") is None:
        raise ConfigError(f"{why} needs prompt_toolkit: pip install 'tau2-slime[play]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"{why} needs a terminal, and this process has none: run it in one, without pipes")


class Terminal:
    """Reads and prints. Make it once `require_terminal` has passed."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion

        complete = self._complete

        class Words(Completer):
            def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
                found, replaced = complete(document.text_before_cursor)
                for word in found:
                    yield Completion(word, start_position=-replaced)

        self.complete: Complete = lambda _: ([], 0)
        self._session: PromptSession[str] = PromptSession(completer=Words(), complete_while_typing=False)
        self._console = new_console()

    def _complete(self, before: str) -> tuple[list[str], int]:
        return self.complete(before)

    async def line(self, prompt: str) -> str:
        """The next line.

        Raises:
            EOFError: Ctrl-D, or nobody is there any more.
            KeyboardInterrupt: Ctrl-C.
        """
        try:
            return await self._session.prompt_async(prompt, handle_sigint=False)
        except OSError as error:  # a terminal that was closed takes no letter
            raise EOFError from error

    def show(self, text: str, style: str = "") -> None:
        """Print ``text``, whoever wrote it, in one of rich's styles; nothing where the terminal was closed."""
        from rich.text import Text

        with contextlib.suppress(OSError):
            self._console.print(Text(text, style=style), soft_wrap=True)
