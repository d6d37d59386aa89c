"""`TurnEpisode`: the same episode, with a policy that answers from outside."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from tau2_slime.backends.turns import TurnEpisode, TurnRequest
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.conversation import Conversation
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Blame, Status, Termination
from tau2_slime.tokens.calls.parsers.chat_server import parsed_call
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn
from tau2_slime.world import domains
from tests import parity_play as play
from tests.parity_play import Script, Turn

MOCK = Tau2Config(domain="mock", task_split="base", max_turns=1000, max_steps=1000, max_errors=1000)


def parsed(turn: Turn, request: TurnRequest) -> ParsedTurn:
    import json

    calls = [parsed_call(c.name, json.dumps(c.arguments), request.tools, c.id or None) for c in turn.calls]
    return ParsedTurn(turn.content, None, calls)


async def play_turns(config: Tau2Config, task: Any, script: Script) -> tuple[list[TurnRequest], TurnEpisode]:
    episode = await TurnEpisode.create(config, task_id=task.id, user=lambda world: play.ScriptedUser(script))
    requests: list[TurnRequest] = []
    lines = iter(script.agent)
    request = await episode.begin()
    while request is not None:
        requests.append(request)
        request = await episode.reply(parsed(next(lines, Turn("Is there anything else?")), request))
    return requests, episode


@pytest.mark.parametrize("domain", ["mock", "telecom", "retail", "airline"])
async def test_it_plays_what_the_conversation_plays(domain: str) -> None:
    config = MOCK.model_copy(update={"domain": domain})
    tasks = [t for t in domains.tasks(domain, "base") if not play.scoring.needs_judge(t)]
    for task in tasks if domain == "mock" else tasks[:: max(1, len(tasks) // 6)]:
        script = play.gold_script(task)
        expected, conversation = await asyncio.to_thread(play.play_ours, domain, task, script)
        _, episode = await play_turns(config, task, script)
        result = episode.result
        assert result is not None
        assert [play.plain(m) for m in result.messages] == expected.messages, task.id
        assert str(result.termination) == expected.termination
        verdict = await asyncio.to_thread(play.score_ours, conversation, expected)
        if isinstance(verdict, type) and result.blame is Blame.AGENT:  # an assertion of τ² raised: it is not met
            assert result.reward == 0.0
        elif isinstance(verdict, type):  # τ² raises on the task itself
            assert result.blame is Blame.INFRASTRUCTURE and result.reward is None
        else:
            assert result.reward == verdict["reward"], task.id


async def test_what_the_policy_is_shown() -> None:
    """New messages once, everything in the chat, tool results by the id of their call, the user's own tools never."""
    task = next(
        t
        for t in domains.tasks("telecom", "base")
        if t.evaluation_criteria and {a.requestor for a in t.evaluation_criteria.actions or []} == {"user", "assistant"}
    )
    requests, episode = await play_turns(MOCK.model_copy(update={"domain": "telecom"}), task, play.gold_script(task))
    assert [m["role"] for m in requests[0].new] == ["system", "assistant", "user"]
    shown = [message for request in requests for message in request.new]
    replies = [m for m in requests[-1].chat if m["role"] == "assistant"][1:]
    assert len(shown) + len(replies) == len(requests[-1].chat)
    offered = {tool["function"]["name"] for tool in requests[0].tools}
    for before, after in pairwise(requests):
        sampled = after.chat[len(before.chat)]
        if sampled.get("tool_calls"):
            assert [m["tool_call_id"] for m in after.new] == [c["id"] for c in sampled["tool_calls"]]
            assert {c["function"]["name"] for c in sampled["tool_calls"]} <= offered
        else:
            assert [m["role"] for m in after.new] == ["user"]
    assert episode.result is not None and episode.result.reward == 1.0


async def test_the_framework_may_stop_for_a_limit() -> None:
    episode = await TurnEpisode.create(
        MOCK, task_id="create_task_1", user=lambda world: play.ScriptedUser(Script([], [Turn("Hello")]))
    )
    assert await episode.begin() is not None
    result = await episode.stop(Termination.CONTEXT_LENGTH, "no room")
    assert (result.termination, result.status, result.reward) == (Termination.CONTEXT_LENGTH, Status.TRUNCATED, 0.0)
    assert result.detail == "no room"
    assert await episode.stop(Termination.AGENT_ERROR, "again") is result


async def test_an_episode_without_a_turn_of_the_agent_is_nobodys_zero() -> None:
    script = Script([], [])  # the user hangs up at once
    episode = await TurnEpisode.create(MOCK, task_id="create_task_1", user=lambda world: play.ScriptedUser(script))
    assert await episode.begin() is None
    assert episode.result is not None
    assert (episode.result.blame, episode.result.trainable) == (Blame.USER, False)


async def test_closing_drops_what_is_under_way() -> None:
    episode = await TurnEpisode.create(
        MOCK, task_id="create_task_1", user=lambda world: play.ScriptedUser(Script([], [Turn("Hello")]))
    )
    assert await episode.begin() is not None
    assert isinstance(episode.conversation, Conversation)
    await episode.close()
    assert episode.over and episode.result is None
    assert len(asyncio.all_tasks()) == 1  # this test's own


async def test_an_episode_that_nobody_waits_for_any_more_is_dropped() -> None:
    asked = asyncio.Event()

    class Silent(play.ScriptedUser):
        async def reply(self, message: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

    episode = await TurnEpisode.create(MOCK, task_id="create_task_1", user=lambda world: Silent(Script([], [])))
    waiting = asyncio.create_task(episode.begin())
    await asked.wait()
    waiting.cancel()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)
    assert waiting.cancelled() and episode.over and episode.result is None


async def test_malformed_calls_are_answered_and_can_be_repaired() -> None:
    task = domains.find_task("mock", "base", task_id="create_task_1")
    script = play.gold_script(task)
    episode = await TurnEpisode.create(MOCK, task_id=task.id, user=lambda world: play.ScriptedUser(script))
    request = await episode.begin()
    assert request is not None
    broken = [
        parsed_call("create_task", '{"user_id": ', request.tools, "a"),
        parsed_call("create_task", "[1]", request.tools, "b"),
        parsed_call("no_such_tool", "{}", request.tools, "c"),
    ]
    assert [c.status for c in broken] == [CallStatus.INVALID_JSON, CallStatus.INVALID_JSON, CallStatus.UNKNOWN_TOOL]
    request = await episode.reply(ParsedTurn(None, None, broken))
    assert request is not None
    assert [m["tool_call_id"] for m in request.new] == ["a", "b", "c"]
    assert all(m["content"].startswith("Error") for m in request.new)
    for turn in script.agent:
        assert request is not None
        request = await episode.reply(parsed(turn, request))
    result = episode.result
    assert result is not None and result.reward == 1.0
    assert result.stats.agent_errors == 3
    assert result.stats.tool_calls == {"invalid_json": 2, "unknown_tool": 1, "ok": 1}


async def test_a_task_that_does_not_exist_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="no task 'nope' in mock/base"):
        await TurnEpisode.create(MOCK, task_id="nope")
