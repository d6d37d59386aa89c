"""verifiers' v0 door: its own rollout and rubric over `Tau2Env`, with an OpenAI client on the stage's server."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, record_of
from tests.backends.doors.stage import Stage


class Door:
    def __init__(self, stage: Stage, chat: str, options: Any) -> None:
        self._stage, self._chat = stage, chat

    async def __aenter__(self) -> Door:
        import verifiers as vf

        os.environ["STAGE_KEY"] = "none"
        self._client = vf.ClientConfig(
            api_base_url=f"{self._chat}/policy/v1", api_key_var="STAGE_KEY", connect_timeout=300.0, max_retries=0
        )
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def play(self, case: Case) -> Record:
        from tau2_slime.backends.verifiers import load_environment
        from tau2_slime.backends.verifiers.state_view import EPISODE_KEY

        settings = self._stage.settings(case, self._chat)
        del settings["drift_rate"]  # of tokens, which are not this door's
        env = load_environment(user_llm=settings.pop("user_model"), **settings)
        info = {"domain": case.domain, "task_split": case.split, "task_id": case.task_id}
        row = {"example_id": 0, "prompt": [], "answer": "", "info": json.dumps(info)}
        state = await env.rollout(row, self._client, case.key, {})
        await env.rubric.score_rollout(state)
        record = record_of(case.key, state[EPISODE_KEY].result.to_dict(tokens=False))
        return {**record, "paid": None if state["error"] else state["reward"]}
