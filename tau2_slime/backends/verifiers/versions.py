"""Which of verifiers' two APIs the installed release has. Read from its version, because importing it takes seconds."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from tau2_slime.errors import ConfigError

FIRST_V0, FIRST_V1, FIRST_UNKNOWN = (0, 1, 12), (0, 4), (0, 5)


def installed() -> tuple[int, ...] | None:
    """The release numbers of the installed verifiers, such as ``(0, 3, 1)``; None if it is not installed."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", version("verifiers"))[:3])
    except PackageNotFoundError:
        return None


def has_v0() -> bool:
    """True if the installed release has the v0 API."""
    found = installed()
    return found is not None and FIRST_V0 <= found < FIRST_V1


def has_v1() -> bool:
    """True if the installed release has the v1 API."""
    found = installed()
    return found is not None and FIRST_V1 <= found < FIRST_UNKNOWN


def require_any() -> None:
    """Check that a release with one of the two APIs is installed.

    Raises:
        ConfigError: verifiers is not installed, or its release is not supported.
    """
    found = installed()
    if found is None:
        raise ConfigError("verifiers is not installed: pip install 'tau2-slime[verifiers]'")
    if not (has_v0() or has_v1()):
        raise ConfigError(
            f"verifiers {'.'.join(map(str, found))} is not supported by tau2_slime: install verifiers>=0.1.12,<0.5"
        )
