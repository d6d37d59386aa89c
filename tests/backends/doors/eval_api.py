"""Stand-alone evaluation of a model behind an API: `ApiPolicy`, as `tau2-slime eval --policy-model` plays."""

from __future__ import annotations

from typing import Any

from tau2_slime.evaluation.runner.api_agent import ApiSpec
from tau2_slime.evaluation.runner.policies import ApiPolicy
from tests.backends.doors.cases import Case
from tests.backends.doors.eval_router import job_of
from tests.backends.doors.records import Record, record_of
from tests.backends.doors.stage import Stage


class Door:
    def __init__(self, stage: Stage, chat: str, options: Any) -> None:
        self._stage, self._chat = stage, chat

    async def __aenter__(self) -> Door:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def play(self, case: Case) -> Record:
        policy = ApiPolicy(ApiSpec(f"openai/{case.key}", f"{self._chat}/policy/v1", retries=0))
        result = await policy.play(job_of(case, self._stage.settings(case, self._chat)), lambda: False)
        return record_of(case.key, result.to_dict(tokens=False), paid=result.reward if result.trainable else None)
