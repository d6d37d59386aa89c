"""What a policy fails at, read from a run or from what `diagnose` wrote: the input of synthesis and of curation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_slime.diagnosis.decide import diagnose, run_name
from tau2_slime.diagnosis.findings import What, Who
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.sources import read_episodes

_GOLD_CALL = re.compile(r"([a-z]\w*)\(")
_RULE = re.compile(r"[A-Z]\d+")


@dataclass(frozen=True)
class Judged:
    """One episode, or one cluster of failures, as far as training asks for it."""

    domain: str
    split: str
    """As the run recorded it; empty where it did not."""
    tasks: tuple[str, ...]
    """The episode's task; of a cluster those that may be named."""
    who: str
    what: str
    tools: tuple[str, ...] = ()
    """The tool of the fault, and the one that gold uses in its place."""
    argument: str = ""
    """Of a wrong argument: record, item, amount, payment or value."""
    rule: str = ""
    """The rule of the policy that the agent broke, such as ``A17``."""
    count: float = 1.0
    reward: float | None = None
    is_cluster: bool = False

    @property
    def steers(self) -> bool:
        """True for a failure of the agent: those of others say nothing about what to train."""
        return self.who == Who.AGENT.value


def read_judged(path: Path) -> list[Judged]:
    """Every episode of a run, or of a ``diagnosis.jsonl``; every cluster of a ``steer.json``.

    Raises:
        ConfigError: the file is none of these, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() and path.suffix in (".json", ".jsonl") else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    lines = _lines(path, text)
    if lines is not None:
        return [judged(line) for line in lines]
    clusters = _clusters(text)
    if clusters is not None:
        return [_of_cluster(cluster) for cluster in clusters]
    found = read_episodes(path)
    name = run_name(path)
    return [judged(diagnose(one, name).to_dict()) for one in found.trajectories]


def _lines(path: Path, text: str) -> list[dict[str, Any]] | None:
    """The lines of a ``diagnosis.jsonl``; None for another file."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not (isinstance(row, dict) and {"domain", "task_id", "who", "what"} <= row.keys()):
            if not rows:
                return None
            raise ConfigError(
                f"{path}: line {number} is not one of `tau2-slime diagnose --jsonl`; write the file again"
            )
        rows.append(row)
    return rows or None


def _clusters(text: str) -> list[Mapping[str, Any]] | None:
    """The clusters of a ``steer.json``; None for another file."""
    if '"clusters"' not in text:
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    found = content.get("clusters") if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) and "domain" in one for one in found):
        return None
    return found


def judged(line: Mapping[str, Any]) -> Judged:
    """One line of a ``diagnosis.jsonl``."""
    reward = line.get("reward")
    return Judged(
        domain=str(line["domain"]),
        split=str(line.get("task_split") or ""),
        tasks=(str(line["task_id"]),),
        who=str(line["who"]),
        what=str(line["what"]),
        tools=tools_at_stake(line),
        argument=str(line.get("detail") or ""),
        rule=rule_broken(line),
        reward=float(reward) if isinstance(reward, int | float) else None,
    )


def _of_cluster(cluster: Mapping[str, Any]) -> Judged:
    names = [*(cluster.get("unreliable") or ()), *(cluster.get("missing") or ())]
    return Judged(
        domain=str(cluster["domain"]),
        split="",
        tasks=tuple(dict.fromkeys(map(str, names))),
        who=str(cluster.get("who") or Who.AGENT.value),
        what=str(cluster.get("what") or What.OTHER.value),
        tools=tuple(map(str, cluster.get("tools") or ())),
        argument=str(cluster.get("argument") or ""),
        rule=str(cluster.get("rule") or ""),
        count=float(cluster.get("count") or 0),
        is_cluster=True,
    )


def tools_at_stake(line: Mapping[str, Any]) -> tuple[str, ...]:
    """The tool that a diagnosis is about, and those of gold's that it names as left out or replaced."""
    found = [str(line.get("tool") or "")]
    for one in _evidence(line):
        if one.get("here") == "(never made)":
            found.append(str(one.get("field") or ""))
        call = _GOLD_CALL.match(str(one.get("gold") or ""))
        found.append(call.group(1) if call else "")
    return tuple(dict.fromkeys(filter(None, found)))


def rule_broken(line: Mapping[str, Any]) -> str:
    """The id of the rule that a diagnosis names; empty if it names none."""
    return next((field for field in _fields(line) if _RULE.fullmatch(field)), "")


def _evidence(line: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (one for one in line.get("evidence") or () if isinstance(one, Mapping))


def _fields(line: Mapping[str, Any]) -> Iterator[str]:
    return (str(one.get("field") or "") for one in _evidence(line))


def read_all(paths: Sequence[Path]) -> list[Judged]:
    """`read_judged` of several, one after the other."""
    return [one for path in paths for one in read_judged(path)]
