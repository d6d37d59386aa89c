"""`--from-failures`: from what the user names to weights by kind of intent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown

WEIGHTS = "weights.json"
"""In a run's folder: the weights with which it was begun."""
Weights = dict[str, dict[str, float]]
"""Domain -> kind of intent -> how often it is drawn, 1 if it is not named."""


def read_weights(path: Path, domains: Sequence[str]) -> Weights:
    """The weights for ``domains``, from a run, from what `diagnose` wrote, or from a file of weights; says what they are.

    Raises:
        ConfigError: the file is none of these, or says nothing about any of the domains.
    """
    own = _own_weights(path, domains)
    if own is not None:
        return own
    from tau2_slime.diagnosis.faults import read_judged
    from tau2_slime.synth.aim import Failing, weights_for

    read = read_judged(path)
    failed = [one for one in read if one.steers and one.count > 0]
    there = sorted({one.domain for one in failed})
    if not set(there) & set(domains):
        named = f"it has some in {', '.join(map(shown, there))}" if there else f"of {len(read)} rows none is one"
        raise ConfigError(f"--from-failures {path}: no failure of the agent in {', '.join(domains)}; {named}")
    found: Weights = {}
    for name in domains:
        own_failures = [one for one in failed if one.domain == name]
        count = sum(one.count for one in own_failures)
        failing = [Failing(one.tools, one.argument, one.rule, one.count) for one in own_failures]
        weights, elsewhere = weights_for(name, failing)
        found[name] = weights
        drawn = ", ".join(f"{kind} x{weight:g}" for kind, weight in weights.items()) or "all kinds alike"
        rest = f"; {elsewhere:g} are about nothing that is drawn" if elsewhere else ""
        typer.echo(f"{name}: {count:g} failures of the agent{rest}; drawn: {drawn}", err=True)
    return found


def _own_weights(path: Path, domains: Sequence[str]) -> Weights | None:
    """The user's own weights, by kind or by domain and kind; None for another file."""
    from tau2_slime.synth.aim import KINDS

    try:
        content: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not content:
        return None
    if all(isinstance(value, int | float) for value in content.values()):
        content = dict.fromkeys(domains, content)
    if not all(isinstance(kinds, dict) and kinds for kinds in content.values()):
        return None
    if not all(isinstance(weight, int | float) for kinds in content.values() for weight in kinds.values()):
        return None
    for name in domains:
        kinds = content.get(name, {})
        unknown = sorted(set(kinds) - set(KINDS.get(name, {})))
        if unknown:
            known = ", ".join(KINDS.get(name, {}))
            raise ConfigError(f"--from-failures {path}: {name} has no intent {unknown[0]!r}; it has {known}")
        if any(not 0 <= weight < float("inf") for weight in kinds.values()):
            raise ConfigError(f"--from-failures {path}: a weight is a number from 0 on")
        if kinds and not any(kinds.get(kind, 1.0) for kind in KINDS[name]):
            raise ConfigError(f"--from-failures {path}: every intent of {name} has the weight 0")
    return {name: dict(content[name]) for name in domains if name in content}


def keep_weights(folder: Path, weights: Weights) -> None:
    """Write down the weights of a new run; a run that goes on must have the same.

    Raises:
        ConfigError: the folder was begun with others.
    """
    from tau2_slime.runtime.files import write_atomically

    path, text = folder / WEIGHTS, json.dumps(weights, indent=1, sort_keys=True) + "\n"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    begun = (folder / "journal.jsonl").exists()
    if begun and (before if before is not None else "{}\n") != text:
        raise ConfigError(f"{folder} was begun with other weights (--from-failures); give another --output-dir")
    if weights:
        write_atomically(path, text)
