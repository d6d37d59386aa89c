"""Real rollouts of the embedded policy, made once, and copies of them to spoil."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tau2_slime.rollout import RolloutPlan, plan_jobs, run


@pytest.fixture(scope="session")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `tau2-slime rollout` leaves it: mock and retail, two attempts each, some gone wrong."""
    folder = tmp_path_factory.mktemp("rollout")
    plan = RolloutPlan(
        jobs=plan_jobs(["mock", "retail"], None, [], 2, 2),
        output_dir=folder,
        overrides={"user_model": "scripted", "max_turns": 60},
        sampling_params={"temperature": 1.0, "max_new_tokens": 512},
        mistakes=0.5,
    )
    asyncio.run(run(plan))
    (folder / "summary.json").write_text(json.dumps({"embedded": True}))
    return folder
