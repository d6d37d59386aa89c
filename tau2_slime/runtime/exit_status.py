"""The exit statuses of every command; docs/README.md lists them."""

from __future__ import annotations

FINE = 0
NO = 1
"""The command did its work, and the answer is bad: failed episodes, a score below the limit, a violation, a problem."""
WRONG = 2
"""A setting, an option or an input cannot be used. Nothing was played."""
UNFINISHED = 3
"""Not everything was played or written: an interruption, a full disk, a spent budget. The same command goes on."""
INTERRUPTED = 130
"""Ctrl-C before there was anything to go on with."""
