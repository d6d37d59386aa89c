"""A command in a pseudo-terminal of its own, as a person runs it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_STEERING = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])|\r")


class TerminalProcess:
    """``tau2-slime`` in a terminal; a context manager that ends it."""

    def __init__(self, *arguments: str, folder: Path, **environ: str) -> None:
        self.main, child = pty.openpty()
        keep = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_") and k != "OPENAI_API_KEY"}
        settings = {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tau2_slime.cli", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**keep, **settings, **environ},
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(child),
        )
        os.close(child)
        self.seen = ""
        self._read_to = 0

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.hang_up()

    def _read(self, seconds: float) -> bool:
        """Take what is there. False: nothing will come any more."""
        if not select.select([self.main], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.main, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
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
        while self._read(0.2) and self.process.poll() is None:
            assert time.monotonic() < until, self.seen
        while self._read(0) and select.select([self.main], [], [], 0)[0]:
            pass
        return self.process.wait(timeout=seconds)

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        if self.main >= 0:
            os.close(self.main)
            self.main = -1


def _take_terminal(child: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(child, termios.TIOCSCTTY, 0)
