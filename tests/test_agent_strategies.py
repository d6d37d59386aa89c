"""The same gold play in every form of acting and through every door earns the same and says the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.chat.completion import read_message
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import default_plan
from tau2_slime.evaluation.runner.api_agent import ApiSpec
from tau2_slime.evaluation.runner.budget import Budget
from tau2_slime.evaluation.runner.policies import ApiPolicy
from tau2_slime.evaluation.runner.run import End, Options, Runner
from tau2_slime.evaluation.store.records import Store, jobs
from tau2_slime.export.command import ExportRequest, Format, export
from tau2_slime.inspector import sources
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.drift_check import DriftCounts, check_drift
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.policy.checkpoint import build_profile
from tau2_slime.rollout import RolloutPlan, plan_jobs, run
from tau2_slime.tokens.calls.action_text import action_format
from tau2_slime.world import domains
from tests.evaluation.api_server import ApiServer, gold
from tests.tokens.rows import ROWS

NATIVE_AND_TEXT = ("native", "act", "react")


async def rollout(folder: Path, domain: str, tasks: list[str], checkpoint: str | None = None, **tau2: Any) -> list[Any]:
    overrides = {"max_turns": 200, "user_model": "scripted", "drift_rate": 1.0, **tau2}
    config = Tau2Config.resolve(None, overrides)
    plan = RolloutPlan(
        jobs=plan_jobs([domain], "base", tasks, None, 1, config),
        output_dir=folder,
        router=None,
        hf_checkpoint=checkpoint,
        trust_remote_code=False,
        overrides=overrides,
        yaml_mapping={},
        sampling_params={"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8192},
        max_context_len=None,
        concurrency=16,
        mistakes=0.0,
    )
    await run(plan)
    return [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]


def told(row: dict[str, Any]) -> list[Any]:
    return [
        (m["role"], m.get("content"), [(c["name"], c["arguments"]) for c in m.get("tool_calls") or []])
        for m in row["messages"]
    ]


@pytest.mark.parametrize(
    ("domain", "every"),
    [pytest.param("mock", 1, marks=pytest.mark.fast), ("airline", 7), ("retail", 16), ("telecom", 16)],
)
async def test_gold_earns_and_says_the_same_in_every_form(tmp_path: Path, domain: str, every: int) -> None:
    """On a sample of the tasks; on every base task with TAU2_SLIME_FULL=1 (`make test-full`)."""
    tasks = [task.id for task in domains.tasks(domain, "base")][:: 1 if os.environ.get("TAU2_SLIME_FULL") else every]
    played = {}
    for strategy in NATIVE_AND_TEXT:
        rows = await rollout(tmp_path / strategy, domain, tasks, agent_strategy=strategy)
        played[strategy] = {row["task_id"]: row for row in rows}
        assert all(row["agent_strategy"] == strategy for row in rows)
        assert all(row["stats"]["drift"]["environment_mismatches"] == 0 for row in rows)
    export(ExportRequest((tmp_path / "native",), Format.EXAMPLES, tmp_path / "out"))
    shown = {"few_shot": str(tmp_path / "out" / "examples.jsonl"), "few_shot_count": 2}
    rows = await rollout(tmp_path / "few-shot", domain, tasks, agent_strategy="few-shot", **shown)
    played["few-shot"] = {row["task_id"]: row for row in rows}
    template = build_profile(str(local_checkpoint()), Tau2Config()).delta.template
    for found in sources.read_episodes(tmp_path / "few-shot").trajectories[:: max(1, len(rows) // 4)]:
        prompt = template.decode(list(found.tokens[: found.prompt_length]))
        assert prompt.count("## Example ") == 2
    for strategy in ("act", "react", "few-shot"):
        for task_id, native in played["native"].items():
            other = played[strategy][task_id]
            assert (other["reward"], other["termination"]) == (native["reward"], native["termination"])
            assert told(other) == told(native)
    assert sum(row["reward"] for row in played["native"].values()) >= len(tasks) - (domain == "mock")


async def test_a_solo_agent_acts_in_text(tmp_path: Path) -> None:
    tasks = [task.id for task in domains.tasks("telecom", "base") if task.ticket][:3]
    for strategy in NATIVE_AND_TEXT:
        rows = await rollout(tmp_path / strategy, "telecom", tasks, agent_strategy=strategy, agent_type="solo")
        assert [row["reward"] for row in rows] == [1.0] * 3, strategy


@pytest.mark.parametrize(
    "row", ["DeepSeek-V3", "DeepSeek-V3.2", "Mistral-Nemo", "Kimi-K2-Thinking", "gpt-oss", "Qwen3-Thinking-2507"]
)
async def test_a_checkpoint_whose_template_has_no_tools_plays(row: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    ROWS[row].tokenizer().save_pretrained(checkpoint)
    (checkpoint / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 200000}')
    if ROWS[row].problem is not None:
        with pytest.raises(ConfigError, match="agent_strategy: react"):
            build_profile(str(checkpoint), Tau2Config())
    for strategy in ("act", "react"):
        folder = tmp_path / strategy
        rows = await rollout(
            folder, "mock", ["create_task_1", "update_task_1"], str(checkpoint), agent_strategy=strategy
        )
        assert [row["reward"] for row in rows] == [1.0, 1.0]
        found = sources.read_episodes(folder)
        language, counts = build_profile(str(checkpoint), Tau2Config(agent_strategy=strategy)), DriftCounts()
        for trajectory in found.trajectories:
            assert check_trajectory(trajectory) == check_drift(trajectory, language, counts) == []
        assert (counts.prompts, counts.skipped) == (2, {}) and counts.joins >= 2
    shutil.rmtree(checkpoint)


def in_text(name: str) -> Any:
    """`gold`, spoken in a format: thoughts before, results as user messages."""
    fmt = action_format(name)
    assert fmt is not None

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        step = gold(body)
        calls = [(name, json.loads(arguments)) for name, arguments in step.get("calls", [])]
        said = fmt.format(calls) if calls else fmt.say(step["content"])
        return {"content": f"<think>Hm.</think>Thought: next.\n{said}"}

    return answer


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("strategy", ["act", "react"])
async def test_a_model_behind_an_api_acts_in_text(tmp_path: Path, strategy: str) -> None:
    plan = default_plan(
        ["mock", "retail"], ["scripted"], tasks=2, attempts=1, overrides={"max_turns": 200, "agent_strategy": strategy}
    )
    async with ApiServer(in_text(strategy)) as server:
        with Store(tmp_path).writing() as store:
            policy = ApiPolicy(ApiSpec("openai/some-model", base_url=server.url, retries=0))
            runner = Runner(jobs(plan), policy, store, Budget(tmp_path / "costs.jsonl"), Options(retries=0, pause=0.0))
            assert await runner.run() is End.COMPLETE
        assert [record["reward"] for record in store.records.values()] == [1.0] * 4
    for request in server.requests:
        assert "tools" not in request and {m["role"] for m in request["messages"]} <= {"system", "user", "assistant"}
        own = [m["content"] for m in request["messages"] if m["role"] == "assistant"]
        assert all(text.startswith("Thought: next.\nAction:") for text in own), "its own turns stay as it wrote them"


@pytest.mark.parametrize("strategy", ["act", "react"])
async def test_a_framework_that_holds_the_policy_is_handed_text(strategy: str) -> None:
    config = Tau2Config(domain="mock", task_split="base", user_model="scripted", agent_strategy=strategy)
    episode = await TurnEpisode.create(config, task_id="create_task_1")
    speak, ask = in_text(strategy), await episode.begin()
    while ask is not None:
        assert (
            ask.tools == [] and [m["role"] for m in ask.chat] == ["system", *["user", "assistant"] * 9][: len(ask.chat)]
        )
        message = {"role": "assistant", **speak({"messages": ask.chat})}
        ask = await episode.reply(episode.understood(read_message(message)))
    assert episode.result is not None and episode.result.reward == 1.0
