"""Actions in plain text through slime's door: token truth, what is heard, what can be repaired, what survives an abort."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.local.gold import GoldScript
from tau2_slime.tokens.calls.action_text import action_format
from tau2_slime.world import domains
from tests.faults import test_resume
from tests.faults.conftest import PAID, Stage, outcome, stats
from tests.faults.servers import say

THOUGHT = "Thought: The task is clear.\n"


def act(name: str, **arguments: Any) -> str:
    return f"Action:\n{json.dumps({'name': name, 'arguments': arguments})}"


def respond(text: str) -> str:
    return act("respond", content=text)


CREATE = act("create_task", user_id="user_1", title="Important Meeting")
DONE = respond("Your case is now complete. The task 'Important Meeting' is there.")


@pytest.mark.parametrize("strategy", ["act", "react"])
async def test_gold_in_text_is_paid_and_every_token_is_the_servers(stage: Stage, strategy: str) -> None:
    thought = THOUGHT if strategy == "react" else ""
    sample = await stage.play([say(thought + CREATE), say(thought + DONE)], agent_strategy=strategy)
    assert (outcome(sample), sample.reward) == (PAID, 1.0)
    said = [m.content for m in stage.results[-1].messages if m.role == "assistant"]
    assert said[1:] == [None, "Your case is now complete. The task 'Important Meeting' is there."]
    assert sample.metadata["tau2"]["agent_strategy"] == stage.results[-1].agent_strategy == strategy
    text = stage.router.tokenizer.decode(sample.tokens)
    assert "<|im_start|>user\nAPI output: " in text and "<tool_response>" not in text and "## Tools" not in text
    assert text.count("How can I help you today?") == 1 and "<|im_start|>assistant\nHi!" not in text


async def test_a_malformed_action_is_answered_and_costs_nothing(stage: Stage) -> None:
    broken = CREATE[:-1] + "\nAPI output: {}"
    sample = await stage.play([say(broken), say(CREATE), say(DONE)], agent_strategy="act")
    assert (outcome(sample), sample.reward) == (PAID, 1.0)
    assert stats(sample)["tool_calls"] == {"invalid_json": 1, "ok": 1}
    result = stage.results[-1]
    refused = next(m for m in result.messages if m.role == "tool")
    assert refused.error and refused.content.startswith("Error: The action cannot be read")
    assert list(result.rejected_calls.values()) == [[0]] and stats(sample)["agent_errors"] == 1
    assert "user\nAPI output: Error: The action cannot be read" in stage.router.tokenizer.decode(sample.tokens)


async def test_a_thought_alone_is_no_message(stage: Stage) -> None:
    sample = await stage.play([say("Thought: I wait."), say(CREATE), say(DONE)], agent_strategy="react")
    assert (outcome(sample), sample.reward) == (PAID, 1.0)
    assert not any("I wait" in str(m.content) for m in stage.results[-1].messages)


@pytest.mark.parametrize(("aloud", "reward"), [(True, 1.0), (False, 0.0)])
async def test_only_what_is_said_aloud_is_communicated(stage: Stage, aloud: bool, reward: float) -> None:
    task = next(t for t in domains.tasks("airline", "base") if t.evaluation_criteria.communicate_info)
    script = GoldScript.from_task(task)
    fmt = action_format("react")
    assert fmt is not None
    moves = [THOUGHT + fmt.format([turn.call]) for turn in script.turns if turn.call is not None]
    facts = str(script.turns[-1].text)
    thought = THOUGHT if aloud else f"Thought: {facts}\n"
    moves.append(thought + fmt.say(facts if aloud else "Your case is now complete."))
    where = {"domain": "airline", "task_split": "base", "task_id": task.id}
    sample = await stage.play([say(move) for move in moves], task=where, agent_strategy="react", max_turns=200)
    assert (outcome(sample), sample.reward) == (PAID, reward)


TURNS = (
    THOUGHT + act("get_users"),
    "Thought: I only think.",
    THOUGHT + respond("What shall it be called?"),
    THOUGHT + CREATE,
    "It is done: 'Important Meeting'.",
)


@pytest.mark.parametrize("turn", range(len(TURNS)))
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_an_interrupted_episode_is_the_same_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, turn: int, share: float
) -> None:
    monkeypatch.setattr(test_resume, "TURNS", TURNS)
    whole, _ = await test_resume.play_on(stage, {}, set(), agent_strategy="react")
    words = test_resume.told(stage)
    stage.router.asks.clear()
    stage.router.sent.clear()
    sample, rollouts = await test_resume.play_on(stage, {turn: [share]}, set(), agent_strategy="react")
    assert rollouts == 2
    test_resume.same_episode(stage, sample, whole, words)


async def test_an_episode_is_not_taken_up_in_another_form(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_resume, "TURNS", TURNS)

    def changed(sample: Any) -> Any:
        sample.metadata["agent_strategy"] = "act"
        return sample

    sample, _ = await test_resume.play_on(stage, {3: [0.5]}, set(), changed, agent_strategy="react")
    assert "agent_strategy" in sample.metadata["tau2"]["restarted"]


async def test_a_parser_of_calls_would_change_nothing(stage: Stage) -> None:
    sample = await stage.play([], agent_strategy="act", tool_call_parser="hermes")
    assert "tool_call_parser would change nothing" in sample.metadata["tau2"]["detail"]
