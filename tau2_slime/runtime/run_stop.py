"""Why this run should not go on, known to the whole process.

`generate` must not raise, so a run is stopped in two steps. After the first refused key, or once the budget is spent, every
training episode fails at once with the same message. Then the hooks that slime calls between the episodes and the training
(`post_process_rewards`, `keep_informative_groups`) end the job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_stops: dict[str, Callable[[], bool]] = {}


def stop_run(reason: str, still: Callable[[], bool] = lambda: True) -> None:
    """Declare that the run should not go on.

    Args:
        reason: the cause and its fix, for the log and the final error.
        still: asked each time; the reason holds as long as it returns True.
    """
    with _lock:
        known = reason in _stops
        _stops[reason] = still
    if not known:
        logger.critical("tau2_slime: this run cannot go on: %s", reason)


def reason_to_stop() -> str | None:
    """A reason that still holds; None if there is none."""
    with _lock:
        stops = list(_stops.items())
    return next((reason for reason, still in stops if still()), None)


def clear() -> None:
    """Forget every reason, as a test does that must not inherit them."""
    with _lock:
        _stops.clear()
