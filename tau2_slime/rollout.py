"""Rollouts without a training job: the real `generate` over a router, or over the embedded policy.

`run` plays groups of samples exactly as slime would hand them over and appends every finished episode to two files:
``samples.jsonl`` (what slime would train on) and ``trajectories.jsonl`` (everything: messages, tokens, blame, reward).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Status
from tau2_slime.runtime.address import address, answers
from tau2_slime.runtime.loops import offload
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.world import domains


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
    overrides: dict[str, Any] = field(default_factory=dict)
    """`Tau2Config` keys that win over everything (a data row's metadata)."""
    yaml_mapping: dict[str, Any] = field(default_factory=dict)
    """The ``tau2:`` mapping of a config file."""
    sampling_params: dict[str, Any] = field(default_factory=dict)
    max_context_len: int | None = None
    concurrency: int = 64
    mistakes: float = 0.0
    """Embedded policy: share of episodes in which it errs."""


@dataclass
class Played:
    """One finished episode."""

    job: Job
    sample: StandaloneSample
    result: InteractionResult


def plan_jobs(
    chosen: Sequence[str], split: str | None, task_ids: Sequence[str], groups: int | None, samples_per_prompt: int
) -> list[Job]:
    """The episodes of ``groups`` tasks a domain (or of exactly ``task_ids``), ``samples_per_prompt`` each.

    Raises:
        ConfigError: an unknown domain, split or task.
    """
    jobs: list[Job] = []
    group = 0
    for domain in chosen:
        known = domains.splits(domain)
        wanted_split = split or ("train" if "train" in known else "base")
        pool = domains.tasks(domain, wanted_split)
        if task_ids:
            tasks = [domains.find_task(domain, wanted_split, task_id=task_id) for task_id in task_ids]
        else:
            tasks = list(pool[:groups])
        for task in tasks:
            for _ in range(samples_per_prompt):
                jobs.append(Job(domain, wanted_split, task.id, group, len(jobs)))
            group += 1
    return jobs


async def run(plan: RolloutPlan, on_done: Callable[[Played], None] = lambda _: None) -> list[Played]:
    """Play every job and return the finished episodes in the order of ``plan.jobs``.

    Each is written to ``plan.output_dir`` the moment it ends, so that an interrupt loses only what was under way.

    Raises:
        ConfigError: the folder holds a rollout already, nothing answers at the router's address, the checkpoint cannot be
            used, or a user model has no key.
    """
    from tau2_slime.generate_with_tau2 import generate

    if (plan.output_dir / "samples.jsonl").exists():  # perhaps hours of a paid simulator
        raise ConfigError(f"{plan.output_dir} holds a rollout already; name another folder with --output-dir")
    played: dict[int, Played] = {}
    gate = asyncio.Semaphore(plan.concurrency)
    async with _policy(plan) as (url, checkpoint):
        host, port = address(url)
        await answers(host, port)
        await users_can_play(plan)
        plan.output_dir.mkdir(parents=True, exist_ok=True)
        with (
            (plan.output_dir / "samples.jsonl").open("w", encoding="utf-8") as samples,
            (plan.output_dir / "trajectories.jsonl").open("w", encoding="utf-8") as trajectories,
        ):

            async def play(job: Job) -> None:
                kept: list[InteractionResult] = []
                args = SimpleNamespace(
                    hf_checkpoint=checkpoint,
                    sglang_router_ip=host,
                    sglang_router_port=port,
                    rollout_max_context_len=plan.max_context_len,
                    tau2=plan.yaml_mapping,
                    tau2_on_result=lambda _, result: kept.append(result),
                )
                sample = StandaloneSample(
                    index=job.index,
                    group_index=job.group,
                    session_id=f"rollout-{job.index}",  # what the embedded policy draws its mistakes by
                    prompt=f"{job.domain}/{job.split}/{job.task_id}",
                    metadata={
                        "domain": job.domain,
                        "task_split": job.split,
                        "task_id": job.task_id,
                        **plan.overrides,
                    },
                )
                async with gate:
                    await generate(args, sample, plan.sampling_params)
                done = played[job.index] = Played(job, sample, kept[0])
                samples.write(json.dumps(_sample_row(sample), ensure_ascii=False, default=str) + "\n")
                samples.flush()
                trajectories.write(
                    json.dumps({"index": job.index, "group": job.group, **done.result.to_dict()}, default=str)
                )
                trajectories.write("\n")
                trajectories.flush()
                on_done(done)

            await asyncio.gather(*(play(job) for job in plan.jobs))
    return [played[job.index] for job in plan.jobs if job.index in played]


async def _usable(plan: RolloutPlan, checkpoint: str) -> str:
    """``checkpoint``, once its tokenizer and chat template have proved themselves: not 100 failed episodes, one error."""
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.policy.checkpoint import profile_for

    await profile_for(checkpoint, Tau2Config.resolve(plan.yaml_mapping, plan.overrides))
    return checkpoint


async def users_can_play(plan: RolloutPlan) -> None:
    """Raises ConfigError if it is known beforehand that a user model can make no call: then every episode would fail."""
    from tau2_slime.config.settings import Tau2Config
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
    scored = [p.result.reward for p in played if p.result.trainable and p.result.reward is not None]
    by_status: dict[str, int] = {}
    for p in played:
        by_status[str(p.result.status)] = by_status.get(str(p.result.status), 0) + 1
    return {
        "episodes": len(played),
        "status": by_status,
        "mean_reward": sum(scored) / len(scored) if scored else None,
        "excluded": sum(p.result.status is Status.FAILED for p in played),
        "sampled_tokens": sum(p.result.ledger.sampled_count for p in played if p.result.ledger),
        "context_tokens": sum(
            len(p.result.ledger.tokens) - p.result.ledger.sampled_count for p in played if p.result.ledger
        ),
        "telemetry": telemetry_metrics(p.result.telemetry for p in played if p.result.trainable),
        "user_cost": sum(p.result.stats.user_cost for p in played),
        "seconds": round(seconds, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
