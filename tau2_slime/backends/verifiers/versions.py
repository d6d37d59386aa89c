"""Which of verifiers' two APIs the installed release has; told from its version, because importing it takes seconds."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from tau2_slime.errors import ConfigError

V0_FIRST, V1_FIRST, END = (0, 1, 12), (0, 4), (0, 5)


def installed() -> tuple[int, ...] | None:
    """The release numbers of the installed verifiers, None if there is none."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", version("verifiers"))[:3])
    except PackageNotFoundError:
        return None


def has_v0() -> bool:
    """True if the v0 door is the one for the installed release."""
    found = installed()
    return found is not None and V0_FIRST <= found < V1_FIRST


def has_v1() -> bool:
    """True if the v1 door is the one for the installed release."""
    found = installed()
    return found is not None and V1_FIRST <= found < END


def require_any() -> None:
    """Raises ConfigError if no verifiers is installed, or one that this package does not know."""
    found = installed()
    if found is None:
        raise ConfigError("verifiers is not installed: pip install 'tau2-slime[verifiers]'")
    if not (has_v0() or has_v1()):
        raise ConfigError(
            f"verifiers {'.'.join(map(str, found))} is not known to tau2_slime: install verifiers>=0.1.12,<0.5"
        )
