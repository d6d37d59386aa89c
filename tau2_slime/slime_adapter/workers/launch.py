"""How a worker is started: as a Ray actor where Ray runs, on any node of the cluster; elsewhere as a plain process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from typing import Any, Protocol

from tau2_slime.runtime.secrets import described

MOST_TOLD = 300
"""Characters of what Ray says of an actor's end: enough for its first guess, that memory was short."""
PROGRAM = "from tau2_slime.slime_adapter.workers.process import main; main()"


class Started(Protocol):
    """A worker that was started."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    async def ended(self) -> str:
        """Wait until it is over; the text says how it ended."""

    def stop(self) -> None:
        """End it at once, if it is not over."""


def ray_that_runs() -> Any:
    """The module ``ray``, if this process belongs to a Ray cluster; else None. It is never imported here."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and getattr(ray, "is_initialized", bool)() else None


def own_address() -> str:
    """Where workers reach this process."""
    ray = ray_that_runs()
    return str(ray.util.get_node_ip_address()) if ray is not None else "127.0.0.1"


async def start(host: str, port: int, number: int, key: bytes) -> Started:
    """Start worker ``number``, which connects to ``host:port`` and proves itself with ``key``.

    Raises:
        OSError: the system starts no further process.
    """
    ray = ray_that_runs()
    if ray is not None:
        return _Actor(ray, host, port, number, key)
    return await _Process.start(host, port, number, key)


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, host: str, port: int, number: int, key: bytes) -> _Process:
        # The user's own parts (user_path, metrics) must be importable there as they are here.
        paths = os.pathsep.join(path for path in sys.path if path)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, host, str(port), str(number)),
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert process.stdin is not None
        process.stdin.write(f"{key.hex()}\n".encode())
        process.stdin.close()
        return cls(process)

    @property
    def name(self) -> str:
        return f"process {self._process.pid}"

    async def ended(self) -> str:
        status = await self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            return f"killed by {name}" + (", as when memory is short" if name == "SIGKILL" else "")
        return f"killed by signal {-status}"

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class _Actor:
    def __init__(self, ray: Any, host: str, port: int, number: int, key: bytes) -> None:
        self._ray = ray
        actor = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(RayWorker)
        self._actor = actor.remote()
        self._run = self._actor.run.remote(host, port, number, key)

    @property
    def name(self) -> str:
        return f"actor {self._actor._actor_id.hex()[:12]}"

    async def ended(self) -> str:
        try:
            await asyncio.wrap_future(self._run.future())
        except Exception as error:  # Ray's own: the actor died, its node is gone, it could not be created
            return _cause(described(error))
        return "its connection was lost"

    def stop(self) -> None:
        with contextlib.suppress(Exception):  # a cluster that is gone has no actor to end
            self._ray.kill(self._actor, no_restart=True)


def _cause(told: str) -> str:
    """What Ray says last: before it stand the actor's names and, indented, a traceback; after it Ray's advice."""
    lines = [line for line in told.splitlines() if line.strip() and not line[0].isspace()]
    causes = [line for line in lines if not line.startswith("The actor never ran")]  # said of a node that died, too
    return textwrap.shorten(causes[-1], MOST_TOLD, placeholder=" ...")


class RayWorker:
    """What Ray makes an actor of."""

    def run(self, host: str, port: int, number: int, key: bytes) -> None:
        from tau2_slime.slime_adapter.workers.process import serve

        asyncio.run(serve(host, port, number, key))
