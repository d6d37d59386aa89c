"""verifiers' v1 door: its own runs of `Tau2Env` through its interception, with its client on the stage's server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, record_of
from tests.backends.doors.stage import Stage

PACKAGE = Path(__file__).resolve().parents[3] / "environments" / "tau2_bench"


class Door:
    def __init__(self, stage: Stage, chat: str, options: Any) -> None:
        self._stage, self._chat = stage, chat

    async def __aenter__(self) -> Door:
        import verifiers.v1 as vf

        sys.path.insert(0, str(PACKAGE))
        from tau2_slime.backends.verifiers import load_environment

        os.environ["STAGE_KEY"] = "none"
        self._env = load_environment(domain="mock", task_split="base", user_llm="scripted")
        self._client = vf.EvalClientConfig(base_url=f"{self._chat}/policy/v1", api_key_var="STAGE_KEY")
        self._serving = self._env.serving()
        await self._serving.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._serving.__aexit__(None, None, None)

    async def play(self, case: Case) -> Record:
        import verifiers.v1 as vf

        from tau2_slime.backends.verifiers.v1 import Tau2Task, Tau2TaskData

        config = Tau2Config(**self._stage.settings(case, self._chat))
        settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"domain", "task_split"})
        place = {"domain": case.domain, "task_split": case.split, "task_id": case.task_id}
        data = Tau2TaskData(id=case.key, name=case.key, prompt="τ²", settings=settings, **place)
        (slot,) = self._env.slots(Tau2Task(data, self._env.taskset.config.task), 1)
        context = vf.ModelContext(model=case.key, client=self._client, sampling=vf.SamplingConfig())
        episode = await self._env.run_slot(slot, context, None)
        (trace,) = episode.traces
        return record_of(case.key, trace.info["tau2"], paid=trace.reward if trace.ok else None)
