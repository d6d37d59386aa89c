"""Gold play, message by message: the scripts of both sides earn what τ² gives a perfect agent."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.conversation import AgentTurn, Conversation, Limits
from tau2_slime.local.gold import ASK_REFERENCE, DONE_TOOL, GoldScript, find_reference
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.local.spelling import draw
from tau2_slime.outcome import Termination
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.environment import World

NOT_REACHED_BY_GOLD = {("mock", "update_task_with_history_and_env_assertions")}
"""Its history is graded by an assertion that no gold action of the task brings about."""
IDLE = {("mock", "create_task_1_nl_eval"), ("mock", "update_task_with_history_and_env_assertions")}
"""mock's tasks without gold actions."""


class ReplayingAgent:
    """Says a script's turns as messages; asks for the case reference until it has heard one."""

    def __init__(self, script: GoldScript, *, solo: bool = False) -> None:
        self.script, self.solo = script, solo
        self.known = solo
        self.said = 0

    def start(self, history: list[Any]) -> None:
        pass

    async def respond(self, message: Any | None) -> AgentTurn:
        t = tau2_compat.load()
        self.known = self.known or find_reference(message.content or "") is not None
        if not self.known:
            return AgentTurn(t.AssistantMessage(role="assistant", content=ASK_REFERENCE))
        turn = self.script.turn(self.said)
        self.said += 1
        if turn.call is None:
            return AgentTurn(t.AssistantMessage(role="assistant", content=turn.text))
        name, arguments = turn.call
        if self.solo and name == DONE_TOOL:  # τ²'s solo agent turns this call into the stop token
            return AgentTurn(t.AssistantMessage(role="assistant", content="###STOP###"))
        call = t.ToolCall(id=f"call_{self.said}", name=name, arguments=arguments)
        return AgentTurn(t.AssistantMessage(role="assistant", content=None, tool_calls=[call]))

    def is_stop(self, message: Any) -> bool:
        return self.solo and message.content == "###STOP###"


async def play(domain: str, split: str, task: Any, script: GoldScript, *, solo: bool = False) -> tuple[Any, float]:
    world = World(domain, split, task, solo=solo)
    user = None if solo else ScriptedUser(task, domain, split)
    conversation = Conversation(world, ReplayingAgent(script, solo=solo), user, Limits())
    termination, detail = await conversation.play()
    assert detail == ""
    started = tau2_compat.load().get_now()
    info = scoring.score(
        world, conversation.messages, conversation.rejected, termination, started=started, duration=1.0
    )
    return termination, info.reward


def spread(domain: str, split: str, count: int) -> list[Any]:
    """Parameters of ``count`` tasks spread over the split; the tasks themselves are looked up when a test runs."""
    return [pytest.param(domain, split, i / count, id=f"{domain}-{i + 1}-of-{count}") for i in range(count)]


def task_at(domain: str, split: str, share: float) -> Any:
    pool = domains.tasks(domain, split)
    return pool[int(share * len(pool) + 1e-9)]


@pytest.mark.parametrize(
    ("domain", "split", "share"),
    [
        *spread("mock", "base", 9),
        *spread("retail", "base", 10),
        *spread("airline", "base", 6),
        *spread("telecom", "train", 12),
    ],
)
async def test_gold_play_earns_the_full_reward(domain: str, split: str, share: float) -> None:
    task = task_at(domain, split, share)
    termination, reward = await play(domain, split, task, GoldScript.from_task(task))
    assert termination is Termination.USER_STOP
    assert reward == (0.0 if (domain, task.id) in NOT_REACHED_BY_GOLD else 1.0)


def test_the_tasks_that_teach_nothing_are_known() -> None:
    """Of mock: doing nothing is paid, or gold is not."""
    for task in domains.tasks("mock", "base"):
        if scoring.needs_judge(task):
            continue
        paid, where = paid_without_a_model(Tau2Config(domain="mock", task_split="base"), task), ("mock", task.id)
        assert paid.gold == (0.0 if where in NOT_REACHED_BY_GOLD else 1.0), task.id
        assert paid.do_nothing == (1.0 if where in IDLE - NOT_REACHED_BY_GOLD else 0.0), task.id


@pytest.mark.parametrize(("domain", "share"), [("telecom", 0.1), ("telecom", 0.9), ("retail", 0.0)])
def test_gold_with_the_users_part_and_what_is_communicated_earns_1(domain: str, share: float) -> None:
    paid = paid_without_a_model(Tau2Config(domain=domain, task_split="train"), task_at(domain, "train", share))
    assert (paid.gold, paid.do_nothing, paid.why) == (1.0, 0.0, "")


@pytest.mark.parametrize(("domain", "split", "share"), spread("telecom", "train", 6))
async def test_solo_gold_play_earns_the_full_reward(domain: str, split: str, share: float) -> None:
    task = task_at(domain, split, share)
    termination, reward = await play(domain, split, task, GoldScript.from_task(task, solo=True), solo=True)
    assert termination is Termination.AGENT_STOP
    assert reward == 1.0


@pytest.mark.parametrize("choice", [0, 1])  # the step left out, an unknown tool
async def test_a_mistake_in_the_only_action_costs_the_reward(choice: int) -> None:
    task = domains.find_task("mock", "base", task_id="create_task_1")
    termination, reward = await play("mock", "base", task, GoldScript.from_task(task).with_mistake(choice))
    assert termination is Termination.USER_STOP
    assert reward == 0.0


def test_noise_is_spread_over_all_steps() -> None:
    """A share of the steps before the last turn becomes another move; every step may be hit, and the close stays."""
    task = max(domains.tasks("retail", "train"), key=lambda task: len(task.evaluation_criteria.actions))
    script = GoldScript.from_task(task)
    steps = script.turns[:-1]
    assert script.with_noise(0.0, lambda *what: 0.0) == script
    kept = hit = 0
    moves = set()
    for run in range(200):
        noisy = script.with_noise(0.25, lambda *what, run=run: draw(run, *what))
        assert noisy.turns[-1] == script.turns[-1]
        kept += sum(noisy.turns.count(step) == steps.count(step) for step in steps)
        moves |= {turn.kind for turn in noisy.turns}
        hit += noisy != script
        assert noisy == script.with_noise(0.25, lambda *what, run=run: draw(run, *what))
    assert moves == {"call", "broken", "final"}
    assert hit > 190  # 1 - 0.75 ** 10 or more of 200
    assert 0.72 < kept / (200 * len(steps)) < 0.92  # 0.75 are untouched; some moves make the step once all the same


async def test_noise_costs_some_plays_their_reward_and_some_not() -> None:
    task = domains.find_task("mock", "base", task_id="update_task_1")
    rewards = []
    for run in range(60):
        script = GoldScript.from_task(task).with_noise(1.0, lambda *what, run=run: draw(run, *what))
        rewards.append((await play("mock", "base", task, script))[1])
    assert set(rewards) == {0.0, 1.0}


def test_both_sides_divide_the_work_as_gold_does() -> None:
    """Every gold action is in the script exactly once, in order, on its own side."""
    for task in domains.tasks("telecom", "base"):
        script = GoldScript.from_task(task)
        actions = task.evaluation_criteria.actions or []
        for requestor, played in (
            ("assistant", [turn.call for turn in script.turns if turn.call is not None]),
            ("user", [call for part in script.user_parts for call in part]),
        ):
            assert played == [(a.name, a.arguments) for a in actions if a.requestor == requestor]
        assert sum(turn.kind == "ask" for turn in script.turns) == len(script.user_parts)


@pytest.mark.parametrize("domain", ["mock", "airline", "retail", "telecom"])
def test_every_task_is_found_by_the_reference_that_its_user_gives(domain: str) -> None:
    for split, ids in domains.splits(domain).items():
        for task_id in ids:
            user = ScriptedUser(domains.find_task(domain, split, task_id=task_id), domain, split)
            found = find_reference(f"Hello, {user.reference.sentence()}\nI need help.")
            assert found is not None
            assert (found.domain, found.split, found.task_id) == (domain, split, task_id)


def test_the_last_turn_says_what_has_to_be_communicated() -> None:
    task = next(t for t in domains.tasks("retail", "base") if t.evaluation_criteria.communicate_info)
    last = GoldScript.from_task(task).turns[-1].text
    assert last is not None
    assert all(info in last for info in task.evaluation_criteria.communicate_info)
