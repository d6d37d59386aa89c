"""The typed errors of the package: each one says how the episode ends that meets it, and so who is to blame.

None of them ever leaves ``generate``; they become the cause of an `InteractionResult`.
"""

from __future__ import annotations

_told: set[str] = set()


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


def first_time(cause: str) -> bool:
    """True if ``cause`` is new to this process and worth a line in the log: hundreds of samples meet the same one."""
    if cause in _told or len(_told) >= 1000:
        return False
    _told.add(cause)
    return True
