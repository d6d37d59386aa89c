"""Start, watch and end the real servers: clusters of sglang workers behind an sglang-router.

Everything listens on 127.0.0.1 and is ended by the pid that was started: SIGTERM, then SIGKILL for the process group.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONTEXT_LENGTH = 16384
# Room for 64 conversations of several thousand tokens; a tiny model keeps 512 bytes per token.
WORKER_FLAGS = [
    "--context-length",
    str(CONTEXT_LENGTH),
    "--max-total-tokens",
    "400000",
    "--max-running-requests",
    "128",
]
START_TIMEOUT = 300.0


class ServerFailed(RuntimeError):
    """A server did not come up; the message ends with its log."""


@dataclass
class Server:
    """One running process that leads its own group."""

    name: str
    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return _group_alive(self.pid)

    def kill(self) -> None:
        """As a crash or the kernel's memory killer would end it."""
        _signal_group(self.pid, signal.SIGKILL)

    def wait_until_healthy(self) -> None:
        """Raises ServerFailed when it ends or says nothing within `START_TIMEOUT`."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerFailed(f"{self.name} ended while it started:\n{tail(self.log)}")
            if status_of(f"{self.url}/health") == 200:
                return
            time.sleep(0.1)
        raise ServerFailed(f"{self.name} is not healthy after {START_TIMEOUT:g} s:\n{tail(self.log)}")


class Forge:
    """A process that has imported sglang and forks servers; `launch_sglang` is its code."""

    def __init__(
        self, python: Path, checkpoint: Path, logs: Path, *, name: str = "forge", sglang: Path | None = None
    ) -> None:
        """``sglang``: a folder that holds another sglang than the installed one."""
        self.checkpoint, self.logs, self.log = checkpoint, logs, logs / f"{name}.log"
        self._name, self._made = name, 0
        environ = {**os.environ, **({"PYTHONPATH": str(sglang)} if sglang is not None else {})}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / "launch_sglang.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env=environ,
            )
        self._expect()  # "ready": sglang is imported

    def worker(self, *flags: str) -> Server:
        """A new sglang server, not yet healthy. Its weight version is its name, so that every reply says who gave it.

        ``flags``: further arguments of sglang; the last one of a kind counts.
        """
        name, port = self._next("worker"), free_port()
        args = ["--model-path", str(self.checkpoint), "--port", str(port), "--weight-version", name]
        args += [*WORKER_FLAGS, *flags]
        return self._start(name, port, {"worker": args})

    def router(self, settings: dict[str, Any]) -> Server:
        """A new router, not yet healthy, with these of its `RouterArgs`."""
        name, port = self._next("router"), free_port()
        return self._start(name, port, {"router": {"port": port, "prometheus_port": free_port(), **settings}})

    def _next(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}" if self._name == "forge" else f"{self._name}-{kind}-{self._made}"

    def _start(self, name: str, port: int, request: dict[str, Any]) -> Server:
        assert self._process.stdin is not None
        log = self.logs / f"{name}.log"
        self._process.stdin.write(json.dumps({"log": str(log), **request}) + "\n")
        self._process.stdin.flush()
        return Server(name, int(self._expect()), port, log)

    def _expect(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise ServerFailed(f"the forge of servers ended:\n{tail(self.log)}")
        return line

    def close(self) -> None:
        """End the forge and, with it, every server that still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass
class Cluster:
    """Workers behind a router. A context manager: leaving it ends them all."""

    workers: list[Server]
    router: Server

    @classmethod
    @contextmanager
    def start(cls, forge: Forge, workers: int, **router_settings: Any) -> Iterator[Cluster]:
        """Healthy workers behind a router that knows them all, by default of policy consistent_hashing as slime's is."""
        servers: list[Server] = []
        try:
            for _ in range(workers):
                servers.append(forge.worker())
            for worker in servers:
                worker.wait_until_healthy()
            urls = [worker.url for worker in servers]
            settings = {"policy": "consistent_hashing", "worker_urls": urls, "worker_startup_check_interval": 1}
            cluster = cls(servers[:], forge.router({**settings, **router_settings}))
            servers.append(cluster.router)
            cluster.wait_until_registered()
            yield cluster
        finally:
            stop_all(servers)

    @property
    def url(self) -> str:
        return self.router.url

    def worker_named(self, name: str) -> Server:
        return next(worker for worker in self.workers if worker.name == name)

    def abort_all(self) -> None:
        """Cut every generation short, as slime does before it updates weights; the router does not pass this on."""
        for worker in self.workers:
            request = urllib.request.Request(
                f"{worker.url}/abort_request", data=b'{"abort_all": true}', headers={"Content-Type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=60).close()

    def pause(self, mode: str) -> None:
        """Hold every generation, and let it go on, as miles does around a weight update (retract, in_place)."""
        bodies = {"pause_generation": {"mode": mode}, "continue_generation": {"torch_empty_cache": False}}
        for worker in self.workers:
            for name, body in bodies.items():
                request = urllib.request.Request(
                    f"{worker.url}/{name}", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request, timeout=60).close()

    async def until_sampling(self, server: Server | None = None) -> None:
        """Wait until a worker (of this cluster, or just ``server``) has sampled a token of a call that goes on."""
        async with asyncio.timeout(START_TIMEOUT):
            while not await asyncio.to_thread(self._is_sampling, [server] if server else self.workers):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    @staticmethod
    def _is_sampling(workers: list[Server]) -> bool:
        for worker in workers:
            with suppress(OSError), urllib.request.urlopen(f"{worker.url}/v1/loads", timeout=60) as reply:
                if any(load["num_running_reqs"] for load in json.load(reply)["loads"]):
                    return True
        return False

    def wait_until_registered(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while len(known := self.registered()) != len(self.workers) or status_of(f"{self.url}/liveness") != 200:
            if time.monotonic() > deadline or not self.router.running:
                raise ServerFailed(f"the router knows {known}, not {len(self.workers)}:\n{tail(self.router.log)}")
            time.sleep(0.1)

    def registered(self) -> list[str]:
        """URLs of the workers that the router holds for healthy."""
        try:
            with urllib.request.urlopen(f"{self.url}/workers", timeout=5) as reply:
                return [w["url"] for w in json.load(reply)["workers"] if w.get("is_healthy", True)]
        except OSError:
            return []


def stop_all(servers: list[Server], patience: float = 3.0) -> None:
    """SIGTERM to each process, then SIGKILL to what is left of its group after ``patience`` seconds in all."""
    for server in servers:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(server.running for server in servers) and time.monotonic() < deadline:
        time.sleep(0.05)
    for server in servers:
        server.kill()


def free_port() -> int:
    """A port on which nobody listens, and the same for the second one that sglang derives by adding 10,000.

    Both lie below those that the kernel gives to connections, so that none takes them before the server does.
    """
    while True:
        port = random.SystemRandom().randint(15000, 22700)
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            return port


def status_of(url: str) -> int | None:
    """HTTP status of a GET, None if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else f"(no log at {log})"


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _group_alive(pid: int) -> bool:
    """Zombies are dead: those whose parent died too are reaped by process 1, in its own time."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]  # after the name, which may hold anything
            if int(group) == pid and state not in "ZX":
                return True
    return False
