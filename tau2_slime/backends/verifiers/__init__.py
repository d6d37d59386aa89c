"""verifiers' door: `load_environment` for its v0 API (verifiers >= 0.1.12, < 0.4).

``environments/tau2_bench`` makes it known under the id ``tau2_bench``. Needs the extra `verifiers`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["load_environment"]


def load_environment(**settings: Any) -> Any:
    """The environment; see `env.load_environment`. verifiers is imported here, not with this package.

    Raises:
        ConfigError: verifiers is missing or too new for its v0 API, or a setting is wrong.
    """
    from tau2_slime.backends.verifiers.versions import require_v0

    require_v0()
    from tau2_slime.backends.verifiers.env import load_environment as load

    return load(**settings)
