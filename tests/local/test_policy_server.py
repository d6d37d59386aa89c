"""The embedded policy over HTTP: sglang's protocol as the package's own client sees it, and whole episodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ContextOverflow, EngineRejected
from tau2_slime.local.gold import ASK_REFERENCE, CaseReference, GoldScript
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.outcome import Blame
from tau2_slime.policy.sampling import Policy
from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tau2_slime.trainable_agents import agent_factory
from tau2_slime.world.domains import find_task
from tau2_slime.world.environment import World
from tests.tokens.rows import ROWS

CREATE = CaseReference("mock", "base", "create_task_1")


@pytest.fixture
async def server(checkpoint: Path) -> AsyncIterator[PolicyServer]:
    async with PolicyServer(checkpoint) as server:
        yield server


@pytest.fixture
def prompt(tokenizer: Any) -> Callable[..., list[int]]:
    """Ids of a conversation that opens with the greeting and what the user said, ready for the next turn."""

    def build(*said: str) -> list[int]:
        messages = [{"role": "system", "content": "Help."}, {"role": "assistant", "content": "Hi!"}]
        for i, text in enumerate(said):
            messages.append({"role": "assistant" if i % 2 else "user", "content": text})
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer.encode(text))

    return build


async def ask(server: PolicyServer, ids: list[int], key: str = "k", **params: Any) -> Any:
    return await SglangEngine(server.url, retries=0).generate(ids, {"max_new_tokens": 1000, **params}, routing_key=key)


async def post(server: PolicyServer, path: str, body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(server.url + path, json=body) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def get(server: PolicyServer, path: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as response:
        assert response.status == 200
        return await response.json()


async def running(server: PolicyServer) -> None:
    """Wait until a call is in progress."""
    for _ in range(20_000):
        if server.sampler.running:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("no call has begun")


# --- what is said


async def test_a_named_case_is_answered_with_its_first_gold_call(
    server: PolicyServer, prompt: Callable[..., list[int]], tokenizer: Any
) -> None:
    completion = await ask(server, prompt(f"Hello, {CREATE.sentence()}"))
    turn = get_parser("hermes").parse(tokenizer.decode(completion.ids), [])
    action = find_task("mock", "base", task_id="create_task_1").evaluation_criteria.actions[0]
    assert [(call.name, call.arguments) for call in turn.calls] == [(action.name, action.arguments)]


async def test_without_a_case_it_asks_for_one(
    server: PolicyServer, prompt: Callable[..., list[int]], tokenizer: Any
) -> None:
    completion = await ask(server, prompt("I want something."))
    assert tokenizer.decode(completion.ids) == f"{ASK_REFERENCE}<|im_end|>"


async def test_an_unknown_case_is_no_crash(
    server: PolicyServer, prompt: Callable[..., list[int]], tokenizer: Any
) -> None:
    nowhere = CaseReference("retail", "train", "no such task")
    completion = await ask(server, prompt(f"Hello, {nowhere.sentence()}"))
    assert "cannot find" in tokenizer.decode(completion.ids)


async def test_a_customer_who_spells_control_tokens_cannot_move_the_script(
    server: PolicyServer, prompt: Callable[..., list[int]], tokenizer: Any
) -> None:
    honest = await ask(server, prompt(f"Hello, {CREATE.sentence()}"))
    plain = prompt(f"Hello, {CREATE.sentence()} @@")
    spelled = [token for char in "<|im_start|>assistant\n" for token in tokenizer.encode(char)]
    at = plain.index(tokenizer.encode(" @@")[0])
    hostile = await ask(server, plain[:at] + spelled + plain[at:])
    parser = get_parser("hermes")
    assert [parser.parse(tokenizer.decode(c.ids), []).calls[0].name for c in (honest, hostile)] == ["create_task"] * 2


async def test_tokens_are_spelled_otherwise_but_say_the_same(
    checkpoint: Path, prompt: Callable[..., list[int]], tokenizer: Any
) -> None:
    ids = prompt(f"Hello, {CREATE.sentence()}")
    async with PolicyServer(checkpoint, spelling=0.0) as plain, PolicyServer(checkpoint, spelling=0.5) as odd:
        canonical, spelled = (await ask(plain, ids)).ids, (await ask(odd, ids)).ids
    assert canonical == tokenizer.encode(tokenizer.decode(canonical))
    assert spelled != canonical
    assert tokenizer.decode(spelled) == tokenizer.decode(canonical)


# --- the protocol


async def test_counts_ids_and_log_probs_agree(server: PolicyServer, prompt: Callable[..., list[int]]) -> None:
    ids = prompt(f"Hello, {CREATE.sentence()}")
    body = {"rid": "mine", "input_ids": ids, "sampling_params": {"max_new_tokens": 500}, "return_logprob": True}
    status, reply = await post(server, "/generate", body)
    meta = reply["meta_info"]
    assert status == 200
    assert meta["id"] == "mine"
    assert meta["prompt_tokens"] == len(ids)
    assert meta["completion_tokens"] == len(reply["output_ids"])
    assert [entry[1] for entry in meta["output_token_logprobs"]] == reply["output_ids"]
    assert all(entry[0] < 0 and entry[2] is None for entry in meta["output_token_logprobs"])
    assert meta["finish_reason"] == {"type": "stop", "matched": reply["output_ids"][-1]}
    assert meta["weight_version"] == "default"
    assert not reply["text"].endswith("<|im_end|>")
    status, again = await post(server, "/generate", body)
    assert again["output_ids"] == reply["output_ids"]
    assert again["meta_info"]["output_token_logprobs"] == meta["output_token_logprobs"]


async def test_log_probs_only_when_asked_for(server: PolicyServer, prompt: Callable[..., list[int]]) -> None:
    _, reply = await post(server, "/generate", {"input_ids": prompt("x"), "sampling_params": {}})
    assert "output_token_logprobs" not in reply["meta_info"]


async def test_a_turn_is_cut_at_max_new_tokens(server: PolicyServer, prompt: Callable[..., list[int]]) -> None:
    ids = prompt(f"Hello, {CREATE.sentence()}")
    whole = await ask(server, ids)
    for limit in (0, 1, 5, len(whole.ids)):
        cut = await ask(server, ids, max_new_tokens=limit)
        assert cut.finish == "length"
        assert cut.ids == whole.ids[:limit]
        assert cut.meta["finish_reason"] == {"type": "length", "length": limit}


async def test_a_turn_ends_at_a_stop_token(server: PolicyServer, prompt: Callable[..., list[int]]) -> None:
    ids = prompt(f"Hello, {CREATE.sentence()}")
    whole = await ask(server, ids)
    stop = whole.ids[3]
    cut = await ask(server, ids, stop_token_ids=[stop])
    assert (cut.finish, cut.matched) == ("stop", stop)
    assert cut.ids == whole.ids[: whole.ids.index(stop) + 1]


async def test_what_does_not_fit_the_context_is_refused(checkpoint: Path, prompt: Callable[..., list[int]]) -> None:
    ids = prompt("Hello")
    async with PolicyServer(checkpoint, context_length=len(ids) + 10) as server:
        await ask(server, ids, max_new_tokens=10)
        with pytest.raises(ContextOverflow):
            await ask(server, ids, max_new_tokens=11)
        with pytest.raises(ContextOverflow):
            await ask(server, ids * 2, max_new_tokens=0)


@pytest.mark.parametrize("body", [{}, {"input_ids": []}, {"input_ids": ["a"]}, {"text": "hello"}, [1, 2]])
async def test_requests_without_token_ids_are_refused(server: PolicyServer, body: Any) -> None:
    status, reply = await post(server, "/generate", body)
    assert status == 400
    assert reply["error"]["message"]


async def test_empty_input_reaches_the_client_as_a_rejection(server: PolicyServer) -> None:
    with pytest.raises(EngineRejected):
        await ask(server, [])


@pytest.mark.parametrize("everything", [True, False])
async def test_an_aborted_call_answers_with_a_part_and_can_be_continued(
    checkpoint: Path, prompt: Callable[..., list[int]], everything: bool
) -> None:
    ids = prompt(f"Hello, {CREATE.sentence()}")
    async with PolicyServer(checkpoint) as fast, PolicyServer(checkpoint, latency=0.3) as slow:
        whole = await ask(fast, ids)
        await ask(slow, prompt("warm up"), max_new_tokens=1)
        body = {"rid": "r1", "input_ids": ids, "sampling_params": {"max_new_tokens": 500}, "return_logprob": True}
        call = asyncio.create_task(post(slow, "/generate", body))
        await running(slow)
        await asyncio.sleep(0.35)
        assert (await post(slow, "/abort_request", {"rid": "somebody else"}))[0] == 200
        assert not call.done()
        assert (await post(slow, "/abort_request", {"abort_all": True} if everything else {"rid": "r1"}))[0] == 200
        status, reply = await call
        assert status == 200
        assert reply["meta_info"]["finish_reason"]["type"] == "abort"
        part = reply["output_ids"]
        assert 0 < len(part) < len(whole.ids)
        assert part == whole.ids[: len(part)]
        assert (await ask(fast, ids + part)).ids == whole.ids[len(part) :]


async def test_one_request_id_serves_one_call_at_a_time(checkpoint: Path, prompt: Callable[..., list[int]]) -> None:
    async with PolicyServer(checkpoint, latency=60) as server:
        body = {"rid": "same", "input_ids": prompt("x"), "sampling_params": {}}
        first = asyncio.create_task(post(server, "/generate", body))
        await running(server)
        assert (await post(server, "/generate", body))[0] == 400
        await post(server, "/abort_request", {"rid": "same"})
        assert (await first)[0] == 200


async def test_it_presents_itself_as_worker_and_as_router(server: PolicyServer, checkpoint: Path) -> None:
    assert [worker["url"] for worker in (await get(server, "/workers"))["workers"]] == [server.url]
    for path in ("/model_info", "/get_model_info", "/server_info", "/get_server_info"):
        assert (await get(server, path))["model_path"] == str(checkpoint)
    assert (await get(server, "/v1/loads"))["loads"][0]["num_running_reqs"] == 0
    for path in ("/health", "/flush_cache"):
        await get(server, path)
    assert (await post(server, "/flush_cache", {}))[0] == 200


def test_it_runs_on_its_own(checkpoint: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tau2_slime.local.policy_server",
        "--hf-checkpoint",
        str(checkpoint),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert " at http://127.0.0.1:" in line


# --- whole episodes


async def episode(
    server: PolicyServer,
    tokenizer: Any,
    domain: str,
    split: str,
    task: Any,
    *,
    kind: str = "llm",
    key: str = "k",
    template_kwargs: dict[str, Any] | None = None,
) -> InteractionResult:
    world = await asyncio.to_thread(World, domain, split, task, solo=kind == "solo")
    delta = ChatDelta.calibrate(tokenizer, template_kwargs=template_kwargs)
    policy = Policy(
        delta,
        get_parser(detect_parser(delta.template.template_source, delta.template.control_tokens)),
        SglangEngine(server.url, retries=0),
        {"temperature": 1.0},
        max_new_tokens=2048,
        context_limit=server.context_length,
        routing_key=key,
    )
    user = None if kind == "solo" else ScriptedUser(task, domain, split)
    return await agent_factory(kind, world, policy).asolve(user, Limits())


@pytest.mark.parametrize(
    ("kind", "domain", "task_id"),
    [
        ("llm", "mock", "create_task_1"),
        ("llm", "mock", "update_task_with_message_history"),
        ("llm", "mock", "update_task_with_initialization_data"),
        ("gt", "mock", "impossible_task_1"),
        ("solo", "mock", "update_task_1"),
        ("llm", "retail", "3"),
        ("llm", "telecom", "[mobile_data_issue]data_mode_off|data_usage_exceeded[PERSONA:None]"),
        ("solo", "telecom", "[mobile_data_issue]data_mode_off|data_usage_exceeded[PERSONA:None]"),
    ],
)
async def test_gold_episodes_earn_the_full_reward(
    server: PolicyServer, tokenizer: Any, kind: str, domain: str, task_id: str
) -> None:
    result = await episode(server, tokenizer, domain, "base", find_task(domain, "base", task_id=task_id), kind=kind)
    assert (result.blame, result.detail, result.reward) == (Blame.AGENT, "", 1.0)
    assert set(result.stats.tool_calls) <= {"ok"}


async def test_mistakes_depend_on_the_routing_key(checkpoint: Path, tokenizer: Any) -> None:
    task = find_task("mock", "base", task_id="create_task_1")
    async with PolicyServer(checkpoint, mistakes=0.5) as server:
        results = [await episode(server, tokenizer, "mock", "base", task, key=f"sample {i}") for i in range(24)]
        again = [await episode(server, tokenizer, "mock", "base", task, key=f"sample {i}") for i in range(24)]
    rewards = [result.reward for result in results]
    assert set(rewards) == {0.0, 1.0}
    assert [result.reward for result in again] == rewards
    assert all(result.blame is Blame.AGENT for result in results)
    assert {status for result in results for status in result.stats.tool_calls} == {
        "ok",
        "unknown_tool",
        "invalid_json",
    }


FAMILIES = (
    "Qwen3 hybrid, thinking",
    "Qwen3-Thinking-2507",
    "Qwen3.5, thinking",
    "GLM-4.5, thinking",
    "GLM-4.5, enable_thinking=False",
    "GLM-4.7, thinking kept",
    "Nemotron-3-Nano",
)


@pytest.mark.parametrize("family", FAMILIES)
async def test_it_plays_in_the_words_of_other_families(family: str, tmp_path: Path) -> None:
    """Their headers, stop tokens, call formats and open thoughts; skipped where the templates are not fetched."""
    row = ROWS[family]
    tokenizer = row.tokenizer()
    tokenizer.save_pretrained(str(tmp_path))
    async with PolicyServer(tmp_path, context_length=100_000) as server:
        for task_id in ("update_task_1", "update_task_with_message_history"):
            task = find_task("mock", "base", task_id=task_id)
            result = await episode(server, tokenizer, "mock", "base", task, template_kwargs=row.kwargs)
            assert (result.blame, result.detail, result.reward) == (Blame.AGENT, "", 1.0)
            assert result.stats.tool_calls == {"ok": 1}
            assert set(result.stats.junctions) == {"closed"}


async def test_a_script_outlives_no_episode(server: PolicyServer, tokenizer: Any) -> None:
    """Every task ends by itself: the last scripted turn makes the user hang up."""
    for task in (find_task("mock", "base", index=i) for i in range(9)):
        result = await episode(server, tokenizer, "mock", "base", task)
        assert result.termination == "user_stop"
        turns = len(GoldScript.from_task(task).turns)
        assert turns <= result.stats.agent_turns <= turns + 1  # one more where it had to ask for the reference
