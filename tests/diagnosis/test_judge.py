"""A model that is asked about failures: its answers are kept apart, checked, paid for once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.diagnosis.decide import diagnose
from tau2_slime.diagnosis.findings import Diagnosis
from tau2_slime.diagnosis.judge import Opinions, judge_all, worth_asking
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.world import judge
from tau2_slime.world.judge import JudgeSpec
from tests.evaluation.api_server import ApiServer

from .corruptions import labelled

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(judge, "BACKOFF_MAX", 0.002)


def failure() -> tuple[Trajectory, Diagnosis]:
    trajectory, _ = labelled(1, kinds=iter(["wrong_argument.payment"]))[0]
    return trajectory, diagnose(trajectory, "run")


def saying(trajectory: Trajectory, **changes: Any) -> dict[str, Any]:
    user = next(i for i, m in enumerate(trajectory.messages) if m["role"] == "user")
    quote = trajectory.messages[user]["content"][:30]
    return {"content": json.dumps({"who": "user", "what": "leak", "turn": user, "quote": quote, "why": "x", **changes})}


async def test_an_opinion_stands_beside_the_rules_and_is_paid_for_once(tmp_path: Path) -> None:
    trajectory, diagnosis = failure()
    async with ApiServer(lambda body: saying(trajectory)) as server:
        spec = JudgeSpec("openai/judge", base_url=server.url, args={"temperature": 0.0})
        assert await judge_all([(trajectory, diagnosis)], spec, Opinions(tmp_path / "cache.jsonl")) == []
        _, again = failure()
        assert await judge_all([(trajectory, again)], spec, Opinions(tmp_path / "cache.jsonl")) == []
    assert len(server.requests) == 1
    for each in (diagnosis, again):
        line = each.to_dict()
        assert (line["who"], line["what"], line["by"]) == ("agent", "wrong_argument", "rules")
        assert isinstance(line["judge"], dict)
        assert (line["judge"]["what"], line["judge"]["agrees"]) == ("leak", False)
    seen = json.dumps(server.requests[0]["messages"])
    write = next(m["tool_calls"][0]["name"] for m in reversed(trajectory.messages) if m.get("tool_calls"))
    assert write in seen and "# Policy" in seen and "# Scenario" in seen


@pytest.mark.parametrize("changes", [{"quote": "nobody said this"}, {"what": "bad luck"}, {"turn": 9999}])
async def test_an_answer_that_cannot_be_checked_is_dropped(changes: dict[str, Any]) -> None:
    trajectory, diagnosis = failure()
    async with ApiServer(lambda body: saying(trajectory, **changes)) as server:
        spec = JudgeSpec("openai/judge", base_url=server.url, args={"temperature": 0.0}, retries=1)
        (problem,) = await judge_all([(trajectory, diagnosis)], spec, Opinions(None))
    assert diagnosis.judge is None and diagnosis.episode in problem


async def test_a_refused_key_is_one_error() -> None:
    pairs = [failure() for _ in range(3)]
    async with ApiServer(lambda body: {"status": 401, "message": "invalid api key"}) as server:
        spec = JudgeSpec("openai/judge", base_url=server.url, args={"temperature": 0.0}, concurrency=1)
        with pytest.raises(ConfigError, match="nothing more was asked"):
            await judge_all(pairs, spec, Opinions(None))
    assert len(server.requests) <= 2


async def test_only_what_the_rules_are_not_sure_of_is_asked_about() -> None:
    _, diagnosis = failure()
    assert not worth_asking(diagnosis, every=False)
    assert worth_asking(diagnosis, every=True)
    _, broken = next((t, diagnose(t)) for t, _ in labelled(1, kinds=iter(["infrastructure"])))
    assert not worth_asking(broken, every=True)


async def test_every_answer_that_was_paid_for_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "cache.jsonl"
    first = Opinions(file)
    first.add("separators", {"quote": "one\u2028two\x85three"})
    with file.open("a") as opened:
        opened.write('{"key": "cut", "opi')  # the process was killed here
    Opinions(file).add("after it", {"quote": "plain"})
    again = Opinions(file)
    assert again.get("separators") == {"quote": "one\u2028two\x85three"}
    assert again.get("after it") == {"quote": "plain"}
