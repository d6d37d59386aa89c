"""How the agent of banking_knowledge reads the bank's documents: τ²'s retrieval variants, and what each needs here.

A variant decides the agent's tools and prompt, and so what is learned and what a score means. τ²'s own default calls an
embedding model for money; without documents hardly a task can be solved. So nobody plays unless a variant was named.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tau2_slime.errors import ConfigError
from tau2_slime.world import tau2_compat

_KEYS = {"openai": "OPENAI_API_KEY", "openrouter": "OPENROUTER_API_KEY"}
"""Provider of embeddings -> the variable in which τ² looks for its key."""
_PROGRAMS = ("srt", "rg", "bwrap", "socat")
"""What τ²'s sandbox for a shell runs (Linux)."""


@dataclass(frozen=True)
class Variant:
    """One way to read the documents."""

    name: str
    packages: tuple[str, ...]
    """Names to import."""
    programs: tuple[str, ...]
    variables: tuple[str, ...]
    """Of the environment: keys of paid services."""

    @property
    def offline(self) -> bool:
        """It calls no service."""
        return not self.variables

    def missing(self) -> list[str]:
        """What it needs and this machine lacks, each with the way to get it."""
        return [
            *(f"the Python package {name} (pip install {name.replace('_', '-')})" for name in _absent(self.packages)),
            *(f"the program {name}" for name in self.programs if shutil.which(name) is None),
            *(f"the variable {name} with a key" for name in self.variables if not os.environ.get(name)),
        ]

    def needs(self) -> str:
        """In words, for a report."""
        parts = [*self.packages, *self.programs, *self.variables]
        return f"{'offline' if self.offline else 'calls a service'}; needs {', '.join(parts) or 'nothing'}"


@lru_cache(maxsize=64)
def _absent(packages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in packages if importlib.util.find_spec(name) is None)


@lru_cache(maxsize=64)
def variants(domain: str) -> Mapping[str, Variant]:
    """The variants of ``domain`` by name, in τ²'s order; empty for a domain without documents."""
    retrieval = tau2_compat.retrieval_of(domain)
    found = {}
    for name, spec in retrieval.RETRIEVAL_VARIANTS.items() if retrieval is not None else ():
        searches = [s for s in (spec.kb_search, spec.kb_search_bm25, spec.kb_search_dense) if s is not None]
        keys = {_KEYS.get(s.embedder_type or "openrouter", "") for s in searches if s.type == "embedding"}
        keys |= {_KEYS["openai"] for s in searches if s.reranker}
        packages = {"rank_bm25" for s in searches if s.type == "bm25"} | ({"openai"} if keys else set())
        programs = _PROGRAMS if spec.shell is not None else ()
        found[name] = Variant(name, tuple(sorted(packages)), programs, tuple(sorted(keys - {""})))
    return found


def require(domain: str, environment: Mapping[str, object]) -> Variant | None:
    """The variant that ``environment`` (`Tau2Config.environment`) names; None for a domain without documents.

    Raises:
        ConfigError: it names none or an unknown one, or the machine lacks what it needs.
    """
    known = variants(domain)
    if not known:
        return None
    offline = ", ".join(name for name, variant in known.items() if variant.offline)
    name = environment.get("retrieval_variant")
    if name is None:
        raise ConfigError(
            f"{domain} needs a retrieval_variant, which says how the agent reads the documents: set it in 'tau2:', as "
            f"TAU2_RETRIEVAL_VARIANT or with --retrieval-variant. Without a network: {offline}; others: "
            f"{', '.join(n for n, v in known.items() if not v.offline)}"
        )
    if name not in known:
        raise ConfigError(f"retrieval_variant={name!r} is unknown; {domain} has: {', '.join(known)}")
    variant = known[str(name)]
    if missing := variant.missing():
        raise ConfigError(
            f"retrieval_variant={name!r} needs {' and '.join(missing)}; without a network there are: {offline}"
        )
    return variant
