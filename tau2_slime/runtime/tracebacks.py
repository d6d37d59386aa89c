"""Tracebacks: dropped where a failure was foreseen, written without any known key where it was not."""

from __future__ import annotations

import traceback

from tau2_slime.runtime.secrets import redact


def forget(error: BaseException) -> None:
    """Let go of the frames that ``error``, and all that led to it, came through.

    The exceptions of HTTP clients are parts of reference cycles. With their frames, every failed request would keep what it
    sent, and the episode that sent it, until a full collection.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            pending += [one.__cause__, one.__context__]


def written(error: BaseException) -> str:
    """The traceback as Python prints it, without any known key: for the log. It ends without a line break."""
    return redact("".join(traceback.format_exception(error))).rstrip("\n")
