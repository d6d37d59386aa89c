"""Any litellm model as the policy: τ²'s own agent through the same conversation, with the same blame and the same budget."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime.episode.agents import chat_message
from tau2_slime.episode.history import agent_sees
from tau2_slime.evaluation.plan.datasets import Plan, default_plan
from tau2_slime.evaluation.report.tables import user_table
from tau2_slime.evaluation.runner import api_agent
from tau2_slime.evaluation.runner.api_agent import ApiSpeaker, ApiSpec, litellm_message
from tau2_slime.evaluation.runner.budget import Budget, parse_prices
from tau2_slime.evaluation.runner.policies import ApiPolicy
from tau2_slime.evaluation.runner.run import End, Options, Progress, Runner
from tau2_slime.evaluation.store.records import Store, jobs
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.users import simulator
from tests import parity_play
from tests.evaluation.api_server import ApiServer, gold

# One event loop for all: litellm keeps clients by the id of their loop, and a new loop may get the id of a closed one.
pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "openai/gpt-4o-mini"  # litellm knows its price: 0.15 and 0.60 dollars per million tokens
CALL = 1000 * 0.15e-6 + 100 * 0.60e-6


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (simulator, api_agent):
        monkeypatch.setattr(module, "BACKOFF_FIRST", 0.001)
        monkeypatch.setattr(module, "BACKOFF_MAX", 0.002)


def one(domain: str = "mock", tasks: int = 1, attempts: int = 1, **overrides: Any) -> Plan:
    user = overrides.pop("user_model", "scripted")
    return default_plan([domain], [user], tasks=tasks, attempts=attempts, overrides={"max_turns": 200, **overrides})


async def run(
    folder: Path, plan: Plan, server: ApiServer, budget: Budget | None = None, model: str = MODEL, **spec: Any
) -> tuple[End, Progress, list[dict[str, Any]]]:
    policy = ApiPolicy(ApiSpec(model, base_url=server.url, retries=2, **spec))
    options = Options(concurrency=4, retries=0, pause=0.0)
    with Store(folder).writing() as store:
        runner = Runner(jobs(plan), policy, store, budget or Budget(folder / "costs.jsonl"), options)
        end = await runner.run()
    return end, runner.progress, list(store.records.values())


async def test_gold_play_through_an_api_earns_everything(tmp_path: Path) -> None:
    async with ApiServer(gold) as server:
        for domain in ("mock", "telecom", "retail"):
            end, progress, records = await run(tmp_path / domain, one(domain, tasks=3), server)
            assert end is End.COMPLETE
            assert [(r["reward"], r["termination"], r["blame"]) for r in records] == [(1.0, "user_stop", "agent")] * 3
            assert progress.successes == 3


async def test_the_model_is_asked_as_tau2s_own_agent_asks(tmp_path: Path) -> None:
    async with ApiServer(gold) as server:
        await run(tmp_path, one(), server, args={"seed": 7})
    t = tau2_compat.load()
    environment = tau2_compat.build_environment("mock", solo=False, env_kwargs={})
    agent = t.LLMAgent(tools=environment.get_tools(), domain_policy=environment.get_policy(), llm="x", llm_args={})
    first = server.requests[0]
    assert first["messages"][0] == {"role": "system", "content": agent.system_prompt}
    assert first["messages"][1] == {
        "role": "assistant",
        "content": t.FIRST_AGENT_MESSAGE.content,
        "tool_calls": None,
    } or (first["messages"][1]["content"] == t.FIRST_AGENT_MESSAGE.content)
    assert first["tools"] == [tool.openai_schema for tool in environment.get_tools()]
    assert (first["tool_choice"], first["temperature"], first["max_tokens"], first["seed"]) == ("auto", 1.0, 8192, 7)


async def test_every_attempt_has_a_seed_of_its_own_which_is_recorded(tmp_path: Path) -> None:
    """With one seed for all, pass@k would be the pass@1 of one attempt, played k times."""

    def customer(body: dict[str, Any]) -> dict[str, Any]:
        said = sum(m["role"] == "assistant" for m in body["messages"])
        return {"content": "###STOP###" if said else "I need help."}

    for attempts, seeds in ((1, [7]), (3, [7, 8, 9])):
        async with ApiServer(customer) as user, ApiServer(lambda body: {"content": "Hello."}) as server:
            plan = one(
                attempts=attempts,
                user_model="openai/customer",
                user_base_url=user.url,
                user_args={"seed": 7, "top_p": 0.5},
            )
            _, _, records = await run(tmp_path / str(attempts), plan, server, args={"seed": 7})
        assert sorted({request["seed"] for request in server.requests}) == seeds
        assert sorted({request["seed"] for request in user.requests}) == seeds
        assert {request["top_p"] for request in user.requests} == {0.5}
        told = sorted((record["attempt"], record["stats"]["seeds"]) for record in records)
        assert told == [(attempt, {"user": seed, "policy": seed}) for attempt, seed in enumerate(seeds)]


async def test_a_malformed_call_is_answered_and_can_be_repaired(tmp_path: Path) -> None:
    def clumsy(body: dict[str, Any]) -> dict[str, Any]:
        step = gold(body)
        errors = sum(m["role"] == "tool" and "Error" in m["content"] for m in body["messages"])
        if "calls" in step and not errors:
            return {"calls": [(step["calls"][0][0], '{"user_id": ')]}
        return step

    async with ApiServer(clumsy) as server:
        _, _, (record,) = await run(tmp_path, one(), server)
    assert record["stats"]["tool_calls"]["invalid_json"] == 1
    assert record["stats"]["agent_errors"] == 1
    assert record["rejected_calls"]
    assert not record["excluded"]


async def test_tool_calls_are_read_as_a_trained_policys(tmp_path: Path) -> None:
    """An id written as a number reaches τ² as said, as from every server; an unknown tool is counted as one."""
    calls = [("get_users", "{}"), ("no_such_tool", "{}"), ("update_task_status", '{"task_id": 1, "status": "done"}')]

    def clumsy(body: dict[str, Any]) -> dict[str, Any]:
        asked = sum(m["role"] == "tool" for m in body["messages"])
        return {"calls": [calls[asked]]} if asked < len(calls) else {"content": "That is all."}

    async with ApiServer(clumsy) as server:
        _, _, (record,) = await run(tmp_path, one(max_turns=8), server)
    assert record["stats"]["tool_calls"] == {"ok": 1, "unknown_tool": 1, "bad_arguments": 1}
    sent = [call["arguments"] for m in record["messages"] for call in m.get("tool_calls") or []]
    assert sent[2]["task_id"] == 1
    assert not record["rejected_calls"]


@pytest.mark.parametrize("domain", ["mock", "retail", "telecom"])
async def test_messages_are_spelled_as_tau2_spells_them(domain: str) -> None:
    for task in domains.tasks(domain, "base")[:5]:
        _, conversation = await asyncio.to_thread(parity_play.play_ours, domain, task, parity_play.gold_script(task))
        seen = [m for m in conversation.messages if agent_sees(m)]
        assert seen
        assert [litellm_message(chat_message(m)) for m in seen] == tau2_compat.load().to_litellm_messages(seen)


async def test_a_message_is_written_once_however_often_it_is_sent(json_written: list[int]) -> None:
    """What a turn writes as JSON is the same after 40 turns as after 10, and the request is what one would write whole."""
    costs = []
    async with ApiServer(lambda body: {"content": "I ask."}) as server:
        transcript = ApiSpeaker(ApiSpec("openai/some-model", base_url=server.url), {}).transcript([])
        for turn in range(40):
            json_written.clear()
            await transcript.turn([{"role": "user", "content": f"{turn:02} " * 300}])
            transcript.chat.append({"role": "assistant", "content": "I ask."})
            costs.append(sum(json_written))
    assert costs[39] == costs[9] and len(server.requests[39]["messages"]) == 79
    assert server.requests[39]["messages"][0]["content"].startswith("00 ")
    assert server.requests[39]["messages"][1] == {"role": "assistant", "content": "I ask."}
    transcript.adopt([{"role": "user", "content": "Anew."}])
    assert [one["content"] for one in transcript._prompt()] == ["Anew."]  # type: ignore[attr-defined]


async def test_what_the_simulator_did_is_recorded_and_reported(tmp_path: Path) -> None:
    def customer(body: dict[str, Any]) -> dict[str, Any]:
        said = sum(m["role"] == "assistant" for m in body["messages"])
        return {"content": "###STOP###" if said else "How can I help you today?"}

    async with ApiServer(customer) as user, ApiServer(lambda body: {"content": "Hello."}) as server:
        plan = one(user_model=MODEL, user_base_url=user.url)
        _, _, (record,) = await run(tmp_path, plan, server)
    assert record["stats"]["user_flaws"]["role_flip"] == 1
    assert (record["stats"]["user_prompt_tokens"], record["stats"]["user_completion_tokens"]) == (2000, 200)
    assert record["stats"]["user_played"] == {MODEL: 2}
    assert record["tokens"] == {"prompt": 1000, "sampled": 100, "context": 0}
    dataset = plan.datasets[0].name
    summary: Any = SimpleNamespace(manifest={"protocol": {dataset: {"user_model": MODEL}}}, played=[record])
    assert [dataset, MODEL, "role_flip", "1", "100.0%"] in user_table(summary).rows


@pytest.mark.parametrize("opened", ["<think>", ""], ids=["opened", "opened by the template"])
async def test_thoughts_in_the_text_are_for_nobody(tmp_path: Path, opened: str) -> None:
    """A server without a reasoning parser; where the template opens the thoughts, only their end is in the text."""

    def thinking(body: dict[str, Any]) -> dict[str, Any]:
        step = gold(body)
        return {**step, "content": f"{opened}a secret\n</think>\n\n{step.get('content') or ''}"}

    async with ApiServer(thinking) as server:
        _, _, (record,) = await run(tmp_path, one(), server)
    assert record["reward"] == 1.0
    assert "secret" not in str(record["messages"])
    assert "</think>" not in str(record["messages"])
    assert "secret" not in str(server.requests[-1]["messages"])


async def test_thoughts_without_end_are_no_message(tmp_path: Path) -> None:
    async with ApiServer(lambda body: {"content": "<think>I could say that all is done"}) as server:
        _, _, (record,) = await run(tmp_path, one(), server)
    assert (record["termination"], record["blame"], record["reward"]) == ("agent_error", "agent", 0.0)
    assert "never closed" in record["detail"]
    assert "all is done" not in str(record["messages"])


async def test_silence_is_the_agents_and_an_error_is_not(tmp_path: Path) -> None:
    async with ApiServer(lambda body: {"content": " "}) as server:
        _, _, (record,) = await run(tmp_path / "a", one(), server)
        assert (record["termination"], record["blame"], record["excluded"], record["reward"]) == (
            *("agent_error", "agent", False, 0.0),
        )
        assert len(server.requests) == 3
    for status, calls in ((500, 3), (401, 1)):
        async with ApiServer(lambda body, status=status: {"status": status}) as server:
            _, _, (record,) = await run(tmp_path / str(status), one(), server)
            assert (record["blame"], record["excluded"], record["reward"]) == ("infrastructure", True, None)
            assert "gpt-4o-mini" in record["detail"]
            assert len(server.requests) == calls


async def test_a_turn_that_is_not_whole_is_not_played(tmp_path: Path) -> None:
    for finish, termination, asked in (("length", "response_length", 1), ("content_filter", "agent_error", 3)):
        step = {"content": "I have cancelled your or", "finish": finish}
        async with ApiServer(lambda body, step=step: step) as server:
            _, _, (record,) = await run(tmp_path / finish, one(), server)
        assert (record["termination"], record["reward"], record["excluded"]) == (termination, 0.0, False)
        assert "cancelled your or" not in str(record["messages"])
        assert len(server.requests) == asked


@pytest.mark.parametrize("model", ["openai/mine", MODEL], ids=["directly", "through litellm"])
async def test_a_providers_own_data_goes_back_with_its_turn(tmp_path: Path, model: str) -> None:
    def thinking(body: dict[str, Any]) -> dict[str, Any]:
        return {**gold(body), "more": {"reasoning_content": f"thought {len(body['messages'])}"}}

    async with ApiServer(thinking) as server:
        _, _, (record,) = await run(tmp_path, one(), server, model=model)
    assert record["reward"] == 1.0
    sent = [m for m in server.requests[-1]["messages"] if m["role"] == "assistant" and m.get("reasoning_content")]
    assert [m["reasoning_content"] for m in sent] == [f"thought {len(r['messages'])}" for r in server.requests[:-1]]


async def test_an_endpoint_that_repeats_the_key_does_not_bring_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-live-0123456789abcdefghijklmnopqrstuv"
    monkeypatch.setenv("MY_POLICY_KEY", key)
    for model in ("openai/mine", MODEL):
        for status in (400, 401, 404, 500):
            echo = {"status": status, "message": f"Incorrect API key provided: {key}"}
            async with ApiServer(lambda body, echo=echo: echo) as server:
                folder = tmp_path / model / str(status)
                _, _, (record,) = await run(folder, one(), server, model=model, api_key_var="MY_POLICY_KEY")
            assert "Incorrect API key" in record["detail"] and key[:8] not in str(record)


@pytest.mark.parametrize("model", ["openai/mine", MODEL], ids=["directly", "through litellm"])
async def test_a_redirect_does_not_carry_the_conversation_elsewhere(tmp_path: Path, model: str) -> None:
    async with ApiServer(gold) as elsewhere:
        to = f"{elsewhere.url}/chat/completions".replace("127.0.0.1", "localhost")
        async with ApiServer(lambda body: {"status": 307, "headers": {"Location": to}}) as server:
            _, _, (record,) = await run(tmp_path, one(), server, model=model)
    assert not elsewhere.requests and len(server.requests) == 1
    assert record["blame"] == "infrastructure" and "Redirects are not followed" in record["detail"]


async def test_what_the_policy_says_and_nobody_can_use_is_the_agents(tmp_path: Path) -> None:
    picture = {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    for number, step in enumerate([picture, {"calls": [("get_users", "{}")] * 5000}]):
        async with ApiServer(lambda body, step=step: step) as server:
            _, _, (record,) = await run(tmp_path / str(number), one(), server, model="openai/mine")
        assert (record["termination"], record["blame"], record["reward"]) == ("agent_error", "agent", 0.0)
        assert len(server.requests) == 3


@pytest.mark.parametrize("model", ["openai/mine", MODEL], ids=["directly", "through litellm"])
async def test_an_endless_answer_is_not_read(tmp_path: Path, model: str) -> None:
    async with ApiServer(lambda body: {"content": "a" * 20_000_000}) as server:
        _, _, (record,) = await run(tmp_path, one(), server, model=model)
    assert record["blame"] == "infrastructure"
    assert len(server.requests) == 3


async def test_a_context_that_is_full_is_a_limit(tmp_path: Path) -> None:
    full = {"status": 400, "code": "context_length_exceeded", "message": "maximum context length is 128000 tokens"}
    async with ApiServer(lambda body: full) as server:
        _, _, (record,) = await run(tmp_path, one(), server)
    assert (record["termination"], record["excluded"], record["reward"]) == ("context_length", False, 0.0)


async def test_a_user_model_that_times_out_is_the_users_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ApiServer(lambda body: {"sleep": 5}) as slow, ApiServer(gold) as server:
        user = {"user_model": "openai/slow", "user_base_url": slow.url, "user_timeout": 0.05, "user_retries": 1}
        _, progress, (record,) = await run(tmp_path, one(**user), server)
    assert (record["termination"], record["blame"], record["excluded"]) == ("user_error", "user", True)
    assert "no answer within" in record["detail"]
    assert (progress.excluded, progress.scored) == (1, 0)


async def test_every_call_is_in_the_ledger_of_both_roles(tmp_path: Path) -> None:
    def customer(body: dict[str, Any]) -> dict[str, Any]:
        said = sum(m["role"] == "assistant" for m in body["messages"])
        return {"content": "###STOP###" if said else "I need help."}

    async with ApiServer(customer) as user, ApiServer(lambda body: {"content": "Hello."}) as server:
        budget = Budget(tmp_path / "costs.jsonl")
        plan = one(tasks=2, user_model=MODEL, user_base_url=user.url)
        _, progress, records = await run(tmp_path, plan, server, budget)
    calls = {"policy": len(server.requests), "user": len(user.requests)}
    assert {role: bill.calls for (role, _), bill in budget.bills.items()} == calls
    assert budget.spent == pytest.approx(CALL * sum(calls.values()))
    assert progress.spent == pytest.approx(budget.spent)
    assert sum(sum(r["cost"].values()) for r in records) == pytest.approx(budget.spent)
    assert Budget(tmp_path / "costs.jsonl").spent == pytest.approx(budget.spent)


@pytest.mark.parametrize("limit", [0.001, 0.004, 0.01])
async def test_the_limit_is_never_passed_and_the_next_run_goes_on(tmp_path: Path, limit: float) -> None:
    plan = one(tasks=8, attempts=4)
    async with ApiServer(gold) as server:
        budget = Budget(tmp_path / "costs.jsonl", limit)
        end, progress, records = await run(tmp_path, plan, server, budget, args={"max_tokens": 300})
        assert end is End.BUDGET
        assert budget.spent <= limit
        assert budget.spent == pytest.approx(CALL * len(server.requests))
        assert "--max-cost" in progress.notes[0]
        assert not any(r["excluded"] for r in records)
        if limit > 0.002:
            assert records
        again = Budget(tmp_path / "costs.jsonl", 10.0)
        assert again.spent == pytest.approx(budget.spent)
        end, progress, records = await run(tmp_path, plan, server, again, args={"max_tokens": 300})
        assert end is End.COMPLETE
        assert len(records) == progress.done == 32


async def test_answers_on_their_way_are_paid_and_counted_when_a_run_stops(tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> dict[str, Any]:
        return {**gold(body), "sleep": 0.4}

    async with ApiServer(slow) as server:
        budget = Budget(tmp_path / "costs.jsonl", 0.002)
        end, _, _ = await run(tmp_path, one(tasks=8), server, budget, args={"max_tokens": 300})
    assert end is End.BUDGET
    assert budget.spent == pytest.approx(CALL * len(server.requests))


@pytest.mark.parametrize("who", ["policy", "user"])
async def test_a_call_that_was_cut_short_is_assumed_to_cost_what_it_may(tmp_path: Path, who: str) -> None:
    """Providers bill a request whose answer nobody waited for."""
    came = asyncio.Event()

    def silence(body: dict[str, Any]) -> dict[str, Any]:
        came.set()
        return {"sleep": 3600}

    async with ApiServer(silence) as silent, ApiServer(gold) as server:
        user = {"user_model": MODEL, "user_base_url": silent.url, "user_args": {"max_tokens": 300}}
        plan, asked = (one(**user), server) if who == "user" else (one(), silent)
        budget = Budget(tmp_path / "costs.jsonl", 1.0)
        running = asyncio.ensure_future(run(tmp_path, plan, asked, budget, args={"max_tokens": 300}))
        await came.wait()
        running.cancel()
        end, _, _ = await running
    assert end is End.INTERRUPTED
    [bill] = [bill for (role, _), bill in budget.bills.items() if role == who]
    assert bill.calls == bill.failed == 1
    assert bill.assumed == bill.cost >= 300 * 0.60e-6


async def test_calls_of_the_policy_are_bounded(tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> dict[str, Any]:
        return {**gold(body), "sleep": 0.01}

    async with ApiServer(slow) as server:
        await run(tmp_path, one(tasks=8), server, concurrency=2)
        assert server.most == 2


async def test_prices() -> None:
    prices = parse_prices(["openrouter/a=b=0.5,2"])
    assert prices == {"openrouter/a=b": (0.5e-6, 2e-6)}
    budget = Budget(None, 1.0, prices)
    budget.require_prices([("openrouter/a=b", False), (MODEL, False), ("openai/mine", True)])
    with pytest.raises(ValueError, match=r"--price openrouter/nobody/knows=IN,OUT"):
        budget.require_prices([("openrouter/nobody/knows", False)])
    Budget(None).require_prices([("openrouter/nobody/knows", False)])
    for bad in ("x", "x=1", "=1,2", "x=a,b", "x=-1,2"):
        with pytest.raises(ValueError, match="MODEL=IN,OUT"):
            parse_prices([bad])
