"""The folder of a stand-alone rollout: what is to be played, the episodes that were, and how the same rollout goes on.

``samples.jsonl`` and ``trajectories.jsonl`` have a line for each finished episode; ``rollout.json`` says what is played, so
that no other rollout continues there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import names_a_file
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import ends_with_a_whole_line, json_lines, write_atomically
from tau2_slime.runtime.text import shown
from tau2_slime.world import domains

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup

SAMPLES, TRAJECTORIES, PLAN = "samples.jsonl", "trajectories.jsonl", "rollout.json"
_HOW_FAST = {
    *("user_base_url", "user_api_key_var", "user_patience", "user_timeout", "user_retries", "user_concurrency"),
    *("request_timeout", "request_retries"),
}
"""Settings that may change when a rollout goes on."""


BuildEpisode = Callable[[Tau2Config, str, str, int], Awaitable["EpisodeSetup"]]
"""(settings, task id, user model, attempt) -> what that episode is played with. Raises ConfigError."""


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    domain: str
    split: str
    task_id: str
    group: int
    index: int


@dataclass
class RolloutPlan:
    """What to play, against what."""

    jobs: list[Job]
    output_dir: Path
    router: str | None = None
    """``http://host:port``; None: the embedded policy, or the one behind `api`."""
    api: tuple[dict[str, Any], BuildEpisode] | None = None
    """A policy behind an API: how rollout.json describes it, and what builds an episode with it."""
    hf_checkpoint: str | None = None
    """Tokenizer folder or hub name; None: the package's own small one (embedded policy only)."""
    trust_remote_code: bool = False
    """The checkpoint's tokenizer may run code that it brings along."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """`Tau2Config` keys that win over everything (a data row's metadata)."""
    yaml_mapping: dict[str, Any] = field(default_factory=dict)
    """The ``tau2:`` mapping of a config file."""
    sampling_params: dict[str, Any] = field(default_factory=dict)
    max_context_len: int | None = None
    stopped: Callable[[], bool] = lambda: False
    """Once it is true, nothing is begun, and what is under way is kept as `Unfinished`. For a person at the terminal."""
    concurrency: int = 64
    mistakes: float = 0.0
    """Embedded policy: share of episodes in which it errs at the end."""
    policy_noise: float = 0.0
    """Embedded policy: share of steps with another move than gold's."""
    spelling: float = 0.1
    """Embedded policy: share of tokens that it writes in another way than the tokenizer would."""
    gold_rate: float = 1.0
    """Embedded policy: share of episodes that it plays to the end; in the others it falls silent."""

    @property
    def embedded(self) -> bool:
        """The package's own scripted policy plays."""
        return self.router is None and self.api is None


@dataclass(frozen=True)
class Played:
    """One finished episode, in short; all of it stands in the two files."""

    job: Job
    status: str
    """completed, truncated or failed."""
    termination: str
    blame: str
    detail: str
    """What went wrong, in one line; empty if nothing did."""
    reward: float | None
    """τ²'s; None if the episode failed."""
    agent_turns: int
    user_turns: int
    sampled_tokens: int
    context_tokens: int
    """Prompt included."""
    telemetry: Mapping[str, float]
    user_cost: float
    """US dollars."""

    @property
    def failed(self) -> bool:
        """The episode says nothing about the agent: played again when the rollout goes on."""
        return self.status not in ("completed", "truncated")

    @classmethod
    def of(cls, job: Job, trajectory: Mapping[str, Any]) -> Played:
        """``trajectory``: the episode's line of trajectories.jsonl.

        Raises:
            KeyError, TypeError, ValueError: it is not such a line.
        """
        ledger, stats = trajectory.get("ledger") or {"tokens": [], "loss_mask": []}, trajectory["stats"]
        sampled = sum(ledger["loss_mask"])
        reward = trajectory["reward"]
        played = cls(
            job,
            status=str(trajectory["status"]),
            termination=str(trajectory["termination"]),
            blame=str(trajectory["blame"]),
            detail=str(trajectory["detail"]),
            reward=None if reward is None else float(reward),
            agent_turns=int(stats["agent_turns"]),
            user_turns=int(stats["user_turns"]),
            sampled_tokens=sampled,
            context_tokens=len(ledger["tokens"]) - sampled,
            telemetry=dict(trajectory.get("telemetry") or {}),
            user_cost=float(stats["user_cost"]),
        )
        return replace(played, reward=None) if played.failed else played


def description(plan: RolloutPlan) -> dict[str, Any]:
    """What ``plan`` plays, as rollout.json keeps it: everything that an episode depends on, not how fast or from where."""
    settings = Tau2Config.resolve(plan.yaml_mapping, plan.overrides).model_dump(mode="json", exclude=_HOW_FAST)
    examples = settings["few_shot"]
    policy: dict[str, Any] = {"kind": "router", "hf_checkpoint": plan.hf_checkpoint}
    if plan.api is not None:
        policy = plan.api[0]
    elif plan.router is None:
        habits = {"mistakes": plan.mistakes, "noise": plan.policy_noise, "spelling": plan.spelling}
        policy |= {"kind": "embedded", **habits, "gold_rate": plan.gold_rate}
    return {
        "policy": policy,
        "sampling": plan.sampling_params,
        "max_context_len": plan.max_context_len,
        "settings": settings,
        "episodes": [asdict(job) for job in plan.jobs],
        **({"few_shot": hashlib.sha256(Path(examples).read_bytes()).hexdigest()} if examples else {}),
        "task_files": {
            f"{split} {domain}": domains.task_file(domain, split).sha256
            for domain, split in dict.fromkeys((job.domain, job.split) for job in plan.jobs)
            if names_a_file(split)
        },
        "tasks_of_files": {
            f"{job.domain} {job.task_id}": domains.task_file(job.domain, job.split).digest(job.task_id)
            for job in plan.jobs
            if names_a_file(job.split)
        },
    }


def refuse_other_rollouts(plan: RolloutPlan) -> None:
    """Raises ConfigError if the folder of ``plan`` holds another rollout; it may be hours of a paid simulator."""
    path = plan.output_dir / PLAN
    if not path.exists():
        if (plan.output_dir / SAMPLES).exists():
            raise ConfigError(f"{plan.output_dir} holds a rollout already; name another folder with --output-dir")
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(there, dict)
    except (OSError, ValueError, AssertionError, RecursionError):
        raise ConfigError(f"{path} cannot be read; name another folder with --output-dir") from None
    wanted = json.loads(json.dumps(description(plan)))
    _refuse_changed_tasks(plan.output_dir, there, wanted)
    then, now = _fields(there), _fields(wanted)
    # A setting that an earlier version did not record cannot contradict it.
    differing = [
        name
        for name, value in now.items()
        if name in then and then[name] != value and not name.startswith("task_files.")
    ]
    if differing:
        raise ConfigError(
            f"{plan.output_dir} holds another rollout already: it differs in {', '.join(differing)}; "
            "name another folder with --output-dir"
        )


def _refuse_changed_tasks(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError that names the tasks of a file which are not what they were when the rollout began."""
    then, now = there.get("tasks_of_files") or {}, wanted["tasks_of_files"]
    changed = [name for name, digest in now.items() if then.get(name, digest) != digest]
    if then and there.get("task_files") != wanted["task_files"]:
        changed += sorted(then.keys() ^ now.keys())
    if changed:
        few = ", ".join(shown(name) for name in changed[:10]) + (", ..." if len(changed) > 10 else "")
        raise ConfigError(
            f"{folder} holds a rollout of other tasks: {len(changed)} of {len(now)} have changed in their file ({few}); "
            "name another folder with --output-dir, or put the file back"
        )


def _fields(description: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a description, those that are mappings taken apart: ``settings.domain``."""
    return {
        f"{part}.{key}" if key else part: value
        for part, content in description.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


def take_up(plan: RolloutPlan) -> dict[int, Played]:
    """The usable episodes that the folder holds, by index. The files are left with exactly these, in whole lines."""
    folder = plan.output_dir
    samples, trajectories = folder / SAMPLES, folder / TRAJECTORIES
    jobs = {job.index: job for job in plan.jobs}
    found: dict[int, Played] = {}
    of_trajectories, of_samples = 0, 0
    for row in json_lines(trajectories):
        of_trajectories += 1
        with contextlib.suppress(KeyError, TypeError, ValueError):
            one = Played.of(jobs[(row or {})["index"]], row or {})
            if not one.failed:
                found[one.job.index] = one
    written = set()
    for row in json_lines(samples):
        of_samples += 1
        written.add(str((row or {}).get("index")))
    kept = {one.job.index: one for one in found.values() if str(one.job.index) in written}
    whole = all(map(ends_with_a_whole_line, (samples, trajectories)))
    if not whole or not of_trajectories == of_samples == len(kept):
        for path in (samples, trajectories):
            write_atomically(path, _lines_of(path, set(kept)))
    write_atomically(folder / PLAN, json.dumps(description(plan), indent=1) + "\n")
    return kept


def _lines_of(path: Path, indices: set[int]) -> Iterator[str]:
    """The first line of each of ``indices``."""
    for row in json_lines(path):
        if row is not None and row.get("index") in indices:
            indices.discard(row["index"])
            yield json.dumps(row, ensure_ascii=False) + "\n"
