"""verifiers' v0 door against a scripted chat-completions server: nothing of verifiers is replaced."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import verifiers as vf

from tau2_slime.backends import verifiers as door
from tau2_slime.backends.verifiers.state_view import EPISODE_KEY, StateView
from tau2_slime.errors import ConfigError
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.world import domains, scoring
from tau2_slime.world.environment import World
from tests.backends import few_shot_file
from tests.backends.chat_server import ChatServer
from tests.backends.orchestrator import assert_tau2_agrees
from tests.backends.wrong_settings import WRONG_SETTINGS
from tests.examples import assert_examples_run


def load(domain: str = "mock", **settings: Any) -> Any:
    return vf.load_environment("tau2_bench", domain=domain, user_llm="scripted", **settings)


async def rollout(server: ChatServer, env: Any, model: str, row: int = 0) -> Any:
    client = vf.ClientConfig(api_base_url=server.url, api_key_var="OPENAI_API_KEY", max_retries=0)
    inputs = {"example_id": row, **env.get_eval_dataset()[row]}
    state = await env.rollout(inputs, client, model, {})
    await env.rubric.score_rollout(state)
    return state


def test_as_users_of_the_recipe_write_it(server: ChatServer) -> None:
    env = vf.load_environment("tau2_bench", domain="telecom", num_eval_examples=3, user_llm="scripted")
    results = env.evaluate(model="gold", num_examples=2)
    assert (results["score"], results["completed"], results["failed"]) == (1.0, 2, 0)
    assert [row["reward"] for row in results["outputs"]] == [1.0, 1.0]
    assert len(env.get_eval_dataset()) == 3
    for row in results["outputs"]:
        assert row["metrics"]["reward_env_assertion"] == 1.0
        assert row["metrics"]["blame_agent"] == 1.0
        assert row["stop_condition"] == "has_final_env_response"


async def test_inside_a_loop_evaluate_is_a_coroutine(server: ChatServer) -> None:
    env = load(task_split="base")
    results = await env.evaluate(model="wrong", num_examples=1, rollouts_per_example=2)
    assert results["score"] == 0.0 and results["completed"] == 2


@pytest.mark.parametrize("domain", ["mock", "airline", "retail", "telecom"])
@pytest.mark.parametrize("model", ["gold", "wrong"])
async def test_every_message_is_what_tau2_itself_plays(server: ChatServer, domain: str, model: str) -> None:
    env = load(domain, task_split="base", max_turns=1000, max_steps=1000)
    count = len(env.get_eval_dataset())
    for row in range(0, count, 1 if domain == "mock" else max(1, count // 4)):
        state = await rollout(server, env, model, row)
        result = state[EPISODE_KEY].result
        assert_tau2_agrees(result)
        assert state["reward"] == (result.reward or 0.0)
        assert bool(state["error"]) == (result.reward is None)


async def test_what_the_model_is_sent(server: ChatServer) -> None:
    """τ²'s system prompt, greeting and tools; afterwards the model's own turns and what it is told, each once."""
    env = load("telecom", task_split="base")
    state = await rollout(server, env, "gold")
    first, last = server.requests[0], server.requests[-1]
    assert [m["role"] for m in first["messages"]] == ["system", "assistant", "user"]
    episode = state[EPISODE_KEY]
    assert first["messages"][0]["content"] == episode.setup.agent.tau2_agent.system_prompt
    offered = [tool["function"] for tool in first["tools"]]
    assert offered == [
        {k: t["function"][k] for k in ("name", "description", "parameters")} for t in episode.setup.agent.tools
    ]
    sent = [(m["role"], m.get("content") or "") for m in last["messages"]]
    assert sent == [(m["role"], m["content"]) for m in episode.setup.agent.transcript.chat[: len(sent)]]
    # The customer's own tools are called in env_response, and the model never hears of them.
    assert any(t["requestor"] == "user" for t in state["tool_executions"])
    assert all(m["role"] != "tool" or m["tool_call_id"].startswith("gold_") for m in last["messages"])


async def test_the_recipes_state_keys(server: ChatServer) -> None:
    env = load("telecom", task_split="base")
    tasks = domains.tasks("telecom", "base")
    both = [{a.requestor for a in t.evaluation_criteria.actions or []} == {"user", "assistant"} for t in tasks]
    state = await rollout(server, env, "gold", both.index(True))
    result = state[EPISODE_KEY].result
    assert state["termination_reason"] == "user_stop"
    assert state["turn_count"] == result.stats.agent_turns + result.stats.user_turns
    assert set(state["env_db"]) == {"agent_db", "user_db"}
    assert state["env_db"]["user_db"] == state[EPISODE_KEY].setup.agent.world.environment.user_tools.db.model_dump(
        mode="json"
    )
    assert {m["role"] for m in state["agent_state"]["messages"]} == {"assistant", "user", "tool"}
    assert len(state["tool_executions"]) == sum(m.role == "tool" for m in result.messages)
    assert state["user_simulator"] == "scripted"
    with pytest.raises(TypeError):
        state["env_db"]["agent_db"] = {}
    json.dumps([state["tool_executions"], dict(state["env_db"]), dict(state["user_state"])])


COLUMNS = [
    *("agent_state", "user_state", "env_db", "tool_executions", "turn_count"),
    *("termination_reason", "user_simulator", "tau2"),
]


@pytest.mark.parametrize("grouped", [False, True])
async def test_the_recipes_state_keys_can_be_saved(server: ChatServer, grouped: bool) -> None:
    """As verifiers writes them: to JSON lines and Arrow, and with msgpack from an environment server; in a group too."""
    import msgpack
    from datasets import Dataset

    env = load("telecom", num_eval_examples=1)
    if grouped:
        env = vf.EnvGroup([env, load("mock", task_split="base", num_eval_examples=1)], env_names=["telecom", "mock"])
    client = vf.ClientConfig(api_base_url=server.url, api_key_var="OPENAI_API_KEY")
    outputs = (await env.evaluate(client, "gold", state_columns=COLUMNS))["outputs"]
    for output in outputs:
        saved = {column: output[column] for column in COLUMNS}
        plain = json.loads(json.dumps(saved))
        assert plain == msgpack.unpackb(msgpack.packb(saved)) == pickle.loads(pickle.dumps(saved)) == saved
        assert type(pickle.loads(pickle.dumps(output["env_db"]))) is type(copy.deepcopy(output["env_db"])) is dict
        (row,) = Dataset.from_list([{"agent_state": output["agent_state"]}])
        told = [message.get("content") for message in plain["agent_state"]["messages"]]
        assert [message["content"] for message in row["agent_state"]["messages"]] == told and "###STOP###" in told
        assert plain["env_db"]["agent_db"] and plain["user_state"]["messages"]
        assert (plain["tau2"]["reward"], plain["tau2"]["termination"]) == (1.0, plain["termination_reason"])


def test_what_the_state_shows_is_looked_up_until_the_end_and_never_written() -> None:
    said, over = ["hello"], False
    view = StateView({"messages": lambda: list(said)}, lambda: over)
    said.append("yes?")
    ways = (
        dict,
        copy.copy,
        lambda v: {**v},
        lambda v: json.loads(json.dumps(v)),
        lambda v: {"messages": v.get("messages")},
    )
    for way in ways:
        assert way(view) == view == {"messages": ["hello", "yes?"]} != {"messages": ["hello"]}
    over = True
    assert list(view.values()) == [["hello", "yes?"]] and view["messages"] is view["messages"]
    for write in (view.clear, lambda: view.update(messages=[]), lambda: view.pop("messages")):
        with pytest.raises(TypeError, match="never written"):
            write()


async def test_calls_without_ids_are_answered_without_ids(server: ChatServer) -> None:
    state = await rollout(server, load(task_split="base"), "nameless")
    assert state["reward"] == 1.0
    (asked,) = [m for m in server.requests[-1]["messages"] if m.get("tool_calls")]
    (told,) = [m for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == ""


async def test_the_completion_tells_nothing_twice(server: ChatServer) -> None:
    state = await rollout(server, load(task_split="base"), "fading")
    assert state["termination_reason"] == "agent_error"
    assert [m.role for m in state["completion"]] == ["assistant", "user", "assistant", "user", "assistant"]


async def test_a_broken_call_is_answered_and_repaired(server: ChatServer) -> None:
    state = await rollout(server, load(task_split="base"), "broken")
    result = state[EPISODE_KEY].result
    assert state["reward"] == 1.0 and result.stats.tool_calls["invalid_json"] == 1
    told = next(m for m in server.requests[-1]["messages"] if m["role"] == "tool")
    assert told["tool_call_id"] == "broken_0" and "not valid JSON" in told["content"]


async def test_thoughts_in_the_text_are_no_part_of_what_was_said(server: ChatServer) -> None:
    state = await rollout(server, load(task_split="base"), "aloud")
    assert state["reward"] == 1.0
    assert "secret" not in str([m.content for m in state[EPISODE_KEY].result.messages])


@pytest.mark.parametrize(
    ("model", "termination", "failed"),
    [
        ("silent", "agent_error", False),
        ("babbling", "agent_error", False),
        ("cut", "response_length", False),
        ("overlong", "context_length", False),
        ("failing", "infrastructure_error", True),
    ],
)
async def test_how_a_model_can_end_it(server: ChatServer, model: str, termination: str, failed: bool) -> None:
    state = await rollout(server, load(task_split="base"), model)
    result = state[EPISODE_KEY].result
    assert str(result.termination) == termination
    assert bool(state["error"]) is failed
    assert state["reward"] == 0.0
    assert result.reward == (None if failed else 0.0)
    assert "the model is broken" in result.detail or not failed


async def test_limits_are_the_cores(server: ChatServer) -> None:
    state = await rollout(server, load(task_split="base", max_turns=2), "gold")
    assert state["termination_reason"] == "max_turns"
    assert state["metrics"]["blame_limit"] == 1.0


async def test_a_failure_is_never_a_zero(server: ChatServer) -> None:
    results = await load(task_split="base").evaluate(model="failing", num_examples=1, max_retries=0)
    assert results["score"] is None and results["failed"] == 1


@pytest.fixture
async def silence() -> AsyncIterator[str]:
    """The address of a server that never answers."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    for writer in held:
        writer.close()
    server.close()


def unfinished(who: str, silence: str) -> tuple[Any, dict[str, Any]]:
    """An environment whose rollouts never end because ``who`` is silent, and what `evaluate` is to be told."""
    given = {"user_llm": "openai/nobody", "user_base_url": silence} if who == "user" else {"user_llm": "scripted"}
    env = vf.load_environment("tau2_bench", domain="mock", task_split="base", **given)
    how = {"base_url": silence} if who == "model" else {}
    return env, {"model": "gold", "num_examples": 1, "max_retries": 0, **how}


@pytest.mark.parametrize("who", ["user", "model"])
async def test_a_rollout_that_runs_out_of_time_is_no_zero(server: ChatServer, silence: str, who: str) -> None:
    env, how = unfinished(who, silence)
    if not hasattr(env, "timeout_seconds"):
        pytest.skip("this release of verifiers has no time limit")
    env.timeout_seconds = 1.0
    before = asyncio.all_tasks()
    results = await env.evaluate(**how)
    assert results["score"] is None and (results["completed"], results["failed"]) == (0, 1)
    assert "longer than timeout_seconds" in str(results["outputs"][0]["error"])
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("who", ["user", "model"])
async def test_a_cancelled_evaluation_leaves_nothing_behind(server: ChatServer, silence: str, who: str) -> None:
    env, how = unfinished(who, silence)
    before = asyncio.all_tasks()
    work = asyncio.ensure_future(env.evaluate(**how))
    await asyncio.sleep(1.0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *WRONG_SETTINGS,
        ({"max_turns": 0}, "max_turns = 0 is not valid"),
        ({"request_retries": 3}, "'request_retries' changes nothing here: verifiers' own client asks"),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        vf.load_environment("tau2_bench", **{"domain": "mock", "user_llm": "scripted", **settings})


def test_a_model_without_a_key_is_told_before_the_first_rollout(no_model_server: None) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY, which is not set"):
        load(task_split="base").evaluate(model="gpt-4", num_examples=1)


def test_the_packages_example_runs(server: ChatServer) -> None:
    assert_examples_run(door)


async def test_a_user_of_ones_own(server: ChatServer) -> None:
    seen: list[Any] = []

    def build(world: World) -> ScriptedUser:
        seen.append(world)
        return ScriptedUser(world.task, world.domain, world.split)

    env = vf.load_environment("tau2_bench", domain="mock", task_split="base", user_llm="gpt-4", user=build)
    state = await rollout(server, env, "gold")
    assert state["reward"] == 1.0 and len(seen) == 1


def test_rows_are_the_splits_tasks() -> None:
    env = load("retail")
    kept = [t.id for t in domains.tasks("retail", "test") if not scoring.needs_judge(t)]
    infos = [json.loads(row["info"]) for row in env.get_eval_dataset()]
    assert [info["task_id"] for info in infos] == kept
    assert {json.loads(row["info"])["task_split"] for row in env.get_dataset()} == {"train"}


@pytest.mark.parametrize("strategy", ["native", "react"])
async def test_examples_are_shown(server: ChatServer, tmp_path: Path, strategy: str) -> None:
    examples = few_shot_file.write(tmp_path / "examples.jsonl")
    env = load(task_split="base", few_shot=str(examples), few_shot_count=2, agent_strategy=strategy)
    row = next(i for i, one in enumerate(env.get_eval_dataset()) if few_shot_file.PLAYED in one["info"])
    state = await rollout(server, env, "gold", row)
    (told,) = [m["content"] for m in server.requests[0]["messages"] if m["role"] == "system"]
    few_shot_file.assert_shown(told.replace("API output: []", "Result: []"))
    assert strategy == "react" or state["reward"] == 1.0


def test_examples_that_cannot_be_shown_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        load(task_split="base", few_shot="/nowhere.jsonl").get_eval_dataset()
    examples = few_shot_file.write(tmp_path / "examples.jsonl")
    with pytest.raises(ConfigError, match="it has examples from 3 tasks of mock; few_shot_count=3 needs 4"):
        load(task_split="base", few_shot=str(examples)).get_eval_dataset()
