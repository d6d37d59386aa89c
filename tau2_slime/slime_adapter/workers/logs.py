"""What workers log is told by slime's process, once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from tau2_slime.slime_adapter.workers.wire import Channel


class ToThePool(logging.Handler):
    """Sends every record to the pool's process, whose handlers know what to do with it."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel, self._loop = channel, asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._channel.post, "log", record.name, record.levelno, text)
        except Exception:  # as every handler of `logging`
            self.handleError(record)


class OneVoice:
    """Hands the workers' log records to this process's loggers. What one worker has said is not said again by another."""

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._said: OrderedDict[tuple[str, int, str], str] = OrderedDict()
        """A record -> the worker that said it first."""

    def say(self, worker: str, name: str, level: int, text: str) -> None:
        key = name, level, text
        first = self._said.setdefault(key, worker)
        self._said.move_to_end(key)
        if len(self._said) > self._kept:
            self._said.popitem(last=False)
        if first == worker:
            logging.getLogger(name).log(level, "%s", text)
