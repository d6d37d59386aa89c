"""The typed errors of the package, and `first_time`, which keeps a repeated cause from filling the log.

Each error says how the episode ends that meets it, and so who is to blame. None of them ever leaves ``generate``: it becomes
the cause of an `InteractionResult`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


class Tau2SlimeError(Exception):
    """Base class: a failure with a one-line cause that a user can act on."""

    termination: str = "infrastructure_error"
    """The `outcome.Termination` of an episode in which it is raised, by its value."""


class ConfigError(Tau2SlimeError, ValueError):
    """A setting is wrong. The message names the key, where it came from and what is allowed."""

    termination = "config_error"


class ReplayUnavailable(ConfigError):
    """The server does not send what the training run wants to replay: another router or another sglang is needed."""


class UserAuthenticationError(ConfigError):
    """A simulator's endpoint refuses the key. The run cannot go on; the message names the variable."""


class BudgetSpent(ConfigError):
    """The simulators have cost what they may cost."""


class EngineError(Tau2SlimeError):
    """The policy's server failed: infrastructure, never the agent's fault."""


class EngineUnavailable(EngineError):
    """No usable answer after every retry: refused connections, 429, 5xx, time-outs, garbage."""


class EngineRejected(EngineError):
    """The server refused the request itself (4xx): a retry cannot cure it."""


class ContextOverflow(EngineRejected):
    """The server says that the conversation no longer fits its context: a limit, not a fault."""

    termination = "context_length"


class TokenTruthError(EngineError):
    """The server's answer contradicts itself or the request (counts, ids, log-probs, last id)."""


class UserSimulatorError(Tau2SlimeError):
    """The user simulator gave no usable message after every retry: the user's fault."""

    termination = "user_error"


class EpisodeAborted(Tau2SlimeError):
    """slime asked to stop; the episode ends where it stands."""

    termination = "aborted"


class CannotResume(Tau2SlimeError):
    """The saved state of an interrupted episode cannot be taken up again; the episode starts over."""


# ---- one log line for many equal causes --------------------------------------------------------------------------------

_VARYING = re.compile(
    r"""
    (?<!\w)(['"]).{25,}?\1(?!\w)              # a long quotation, such as what a model said
    | \b(?=\w*\d)(?=\w*[A-Za-z_])\w{12,}\b    # ids: req_011CXyz4, create_task_1, 0x7f3a9c0d1e2f
    | (?<!HTTP\ )(?<![\w.-])\d+(?:\.\d+)*    # numbers: ports, seconds, addresses; not gpt-4o, not HTTP 429
    """,
    re.VERBOSE,
)


@dataclass
class _Cause:
    """What is known of one cause."""

    told_at: float
    """The clock's seconds at the last line in the log that counts it."""
    times: int = 1
    told: int = 1
    """Of ``times``: those that the log knows of."""
    latest: str = ""
    """The detail of the last time, as it was given."""


class OncePerCause:
    """Decides which causes are new, and counts the repetitions. Thread-safe.

    At most ``capacity`` causes are remembered. When there are more, the one that was met longest ago is forgotten, so that
    a new cause is always told, however many others came before it.
    """

    def __init__(self, capacity: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds; its differences appear in the log."""
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: OrderedDict[tuple[str, str], _Cause] = OrderedDict()

    def first_time(self, kind: str, detail: str = "") -> bool:
        """True if the cause is new; see the function `first_time`."""
        detail = detail[:500]
        key, now = (kind, _VARYING.sub("#", detail)), self._clock()
        reports = []
        with self._lock:
            cause = self._causes.get(key)
            new = cause is None
            if cause is None:
                self._causes[key] = _Cause(told_at=now, latest=detail)
                if len(self._causes) > self._capacity:
                    (old_kind, _), forgotten = self._causes.popitem(last=False)
                    reports.append(_report(old_kind, forgotten, now))
            else:
                self._causes.move_to_end(key)
                cause.times += 1
                cause.latest = detail
                if re.fullmatch("10+", str(cause.times)):
                    reports.append(_report(kind, cause, now))
        for report in filter(None, reports):
            logger.warning("tau2_slime: %s", report)
        return new


def _report(kind: str, cause: _Cause, now: float) -> str:
    """How often ``cause`` was met since the log last said so; empty if never. Marks it as told."""
    more, seconds = cause.times - cause.told, now - cause.told_at
    cause.told, cause.told_at = cause.times, now
    if not more:
        return ""
    if seconds < 120:
        span = f"{seconds:.0f} seconds"
    elif seconds < 7200:
        span = f"{seconds / 60:.0f} minutes"
    else:
        span = f"{seconds / 3600:.0f} hours"
    return f"{more} more of this kind in the last {span}: " + ": ".join(filter(None, (kind, cause.latest)))


_once_per_cause = OncePerCause()


def first_time(kind: str, detail: str = "") -> bool:
    """True if this cause is new to the process and worth a line in the log: hundreds of samples meet the same one.

    A cause is its ``kind`` (a short text that the caller fixes) with its ``detail`` (an error's message). Details that
    differ only in numbers, ids or long quotations are the same cause. The 10th, 100th, 1,000th, ... time, one warning says
    how many more there were.

    >>> first_time("router", "no answer from port 30000 for 12 s"), first_time("router", "no answer from port 30001 for 9 s")
    (True, False)
    """
    return _once_per_cause.first_time(kind, detail)
