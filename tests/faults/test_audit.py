"""`audit_rate` reaches the reward of a whole episode."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.world import scoring
from tests.faults.conftest import PAID, Stage, outcome


@pytest.mark.parametrize(("rate", "audits"), [(0.0, 0), (1.0, 1)])
async def test_the_reward_of_an_audited_episode_is_the_official_one(
    stage: Stage, rate: float, audits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def audit(info: Any, *_: Any) -> Any:
        asked.append(info)
        return info.model_copy(update={"reward": 0.5})

    monkeypatch.setattr(scoring, "audit", audit)
    sample = await stage.play(audit_rate=rate)
    assert outcome(sample) == PAID and len(asked) == audits
    assert sample.reward == (0.5 if audits else 1.0)
