"""--max-cost and a user simulator of one's own: what it reports is counted, once, and the limit of that is told first."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.evaluation.plan.datasets import default_plan
from tau2_slime.evaluation.runner.api_agent import ApiSpec
from tau2_slime.evaluation.runner.budget import Budget, parse_prices
from tau2_slime.evaluation.runner.policies import ApiPolicy
from tau2_slime.evaluation.runner.run import End, Options, Runner
from tau2_slime.evaluation.store.records import Store, jobs
from tests import command_line
from tests.evaluation.api_server import ApiServer

USERS = """
from tau2.data_model.message import UserMessage
from tau2_slime.local.scripted_user import STYLES, ScriptedUser
from tau2_slime.world.users import LitellmUser, UserStats


class Counting(ScriptedUser):
    def __init__(self, context):
        super().__init__(context.task, context.domain, context.split, STYLES["scripted"])

    async def reply(self, message):
        said = await super().reply(message)  # counts the call
        self.stats.prompt_tokens += 100
        self.stats.completion_tokens += 10
        return said


class Costly(Counting):
    async def reply(self, message):
        self.stats.cost += 0.25
        return await super().reply(message)


class Silent(Counting):
    async def reply(self, message):
        said = await super().reply(message)
        self.stats = UserStats()
        return said


class Delegating:
    def __init__(self, context):
        self.simulator = LitellmUser(context.spec, tools=context.tools, instructions=context.instructions)
        self.stats = self.simulator.stats

    def start(self, history):
        self.simulator.start(history)

    async def reply(self, message):
        await self.simulator.reply(message)
        self.stats.cost += self.extra
        self.stats.calls += bool(self.extra)
        return UserMessage(role="user", content="###STOP###")

    extra = 0.0


class Judging(Delegating):
    extra = 0.5
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "budget_users.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def evaluate(modules: Path, folder: Path, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_")}
    environment = {**kept, "PYTHONPATH": str(modules), "XDG_CACHE_HOME": str(modules), "COLUMNS": "140"}
    command = ["eval", "--domain", "mock", "--tasks", "2", "--attempts", "2"]
    command += ["--user-model", "x", "--set", f"user_path=budget_users.{user}", "--concurrency", "1", "--no-baselines"]
    command += ["--output-dir", str(folder), *arguments]
    return command_line.run(*command, environ=environment)


def bills(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "costs.jsonl").read_text().splitlines()]


def test_what_a_simulator_reports_ends_the_run_and_is_in_the_report(modules: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = evaluate(modules, folder, "Costly", "--max-cost", "0.1")
    assert done.returncode == 3, done.stdout + done.stderr
    told = "--max-cost does not see every call of the user simulator budget_users.Costly"
    assert done.stdout.count(told) == 1
    assert done.stdout.index(told) < done.stdout.index("Policy: ")
    assert "the next call could pass --max-cost 0.1" in done.stdout
    (bill,) = bills(folder)
    (record,) = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    calls = record["stats"]["user_calls"]
    assert calls > 0
    assert bill == {
        **{"role": "user", "model": "budget_users.Costly:x", "calls": calls, "cost": calls / 4},
        **{"prompt_tokens": 100 * calls, "reply_tokens": 10 * calls},
    }
    assert record["cost"] == {"policy": 0.0, "user": calls / 4}
    (cost,) = json.loads((folder / "summary.json").read_text())["costs"]
    assert (cost["calls"], cost["cost"]) == (calls, calls / 4)
    again = evaluate(modules, folder, "Costly", "--max-cost", "0.1")
    assert again.returncode == 3
    assert len(bills(folder)) == 1  # nothing is played: the money is spent
    more = evaluate(modules, folder, "Costly", "--max-cost", "1000")
    assert more.returncode == 0, more.stdout + more.stderr
    assert len(bills(folder)) == 4


def test_the_last_episode_may_use_up_the_budget_and_the_run_is_complete(modules: Path, tmp_path: Path) -> None:
    done = evaluate(modules, tmp_path / "run", "Costly", "--max-cost", "0.1", "--tasks", "1", "--attempts", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_simulator_that_reports_nothing_costs_nothing_and_that_is_told(modules: Path, tmp_path: Path) -> None:
    done = evaluate(modules, tmp_path / "run", "Silent", "--max-cost", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not see every call of the user simulator budget_users.Silent" in done.stdout
    assert not (tmp_path / "run" / "costs.jsonl").exists()
    done = evaluate(modules, tmp_path / "unlimited", "Silent")
    assert "does not see" not in done.stdout


def test_reported_tokens_have_the_price_that_is_given_for_them(modules: Path, tmp_path: Path) -> None:
    price = ("--price", "budget_users.Counting:x=1000,5000")
    assert evaluate(modules, tmp_path / "priced", "Counting", *price).returncode == 0
    for bill in bills(tmp_path / "priced"):
        assert bill["cost"] == pytest.approx(bill["calls"] * (100 * 1e-3 + 10 * 5e-3))
    done = evaluate(modules, tmp_path / "unpriced", "Counting")
    assert all(bill["cost"] == 0 and bill["unpriced"] for bill in bills(tmp_path / "unpriced"))
    assert "price unknown" in done.stdout


@pytest.mark.parametrize(("user", "own_calls", "own_cost"), [("Delegating", 0, 0.0), ("Judging", 1, 0.5)])
async def test_calls_through_litellm_user_are_counted_once(
    modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, own_calls: int, own_cost: float
) -> None:
    def hello(body: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": "Hello, please help me."}

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    async with ApiServer(hello) as server:
        overrides = {"user_path": f"budget_users.{user}", "user_base_url": server.url}
        plan = default_plan(["mock"], ["openai/own"], tasks=1, attempts=1, overrides=overrides)
        policy = ApiPolicy(ApiSpec("openai/policy", base_url=server.url))
        prices = parse_prices(["openai/own=100,0", "openai/policy=0,0"])
        budget = Budget(tmp_path / "costs.jsonl", 1000.0, prices)
        with Store(tmp_path).writing() as store:
            end = await Runner(jobs(plan), policy, store, budget, Options(retries=0)).run()
    assert end is End.COMPLETE
    (record,) = store.records.values()
    assert record["cost"]["user"] == pytest.approx(0.1 + own_cost)  # 1,000 tokens of the server's answer, and its own
    assert budget.bills["user", "openai/own"].calls == 1
    reported = budget.bills.get(("user", f"budget_users.{user}:openai/own"))
    assert (reported.calls if reported else 0) == own_calls
    again = Budget(tmp_path / "costs.jsonl", 1000.0, prices)
    assert again.bills == budget.bills
    assert again.spent == pytest.approx(0.1 + own_cost)
