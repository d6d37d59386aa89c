"""A conversation interrupted after every single hop, carried as JSON and rebuilt in a fresh world, is the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.episode.conversation import Conversation, Limits
from tau2_slime.episode.interrupted import state_of
from tau2_slime.local.gold import ASK_REFERENCE, GoldScript, find_reference
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.outcome import Termination
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.environment import World
from tests.local.test_gold_play import ReplayingAgent, spread, task_at


class TakenUpAgent(ReplayingAgent):
    """Knows from the messages how far it has come."""

    def start(self, history: list[Any]) -> None:
        self.known = any(find_reference(m.content or "") for m in history if m.role == "user")
        own = [m for m in history if m.role == "assistant"]
        greeting = tau2_compat.load().FIRST_AGENT_MESSAGE.content
        self.said = sum(m.content not in (ASK_REFERENCE, greeting) for m in own)


def parts(domain: str, split: str, task: Any) -> tuple[World, TakenUpAgent, ScriptedUser]:
    script = GoldScript.from_task(task)
    return World(domain, split, task), TakenUpAgent(script), ScriptedUser(task, domain, split)


def words(conversation: Conversation) -> list[Any]:
    return [m.model_dump(exclude={"timestamp", "raw_data"}) for m in conversation.messages]


def hashes(world: World) -> tuple[Any, Any]:
    return world.environment.get_db_hash(), world.environment.get_user_db_hash()


@pytest.mark.parametrize(
    ("domain", "split", "share"),
    [
        *spread("mock", "base", 5),
        *spread("retail", "base", 2),
        *spread("airline", "base", 1),
        *spread("telecom", "train", 6),
    ],
)
async def test_interrupted_after_every_hop(domain: str, split: str, share: float) -> None:
    task = task_at(domain, split, share)
    world, agent, user = parts(domain, split, task)
    whole = Conversation(world, agent, user, Limits())
    ended = await whole.play()
    assert ended[0] is Termination.USER_STOP

    state: dict[str, Any] | None = None
    hops, termination = 0, Termination.ABORTED
    while termination is Termination.ABORTED:
        again, agent, user = parts(domain, split, task)
        until = state["steps"] + 1 if state is not None else 1
        part = Conversation(again, agent, user, Limits(), aborted=lambda: part.steps >= until)  # noqa: B023
        termination, _ = await part.play(state)
        state, hops = json.loads(json.dumps(state_of(part))), hops + 1

    assert termination is ended[0]
    assert hops == whole.steps
    assert words(part) == words(whole)
    assert hashes(again) == hashes(world)
    rewards = [
        scoring.score(w, c.messages, c.rejected, termination, started=c.messages[0].timestamp, duration=1.0)
        for w, c in ((world, whole), (again, part))
    ]
    assert rewards[0] == rewards[1]
