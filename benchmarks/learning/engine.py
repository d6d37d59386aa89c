"""The servers that sample: the real sglang behind the real router, on this machine's CPU, or those that the user names."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.cluster import Cluster, Forge
from tests.engine.setup_env import engine_python


@dataclass(frozen=True)
class Engine:
    """A router and its workers, by URL."""

    router: str
    workers: tuple[str, ...]

    def push(self, weights: Path, version: str, *, running: bool) -> None:
        """New weights from a folder, as slime updates them. ``running``: generations go on, and are aborted first.

        Raises:
            RuntimeError: a worker refused them.
        """
        for worker in self.workers:
            if running:
                _post(f"{worker}/pause_generation", {})
            told = _post(f"{worker}/update_weights_from_disk", {"model_path": str(weights), "weight_version": version})
            if running:
                _post(f"{worker}/continue_generation", {})
            if not told.get("success"):
                raise RuntimeError(f"{worker} did not take the weights of version {version}: {told}")


@contextmanager
def serving(checkpoint: Path, logs: Path) -> Iterator[Engine]:
    """One sglang server on the CPU behind a router. Leaving it ends both."""
    forge = Forge(engine_python(), checkpoint, logs)
    try:
        with Cluster.start(forge, 1, disable_health_check=True, disable_circuit_breaker=True) as cluster:
            yield Engine(cluster.url, tuple(worker.url for worker in cluster.workers))
    finally:
        forge.close()


def named(router: str) -> Engine:
    """The user's own: a router that serves the checkpoint already."""
    with urllib.request.urlopen(f"{router}/workers", timeout=30) as reply:
        return Engine(router, tuple(worker["url"] for worker in json.load(reply)["workers"]))


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        raw = reply.read()
    told: dict[str, Any] = json.loads(raw) if raw.strip() else {}
    return told
