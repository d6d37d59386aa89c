"""The trainer's side of a fully-async run: weight updates, as slime's `update_weights` makes them."""

from __future__ import annotations

import threading
import urllib.request


def update(router: str, mode: str = "abort") -> None:
    """One weight update: what runs is aborted (or kept: retract, in_place), what comes waits, then the version is new."""
    pause = b'{"mode": "%s"}' % mode.encode()
    for path, data in (("/pause_generation", pause), ("/flush_cache", None), ("/continue_generation", b"{}")):
        with urllib.request.urlopen(urllib.request.Request(router + path, data=data), timeout=60) as reply:
            reply.read()


class WeightUpdates(threading.Thread):
    """An `update` every ``every`` seconds."""

    def __init__(self, router: str, every: float, mode: str = "abort") -> None:
        super().__init__(name="weight-updates", daemon=True)
        self._router, self._every, self._mode, self._stop_it = router, every, mode, threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(self._every):
            update(self._router, self._mode)

    def stop(self) -> None:
        self._stop_it.set()
        self.join()
