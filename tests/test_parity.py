"""`Conversation` is τ²'s Orchestrator: every message, every limit, every reward, on every task of every domain."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tests import parity_play as play
from tests.parity_play import STOP, Call, Script, Turn

DOMAINS = [name for name in domains.domains() if name not in play.CANNOT_RUN]
SOLO_DOMAINS = ["mock", "telecom"]
SLOW_TO_BUILD = ("airline", "retail")
GOLD_FAILS = {  # mock: they assert a change that no action of theirs makes
    "update_task_with_history_and_env_assertions",
    "update_task_with_user_tools",
}

full = pytest.mark.skipif(
    not os.environ.get("TAU2_SLIME_FULL"),
    reason="takes minutes: set TAU2_SLIME_FULL=1 to score gold and random play of every task through both",
)


def base_tasks(domain: str) -> tuple[Any, ...]:
    return domains.tasks(domain, "base")


def solo_tasks(domain: str) -> list[Any]:
    agent = tau2_compat.load().LLMSoloAgent
    return [task for task in base_tasks(domain) if agent.check_valid_task(task)]


def assert_same(
    domain: str,
    task: Any,
    script: Script,
    *,
    solo: bool = False,
    scored: bool = False,
    environment: Any = None,
    world: Any = None,
) -> Any:
    """Play both ways and compare everything; with ``scored`` also the rewards, which are returned."""
    theirs, run = play.play_tau2(domain, task, script, solo=solo, environment=environment)
    ours, conversation = play.play_ours(domain, task, script, solo=solo, world=world)
    where = f"{domain}/{task.id} (solo={solo})"
    assert ours.messages == theirs.messages, where
    assert ours.termination == theirs.termination, where
    assert ours.steps == theirs.steps, where
    assert ours.errors == theirs.errors, where
    assert ours.agent_heard == theirs.agent_heard, where
    if not solo:
        assert ours.user_heard == theirs.user_heard, where
    if not scored:
        return None
    expected = play.score_tau2(domain, task, run, solo=solo)
    assert play.score_ours(conversation, ours) == expected, where
    return expected


# ---- every task ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_random_play_of_every_task_is_the_same(domain: str) -> None:
    environment = world = None
    for number, task in enumerate(base_tasks(domain)):
        if domain in SLOW_TO_BUILD:
            # Their tasks have no initial state: both sides may go on with the world that the last script left.
            assert task.initial_state is None
            if number % 20 == 0:
                environment, world = play.tau2_environment(domain, task), World(domain, "base", task)
            world.task = task
        assert_same(domain, task, play.random_script(domain, task, seed=0), environment=environment, world=world)


@pytest.mark.parametrize("domain", SOLO_DOMAINS)
def test_random_solo_play_is_the_same(domain: str) -> None:
    tasks = solo_tasks(domain)
    assert tasks
    for task in tasks if len(tasks) < 20 else tasks[::4]:
        assert_same(domain, task, play.random_script(domain, task, seed=0, solo=True), solo=True)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gold_play_earns_the_same_reward(domain: str) -> None:
    tasks = base_tasks(domain)
    if domain != "mock":
        tasks = random.Random(domain).sample(tasks, 1 if domain in SLOW_TO_BUILD else 4)
    for task in tasks:
        task = play.without_judge(task)
        reward = assert_same(domain, task, play.gold_script(task), scored=True)
        assert reward["reward"] == (task.id not in GOLD_FAILS), task.id


@pytest.mark.parametrize("domain", SOLO_DOMAINS)
def test_gold_solo_play_earns_the_same_reward(domain: str) -> None:
    for task in solo_tasks(domain)[:8]:
        assert_same(domain, task, play.gold_script(task, solo=True), solo=True, scored=True)


@full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("domain", DOMAINS)
def test_full_gold_and_random_play_with_scores(domain: str) -> None:
    gold, solved, scripts, rewarded = 0, 0, 0, 0
    started = time.process_time()
    for task in base_tasks(domain):
        task = play.without_judge(task)
        reward = assert_same(domain, task, play.gold_script(task), scored=True)
        assert reward["reward"] == (task.id not in GOLD_FAILS), task.id
        gold, solved = gold + 1, solved + (reward["reward"] == 1.0)
        for seed in range(1, 5):
            reward = assert_same(domain, task, play.random_script(domain, task, seed), scored=seed == 1)
            scripts += 1
            rewarded += isinstance(reward, dict) and bool(reward["reward"])
    print(
        f"\n{domain}: gold {solved} of {gold} earn 1.0; {scripts} random scripts the same, {rewarded} rewarded; "
        f"{time.process_time() - started:.0f} s CPU"
    )


@full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("domain", SOLO_DOMAINS)
def test_full_solo_play_with_scores(domain: str) -> None:
    scripts = 0
    for task in solo_tasks(domain):
        assert_same(domain, task, play.gold_script(task, solo=True), solo=True, scored=True)
        for seed in range(1, 5):
            script = play.random_script(domain, task, seed, solo=True)
            assert_same(domain, task, script, solo=True, scored=seed == 1)
            scripts += 1
    print(f"\n{domain} solo: {len(solo_tasks(domain))} gold and {scripts} random scripts the same")


# ---- limits and stops on the same hop ---------------------------------------------------------------------------------


def errors_everywhere() -> Script:
    """Text, calls and errors of both sides in one conversation that ends by itself."""
    bad, worse = Call("no_such_tool", {}, id="1"), Call("no_such_tool", {}, "user", "2")
    return Script(
        agent=[
            Turn(calls=[Call("get_users", {}, id="0"), bad]),
            Turn("text and a call", [bad]),
            Turn(f"the agent's {STOP} is just text"),
            Turn(calls=[bad, bad, bad]),
            Turn("bye"),
        ],
        user=[Turn("hi"), Turn(f"call and stop {STOP}", [worse]), Turn("and?"), Turn(f"ok {STOP}")],
    )


def test_every_limit_at_every_place_ends_alike() -> None:
    task = base_tasks("mock")[0]
    whole, _ = play.play_ours("mock", task, errors_everywhere())
    assert (whole.termination, whole.errors) == ("user_stop", 6)
    seen = set()
    for max_steps in range(1, whole.steps + 3):
        for max_errors in range(1, whole.errors + 3):
            script = errors_everywhere()
            script.max_steps, script.max_errors = max_steps, max_errors
            assert_same("mock", task, script, scored=True)
            seen.add(play.play_ours("mock", task, script)[0].termination)
    assert seen == {"user_stop", "max_steps", "too_many_errors"}


def test_a_limit_on_the_hop_of_the_stop_beats_the_stop() -> None:
    task = base_tasks("mock")[0]
    script = Script(agent=[], user=[Turn("hi")])
    steps = play.play_ours("mock", task, script)[0].steps
    script.max_steps = steps
    assert assert_same("mock", task, script, scored=True)["reward"] == 0.0
    assert play.play_ours("mock", task, script)[0].termination == "max_steps"
    script.max_steps = steps + 1
    assert play.play_ours("mock", task, script)[0].termination == "user_stop"


@pytest.mark.parametrize("token", [STOP, "###TRANSFER###", "###OUT-OF-SCOPE###"])
def test_stop_tokens_are_the_users(token: str) -> None:
    task = base_tasks("mock")[0]
    by_agent = Script(agent=[Turn(token), Turn("still here")], user=[Turn("hi"), Turn("go on")])
    assert_same("mock", task, by_agent)
    assert len(play.play_ours("mock", task, by_agent)[0].messages) == 6
    by_user = Script(agent=[Turn("what?")], user=[Turn(f"so {token} it is")])
    assert_same("mock", task, by_user)
    assert play.play_ours("mock", task, by_user)[0].messages[-1]["content"] == f"so {token} it is"


# ---- solo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_steps", range(1, 6))
def test_text_in_solo_is_the_agents_error_unless_a_limit_comes_first(max_steps: int) -> None:
    task = solo_tasks("mock")[0]
    script = Script(agent=[Turn(calls=[Call("get_users", {})]), Turn("Hello?")], user=[], max_steps=max_steps)
    assert_same("mock", task, script, solo=True, scored=True)
    script.agent = script.agent[1:]
    assert_same("mock", task, script, solo=True, scored=True)
    assert play.play_ours("mock", task, script, solo=True)[0].termination == "agent_error"


def test_done_beside_other_calls_ends_solo_play_alike() -> None:
    task = solo_tasks("mock")[0]
    for calls in ([Call("done", {})], [Call("get_users", {}), Call("done", {})], [Call("done", {"why": 1})]):
        for lead in ([], [Turn(calls=[Call("get_users", {})])]):
            script = Script(agent=[*lead, Turn(calls=calls)], user=[])
            assert_same("mock", task, script, solo=True, scored=True)
            assert play.play_ours("mock", task, script, solo=True)[0].termination == "agent_stop"


# ---- message histories ------------------------------------------------------------------------------------------------


def with_history(task: Any, history: list[Any]) -> Any:
    initial = task.initial_state
    if initial is None:
        from tau2.data_model.tasks import InitialState

        initial = InitialState(initialization_data=None, initialization_actions=None, message_history=None)
    state = initial.model_copy(update={"message_history": history})
    return task.model_copy(update={"initial_state": state})


def prefixes(messages: list[Any]) -> list[list[Any]]:
    """Every beginning of a conversation in which each call is answered."""
    found = []
    open_calls = 0
    for stop, message in enumerate(messages, start=1):
        open_calls += len(message.tool_calls or []) if message.role != "tool" else -1
        if open_calls == 0:
            found.append(messages[:stop])
    return found


HISTORY = Script(
    agent=[
        Turn("Who are you?"),
        Turn(calls=[Call("get_users", {}, id="a")]),
        Turn("text beside", [Call("get_users", {}, id="b"), Call("no_such_tool", {}, id="c")]),
        Turn(f"not a stop: {STOP}"),
    ],
    user=[
        Turn("hi"),
        Turn(calls=[Call("no_such_tool", {}, "user", "u")]),
        Turn("text beside", [Call("no_such_tool", {}, "user", "v"), Call("nor_this", {}, "user", "w")]),
        Turn("it is me"),
        Turn(f"bye {STOP}"),
    ],
)


def test_play_goes_on_alike_after_every_kind_of_history() -> None:
    task = base_tasks("mock")[0]
    _, run = play.play_tau2("mock", task, HISTORY)
    beginnings = prefixes(run.messages)
    ends = {(m[-1].role, getattr(m[-1], "requestor", None)) for m in beginnings}
    assert ends == {("assistant", None), ("user", None), ("tool", "assistant"), ("tool", "user")}
    for history in beginnings:
        for seed in range(6):
            later = with_history(task, history)
            assert_same("mock", later, play.random_script("mock", task, seed), scored=True)


def test_a_history_that_ends_with_a_stop_is_over_at_once() -> None:
    task = base_tasks("mock")[0]
    _, run = play.play_tau2("mock", task, HISTORY)
    ended = with_history(task, run.messages)
    assert_same("mock", ended, Script([], []), scored=True)
    played, _ = play.play_ours("mock", ended, Script([], []))
    assert (played.termination, played.steps) == ("user_stop", 0)


def test_solo_play_goes_on_alike_after_a_history() -> None:
    task = solo_tasks("mock")[0]
    script = Script(
        agent=[Turn(calls=[Call("get_users", {}, id="a")]), Turn(calls=[Call("nope", {}, id="b")] * 2)], user=[]
    )
    _, run = play.play_tau2("mock", task, script, solo=True)
    beginnings = [p for p in prefixes(run.messages) if p[-1].role == "tool"]
    assert len(beginnings) == 2
    for history in beginnings:
        for seed in range(6):
            later = with_history(task, history)
            assert_same("mock", later, play.random_script("mock", task, seed, solo=True), solo=True, scored=True)


@pytest.mark.parametrize(
    "cut", ["call without its result", "result without its call", "results of two calls, one missing"]
)
def test_a_history_that_does_not_hold_together_is_the_tasks_fault(cut: str) -> None:
    task = base_tasks("mock")[0]
    _, run = play.play_tau2("mock", task, HISTORY)
    messages = run.messages
    position = next(i for i, m in enumerate(messages) if m.role == "tool")
    if cut == "call without its result":
        history = messages[:position]
    elif cut == "result without its call":
        history = [*messages[: position - 1], messages[position]]
    else:
        two = next(i for i, m in enumerate(messages) if m.role != "tool" and len(m.tool_calls or []) == 2)
        history = messages[: two + 2]
    broken = with_history(task, history)
    with pytest.raises(ValueError):
        play.play_tau2("mock", broken, Script([], []))
    assert play.play_ours("mock", broken, Script([], []))[0].termination == "config_error"


# ---- what τ² itself crashes on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [Turn(None), Turn(""), Turn(" \n ")])
@pytest.mark.parametrize("speaker", ["agent", "user"])
def test_an_empty_message_is_the_error_of_who_sent_it(speaker: str, said: Turn) -> None:
    task = base_tasks("mock")[0]
    script = Script(agent=[said], user=[Turn("hi")]) if speaker == "agent" else Script(agent=[], user=[said])
    with pytest.raises(ValueError):
        play.play_tau2("mock", task, script)
    assert play.play_ours("mock", task, script)[0].termination == f"{speaker}_error"


@pytest.mark.parametrize("speaker", ["agent", "user"])
def test_an_empty_list_of_calls_is_the_error_of_who_sent_it(speaker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = play.message_of

    def empty_list(turn: Turn, role: str, *, solo: bool = False) -> Any:
        message = original(turn, role, solo=solo)
        if turn.content == "EMPTY":
            message.tool_calls = []
        return message

    monkeypatch.setattr(play, "message_of", empty_list)
    task = base_tasks("mock")[0]
    said = Turn("EMPTY")
    script = Script(agent=[said], user=[Turn("hi")]) if speaker == "agent" else Script(agent=[], user=[said])
    with pytest.raises(IndexError):
        play.play_tau2("mock", task, script)
    assert play.play_ours("mock", task, script)[0].termination == f"{speaker}_error"


def test_a_stop_token_beside_solo_calls_does_not_swallow_the_calls() -> None:
    task = solo_tasks("mock")[0]
    script = Script(agent=[Turn(STOP, [Call("get_users", {})])], user=[])
    played, _ = play.play_ours("mock", task, script, solo=True)
    assert played.termination == "agent_stop"
    assert [m["role"] for m in played.messages] == ["assistant", "tool", "assistant"]


# ---- what environments are built with ----------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_environments_are_built_as_the_runner_of_tau2_builds_them(domain: str) -> None:
    for task in base_tasks(domain):
        assert tau2_compat.environment_kwargs(domain, task, {}) == play.runner_env_kwargs(domain, task)
