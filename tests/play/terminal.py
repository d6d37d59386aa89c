"""A command in a pseudo-terminal of its own, as a person runs it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from pathlib import Path

from tests import command_line

_STEERING = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])|\r")


class TerminalProcess:
    """``tau2-slime`` in a terminal; a context manager that ends it."""

    def __init__(self, *arguments: str, folder: Path, **environ: str) -> None:
        self.main, self._other_end = pty.openpty()
        keep = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_") and k != "OPENAI_API_KEY"}
        settings = {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._process = command_line.start(
            arguments, {**keep, **settings, **environ}, folder, [os.ttyname(self._other_end)] * 3
        )
        self.seen = ""
        self._read_to = 0

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self.send(signal.SIGKILL)
            self.wait()
        self.hang_up()

    def _read(self, seconds: float) -> bool:
        """Take what is there. False: nothing will come any more."""
        if not select.select([self.main], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.main, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self._let_go()  # the process has it open
        self.seen += _STEERING.sub("", data.decode(errors="replace"))
        return bool(data)

    def expect(self, text: str, seconds: float = 300) -> str:
        """Wait until ``text`` is printed, and return what was printed before it since the last `expect`."""
        until = time.monotonic() + seconds
        while (at := self.seen.find(text, self._read_to)) < 0:
            assert time.monotonic() < until, f"no {text!r} in {self.seen[self._read_to :]!r}"
            assert self._read(0.2) or text in self.seen[self._read_to :], (
                f"no {text!r} in {self.seen[self._read_to :]!r}"
            )
        before, self._read_to = self.seen[self._read_to : at], at + len(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def say(self, line: str) -> None:
        """Wait for the prompt, type ``line`` and press Enter."""
        self.expect("you>")
        self.type(f"{line}\r")

    def complete(self, begun: str, rest: str, more: str = "") -> None:
        """Wait for the prompt, type ``begun``, press Tab, see ``rest`` appear, type ``more`` and press Enter."""
        self.expect("you>")
        self.type(begun)
        self.expect(begun)
        self.type("\t")
        self.expect(rest)
        self.type(f"{more}\r")

    def end(self, seconds: float = 300) -> int:
        """Read to the end; the exit status."""
        until = time.monotonic() + seconds
        while self._read(0.2) and self._process.is_alive():
            assert time.monotonic() < until, self.seen
        while self._read(0) and select.select([self.main], [], [], 0)[0]:
            pass
        return self.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        """Send the process and its children a signal."""
        os.killpg(self._process.ident or 0, number)

    def wait(self, seconds: float = 300) -> int:
        """The exit status of the process; minus the signal that killed it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it still runs; it said {self.seen[-500:]!r}"
        return self._process.exitcode

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        self._let_go()
        if self.main >= 0:
            os.close(self.main)
            self.main = -1

    def _let_go(self) -> None:
        if self._other_end >= 0:
            os.close(self._other_end)
            self._other_end = -1
