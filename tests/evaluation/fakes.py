"""A policy backend that plays as it is told, without tokens, models or τ²."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.result import InteractionResult
from tau2_slime.evaluation.plan.datasets import Dataset, Item, Plan, sampling_params
from tau2_slime.evaluation.store.records import Job
from tau2_slime.outcome import Blame, Termination, blame_for

Script = Callable[[Job, int], tuple[Termination, float | None]]
"""(job, how often it was played before) -> how it ends and what it earns."""


class FakePolicy:
    unfinished = None
    """No person plays the user."""

    def __init__(self, script: Script, *, delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.played: list[tuple[str, str, int]] = []
        self.running = self.most = 0

    async def __aenter__(self) -> FakePolicy:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {"kind": "fake", "name": "fake"}

    def paid_models(self) -> list[tuple[str, bool]]:
        return []

    async def play(self, job: Job, stopped: Callable[[], bool]) -> InteractionResult:
        before = self.played.count(job.name)
        self.played.append(job.name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        termination, reward = self.script(job, before)
        blame = blame_for(termination)
        failed = blame in (Blame.USER, Blame.INFRASTRUCTURE)
        config = job.item.config
        return InteractionResult(
            config.domain,
            config.task_split,
            job.item.task_id,
            config.agent_type,
            config.user_model,
            termination,
            blame,
            detail=f"{termination} happened" if failed else "",
            reward=None if failed else reward,
        )


def plan(tasks: int = 3, attempts: int = 2, users: Sequence[str] = ("scripted",)) -> Plan:
    datasets = []
    for user in users:
        config = Tau2Config(domain="mock", task_split="base", user_model=user)
        items = tuple(Item(config, {"task_id": f"t{i}"}, f"t{i}") for i in range(tasks))
        datasets.append(Dataset(f"mock-{user}", items, attempts, sampling_params({})))
    return Plan(tuple(datasets), "test")
