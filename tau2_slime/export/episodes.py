"""Which finished episodes leave, and why the others stay: the reading and filtering that every format shares."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.data.rows import read_rows, row_task
from tau2_slime.data.selection import TEST
from tau2_slime.errors import ConfigError
from tau2_slime.export.origin import may_be_held_out
from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.shown import only_placeholders
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.tokens.calls.types import CallStatus

if TYPE_CHECKING:
    from tau2_slime.inspector.trajectory import Trajectory

_DESCRIPTIONS = ("rollout.json", "manifest.json")
"""Files that say what a run played."""


@dataclass(frozen=True)
class Run:
    """What one path holds."""

    path: Path
    found: FoundEpisodes
    fingerprint: str
    """Sixteen hexadecimal digits: of what the run was to play where its folder says so, else of the episodes' file."""


@dataclass
class Episode:
    """One finished episode, and why it does not leave, if it does not."""

    run: Run
    trajectory: Trajectory
    left_out: str = ""
    """The name of the reason; empty: it leaves."""
    why: str = ""
    """The reason in words, with the particulars of this episode."""

    @property
    def name(self) -> str:
        """Unique among the episodes of an export."""
        return f"{self.run.path}:{self.trajectory.name}"

    def leave_out(self, reason: str, why: str) -> None:
        """Keep the first reason."""
        if not self.left_out:
            self.left_out, self.why = reason, why


@dataclass(frozen=True)
class Filters:
    """What an episode must be to leave."""

    min_reward: float = 1.0
    max_tokens: int | None = None
    """Of the whole episode, prompt included."""
    keep: frozenset[str] = frozenset()
    """Reasons of `CHOICES` that do not count."""
    held_out: tuple[Path, ...] = ()
    """Files of data rows, such as a dev fraction, whose tasks stay as the test split's do."""
    only: frozenset[str] = frozenset()
    """What the diagnosis must say, at least one of: a side, a kind of failure, a flag. Empty: not asked."""
    without: frozenset[str] = frozenset()
    """What the diagnosis must not say."""


Rule = Callable[[Episode], str]
"""Why an episode stays, in words; empty if this rule lets it go."""

CHOICES = {
    "test-task": "a task of τ²'s test split, or of a --held-out file",
    "malformed-call": "a tool call that cannot be read, names no tool, or does not fit the tool's schema",
    "simulator-flaw": "the user simulator's words were found faulty",
    "duplicate": "the same tokens (or words) as an episode before it",
}
"""Reasons that ``--keep`` may name."""
FIXED = {
    "failed": "it says nothing about the agent",
    "reward": "less than --min-reward",
    "diagnosis": "what `tau2-slime diagnose` says of it is not what --only and --without ask for",
    "no-trainable-token": "nothing in it was sampled and may be trained: slime's SFT stops at such a row",
    "length": "more tokens than --max-tokens",
}
"""Reasons that nothing lifts but the option that they name."""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read every path as `inspect` reads it.

    Raises:
        ConfigError: nothing there can be read as episodes, or a path is named twice.
    """
    runs: list[Run] = []
    for path in paths:
        if any(path.resolve() == run.path.resolve() for run in runs):
            raise ConfigError(f"{path} is named twice: its episodes would count twice")
        found = read_episodes(path)
        runs.append(Run(path, found, _fingerprint(path)))
    return runs


def _fingerprint(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    described = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    files = [described] if described is not None else sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def filtered(runs: Iterable[Run], filters: Filters) -> list[Episode]:
    """Every episode of ``runs`` in order; those that stay say why.

    Raises:
        ConfigError: a ``--held-out`` file cannot be read.
    """
    episodes = [Episode(run, trajectory) for run in runs for trajectory in run.found.trajectories]
    rules = _rules(filters)
    for episode in episodes:
        if only_placeholders(episode.trajectory):  # a model behind an API, or a person: words without tokens
            episode.trajectory.ledger = None
        for reason, rule in rules.items():
            if reason not in filters.keep and (why := rule(episode)):
                episode.leave_out(reason, why)
                break
    return episodes


def _rules(filters: Filters) -> dict[str, Rule]:
    """Reason -> rule, in the order in which they are asked; duplicates last, among those that leave."""
    rows = [row_task(row) for file in filters.held_out for row in read_rows(str(file))]
    held_out = {(row.config.domain, str(row.task.id)) for row in rows}
    seen: dict[str, str] = {}

    def failed(episode: Episode) -> str:
        one = episode.trajectory
        if one.excluded or one.reward is None:
            return f"blame {one.blame or 'unknown'}: {one.detail or one.termination or 'no reward'}"
        return ""

    def test_task(episode: Episode) -> str:
        one = episode.trajectory
        if (one.domain, one.task_id) in held_out:
            return f"{one.task_label} is in a --held-out file"
        return _test_split(one)

    def reward(episode: Episode) -> str:
        earned = episode.trajectory.reward
        return f"reward {earned:g}" if earned is not None and earned < filters.min_reward else ""

    def malformed(episode: Episode) -> str:
        statuses, rejected = episode.trajectory.stats.get("tool_calls"), episode.trajectory.rejected
        bad = {str(k): v for k, v in statuses.items() if k != CallStatus.OK} if isinstance(statuses, Mapping) else {}
        if bad:
            return ", ".join(f"{count} {status}" for status, count in bad.items())
        return f"{len(rejected)} messages with calls that were rejected" if rejected else ""

    def flaw(episode: Episode) -> str:
        flaws = episode.trajectory.stats.get("user_flaws")
        return ", ".join(map(str, flaws)) if isinstance(flaws, Mapping) else ""

    def length(episode: Episode) -> str:
        tokens = len(episode.trajectory.tokens)
        return f"{tokens} tokens" if filters.max_tokens is not None and tokens > filters.max_tokens else ""

    def diagnosis(episode: Episode) -> str:
        if not (filters.only or filters.without):
            return ""
        from tau2_slime.diagnosis.decide import diagnose

        found = diagnose(episode.trajectory)
        said = {found.finding.who.value, str(found.finding.what), *(str(one.what) for one in found.also)}
        unwanted = said & filters.without or (set() if not filters.only or said & filters.only else said)
        return f"diagnosed as {', '.join(sorted(unwanted))}" if unwanted else ""

    def nothing_trained(episode: Episode) -> str:
        ledger = episode.trajectory.ledger
        return FIXED["no-trainable-token"] if ledger is not None and not any(ledger["loss_mask"]) else ""

    def duplicate(episode: Episode) -> str:
        first = seen.setdefault(_content(episode.trajectory), episode.name)
        return f"the same as {first}" if first != episode.name else ""

    return {
        "failed": failed,
        "test-task": test_task,
        "reward": reward,
        "malformed-call": malformed,
        "simulator-flaw": flaw,
        "length": length,
        "diagnosis": diagnosis,
        "no-trainable-token": nothing_trained,
        "duplicate": duplicate,
    }


def _test_split(one: Trajectory) -> str:
    """Why the task counts as held out by τ² itself."""
    from tau2_slime.world import domains

    if one.task_split == TEST:
        return f"{one.task_label} is in τ²'s test split"
    try:
        test = domains.splits(one.domain).get(TEST, ())
    except ConfigError as error:
        return f"{one.task_label} may be a test task: {error}"
    return f"{one.task_label} is in τ²'s test split" if one.task_id in test else may_be_held_out(one)


def _content(one: Trajectory) -> str:
    """What equal episodes share: the task and every token, or every word where there are no tokens."""
    if one.tokens:
        return f"{one.task_key} {list(one.tokens)}"
    words = [[m.get("role"), m.get("content"), _calls(m)] for m in one.messages]
    return f"{one.task_key} {json.dumps(words, sort_keys=True, default=str)}"


def _calls(message: Mapping[str, object]) -> list[tuple[object, object]]:
    calls = message.get("tool_calls")
    return [(call.get("name"), call.get("arguments")) for call in calls] if isinstance(calls, list) else []


def counts(episodes: Iterable[Episode]) -> dict[str, int]:
    """Reason -> how many episodes stay for it, the most frequent first."""
    return dict(Counter(one.left_out for one in episodes if one.left_out).most_common())
