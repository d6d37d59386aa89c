"""A sample says which task it is, or it is refused before the first token: the defaults never choose a row's task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.faults.conftest import GOLD, PAID, TASK, Stage, Status, check_sample, detail, outcome


async def play(stage: Stage, metadata: Any, prompt: Any = "", **tau2: Any) -> StandaloneSample:
    from tau2_slime import generate_with_tau2

    stage.router.script = GOLD
    sample = StandaloneSample(index=5, session_id="episode", prompt=prompt, metadata=metadata)
    await generate_with_tau2.generate(stage.args(**tau2), sample, {"max_new_tokens": 512})
    check_sample(sample)
    return sample


async def test_metadata_as_json_text_is_what_it_says(stage: Stage) -> None:
    sample = await play(stage, json.dumps({**TASK, "source": "hf"}))
    assert outcome(sample) == PAID
    assert sample.metadata["tau2"]["task_id"] == "create_task_1"
    assert sample.metadata["source"] == "hf", "what the row said stays"


@pytest.mark.parametrize(
    "metadata", [[TASK], 3, True, "create_task_1", json.dumps([TASK]), '{"domain": ', "[" * 100_000]
)
async def test_any_other_metadata_is_refused_and_shown(stage: Stage, metadata: Any) -> None:
    sample = await play(stage, metadata, prompt="3")
    assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
    assert "not a mapping" in detail(sample)
    assert str(metadata)[:10] in detail(sample)
    assert len(detail(sample)) < 500
    assert not stage.router.asks


@pytest.mark.parametrize(
    ("metadata", "missing"),
    [
        (None, "domain and task_split"),
        ({}, "domain and task_split"),
        ({"task_id": "5"}, "domain and task_split"),
        ({"domain": "retail", "task_id": "5"}, "task_split"),
        ({"task_split": "train", "task_id": "5"}, "domain"),
    ],
)
async def test_defaults_name_no_task(stage: Stage, metadata: Any, missing: str) -> None:
    sample = await play(stage, metadata, prompt="3")
    assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
    assert f"the row's {missing}:" in detail(sample)
    assert not stage.router.asks


async def test_settings_of_the_run_may_name_domain_and_split(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU2_TASK_SPLIT", "base")
    sample = await play(stage, {"task_id": "create_task_1"}, domain="mock")
    assert outcome(sample) == PAID
