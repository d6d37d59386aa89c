"""Which of verifiers' two APIs the installed release has; told from its version, because importing it takes seconds."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from tau2_slime.errors import ConfigError

V0_FIRST, V0_END = (0, 1, 12), (0, 4)


def installed() -> tuple[int, ...] | None:
    """The release numbers of the installed verifiers, None if there is none."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", version("verifiers"))[:3])
    except PackageNotFoundError:
        return None


def has_v0() -> bool:
    found = installed()
    return found is not None and V0_FIRST <= found < V0_END


def require_v0() -> None:
    """Raises ConfigError if the installed verifiers has no v0 API as this package knows it."""
    found = installed()
    if found is None:
        raise ConfigError("verifiers is not installed: pip install 'tau2-slime[verifiers]'")
    if not has_v0():
        raise ConfigError(
            f"verifiers {'.'.join(map(str, found))} has no v0 API that load_environment can use; "
            "install verifiers>=0.1.12,<0.4"
        )
