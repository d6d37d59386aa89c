"""Stand-alone evaluation, the token path: `RouterPolicy`, as `tau2-slime eval --router` plays."""

from __future__ import annotations

from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.evaluation.plan.datasets import Dataset, Item, sampling_params
from tau2_slime.evaluation.runner.policies import RouterPolicy
from tau2_slime.evaluation.store.records import Job
from tests.backends.doors import slime
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, record_of


def job_of(case: Case, settings: dict[str, Any]) -> Job:
    metadata = {"task_id": case.task_id, **settings}
    item = Item(Tau2Config(**settings), metadata, case.task_id)
    return Job(Dataset(case.key, (item,), 1, sampling_params({"max_response_len": 4096})), item, 0)


class Door(slime.Door):
    async def __aenter__(self) -> Door:
        await super().__aenter__()
        policy = RouterPolicy(self._server.url, self._options.checkpoint, Tau2Config(), max_context_len=slime.CONTEXT)
        self._policy = await policy.__aenter__()
        return self

    async def play(self, case: Case) -> Record:
        job = job_of(case, self._stage.settings(case, self._chat))
        result = await self._policy.play(job, lambda: False)
        return record_of(case.key, result.to_dict(tokens=False), paid=result.reward if result.trainable else None)
