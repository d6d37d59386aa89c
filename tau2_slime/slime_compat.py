"""What this slime can do, found by looking, not by its version number."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata

from tau2_slime.errors import ConfigError

_NEEDED = (
    "tokens",
    "response_length",
    "loss_mask",
    "rollout_log_probs",
    "reward",
    "status",
    "metadata",
    "remove_sample",
)


def describe() -> str:
    """One line for the doctor.

    Raises:
        ConfigError: this slime's ``Sample`` lacks a field that cannot be done without.
    """
    types = importlib.import_module("slime.utils.types")
    fields = {f.name for f in dataclasses.fields(types.Sample)}
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise ConfigError(f"this slime is too old: Sample lacks {', '.join(missing)}; use v0.2.2 or later")
    has = [
        ("Status.FAILED", hasattr(types.Sample.Status, "FAILED")),
        ("session_id", "session_id" in fields),
        ("weight_versions", "weight_versions" in fields),
        ("non_generation_time", "non_generation_time" in fields),
    ]
    if not has[0][1]:
        raise ConfigError("this slime is too old: Sample.Status has no FAILED; use v0.2.2 or later")
    return f"version {_version()}; " + ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has)


def _version() -> str:
    """What the installed distribution says; a source tree on PYTHONPATH says nothing."""
    try:
        return importlib.metadata.version("slime")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (a source tree)"
