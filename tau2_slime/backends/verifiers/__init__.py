"""verifiers' two doors: v0 (0.1.12 up to 0.4, `env`) and v1 (0.4, `v1`).

``environments/tau2_bench`` makes them known under the id ``tau2_bench``. Needs the extra `verifiers`.
"""

from __future__ import annotations

from typing import Any

from tau2_slime.backends.verifiers.versions import has_v1, require_any

__all__ = ["has_v1", "load_environment"]


def load_environment(**settings: Any) -> Any:
    """The environment of one domain; see `env.load_environment` and, on verifiers >= 0.4, `v1.env.load_environment`.

    verifiers is imported here, not with this package.

    Raises:
        ConfigError: verifiers is missing or not one of the known releases, or a setting is wrong.
    """
    require_any()
    if has_v1():
        from tau2_slime.backends.verifiers.v1.env import load_environment as load_v1

        return load_v1(**settings)
    from tau2_slime.backends.verifiers.env import load_environment as load_v0

    return load_v0(**settings)
