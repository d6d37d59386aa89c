"""What the whole process knows of each endpoint: is it out, must it be left alone, did it refuse its key.

Hundreds of episodes on several event loops and threads share this. When an endpoint dies, a few of them notice and all of
them wait: one call at a time finds out whether it is back.

litellm's Router has cooldowns, fallbacks and budgets as well, but it belongs to one event loop, cannot be interrupted by
slime's abort, and reports a failed call without the cause that decides who is to blame for the episode.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tau2_slime.errors import UserAuthenticationError
from tau2_slime.runtime import run_stop

THRESHOLD = 5
"""Failed calls in a row (time-outs, refused connections, 5xx) that open the breaker."""
COOLDOWN_FIRST, COOLDOWN_MAX = 5.0, 120.0
"""Seconds before an endpoint that is out is tried again, doubled each time that it still is."""
PROBE_POLL = 0.5
"""Seconds between looks at another episode's try."""


@dataclass(frozen=True)
class EndpointNews:
    """What one process found out about an endpoint."""

    changed: float
    """Seconds of the wall clock: of two pieces of news the later one holds."""
    out: float | None
    """Seconds until it may be tried again; None: it answers."""
    held: float
    """Seconds for which it asked to be left alone."""


@dataclass
class Endpoint:
    """A circuit breaker, and the time before which the endpoint asked to be left alone."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: int = 0
    _cooldown: float = field(default_factory=lambda: COOLDOWN_FIRST)
    _open_until: float | None = None
    """None: closed."""
    _probing: bool = False
    _held_until: float = 0.0
    _changed: float = 0.0
    """Seconds of the wall clock at the last news of this endpoint, from a call here or from another process."""

    @property
    def is_out(self) -> bool:
        """True from the failure that opens the breaker to the next answer."""
        with self._lock:
            return self._open_until is not None

    def enter(self) -> float:
        """0.0: call now, then report `succeeded`, `failed` or `dropped`. Otherwise: seconds after which to ask again."""
        with self._lock:
            now = self.clock()
            if now < self._held_until:
                return self._held_until - now
            if self._open_until is None:
                return 0.0
            if now < self._open_until:
                return self._open_until - now
            if self._probing:
                return PROBE_POLL
            self._probing = True
            return 0.0

    def succeeded(self) -> None:
        """The endpoint answered; whether the answer is usable does not matter."""
        with self._lock:
            if self._open_until is not None:
                self._changed = time.time()
            self._failures, self._cooldown, self._open_until, self._probing = 0, COOLDOWN_FIRST, None, False

    def failed(self) -> None:
        """The endpoint did not answer: a time-out, a refused connection, 5xx."""
        with self._lock:
            if self._open_until is not None:
                # Calls that were under way when the breaker opened say nothing new; the probe does.
                if self._probing:
                    self._probing = False
                    self._cooldown = min(COOLDOWN_MAX, self._cooldown * 2)
                    self._open_until, self._changed = self._until(), time.time()
                return
            self._failures += 1
            if self._failures >= THRESHOLD:
                self._open_until, self._changed = self._until(), time.time()

    def dropped(self) -> None:
        """The call ended without news of the endpoint (it was cancelled): another call may probe."""
        with self._lock:
            self._probing = False

    def hold(self, seconds: float) -> None:
        """Let no call through for ``seconds``, as the endpoint asked."""
        with self._lock:
            self._held_until = max(self._held_until, self.clock() + seconds)
            self._changed = time.time()

    def news(self) -> EndpointNews | None:
        """What other processes should know; None if no call has told anything that they would not find out."""
        with self._lock:
            if not self._changed:
                return None
            now = self.clock()
            out = None if self._open_until is None else max(0.0, self._open_until - now)
            return EndpointNews(self._changed, out, max(0.0, self._held_until - now))

    def learn(self, news: EndpointNews) -> None:
        """Take over what another process found out, if it is newer than what is known here."""
        with self._lock:
            if news.changed <= self._changed:
                return
            self._changed, now = news.changed, self.clock()
            self._held_until = max(self._held_until, now + news.held)
            self._probing = False
            if news.out is None:
                self._failures, self._cooldown, self._open_until = 0, COOLDOWN_FIRST, None
            else:
                self._open_until = now + news.out

    def _until(self) -> float:
        return self.clock() + self._cooldown * (0.75 + 0.5 * random.random())


_lock = threading.Lock()
_endpoints: dict[str, Endpoint] = {}
_refused: dict[tuple[str, str | None], tuple[str, str]] = {}
"""(endpoint, key variable) -> digest of the refused key, message."""


def endpoint_of(address: str) -> Endpoint:
    """The process's one record of ``address`` (URL and model)."""
    with _lock:
        return _endpoints.setdefault(address, Endpoint())


def refuse_key(address: str, variable: str | None, label: str, problem: str) -> UserAuthenticationError:
    """Remember that ``address`` refuses the key, stop the run, and return the error to raise.

    ``variable``: the environment variable that holds the key; None if the package does not know it. ``label``: what
    messages call the simulator.
    """
    if variable:
        said, cure = f"the key in the environment variable {variable}", "put a valid one there"
    elif "://" in address:
        said, cure = "a call without a key", "name the variable that holds one with api_key_var"
    else:
        said, cure = "the key that litellm found", f"put a valid one into {address.upper()}_API_KEY"
    message = (
        f"user simulator {label!r}: its endpoint refuses {said}, or that account has nothing left; {cure} and start "
        f"again ({problem})"
    )
    with _lock:
        _, message = _refused.setdefault((address, variable), (_key_digest(variable), message))
    run_stop.stop_run(message, still=partial(_still_refused, address, variable))
    return UserAuthenticationError(message)


def check_key(address: str, variable: str | None) -> None:
    """Raises UserAuthenticationError if this very key was refused before."""
    message = _is_refused(address, variable)
    if message is not None:
        raise UserAuthenticationError(message)


def refused_keys() -> dict[tuple[str, str | None], tuple[str, str]]:
    """(endpoint, key variable) -> digest of the refused key, message: a copy, for `learn_refused_keys` elsewhere."""
    with _lock:
        return dict(_refused)


def learn_refused_keys(refused: Mapping[tuple[str, str | None], tuple[str, str]]) -> None:
    """Remember keys that other processes saw refused, and stop the run for each that is used here."""
    for (address, variable), told in refused.items():
        with _lock:
            if (address, variable) in _refused:
                continue
            _refused[address, variable] = told
        run_stop.stop_run(told[1], still=partial(_still_refused, address, variable))


def news() -> dict[str, EndpointNews]:
    """What other processes should know of each endpoint."""
    with _lock:
        known = list(_endpoints.items())
    found = ((address, endpoint.news()) for address, endpoint in known)
    return {address: told for address, told in found if told is not None}


_processes = 1


def share_limits(processes: int) -> None:
    """Say that so many processes ask the same endpoints: each takes its part of every limit of calls in flight."""
    global _processes
    _processes = processes


def part_of(limit: int) -> int:
    """This process's part of ``limit`` calls in flight; at least one."""
    return -(-limit // _processes)


def _still_refused(address: str, variable: str | None) -> bool:
    return _is_refused(address, variable) is not None


def _is_refused(address: str, variable: str | None) -> str | None:
    """The message, if ``address`` refused the key that ``variable`` holds now."""
    with _lock:
        known = _refused.get((address, variable))
    return known[1] if known is not None and known[0] == _key_digest(variable) else None


def _key_digest(variable: str | None) -> str:
    key = os.environ.get(variable, "") if variable else ""
    return hashlib.sha256(key.encode()).hexdigest()
