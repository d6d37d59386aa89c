"""The two ways in which workers start: as plain processes, and as actors of a real Ray, where Ray is installed.

`test_ray.py` makes an environment with Ray, and plays there what needs it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import pytest_asyncio

from tau2_slime.slime_adapter.workers import pool
from tests.faults.servers import Router
from tests.fresh import forget_users

HAS_RAY = find_spec("ray") is not None
if not HAS_RAY:
    collect_ignore = ["test_actors.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray of two nodes, each with one CPU and 80 MB for objects. The kernel ends it with this process, if need be."""
    settings = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all of it listens on 127.0.0.1 alone
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # how the tests were started does not concern the workers
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # it ends actors when other programs fill the memory
    }
    # Below /tmp, because the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("RAY_", "TAU2_"))]:
            patch.delenv(name)
        for name, value in {**settings, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        quiet = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        try:
            for _ in range(2):
                nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20, **quiet)
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture(scope="module")
def ray(cluster: Any) -> Iterator[Any]:
    """The module ``ray``, connected."""
    import ray

    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield ray
    pool.close()
    ray.shutdown()


@pytest.fixture(scope="module", params=["process", "actor"] if HAS_RAY else ["process"])
def started_as(request: pytest.FixtureRequest) -> str:
    """What a worker is."""
    if request.param == "actor":
        request.getfixturevalue("ray")
    return str(request.param)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_users()
    for name in [*os.environ]:
        if name.startswith("TAU2_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def workers(started_as: str) -> Iterator[int]:
    """Two workers for the whole module: they take seconds to start."""
    yield 2
    pool.close()


@pytest_asyncio.fixture
async def router(tokenizer: Any) -> AsyncIterator[Router]:
    server = Router(tokenizer)
    await server.start()
    yield server
    await server.close()
