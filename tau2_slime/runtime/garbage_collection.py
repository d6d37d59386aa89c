"""Fewer pauses: Python's garbage collector need not walk again and again what stays for the life of the process.

τ², litellm and 2,285 parsed tasks are half a million objects. A full collection that walks them stops every thread for
about a second; one that walks 256 live episodes still takes some 30 ms, and by Python's default there would be one every
dozen episodes.

The process is slime's, not ours, so what is changed is small, is logged once, and can be switched off: with the environment
variable ``TAU2_SLIME_GC=keep`` nothing here does anything.
"""

from __future__ import annotations

import gc
import logging
import os
import threading

logger = logging.getLogger(__name__)

VARIABLE = "TAU2_SLIME_GC"

COLLECTIONS = 5, 400
"""Young collections between two middle ones, and middle between two full ones; Python's default is 10 and 10."""

_lock = threading.Lock()
_thresholds_are_set = False


def spare_what_stays() -> None:
    """Full collections skip from now on what exists: call it after building what stays, once for each domain.

    Every call moves the objects that exist out of the collector's sight (`gc.freeze`): one that becomes part of a garbage
    cycle later is never freed. The first call also makes full collections rarer, because episodes leave hardly any cycles
    behind, unless the host has chosen thresholds of its own.
    """
    global _thresholds_are_set
    if os.environ.get(VARIABLE) == "keep":
        return
    gc.freeze()
    with _lock:
        if _thresholds_are_set:
            return
        _thresholds_are_set = True
        before = gc.get_threshold()
        if before[1:] == (10, 10):
            gc.set_threshold(before[0], *COLLECTIONS)
    logger.info(
        "garbage collection of this process: %d objects that stay are no longer walked, thresholds are %s (before: %s), so "
        "that full collections seldom stop the event loop; %s=keep leaves all of it alone",
        gc.get_freeze_count(),
        gc.get_threshold(),
        before,
        VARIABLE,
    )
