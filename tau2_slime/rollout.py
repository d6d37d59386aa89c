"""Rollouts without a training job: the real `generate` over a router, or over the embedded policy.

`run` plays groups of samples exactly as slime would hand them over and appends every finished episode to two files:
``samples.jsonl`` (what slime would train on) and ``trajectories.jsonl`` (everything: messages, tokens, blame, reward).
`observe.rollout_folder` takes an interrupted rollout up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import absolute
from tau2_slime.data.selection import unplayable
from tau2_slime.episode.examples import examples_of
from tau2_slime.episode.play import play_and_score
from tau2_slime.episode.result import InteractionResult, failed_result
from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.errors import CannotResume, ConfigError
from tau2_slime.observe.rollout_folder import (
    SAMPLES,
    TRAJECTORIES,
    BuildEpisode,
    Job,
    Played,
    RolloutPlan,
    refuse_other_rollouts,
    take_up,
)
from tau2_slime.observe.unfinished import Follow, Unfinished
from tau2_slime.outcome import Blame, Termination
from tau2_slime.runtime.address import address, answers
from tau2_slime.runtime.files import append_line, hold_folder
from tau2_slime.runtime.loops import offload, to_its_end
from tau2_slime.runtime.text import shown
from tau2_slime.slime_adapter import resume
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample, is_interrupted
from tau2_slime.world import domains, retrieval

__all__ = ["Job", "Played", "RolloutPlan", "plan_jobs", "run", "run_in_held_folder", "summarise"]


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
    refused: list[str] = []
    group = 0
    for domain in chosen:
        wanted_split = absolute(split or domains.usual_split(domain, "train", task_ids))
        retrieval.require(domain, config.environment)
        pool = domains.tasks(domain, wanted_split)
        named = [domains.find_task(domain, wanted_split, task_id=task_id) for task_id in task_ids]
        why = partial(unplayable, domain, agent_type=config.agent_type, allow_judge=config.allow_llm_judge)
        for task in named:
            if reason := why(task):
                raise ConfigError(f"--task-id {task.id}: {reason}")
        playable = named or list(islice((task for task in pool if why(task) is None), groups))
        if not playable:
            first = next(iter(pool))
            refused.append(f"{domain}, task {first.id}: {why(first)}")
        for task in playable:
            examples_of(
                config, domain, wanted_split, task.id
            )  # what is wrong with them is told before anything is played
            for _ in range(samples_per_prompt):
                jobs.append(Job(domain, wanted_split, task.id, group, len(jobs)))
            group += 1
    if not jobs:
        raise ConfigError(
            f"{', '.join(chosen)}: no task that --agent-type {config.agent_type} can play and τ² can score "
            f"({shown('; '.join(refused))})"
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
    async with _policy(plan) as play:
        await users_can_play(plan)
        played = await offload(take_up, plan)
        for done in played.values():
            on_done(done)
        await _play_the_rest(plan, played, on_done, play)
    return [played[job.index] for job in plan.jobs if job.index in played]


Play = Callable[[Job, StandaloneSample, Follow], Awaitable[InteractionResult]]
"""Plays one episode and fills its sample."""


async def _play_the_rest(
    plan: RolloutPlan, played: dict[int, Played], on_done: Callable[[Played], None], play_one: Play
) -> None:
    """Play what ``played`` lacks, and add it there and to the files."""
    unfinished = Unfinished(plan.output_dir)
    unfinished.drop(map(str, played))
    gate, writing = asyncio.Semaphore(plan.concurrency), asyncio.Lock()
    ready: list[tuple[int, str, str]] = []
    written: dict[int, OSError | None] = {}

    async def play(job: Job) -> None:
        sample = unfinished.take(str(job.index)) or StandaloneSample(
            index=job.index,
            group_index=job.group,
            session_id=f"rollout-{job.index}",  # what the embedded policy draws its mistakes by
            prompt=f"{job.domain}/{job.split}/{job.task_id}",
            metadata={"domain": job.domain, "task_split": job.split, "task_id": job.task_id, **plan.overrides},
        )
        async with gate:
            if plan.stopped():
                return
            result = await play_one(job, sample, partial(unfinished.follow, str(job.index)))
        if result.termination is Termination.ABORTED:
            return
        trajectory = {"index": job.index, "group": job.group, **result.to_dict()}
        row = json.dumps(sample.row(), ensure_ascii=False, default=str)
        await to_its_end(keep(job, row, trajectory))
        if result.blame is not Blame.INFRASTRUCTURE:
            unfinished.drop([str(job.index)])

    async def keep(job: Job, row: str, trajectory: dict[str, Any]) -> None:
        ready.append((job.index, row, json.dumps(trajectory, default=str)))
        async with writing:  # a thread waits for the disk; the other episodes do not
            if job.index not in written:  # what became ready while others were written goes in one hand-over
                await offload(write, ready[:])
        if (error := written[job.index]) is not None:
            raise error
        played[job.index] = Played.of(job, trajectory)
        on_done(played[job.index])

    def write(records: list[tuple[int, str, str]]) -> None:
        for index, row, trajectory in records:
            ready.pop(0)
            written[index] = None
            try:
                append_line(plan.output_dir / SAMPLES, row)
                append_line(plan.output_dir / TRAJECTORIES, trajectory)
            except OSError as error:
                written[index] = error

    tasks = [asyncio.create_task(play(job)) for job in plan.jobs if job.index not in played]
    try:
        await asyncio.gather(*tasks)
    finally:  # a disk that is full ends all of them
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _with_tokens(plan: RolloutPlan, url: str, checkpoint: str) -> Play:
    """The door that slime opens, against a server at ``url``."""
    from tau2_slime.generate_with_tau2 import generate

    host, port = address(url)

    async def play(_: Job, sample: StandaloneSample, follow: Follow) -> InteractionResult:
        kept: list[InteractionResult] = []
        args = SimpleNamespace(
            hf_checkpoint=checkpoint,
            sglang_router_ip=host,
            sglang_router_port=port,
            rollout_max_context_len=plan.max_context_len,
            tau2_trust_remote_code=plan.trust_remote_code,
            tau2=plan.yaml_mapping,
            tau2_aborted=plan.stopped,
            tau2_on_setup=follow,
            tau2_on_result=lambda _, result: kept.append(result),
        )
        await generate(args, sample, plan.sampling_params)
        return kept[0]

    return play


def _with_messages(plan: RolloutPlan, build: BuildEpisode) -> Play:
    """A model behind an API: the sample has no tokens to train on, the trajectory everything that was said."""

    async def play(job: Job, sample: StandaloneSample, follow: Follow) -> InteractionResult:
        named = {"domain": job.domain, "task_split": job.split}
        config = Tau2Config.resolve(plan.yaml_mapping, {**plan.overrides, **named})
        model = config.user_model_for(job.index, evaluation=False, group_index=job.group)
        try:
            setup = await build(config, job.task_id, model, job.index)
            follow(setup, sample)
            saved = resume.read(sample, setup.identity) if is_interrupted(sample) else None
            result = await play_and_score(setup, aborted=plan.stopped, saved=saved)
        except (ConfigError, CannotResume) as error:
            result = failed_result(str(error), termination=Termination.CONFIG_ERROR)
        fill_sample(sample, result)
        return result

    return play


async def _usable(plan: RolloutPlan, checkpoint: str) -> str:
    """``checkpoint``, once its tokenizer and chat template have proved themselves, and every first prompt fits: not 100
    failed episodes, one error."""
    from tau2_slime.policy.checkpoint import profile_for
    from tau2_slime.policy.context_plan import longest_first_prompt

    config = Tau2Config.resolve(plan.yaml_mapping, plan.overrides)
    profile = await profile_for(checkpoint, config, trust_remote_code=plan.trust_remote_code)
    played = [
        (config.model_copy(update={"domain": job.domain, "task_split": job.split}), job.task_id) for job in plan.jobs
    ]
    await offload(longest_first_prompt, played, profile, plan.max_context_len)
    return checkpoint


async def users_can_play(plan: RolloutPlan) -> None:
    """Raises ConfigError if it is known beforehand that a user model can make no call: then every episode would fail."""
    from tau2_slime.episode.users import check_user, models_of

    config = Tau2Config.resolve(plan.yaml_mapping, plan.overrides)
    for name in models_of(config):
        await offload(check_user, config, name)


@contextlib.asynccontextmanager
async def _policy(plan: RolloutPlan) -> AsyncIterator[Play]:
    """What plays with the policy: an API, the given router, or the embedded one for as long as it is needed."""
    if plan.api is not None:
        yield _with_messages(plan, plan.api[1])
        return
    if plan.router is not None:
        if plan.hf_checkpoint is None:
            raise ConfigError("--router needs --hf-checkpoint: the tokenizer and chat template of the model it serves")
        host, port = address(plan.router)
        checkpoint = await _usable(plan, plan.hf_checkpoint)
        await answers(host, port)
        yield _with_tokens(plan, plan.router, checkpoint)
        return
    from tau2_slime.local.policy_server import PolicyServer
    from tau2_slime.local.tokenizer import local_checkpoint

    checkpoint = await _usable(plan, plan.hf_checkpoint or str(await offload(local_checkpoint)))
    server = PolicyServer(
        checkpoint,
        spelling=plan.spelling,
        mistakes=plan.mistakes,
        noise=plan.policy_noise,
        gives_up=1 - plan.gold_rate,
        played={(job.domain, job.split) for job in plan.jobs},
    )
    async with server:
        yield _with_tokens(plan, server.url, checkpoint)


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
