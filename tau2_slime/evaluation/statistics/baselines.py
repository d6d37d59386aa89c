"""What policies that solve nothing score: doing nothing, and transferring to a human at once.

τ² pays both on some tasks, so a score means something only beside theirs. They are really played and really scored, task by
task. The user's cache folder remembers the rewards for the installed τ² and its task files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.files import source_hashes
from tau2_slime.evaluation.plan.datasets import Item
from tau2_slime.evaluation.store.protocol import tau2_version
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime.files import write_atomically
from tau2_slime.tasks.plays import KINDS, NOTHING, TRANSFER, play_baseline
from tau2_slime.world import domains

__all__ = ["KINDS", "NOTHING", "TRANSFER", "Rewards", "read_rewards", "score_baselines", "solved_share"]

FILE = "baselines.json"
"""The rewards in an evaluation's folder."""
_VERSION = 1
_REPEAT = re.compile(r"#\d+$")

Rewards = Mapping[str, Mapping[str, float | None]]
"""Name of a task -> kind of baseline -> its reward; None: τ² cannot score it there."""


async def score_baselines(
    items: Iterable[Item],
    *,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float | None]]:
    """`Rewards` of both kinds on every task of ``items``; each task is played once and then remembered.

    ``cache``: the folder of remembered rewards, by default the user's own. ``tell`` gets one sentence for each file in it
    that cannot be read or written; neither ends the evaluation. ``advance`` is told how many tasks are done, of how many.
    """
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tau2_slime" / "baselines"
    by_task = {replace(item, repeat=0).name: item for item in items}
    files: dict[str, _CacheFile] = {}
    out: dict[str, dict[str, float | None]] = {}
    try:
        for done, (name, item) in enumerate(by_task.items()):
            advance(done, len(by_task))
            config, identity = item.config, _identity(item.config)
            if identity not in files:
                files[identity] = _CacheFile(folder / f"{config.domain}-{identity[:16]}.json", tell)
            for kind in KINDS:
                known, entry = files[identity].rewards, f"{name} {kind}"
                if entry not in known:
                    task = domains.find_task(config.domain, config.task_split, task_id=item.task_id)
                    known[entry] = await play_baseline(config, task, kind)
                out.setdefault(name, {})[kind] = known[entry]
    finally:
        for file in files.values():
            file.save()
    return out


def solved_share(names: Iterable[str], rewards: Rewards, kind: str) -> float | None:
    """The share of the tasks that a baseline solves, among those with a reward; None if none has one, or one is not known.

    ``names``: of items; `Item.name` adds ``#2`` to the second row of the same task.
    """
    found = [rewards.get(name) or rewards.get(_REPEAT.sub("", name)) for name in names]
    if None in found:
        return None
    values = [of_task.get(kind) for of_task in found if of_task is not None]
    scored = [value for value in values if value is not None]
    return fmean(value >= SUCCESS for value in scored) if scored else None


def read_rewards(path: Path) -> Rewards:
    """The rewards in an evaluation's folder. Raises OSError or ValueError if the file does not hold them."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object was expected, not {type(content).__name__}")
    return {name: _checked(rewards) for name, rewards in content.items()}


def _checked(rewards: object) -> dict[str, float | None]:
    if not isinstance(rewards, dict) or not all(isinstance(r, int | float | None) for r in rewards.values()):
        raise ValueError(f"a JSON object of rewards was expected, not {str(rewards)[:60]}")
    return rewards


class _CacheFile:
    """The remembered rewards of one domain: "<task> <kind>" -> reward."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self.rewards: dict[str, float | None] = {}
        try:
            self.rewards = _checked(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            tell(
                f"{path} cannot be used ({error}): its baselines are scored again; if this comes back, delete the file"
            )
        self._read = dict(self.rewards)

    def save(self) -> None:
        if self.rewards == self._read:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self.rewards, indent=1, sort_keys=True))
        except OSError as error:
            self._tell(f"{self._path} cannot be written ({error}): the next run scores its baselines again")


def _identity(config: Tau2Config) -> str:
    """A digest of everything that a baseline's reward depends on, apart from the task."""
    facts = [
        _VERSION,
        tau2_version(),
        source_hashes(config.domain, config.task_split),
        config.agent_type == "solo",
        config.environment,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
