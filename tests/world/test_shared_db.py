"""Whatever a tool does with its database, no other episode sees it, and the base stays as it was read."""

from __future__ import annotations

import copy
import datetime
import gc
import json
import multiprocessing
import pickle
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.fast import building
from tau2_slime.world.fast.evaluation import FastEnvironment
from tau2_slime.world.fast.replay_check import ReplayNeededError
from tau2_slime.world.fast.shared_db import CopyOnWriteDatabase, CopyOnWriteTable, ParsedDatabase, holds_only_tables
from tests.world.twins import shared_database

tau2_compat.load()


def retail_db() -> Any:
    """A small database of τ²'s retail model with records of every depth."""
    from tau2.domains.retail.data_model import RetailDB

    full = shared_database(World("retail", "base", domains.tasks("retail", "base")[0]))
    data = full.parsed.db.model_dump()
    return RetailDB.model_validate({name: dict(list(table.items())[:6]) for name, table in data.items()})


@pytest.fixture
def parsed() -> ParsedDatabase:
    return ParsedDatabase(retail_db())


def keys(database: CopyOnWriteDatabase, table: str) -> list[str]:
    return [str(key) for key in database.parsed.tables[table]]


def write_by_key(db: Any) -> None:
    db.users[next(iter(db.users))].address.city = "Nowhere"


def write_while_iterating(db: Any) -> None:
    for order in db.orders.values():
        order.items[0].options["colour"] = "none"
        order.status = "cancelled"


def write_through_items(db: Any) -> None:
    for _, product in db.products.items():
        for variant in product.variants.values():
            variant.price += 1


def write_through_get(db: Any) -> None:
    db.orders.get(next(iter(db.orders))).payment_history.clear()


def write_through_setdefault(db: Any) -> None:
    db.users.setdefault(next(iter(db.users)), None).orders.append("new")


def write_through_dict(db: Any) -> None:
    for user in dict(db.users).values():
        user.email = "gone"


def write_through_unpacking(db: Any) -> None:
    for user in {**db.users}.values():
        user.email = "gone"


def write_through_copy(db: Any) -> None:
    for user in copy.copy(db.users).values():
        user.email = "gone"


def write_through_the_copy_method(db: Any) -> None:
    for user in db.users.copy().values():
        user.email = "gone"


def write_through_a_merge(db: Any) -> None:
    for user in (db.users | {}).values():
        user.email = "gone"


def write_through_a_merge_into_another(db: Any) -> None:
    for user in ({} | db.users).values():
        user.email = "gone"


def write_what_was_popped(db: Any) -> None:
    db.users.pop(next(iter(db.users))).name.first_name = "popped"


def write_the_popped_item(db: Any) -> None:
    db.users.popitem()[1].name.first_name = "popped"


def write_what_was_put_back(db: Any) -> None:
    key = next(iter(db.users))
    user = db.users.pop(key)
    db.users[key] = user
    db.users[key].email = "back"


def alias_two_records(db: Any) -> None:
    order, product = next(iter(db.orders.values())), next(iter(db.products.values()))
    variant = next(iter(product.variants.values()))
    order.items[0].options = variant.options
    variant.options["alias"] = "seen by both"
    assert next(iter(db.orders.values())).items[0].options["alias"] == "seen by both"


def delete_one(db: Any) -> None:
    del db.users[next(iter(db.users))]


def clear_a_table(db: Any) -> None:
    db.products.clear()


def add_by_setdefault(db: Any) -> None:
    db.users.setdefault("new", next(iter(db.users.values())).model_copy(deep=True))


def update_with_another_record(db: Any) -> None:
    first, second, *_ = db.users
    db.users.update({first: db.users[second]})


def update_by_name(db: Any) -> None:
    db.users.update(new=next(iter(db.users.values())).model_copy(deep=True))


def merge_in_place(db: Any) -> None:
    db.users |= {"new": next(iter(db.users.values())).model_copy(deep=True)}


def raise_half_way(db: Any) -> None:
    order = next(iter(db.orders.values()))
    order.status = "cancelled"
    raise ValueError("half-way")


ATTACKS: list[Callable[[Any], None]] = [
    write_by_key,
    write_while_iterating,
    write_through_items,
    write_through_get,
    write_through_setdefault,
    write_through_dict,
    write_through_unpacking,
    write_through_copy,
    write_through_the_copy_method,
    write_through_a_merge,
    write_through_a_merge_into_another,
    write_what_was_popped,
    write_the_popped_item,
    write_what_was_put_back,
    alias_two_records,
    delete_one,
    clear_a_table,
    add_by_setdefault,
    update_with_another_record,
    update_by_name,
    merge_in_place,
    raise_half_way,
]
"""One way to write each, with one effect: what one of them does wrong, no other one hides."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_does_what_it_does_to_a_plain_database_and_nothing_else(
    parsed: ParsedDatabase, attack: Callable[[Any], None]
) -> None:
    plain, pristine = retail_db(), retail_db().get_hash()
    attacked, other = CopyOnWriteDatabase(parsed), CopyOnWriteDatabase(parsed)
    for db in (plain, attacked.db):
        try:
            attack(db)
        except ValueError:
            assert attack is raise_half_way
    assert attacked.db.get_hash() == plain.get_hash() != pristine
    assert json.dumps(attacked.db.model_dump()) == json.dumps(plain.model_dump()), "the order of records too"
    assert parsed.db.get_hash() == pristine == other.db.get_hash()
    assert other.state() == CopyOnWriteDatabase(parsed).state() != attacked.state()


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_attacks(parsed: ParsedDatabase, seed: int) -> None:
    rng = random.Random(seed)
    plain, shared = retail_db(), CopyOnWriteDatabase(parsed)
    for _ in range(6):
        attack = rng.choice(ATTACKS)
        outcomes = []
        for db in (plain, shared.db):
            try:
                attack(db)
                outcomes.append("")
            except Exception as error:  # an earlier attack may have emptied the table
                outcomes.append(repr(error))
        assert outcomes[0] == outcomes[1]
        assert shared.db.get_hash() == plain.get_hash()
    assert parsed.db.get_hash() == retail_db().get_hash()


def test_two_ways_to_the_same_end_are_the_same_state(parsed: ParsedDatabase) -> None:
    one, two, other = CopyOnWriteDatabase(parsed), CopyOnWriteDatabase(parsed), CopyOnWriteDatabase(parsed)
    key = keys(one, "users")[0]
    one.db.users[key].email = "new"
    two.db.users[key].email = "old"
    two.db.users[key].email = "new"
    two.db.orders[keys(two, "orders")[0]].status  # noqa: B018  # touched, not changed
    other.db.users[key].email = "other"
    assert one.state() == two.state() and one.db.get_hash() == two.db.get_hash()
    assert one.state() != other.state() != CopyOnWriteDatabase(parsed).state()


def test_a_record_taken_away_and_put_back_is_no_change(parsed: ParsedDatabase) -> None:
    shared = CopyOnWriteDatabase(parsed)
    key = keys(shared, "users")[2]
    shared.db.users[key] = shared.db.users.pop(key)
    assert shared.state() == CopyOnWriteDatabase(parsed).state()
    assert shared.db.get_hash() == parsed.db.get_hash()


def test_a_record_that_came_and_went_is_no_change(parsed: ParsedDatabase) -> None:
    shared = CopyOnWriteDatabase(parsed)
    shared.db.users["new"] = shared.db.users[keys(shared, "users")[0]].model_copy()
    assert shared.state() != CopyOnWriteDatabase(parsed).state()
    del shared.db.users["new"]
    assert shared.state() == CopyOnWriteDatabase(parsed).state()
    assert shared.db.get_hash() == parsed.db.get_hash()


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_values_that_json_does_not_know_are_compared_as_tau2_writes_them(parsed: ParsedDatabase) -> None:
    """No model checks what a tool assigns."""
    day = datetime.date(2026, 1, 31)
    databases = [CopyOnWriteDatabase(parsed) for _ in range(3)]
    key = keys(databases[0], "users")[0]
    for database, value in zip(databases, (day, str(day), day.replace(day=30)), strict=True):
        database.db.users[key].email = value
        database.db.users["none"] = None
    same, text, other = databases
    assert same.state() == text.state() != other.state()
    assert same.db.get_hash() == text.db.get_hash() != other.db.get_hash()


def test_who_reads_gets_the_shared_record_and_who_wrote_reads_it_again(parsed: ParsedDatabase) -> None:
    shared = CopyOnWriteDatabase(parsed)
    first, second, *_ = keys(shared, "users")
    shared.db.users[first].email = "mine"
    with shared.reading():
        assert shared.db.users[first].email == "mine"
        assert shared.db.users[second] is parsed.db.users[second]
        assert next(user.email for user in shared.db.users.values()) == "mine"
    assert shared.db.users[second] is not parsed.db.users[second]


def test_a_record_is_pickled_once_however_many_episodes_copy_it(
    parsed: ParsedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_key(CopyOnWriteDatabase(parsed).db)
    monkeypatch.setattr(pickle, "dumps", None)
    write_by_key(CopyOnWriteDatabase(parsed).db)


def test_reading_ends_when_the_reader_raises(parsed: ParsedDatabase) -> None:
    shared = CopyOnWriteDatabase(parsed)
    with pytest.raises(KeyError), shared.reading():
        shared.db.users["nobody"]
    assert shared.db.users[keys(shared, "users")[0]] is not parsed.db.users[keys(shared, "users")[0]]


def test_a_missing_record_is_missing(parsed: ParsedDatabase) -> None:
    users = CopyOnWriteDatabase(parsed).db.users
    with pytest.raises(KeyError):
        users["nobody"]
    with pytest.raises(KeyError):
        del users["nobody"]
    with pytest.raises(KeyError, match="nobody"):  # a tool's answer shows it
        users.pop("nobody")
    with pytest.raises(TypeError):
        users[["a list"]]
    assert users.pop("nobody", 5) == 5 and users.get("nobody") is None and users.get("nobody", 5) == 5


def test_a_replaced_table_or_a_strange_key_is_noticed(parsed: ParsedDatabase) -> None:
    replaced, strange = CopyOnWriteDatabase(parsed), CopyOnWriteDatabase(parsed)
    replaced.db.users = {}
    with pytest.raises(ReplayNeededError, match=r"^the table users was replaced$"):
        replaced.state()
    strange.db.users[5] = strange.db.users[keys(strange, "users")[0]]
    with pytest.raises(ReplayNeededError, match=r"^a key of users is not a string$"):
        strange.state()


def test_a_database_without_tables_is_not_shared() -> None:
    from tau2.domains.telecom.user_data_model import TelecomUserDB

    assert not holds_only_tables(TelecomUserDB())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda db: pickle.loads(pickle.dumps(db))])
def test_a_duplicate_is_a_plain_database(parsed: ParsedDatabase, duplicate: Callable[[Any], Any]) -> None:
    shared = CopyOnWriteDatabase(parsed)
    key = keys(shared, "users")[0]
    shared.db.users[key].email = "mine"
    twin = duplicate(shared.db)
    assert type(twin.users) is dict and twin.get_hash() == shared.db.get_hash()
    twin.users[keys(shared, "users")[1]].email = "twin's"
    twin.orders.clear()
    assert shared.db.get_hash() != twin.get_hash() and parsed.db.get_hash() == retail_db().get_hash()


def test_an_episode_is_gone_with_its_last_reference(parsed: ParsedDatabase) -> None:
    """Without a garbage collection, which would have to walk whatever else is alive."""
    gc.disable()
    try:
        for _ in range(20):
            write_while_iterating(CopyOnWriteDatabase(parsed).db)
        assert not [
            o for o in gc.get_objects() if type(o) is CopyOnWriteTable and o._templates is parsed.templates["orders"]
        ]
    finally:
        gc.enable()
    assert parsed.db.get_hash() == retail_db().get_hash()


# ---- whole environments ------------------------------------------------------------------------------------------------


def retail_world() -> World:
    world = World("retail", "base", domains.tasks("retail", "base")[0])
    world.set_state([])
    return world


def built_by(world: World) -> FastEnvironment:
    assert world.fast is not None
    return world.fast


def test_an_update_of_the_whole_database_is_noticed_and_private() -> None:
    one, two = retail_world(), retail_world()
    before = two.environment.get_db_hash()
    key = next(iter(one.environment.tools.db.users))
    one.environment.tools.update_db({"users": {key: {"email": "updated"}}})
    assert one.environment.get_db_hash() != before
    with pytest.raises(ReplayNeededError, match=r"^the database was replaced$"):
        built_by(one).database_state()
    assert two.environment.get_db_hash() == before
    assert built_by(two).database_state() == built_by(retail_world()).database_state()


def test_an_environment_can_be_pickled_and_then_shares_nothing() -> None:
    world = retail_world()
    key = next(iter(world.environment.tools.db.users))
    world.environment.tools.db.users[key].email = "mine"
    environment = pickle.loads(pickle.dumps(world.environment))
    assert environment.get_db_hash() == world.environment.get_db_hash()
    assert type(environment.tools.db.users) is dict


def _hash_in_a_child(queue: Any) -> None:
    world = retail_world()
    before = world.environment.get_db_hash()
    write_while_iterating(world.environment.tools.db)
    queue.put((before, world.environment.get_db_hash()))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this platform")
def test_a_forked_child_uses_the_base_without_reading_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = retail_world().environment.get_db_hash()
    monkeypatch.setattr(building, "EnvironmentFactory", None)  # building one again would raise in the child
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with building._lock:  # as if another thread were reading a domain at that moment
        child = context.Process(target=_hash_in_a_child, args=(queue,))
        child.start()
    seen, written = queue.get(timeout=300)
    child.join(timeout=300)
    assert seen == before != written
    assert retail_world().environment.get_db_hash() == before


def _read_in_a_child(queue: Any) -> None:
    building._factories.clear()
    queue.put(World("mock", "base", domains.tasks("mock", "base")[0]).quick)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this platform")
def test_a_forked_child_reads_a_domain_although_its_parent_was_reading() -> None:
    domains.tasks("mock", "base")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with building._lock:
        child = context.Process(target=_read_in_a_child, args=(queue,))
        child.start()
    assert queue.get(timeout=60) is True
    child.join(timeout=60)


def test_a_domain_is_read_once_however_many_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2.domains.retail.data_model import RetailDB

    reads = []
    original = RetailDB.load

    def load(path: Any) -> Any:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(RetailDB, "load", load)
    monkeypatch.setattr(building, "_factories", {})
    together = threading.Barrier(8)
    hashes: list[Any] = []

    def play() -> None:
        together.wait()
        hashes.append(retail_world().environment.get_db_hash())

    threads = [threading.Thread(target=play) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and len(hashes) == 8 and len(set(hashes)) == 1


def test_reading_tools_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_factories", {})
    world, t = retail_world(), tau2_compat.load()
    order = next(iter(world.environment.tools.db.orders))
    for name, arguments in [
        ("find_user_id_by_email", {"email": "nobody@example.com"}),
        ("list_all_product_types", {}),
        ("get_order_details", {"order_id": order}),
    ]:
        world.call(t.ToolCall(name=name, arguments=arguments))
    assert not any(table.touched for table in shared_database(world).tables.values())
