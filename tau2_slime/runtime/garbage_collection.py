"""Fewer pauses: Python's garbage collector need not walk again and again what stays for the life of the process.

τ², litellm and 2,285 parsed tasks are half a million objects, and a full collection that walks them stops every thread for
about a second. An episode that is over leaves nothing for the collector.

The process is slime's, not ours, so what is changed is small, is logged once, and can be switched off: with the environment
variable ``TAU2_SLIME_GC=keep`` nothing here does anything. The thresholds stay the host's, unless ``TAU2_SLIME_GC=rare``
asks for rarer full collections: one that walks 256 live episodes takes some 30 ms, and one that walks 4,096 some 650 ms.
Worker processes have no host, and are rare unless told otherwise.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

VARIABLE = "TAU2_SLIME_GC"
SETTINGS = ("keep", "rare")

COLLECTIONS = 5, 400
"""Young collections between two middle ones, and middle between two full ones; Python's default is 10 and 10."""

_lock = threading.Lock()
_building = 0
_was_enabled = False
_is_logged = False


@contextmanager
def builds_what_stays() -> Iterator[None]:
    """What the code inside builds stays: nothing is collected meanwhile, and full collections skip it from then on.

    At the end every object that exists leaves the collector's sight (`gc.freeze`): one that becomes part of a garbage cycle
    later is never freed. Several threads may build at once.
    """
    global _building, _was_enabled
    if os.environ.get(VARIABLE) == "keep":
        yield
        return
    with _lock:
        if _building == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _building += 1
    try:
        yield
    finally:
        with _lock:
            _building = max(0, _building - 1)  # 0 in a child that was forked in here
            if _building == 0:
                gc.freeze()
                if _was_enabled:
                    gc.enable()
                _tell_once()


def _in_a_forked_child() -> None:
    """The threads that were building do not exist here: nobody gives the lock back, or turns collection on again."""
    global _lock, _building
    _lock = threading.Lock()
    if _building:
        _building = 0
        if _was_enabled:
            gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


def _tell_once() -> None:
    global _is_logged
    if _is_logged:
        return
    _is_logged = True
    before = gc.get_threshold()
    if os.environ.get(VARIABLE) == "rare" and before[1:] == (10, 10):
        gc.set_threshold(before[0], *COLLECTIONS)
    logger.info(
        "garbage collection of this process: objects that stay are no longer walked, thresholds are %s (before: %s); "
        "%s=keep leaves all of it alone",
        gc.get_threshold(),
        before,
        VARIABLE,
    )
