"""A task that brings its own database is played and scored as τ² does it, at the price of any other task."""

from __future__ import annotations

import copy
import gc
import random
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.fast import evaluation
from tests.parity_play import Call
from tests.world.twins import NIGHTLY, Player, shared_database, stock_reward, why_replay_needed

t = tau2_compat.load()
SHARED = ("airline", "retail", "mock")
SEEDS = 60 if NIGHTLY else 2


def with_data(task: Any, **data: Any) -> Any:
    """A copy of the task with ``initialization_data`` of its own."""
    initial = {"initialization_data": data, "initialization_actions": None, "message_history": None}
    return t.Task.model_validate({**task.model_dump(mode="json"), "initial_state": initial})


def some_change(domain: str, rng: random.Random) -> dict[str, dict[str, Any]]:
    """Fields of some records with other values, and copies of records under new keys, in random tables."""
    db = shared_database(World(domain, "base", domains.tasks(domain, "base")[0])).parsed.db
    found: dict[str, dict[str, Any]] = {}
    for name in rng.sample(sorted(type(db).model_fields), rng.randint(1, len(type(db).model_fields))):
        records = getattr(db, name)
        rows = found.setdefault(name, {})
        for key in rng.sample(list(records), min(len(records), rng.randint(1, 4))):
            record = records[key].model_dump(mode="json")
            texts = [field for field, value in record.items() if type(value) is str and not field.endswith("id")]
            if rng.random() < 0.3:
                rows[f"{key}_new"] = record
            elif texts and accepts(records[key], changed := {(field := rng.choice(texts)): f"{record[field]}!"}):
                rows[key] = changed
            else:
                rows[key] = record if rng.random() < 0.5 else {}
    return found


def accepts(record: Any, changed: dict[str, Any]) -> bool:
    try:
        type(record).model_validate({**record.model_dump(), **changed})
    except ValueError:
        return False
    return True


def stock_environment(task: Any, domain: str) -> Any:
    environment = t.registry.get_env_constructor(domain)()
    initial = task.initial_state
    environment.set_state(initial.initialization_data, initial.initialization_actions, [])
    return environment


def gold_calls(task: Any) -> list[Call]:
    return [Call(a.name, copy.deepcopy(a.arguments), a.requestor) for a in task.evaluation_criteria.actions or []]


@pytest.fixture
def no_replay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails where τ²'s slow evaluation or its change of a whole database is asked for."""

    def refuse(*_: object) -> None:
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr(evaluation.tau2_compat, "evaluate", refuse)
    yield


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("domain", SHARED)
def test_random_changes_give_the_database_and_the_reward_of_tau2(domain: str, seed: int, no_replay: None) -> None:
    rng = random.Random(f"{domain}/{seed}")
    base = rng.choice([task for task in domains.tasks(domain, "base") if task.evaluation_criteria.actions])
    task = with_data(base, agent_data=some_change(domain, rng))
    stock = stock_environment(task, domain)
    player = Player(domain, task)
    assert player.world.environment.get_db_hash() == stock.get_db_hash()
    for call in gold_calls(task)[: None if seed % 2 else -1]:
        player.call(call)
    assert why_replay_needed(player) is None
    assert player.reward() == stock_reward(player)
    ours, theirs = Player(domain, task).world.environment.tools.db, stock.tools.db
    for table in type(theirs).model_fields:
        assert list(getattr(ours, table)) == list(getattr(theirs, table)), "the same order"
        assert dict(getattr(ours, table)) == dict(getattr(theirs, table)), "the same types and values"


def test_a_change_is_private_to_its_task_and_a_write_to_its_episode() -> None:
    base = domains.tasks("retail", "base")[0]
    order = next(iter(shared_database(World("retail", "base", base)).parsed.db.orders))
    task = with_data(base, agent_data={"orders": {order: {"status": "cancelled"}}})
    one, two = Player("retail", task), Player("retail", task)
    one.world.environment.tools.db.orders[order].status = "delivered"
    assert two.world.environment.tools.db.orders[order].status == "cancelled"
    assert Player("retail", base).world.environment.tools.db.orders[order].status != "cancelled"
    assert Player("retail", task).world.environment.tools.db.orders[order].status == "cancelled"


def test_records_of_two_tasks_under_one_key_stay_apart() -> None:
    base = domains.tasks("retail", "base")[0]
    order = next(iter(shared_database(World("retail", "base", base)).parsed.db.orders))
    tasks = [
        with_data(base, agent_data={"orders": {order: {"status": status}}}) for status in ("cancelled", "delivered")
    ]
    players = [Player("retail", task) for task in tasks]
    read = [player.world.environment.tools.db.orders[order].status for player in players]
    assert read == ["cancelled", "delivered"]


def test_a_record_of_the_tasks_own_that_was_only_looked_at_has_not_changed() -> None:
    base = domains.tasks("retail", "base")[0]
    order = next(iter(shared_database(World("retail", "base", base)).parsed.db.orders))
    task = with_data(base, agent_data={"orders": {order: {"status": "cancelled"}}})
    looked, untouched, wrote = (Player("retail", task).world for _ in range(3))
    assert looked.environment.tools.db.orders[order].status == "cancelled"
    assert looked.database_state() == untouched.database_state()
    wrote.environment.tools.db.orders[order].status = "pending"
    assert wrote.database_state() != untouched.database_state()


@pytest.mark.parametrize(
    "change",
    [{"orders": None}, {"orders": {"#W0": None}}, {"orders": {"#W0": {"status": 7}}}, {"orders": []}, {"nothing": {}}],
)
def test_a_change_that_tau2_refuses_is_refused_in_its_words(change: Any) -> None:
    task = with_data(domains.tasks("retail", "base")[0], agent_data=change)
    with pytest.raises(Exception) as theirs:
        stock_environment(task, "retail")
    with pytest.raises(type(theirs.value)) as ours:
        World("retail", "base", task).set_state([])
    assert str(ours.value) == str(theirs.value)


def test_what_a_change_makes_goes_with_its_task() -> None:
    task = with_data(domains.tasks("retail", "base")[0], agent_data={"users": {}})
    fast = Player("retail", task).world.fast
    assert fast is not None
    data, gone = id(task.initial_state.initialization_data), weakref.ref(task)
    assert data in {known for known, _ in fast.factory._prepared}
    del task
    gc.collect()
    assert gone() is None and data not in {known for known, _ in fast.factory._prepared}


def test_a_second_beginning_in_a_used_world_is_left_to_tau2() -> None:
    base = domains.tasks("retail", "base")[0]
    order = next(iter(shared_database(World("retail", "base", base)).parsed.db.orders))
    task = with_data(base, agent_data={"orders": {order: {"status": "cancelled"}}})
    player = Player("retail", task)
    player.world.environment.tools.db.orders[order].items.clear()
    player.world.set_state([])
    again = player.world.environment.tools.db.orders[order]
    assert again.status == "cancelled" and not again.items, "τ² merges into what is there"
    assert why_replay_needed(player)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_telecom_with_other_customers_is_scored_as_tau2_does(seed: int, no_replay: None) -> None:
    """A small database: its tables are lists, which a change replaces as a whole."""
    base = [task for task in domains.tasks("telecom", "base") if task.evaluation_criteria.actions][seed]
    world = World("telecom", "base", base)
    db = world.environment.tools.db.model_dump(mode="json")
    for customer in db["customers"]:
        customer["full_name"] += f" {seed}"
    data = base.model_dump(mode="json")
    data["initial_state"]["initialization_data"] = {"agent_data": {"customers": db["customers"]}, "user_data": None}
    task = t.Task.model_validate(data)
    for calls in (gold_calls(task), []):
        try:
            stock_environment(task, "telecom")
        except AttributeError:
            pytest.skip("this τ² gives the user the agent's database, and cannot begin such a task")
        player = Player("telecom", task)
        for call in calls:
            player.call(call)
        assert player.reward() == stock_reward(player)


def stock_telecom(task: Any) -> Any:
    try:
        return stock_environment(task, "telecom")
    except (AttributeError, ValueError):
        pytest.skip("this τ² gives the user the agent's database, and cannot begin such a task")


def test_telecom_with_data_of_both_sides_gives_each_side_its_own() -> None:
    base = domains.tasks("telecom", "base")[0]
    stock = t.registry.get_env_constructor("telecom")()
    customers = stock.tools.db.model_dump(mode="json")["customers"]
    customers[0]["full_name"] += " Jr."
    user = stock.user_tools.db.model_dump(mode="json")
    user["device"]["battery_level"] = 7
    task = with_data(base, agent_data={"customers": customers}, user_data={"device": user["device"]})
    theirs = stock_telecom(task)
    ours = Player("telecom", task).world.environment
    assert ours.tools.db.customers[0].full_name.endswith(" Jr.") and ours.user_tools.db.device.battery_level == 7
    assert (ours.get_db_hash(), ours.get_user_db_hash()) == (theirs.get_db_hash(), theirs.get_user_db_hash())


def test_telecom_with_data_and_a_history_begins_as_tau2_begins_it() -> None:
    """Twice: the second episode of a task takes what the first one worked out."""
    base = domains.tasks("telecom", "base")[0]
    customers = World("telecom", "base", base).environment.tools.db.model_dump(mode="json")["customers"]
    customers[0]["full_name"] += " Jr."
    task = with_data(base, agent_data={"customers": customers})
    line = {"customer_id": customers[0]["customer_id"], "line_id": customers[0]["line_ids"][0]}
    calls = [
        t.ToolCall(id="1", name="get_customer_by_id", arguments={"customer_id": customers[0]["customer_id"]}),
        t.ToolCall(id="2", name="enable_roaming", arguments=line),
    ]
    history = []
    stock = stock_telecom(task)
    for call in calls:
        history += [t.AssistantMessage(role="assistant", content=None, tool_calls=[call]), stock.get_response(call)]
    for _ in range(2):
        world = World("telecom", "base", task)
        world.set_state(history)
        assert world.environment.tools.db.customers[0].full_name.endswith(" Jr.")
        assert world.environment.get_db_hash() == stock.get_db_hash()
    fresh = World("telecom", "base", task)
    fresh.set_state([])
    assert fresh.environment.get_db_hash() != stock.get_db_hash()


def cpu(domain: str, task: Any) -> float:
    """CPU seconds of a gold episode of a task that was played before: the least of some."""
    took = []
    for _ in range(9):
        begin = time.thread_time()
        player = Player(domain, task)
        for call in gold_calls(task):
            player.call(call)
        player.reward()
        took.append(time.thread_time() - begin)
    return min(took)


def test_one_order_of_its_own_costs_next_to_nothing() -> None:
    """It cost 500 times as much when τ² replaced the database. The bar is twice; ten leaves room for a busy machine."""
    base = next(task for task in domains.tasks("retail", "base") if len(gold_calls(task)) > 3)
    orders = shared_database(World("retail", "base", base)).parsed.db.orders
    order = next(iter(orders.values())).model_dump(mode="json")
    task = with_data(base, agent_data={"orders": {"#W0000001": {**order, "order_id": "#W0000001"}}})
    assert cpu("retail", task) < 10 * cpu("retail", base)
