"""What simulators cost is booked, priced and limited."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime import hooks
from tau2_slime.errors import ConfigError
from tau2_slime.world.users import spending
from tau2_slime.world.users.spending import listed_price
from tests.faults.conftest import GOLD, PAID, Stage, Status, detail, outcome, stats
from tests.faults.servers import UserMove, say

HELLO = UserMove(content="Please create the task 'Important Meeting' for user_1.")
BYE = UserMove(content="Thank you. ###STOP###")
STOPPED = (Status.FAILED, "config_error", "infrastructure")


def priced(stage: Stage, **entry: Any) -> dict[str, Any]:
    """Five tokens in and five out for each answer of the stage's user model: 0.05 dollars."""
    price = {"input": 4000, "output": 6000}
    simulator = {"name": "dear", "model": "openai/x", "base_url": stage.user.url, "price": price, **entry}
    return {"user_simulators": [simulator]}


async def test_every_answer_is_booked_the_unusable_ones_too(stage: Stage) -> None:
    image: Any = [{"type": "image_url", "image_url": {}}]
    moves = [HELLO, UserMove(content=""), UserMove(content=image), UserMove(status=503), BYE]
    sample = await stage.play(users=moves, **priced(stage))
    assert outcome(sample) == PAID
    told = stats(sample)
    assert told["user_cost"] == pytest.approx(4 * 0.05)
    assert (told["user_prompt_tokens"], told["user_completion_tokens"]) == (20, 20)
    account = spending.accounts()["dear"]
    assert (account.calls, account.failed, account.prompt_tokens, account.completion_tokens) == (4, 1, 20, 20)
    assert account.dollars == pytest.approx(0.2)
    assert 0 < account.seconds <= told["user_time"]


async def test_a_spent_budget_ends_the_run(stage: Stage) -> None:
    settings = {**priced(stage), "user_budget": 0.15}
    first = await stage.play(users=[HELLO, BYE], name="first", **settings)
    assert outcome(first) == PAID
    second = await stage.play([say("Hello?"), *GOLD], users=[HELLO, HELLO, BYE], name="second", **settings)
    assert outcome(second) == STOPPED
    assert len(stage.user.prompts) == 1, "the third dollar amount reached the budget; no call follows"
    asked = len(stage.router.asks)
    third = await stage.play(users=[HELLO, BYE], name="third", **settings)
    assert outcome(third) == STOPPED and detail(third) == detail(second)
    assert "user_budget" in detail(third) and "dear $0.15" in detail(third)
    assert len(stage.router.asks) == asked and not stage.user.prompts
    with pytest.raises(ConfigError, match="user_budget"):
        hooks.keep_informative_groups(stage.args(), [second, third])


async def test_a_verifier_without_a_price_is_refused_as_a_simulator_is(stage: Stage) -> None:
    (entry,) = priced(stage, verifier="judge")["user_simulators"]
    judge = {**entry, "name": "judge", "price": None, "verifier": None}
    simulators = [entry, {key: value for key, value in judge.items() if value is not None}]
    sample = await stage.play(
        users=[HELLO, BYE], user_simulators=simulators, user_model="dear", user_strategy="verify", user_budget=5
    )
    assert outcome(sample) == STOPPED
    assert "user_budget needs the price of the user simulator 'judge'" in detail(sample)


async def test_evaluation_goes_on_when_the_budget_is_spent(stage: Stage) -> None:
    from tau2_slime import generate_with_tau2

    settings = {**priced(stage), "user_budget": 0.01}
    await stage.play(users=[HELLO, BYE], name="first", **settings)
    stage.router.script, stage.user.script = GOLD, [HELLO, BYE]
    stage.user.prompts.clear()
    sample = stage.sample("evaluation", user_model="dear")
    params = {"temperature": 1.0, "max_new_tokens": 512}
    await generate_with_tau2.generate(stage.args(**settings), sample, params, evaluation=True)
    assert outcome(sample) == PAID


def test_a_budget_is_spent_when_the_last_cent_is() -> None:
    spending.answered("dear", 1.0, 5, 5, 0.25)
    spending.check(0.5)
    spending.answered("dear", 1.0, 5, 5, 0.25)
    with pytest.raises(ConfigError, match="user_budget"):
        spending.check(0.5)


async def test_a_budget_needs_every_price(stage: Stage) -> None:
    sample = await stage.play(users=[HELLO, BYE], **priced(stage, price=None), user_budget=5)
    assert outcome(sample) == STOPPED
    assert "price" in detail(sample) and "'dear'" in detail(sample)
    assert not stage.user.prompts


async def test_what_slime_serves_is_free(stage: Stage) -> None:
    settings = {**priced(stage, price=None, base_url="sglang:user"), "user_budget": 5}
    routers = {"user": ("127.0.0.1", stage.user.port)}
    sample = await stage.play(users=[HELLO, BYE], args={"sglang_model_routers": routers}, **settings)
    assert outcome(sample) == PAID
    assert stats(sample)["user_cost"] == 0.0
    assert spending.accounts()["dear"].calls == 2


async def test_the_log_says_what_the_process_has_spent(stage: Stage) -> None:
    sample = await stage.play(users=[HELLO, UserMove(status=503), BYE], **priced(stage))
    logged: dict[str, Any] = {}
    hooks.log_train_rollout(0, SimpleNamespace(), [sample], logged, 1.0)
    told = {name.removeprefix("rollout/tau2/"): value for name, value in logged.items()}
    assert told["user_model/spent"] == told["user/dear/spent"] == pytest.approx(0.10)
    assert told["user/dear/calls_failed"] == 1
    assert told["user/dear/prompt_tokens"] == 10
    assert told["user/dear/fault/unavailable"] == pytest.approx(1 / 3)
    assert told["user/dear/flaw/role_flip"] == 0.0
    assert told["user_model/replaced"] == 0.0


def test_the_price_table_needs_no_network() -> None:
    """litellm downloads a table when it is imported, unless it is told not to; a socket here is an error."""
    code = (
        "import socket\n"
        "def no(*a, **k): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "from tau2_slime.world.users.spending import listed_price\n"
        "price = listed_price('gpt-4o-mini')\n"
        "assert price is not None and 0 < price.input < price.output, price\n"
        "assert listed_price('openai/nobody-sells-this') is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert listed_price("openai/nobody-sells-this") is None
