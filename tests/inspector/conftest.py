"""Real rollouts of the embedded policy, made once, and copies of them to spoil."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tau2_slime.rollout import RolloutPlan, plan_jobs, run


@pytest.fixture(scope="session")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `tau2-slime rollout` leaves it: mock and retail, two attempts each, some gone wrong."""
    folder = tmp_path_factory.mktemp("rollout")
    mock = plan_jobs(["mock"], None, ["create_task_1", "update_task_1"], None, 2)
    retail = plan_jobs(["retail"], None, ["0", "1"], None, 2)
    plan = RolloutPlan(
        jobs=[*mock, *(replace(job, group=job.group + 2, index=job.index + len(mock)) for job in retail)],
        output_dir=folder,
        overrides={"user_model": "scripted", "max_turns": 60},
        sampling_params={"temperature": 1.0, "max_new_tokens": 512},
        mistakes=0.5,
    )
    asyncio.run(run(plan))
    (folder / "summary.json").write_text(json.dumps({"embedded": True}))
    return folder
