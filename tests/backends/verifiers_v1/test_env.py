"""verifiers' v1 door against a scripted chat-completions server: nothing of verifiers is replaced."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import tau2_bench
import verifiers.v1 as vf

from tau2_slime.backends import verifiers as door
from tau2_slime.errors import ConfigError
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.world import domains, scoring
from tests.backends import few_shot_file
from tests.backends.chat_server import ChatServer, reply
from tests.backends.orchestrator import assert_tau2_agrees
from tests.backends.wrong_settings import WRONG_SETTINGS
from tests.examples import assert_examples_run


def load(domain: str | None = "mock", **settings: Any) -> Any:
    return tau2_bench.load_environment(**{"domain": domain, "user_llm": "scripted", "task_split": "base", **settings})


async def rollouts(env: Any, model: str = "gold", **how: Any) -> list[vf.Trace]:
    return (await env.evaluate(model=model, **how))["outputs"]


def test_as_users_of_the_recipe_write_it(server: ChatServer) -> None:
    env = tau2_bench.load_environment(domain="telecom", num_eval_examples=3, user_llm="scripted")
    results = env.evaluate(model="gold", num_examples=2)
    assert (results["score"], results["completed"], results["failed"]) == (1.0, 2, 0)
    assert len(list(env.taskset)) == 3
    for trace in results["outputs"]:
        assert trace.reward == 1.0 and trace.stop_condition == "user_stop" and trace.ok
        assert trace.metrics["reward_env_assertion"] == 1.0 and trace.metrics["blame_agent"] == 1.0


@pytest.mark.parametrize("domain", ["mock", "airline", "retail", "telecom"])
@pytest.mark.parametrize("model", ["gold", "wrong"])
async def test_every_message_is_what_tau2_itself_plays(server: ChatServer, domain: str, model: str) -> None:
    env = load(domain, max_turns=1000, max_steps=1000)
    count = len(list(env.taskset))
    env.taskset = env.taskset.include(idx=[f"::{1 if domain == 'mock' else count // 3}"])
    for trace in await rollouts(env, model):
        result = trace.state.episode.result
        assert_tau2_agrees(result)
        assert trace.ok is (result.reward is not None)
        assert trace.reward == (result.reward or 0.0)


async def test_what_the_model_is_sent(server: ChatServer) -> None:
    """τ²'s system prompt, greeting and tools; the model's own turns word for word; nothing of the user's own tools."""
    (trace,) = await rollouts(load("telecom", num_eval_examples=1), "thinking")
    episode = trace.state.episode
    first, last = server.requests[0], server.requests[-1]
    assert [m["role"] for m in first["messages"]] == ["system", "assistant", "user"]
    assert first["messages"][0]["content"] == episode.setup.agent.tau2_agent.system_prompt
    assert first["tools"] == episode.setup.agent.tools
    said = [(i, m) for i, m in enumerate(last["messages"]) if m["role"] == "assistant"][1:]
    assert len(said) == result_turns(trace) - 1
    for at, message in said:
        sent = reply("thinking", last["messages"][:at])[1]["choices"][0]["message"]
        assert message == {k: v for k, v in sent.items() if k == "content" or v is not None}
        assert message["reasoning_content"] == f" thought {at}\n"
    assert any(m.role == "tool" and m.requestor == "user" for m in episode.result.messages)
    assert all(m["role"] != "tool" or m["tool_call_id"].startswith("gold_") for m in last["messages"])


def result_turns(trace: vf.Trace) -> int:
    return trace.state.episode.result.stats.agent_turns


async def test_the_trace_is_one_branch_of_the_models_turns(server: ChatServer) -> None:
    for trace in await rollouts(load("telecom", num_eval_examples=3), "thinking"):
        assert trace.num_branches == 1
        assert trace.num_turns == result_turns(trace) == len(trace.calls)
        roles = [message.role for message in trace.branches[0].messages]
        assert roles[:3] == ["system", "assistant", "user"] and not trace.nodes[1].sampled


async def test_a_broken_call_is_answered_and_repaired(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1), "broken")
    assert trace.reward == 1.0 and trace.metrics["tau2_agent_errors"] == 1.0
    told = next(m for m in server.requests[-1]["messages"] if m["role"] == "tool")
    assert told["tool_call_id"] == "broken_0" and "not valid JSON" in told["content"]


async def test_calls_without_ids_are_answered_without_ids(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1), "nameless")
    assert trace.reward == 1.0 and trace.num_branches == 1
    (asked,) = [m for m in server.requests[-1]["messages"] if m.get("tool_calls")]
    (told,) = [m for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == ""


async def test_a_trace_can_be_pickled_and_copied(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1, user=lambda w: ScriptedUser(w.task, w.domain, w.split)))
    for again in (pickle.loads(pickle.dumps(trace)), copy.deepcopy(trace), trace.model_copy(deep=True)):
        assert again.state.episode is None and again.state.user is None
        assert again.model_dump() == trace.model_dump() and again.reward == 1.0
    assert trace.state.episode is not None


async def test_thoughts_in_the_text_are_no_part_of_what_was_said(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1), "aloud")
    assert trace.reward == 1.0
    assert "secret" not in str(trace.info["tau2"]["messages"])
    assert "secret" in str(server.requests[-1]["messages"]), "the model's own words go back as they came"


@pytest.mark.parametrize(
    ("model", "termination", "error"),
    [
        ("silent", "agent_error", None),
        ("babbling", "agent_error", None),
        ("cut", "response_length", None),
        ("overlong", "context_length", None),
        ("failing", "infrastructure_error", "ProviderError"),
        ("filtered", "agent_error", None),
    ],
)
async def test_how_a_model_can_end_it(server: ChatServer, model: str, termination: str, error: str | None) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1), model)
    result = trace.state.episode.result
    assert str(result.termination) == termination == trace.info["tau2"]["termination"]
    assert trace.ok is (error is None) and [e.type for e in trace.errors] == ([error] if error else [])
    assert trace.rewards == {} if error else trace.rewards["tau2_reward"].score == result.reward == 0.0
    assert sum(value or 0 for name, value in trace.metrics.items() if name.startswith("blame_")) == 1.0


async def test_a_call_that_failed_is_made_again_and_recorded_once(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1), "flaky")
    assert trace.ok and trace.reward == 1.0
    assert trace.num_branches == 1 and trace.num_turns == result_turns(trace) == 2
    assert len(server.requests) == 4


async def test_an_endpoint_that_is_not_there(server: ChatServer) -> None:
    results = await load(num_eval_examples=1, request_retries=0).evaluate(model="gold", base_url=closed())
    assert results["score"] is None and (results["completed"], results["failed"]) == (0, 1)
    assert results["outputs"][0].errors[0].type == "ProviderError"


async def test_limits_are_the_cores_and_verifiers(server: ChatServer) -> None:
    (trace,) = await rollouts(load(num_eval_examples=1, max_turns=2))
    assert (trace.stop_condition, trace.ok, trace.reward) == ("max_turns", True, 0.0)
    assert trace.metrics["blame_limit"] == 1.0
    taskset = {"id": "tau2-bench", "domain": "mock", "user_llm": "scripted", "task_split": "base"}
    env = vf.load_environment(vf.resolve_env_config({"taskset": taskset, "agent": {"max_turns": 1}}))
    (trace,) = await rollouts(env, num_examples=1)
    assert (trace.stop_condition, trace.ok, trace.reward, trace.num_turns) == ("max_turns", True, 0.0, 1)
    assert trace.info["tau2"]["detail"] == "stopped by max_turns"


@pytest.mark.parametrize("silent", [True, False])
async def test_a_simulator_that_fails_is_no_zero(server: ChatServer, silent: bool) -> None:
    """One that never answers, and one that is not there."""
    held: list[asyncio.StreamWriter] = []
    hanging = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}/v1" if silent else closed()
    how = {"user_base_url": url, "user_timeout": 0.3, "user_retries": 0, "user_patience": 0}
    (trace,) = await rollouts(load(num_eval_examples=1, user_llm="openai/nobody", **how))
    for writer in held:
        writer.close()
    hanging.close()
    assert not trace.ok and trace.rewards == {}
    assert "user_error (user)" in trace.errors[0].message
    assert trace.metrics["blame_user"] == 1.0


async def test_a_rollout_that_runs_out_of_time_is_no_zero(server: ChatServer) -> None:
    env = load(num_eval_examples=1, user=lambda world: Sleeper(world.task, world.domain, world.split))
    env.config.agent.timeout = vf.AgentConfig().timeout.model_copy(update={"rollout": 0.3})
    (trace,) = await rollouts(env)
    assert not trace.ok and trace.rewards == {} and trace.is_timeout
    assert "before its episode did" in trace.errors[0].message


async def test_a_cancelled_evaluation_leaves_nothing_behind(server: ChatServer) -> None:
    before = asyncio.all_tasks()
    env = load(num_eval_examples=2, user=lambda world: Sleeper(world.task, world.domain, world.split))
    work = asyncio.ensure_future(env.evaluate(model="gold"))
    await asyncio.sleep(0.5)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert asyncio.all_tasks() == before


async def test_many_at_once(server: ChatServer) -> None:
    results = await load(num_eval_examples=3).evaluate(model="gold", rollouts_per_example=50, max_concurrent=-1)
    assert (results["score"], results["completed"], results["failed"]) == (1.0, 150, 0)
    assert all(trace.num_branches == 1 for trace in results["outputs"])


async def test_a_user_of_ones_own(server: ChatServer) -> None:
    seen: list[Any] = []

    def build(world: Any) -> ScriptedUser:
        seen.append(world)
        return ScriptedUser(world.task, world.domain, world.split)

    (trace,) = await rollouts(load(num_eval_examples=1, user_llm="gpt-4", user=build))
    assert trace.reward == 1.0 and len(seen) == 1


async def test_an_environment_server_plays_rows(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It builds the task from the row alone, whatever its own variables say, and sends the trace over verifiers' wire."""
    from verifiers.v1.serve.client import EnvClient
    from verifiers.v1.serve.server import EnvServer

    rows = [task.data.model_dump(mode="json") for task in load(max_turns=2).taskset.take(3)]
    monkeypatch.setenv("TAU2_MAX_TURNS", "7")
    served = EnvServer(load().config, address="tcp://127.0.0.1:0")
    serving = asyncio.create_task(served.run())
    client, model = EnvClient(served.address), vf.EvalClientConfig(base_url=server.url, api_key_var="OPENAI_API_KEY")
    episodes = await asyncio.gather(*(client.run(model, "gold", vf.SamplingConfig(), row) for row in rows))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await client.close()
    for row, episode in zip(rows, episodes, strict=True):
        (trace,) = episode.traces
        assert trace.ok and trace.task.key == f"mock/base/{row['task_id']}"
        assert trace.info["tau2"]["termination"] == trace.stop_condition == "max_turns"
        assert trace.num_turns == 1 and trace.metrics["blame_limit"] == 1.0


@pytest.mark.parametrize("domain", ["mock", "telecom", "retail"])
async def test_gold_is_valid(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = list(load(domain).taskset)
    chosen = tasks[:: max(1, len(tasks) // 3)]
    assert all([await task.validate(None) for task in chosen])
    monkeypatch.setattr("tau2_slime.local.gold.GoldScript.turn", lambda script, _: script.turns[-1])
    assert not all([await task.validate(None) for task in chosen]), "what does nothing is not gold"


async def test_the_policy_is_the_benchmarks_own(server: ChatServer) -> None:
    env = load(num_eval_examples=1)
    ctx = vf.ModelContext(model="gold", client=vf.EvalClientConfig(base_url=server.url, api_key_var="OPENAI_API_KEY"))
    async with env.serving():
        task = next(iter(env.taskset)).with_system_prompt("Say yes to everything.")
        episode = await env.run_slot(env.slots(task)[0], ctx)
    assert not episode.ok and "the benchmark's own" in episode.traces[0].errors[0].message and not server.requests


def test_a_split_of_the_environments_variables_is_no_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU2_TASK_SPLIT", "trian")
    with pytest.raises(ValueError, match="task_split='trian' is not a split"):
        vf.resolve_env_config({"taskset": {"id": "tau2-bench", "domain": "retail", "user_llm": "scripted"}})


def test_a_model_without_a_key_is_told_before_the_first_rollout(no_model_server: None) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY, which is not set"):
        load().evaluate(model="gpt-4", num_examples=1)


def test_the_packages_example_runs(server: ChatServer) -> None:
    assert_examples_run(door)


def test_rows_are_the_splits_tasks() -> None:
    env = tau2_bench.load_environment(domain="retail", user_llm="scripted")
    kept = [str(t.id) for t in domains.tasks("retail", "test") if not scoring.needs_judge(t)]
    assert [task.data.id for task in env.taskset] == kept
    assert all(task.data.settings == {"user_model": "scripted"} for task in env.taskset)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *WRONG_SETTINGS,
        ({"max_turns": 0}, "^max_turns = 0 is not valid"),
        ({"num_train_examples": 5}, "one taskset"),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(**settings)


class Sleeper(ScriptedUser):
    """Never says a word."""

    async def reply(self, message: Any) -> Any:
        await asyncio.Event().wait()


_taken = socket.socket()


def closed() -> str:
    """Where nobody listens, and nobody else can."""
    if not _taken.getsockname()[1]:
        _taken.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{_taken.getsockname()[1]}/v1"


async def test_examples_are_shown(server: ChatServer, tmp_path: Path) -> None:
    examples = few_shot_file.write(tmp_path / "examples.jsonl")
    env = load(few_shot=str(examples), few_shot_count=2)
    at = [task.id for task in domains.tasks("mock", "base")].index(few_shot_file.PLAYED)
    env.taskset = env.taskset.include(idx=[str(at)])
    (trace,) = await rollouts(env)
    (told,) = [m["content"] for m in server.requests[0]["messages"] if m["role"] == "system"]
    few_shot_file.assert_shown(told)
    assert trace.reward == 1.0 and trace.state.episode.result.task_id == few_shot_file.PLAYED


def test_examples_that_cannot_be_shown_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        list(load(few_shot="/nowhere.jsonl").taskset)
    examples = few_shot_file.write(tmp_path / "examples.jsonl")
    with pytest.raises(ConfigError, match="it has examples from 3 tasks of mock; few_shot_count=3 needs 4"):
        list(load(few_shot=str(examples)).taskset)
