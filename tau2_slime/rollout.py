"""Rollouts without a training job: the real `generate` over a router, or over the embedded policy.

`run` plays groups of samples exactly as slime would hand them over and appends every finished episode to two files:
``samples.jsonl`` (what slime would train on) and ``trajectories.jsonl`` (everything: messages, tokens, blame, reward).
``rollout.json`` says what is played, so that the same rollout can go on after it was interrupted, and no other one can.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.selection import unplayable
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.address import address, answers
from tau2_slime.runtime.files import append_line, ends_with_a_whole_line, hold_folder, json_lines, write_atomically
from tau2_slime.runtime.loops import offload
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.world import domains

SAMPLES, TRAJECTORIES, PLAN = "samples.jsonl", "trajectories.jsonl", "rollout.json"
_HOW_FAST = {
    *("user_base_url", "user_api_key_var", "user_patience", "user_timeout", "user_retries", "user_concurrency"),
    *("request_timeout", "request_retries"),
}
"""Settings that may change when a rollout goes on."""


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
    """``http://host:port``; None: the embedded policy."""
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
    concurrency: int = 64
    mistakes: float = 0.0
    """Embedded policy: share of episodes in which it errs."""


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


def plan_jobs(
    chosen: Sequence[str],
    split: str | None,
    task_ids: Sequence[str],
    groups: int | None,
    samples_per_prompt: int,
    config: Tau2Config | None = None,
) -> list[Job]:
    """The episodes of ``groups`` tasks a domain (or of exactly ``task_ids``), ``samples_per_prompt`` each.

    Tasks that the agent of ``config`` cannot play, or that only a judge can score, are passed over.

    Raises:
        ConfigError: an unknown domain, split or task, a named task that cannot be played, or no task at all.
    """
    config = config or Tau2Config()
    jobs: list[Job] = []
    group = 0
    for domain in chosen:
        known = domains.splits(domain)
        wanted_split = split or ("train" if "train" in known else "base")
        pool = domains.tasks(domain, wanted_split)
        named = [domains.find_task(domain, wanted_split, task_id=task_id) for task_id in task_ids]
        why = partial(unplayable, domain, agent_type=config.agent_type, allow_judge=config.allow_llm_judge)
        for task in named:
            if reason := why(task):
                raise ConfigError(f"--task-id {task.id}: {reason}")
        playable = named or list(islice((task for task in pool if why(task) is None), groups))
        for task in playable:
            for _ in range(samples_per_prompt):
                jobs.append(Job(domain, wanted_split, task.id, group, len(jobs)))
            group += 1
    if not jobs:
        raise ConfigError(
            f"{', '.join(chosen)}: no task that --agent-type {config.agent_type} can play and τ² can score"
        )
    return jobs


async def run(plan: RolloutPlan, on_done: Callable[[Played], None] = lambda _: None) -> list[Played]:
    """Play every job and return the finished episodes in the order of ``plan.jobs``.

    Each is written to ``plan.output_dir`` the moment it ends, so that an interrupt loses only what was under way. If the
    folder holds a part of the same rollout, only what is missing there or has failed is played.

    Raises:
        ConfigError: the folder holds another rollout or another process writes there, nothing answers at the router's
            address, the checkpoint cannot be used, or a user model has no key.
        OSError: an episode cannot be written. Those before it are.
    """
    with hold_folder(plan.output_dir, "rollout"):
        return await run_in_held_folder(plan, on_done)


async def run_in_held_folder(plan: RolloutPlan, on_done: Callable[[Played], None]) -> list[Played]:
    """`run`, for a caller that holds the folder."""
    refuse_other_rollouts(plan)
    async with _policy(plan) as (url, checkpoint):
        host, port = address(url)
        await answers(host, port)
        await users_can_play(plan)
        played = await offload(_take_up, plan)
        for done in played.values():
            on_done(done)
        await _play_the_rest(plan, played, on_done, host, port, checkpoint)
    return [played[job.index] for job in plan.jobs if job.index in played]


async def _play_the_rest(
    plan: RolloutPlan,
    played: dict[int, Played],
    on_done: Callable[[Played], None],
    host: str,
    port: int,
    checkpoint: str,
) -> None:
    """Play what ``played`` lacks, and add it there and to the files."""
    from tau2_slime.generate_with_tau2 import generate

    gate = asyncio.Semaphore(plan.concurrency)

    async def play(job: Job) -> None:
        kept: list[InteractionResult] = []
        args = SimpleNamespace(
            hf_checkpoint=checkpoint,
            sglang_router_ip=host,
            sglang_router_port=port,
            rollout_max_context_len=plan.max_context_len,
            tau2_trust_remote_code=plan.trust_remote_code,
            tau2=plan.yaml_mapping,
            tau2_on_result=lambda _, result: kept.append(result),
        )
        sample = StandaloneSample(
            index=job.index,
            group_index=job.group,
            session_id=f"rollout-{job.index}",  # what the embedded policy draws its mistakes by
            prompt=f"{job.domain}/{job.split}/{job.task_id}",
            metadata={"domain": job.domain, "task_split": job.split, "task_id": job.task_id, **plan.overrides},
        )
        async with gate:
            await generate(args, sample, plan.sampling_params)
        trajectory = {"index": job.index, "group": job.group, **kept[0].to_dict()}
        append_line(plan.output_dir / SAMPLES, json.dumps(_sample_row(sample), ensure_ascii=False, default=str))
        append_line(plan.output_dir / TRAJECTORIES, json.dumps(trajectory, default=str))
        played[job.index] = Played.of(job, trajectory)
        on_done(played[job.index])

    tasks = [asyncio.create_task(play(job)) for job in plan.jobs if job.index not in played]
    try:
        await asyncio.gather(*tasks)
    finally:  # a disk that is full ends all of them
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---- the folder --------------------------------------------------------------------------------------------------------


def description(plan: RolloutPlan) -> dict[str, Any]:
    """What ``plan`` plays, as rollout.json keeps it: everything that an episode depends on, not how fast or from where."""

    settings = Tau2Config.resolve(plan.yaml_mapping, plan.overrides).model_dump(mode="json", exclude=_HOW_FAST)
    policy: dict[str, Any] = {"kind": "router", "hf_checkpoint": plan.hf_checkpoint}
    if plan.router is None:
        policy |= {"kind": "embedded", "mistakes": plan.mistakes}
    return {
        "policy": policy,
        "sampling": plan.sampling_params,
        "max_context_len": plan.max_context_len,
        "settings": settings,
        "episodes": [asdict(job) for job in plan.jobs],
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
    then, now = _fields(there), _fields(json.loads(json.dumps(description(plan))))
    # A setting that an earlier version did not record cannot contradict it.
    differing = [name for name, value in now.items() if name in then and then[name] != value]
    if differing:
        raise ConfigError(
            f"{plan.output_dir} holds another rollout already: it differs in {', '.join(differing)}; "
            "name another folder with --output-dir"
        )


def _fields(description: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a description, those that are mappings taken apart: ``settings.domain``."""
    return {
        f"{part}.{key}" if key else part: value
        for part, content in description.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


def _take_up(plan: RolloutPlan) -> dict[int, Played]:
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


async def _usable(plan: RolloutPlan, checkpoint: str) -> str:
    """``checkpoint``, once its tokenizer and chat template have proved themselves: not 100 failed episodes, one error."""
    from tau2_slime.policy.checkpoint import profile_for

    config = Tau2Config.resolve(plan.yaml_mapping, plan.overrides)
    await profile_for(checkpoint, config, trust_remote_code=plan.trust_remote_code)
    return checkpoint


async def users_can_play(plan: RolloutPlan) -> None:
    """Raises ConfigError if it is known beforehand that a user model can make no call: then every episode would fail."""
    from tau2_slime.episode.setup import check_user, models_of

    config = Tau2Config.resolve(plan.yaml_mapping, plan.overrides)
    for name in models_of(config):
        await offload(check_user, config, name)


@contextlib.asynccontextmanager
async def _policy(plan: RolloutPlan) -> AsyncIterator[tuple[str, str]]:
    """``(url, checkpoint)`` of the policy: the given router, or the embedded one for as long as it is needed."""
    if plan.router is not None:
        if plan.hf_checkpoint is None:
            raise ConfigError("--router needs --hf-checkpoint: the tokenizer and chat template of the model it serves")
        address(plan.router)
        yield plan.router, await _usable(plan, plan.hf_checkpoint)
        return
    from tau2_slime.local.policy_server import PolicyServer
    from tau2_slime.local.tokenizer import local_checkpoint

    checkpoint = await _usable(plan, plan.hf_checkpoint or str(await offload(local_checkpoint)))
    async with PolicyServer(checkpoint, mistakes=plan.mistakes) as server:
        yield server.url, checkpoint


def _sample_row(sample: StandaloneSample) -> dict[str, Any]:
    row = {k: v for k, v in vars(sample).items() if k != "status"}
    return {**row, "status": sample.status.value}


def summarise(played: Sequence[Played], seconds: float) -> dict[str, Any]:
    """Counts and means of a finished rollout; failed episodes are counted, never averaged in."""
    scored = [p.reward for p in played if p.reward is not None]
    by_status: dict[str, int] = {}
    for p in played:
        by_status[p.status] = by_status.get(p.status, 0) + 1
    return {
        "episodes": len(played),
        "status": by_status,
        "mean_reward": sum(scored) / len(scored) if scored else None,
        "excluded": sum(p.failed for p in played),
        "sampled_tokens": sum(p.sampled_tokens for p in played),
        "context_tokens": sum(p.context_tokens for p in played),
        "telemetry": telemetry_metrics(p.telemetry for p in played if not p.failed),
        "user_cost": sum(p.user_cost for p in played),
        "seconds": round(seconds, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
