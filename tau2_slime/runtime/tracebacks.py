"""Tracebacks: dropped where a failure was foreseen, written without any known key where it was not."""

from __future__ import annotations

import logging
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
    """The traceback as Python prints it, without any known key."""
    return redact("".join(traceback.format_exception(error))).rstrip("\n")


def log(logger: logging.Logger, message: str, error: BaseException) -> None:
    """``message`` as an error of the caller's, with the traceback of ``error`` below it; neither holds a known key.

    `logging` itself would write the traceback as it is.
    """
    if logger.isEnabledFor(logging.ERROR):
        file, line, function, _ = logger.findCaller(stacklevel=2)
        record = logger.makeRecord(logger.name, logging.ERROR, file, line, redact(message), (), None, function)
        record.exc_text = written(error)
        logger.handle(record)
