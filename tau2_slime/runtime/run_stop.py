"""Why this run should not go on, known to the whole process.

`generate` must not raise, so a run is stopped in two steps: from the first refused key (or the spent budget) on,
every training episode fails at once with the same message, and the hooks that slime calls between episodes and training
end the job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_stops: dict[str, Callable[[], bool]] = {}


def stop_run(reason: str, still: Callable[[], bool] = lambda: True) -> None:
    """From now on, and as long as ``still()``, the run has no use; ``reason`` names cause and fix."""
    with _lock:
        known = reason in _stops
        _stops[reason] = still
    if not known:
        logger.critical("tau2_slime: this run cannot go on: %s", reason)


def reason_to_stop() -> str | None:
    """The reason that still holds, None if there is none."""
    with _lock:
        stops = list(_stops.items())
    return next((reason for reason, still in stops if still()), None)


def clear() -> None:
    with _lock:
        _stops.clear()
