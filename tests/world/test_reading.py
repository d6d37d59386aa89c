"""A file that is read in pieces holds what τ²'s own loaders find in it, and what is wrong with it is said as they say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tau2_slime.world import tau2_compat
from tau2_slime.world.fast import reading

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(autouse=True, scope="module")
def small_files_too() -> Any:
    before, reading._SMALL = reading._SMALL, -1
    yield
    reading._SMALL = before


@given(value=JSON, indent=st.sampled_from([None, 0, 3, "\t"]), ascii_only=st.booleans())
def test_a_text_is_what_python_reads(value: object, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert repr(reading.read_in_pieces(f" {text}\r\n")) == repr(json.loads(text))


@given(
    tables=st.dictionaries(st.text(), st.lists(JSON) | st.dictionaries(st.text(), JSON)),
    indent=st.sampled_from([None, 2]),
)
def test_no_step_reads_more_than_one_record(tables: dict[str, Any], indent: Any) -> None:
    """A step holds the interpreter, and with it the event loop, until it ends."""
    text, steps = json.dumps(tables, indent=indent), []

    def step(source: str, at: int) -> tuple[object, int]:
        value, end = json.JSONDecoder().raw_decode(source, at)
        steps.append(value)
        return value, end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_read_one", step)
        patch.setattr(json, "loads", lambda *_, **__: pytest.fail("the whole text in one step"))
        assert repr(reading.read_in_pieces(text)) == repr(tables)
    records = [one for table in tables.values() for one in (table.values() if isinstance(table, dict) else table)]
    keys = [*tables, *(key for table in tables.values() if isinstance(table, dict) for key in table)]
    assert sorted(map(repr, steps)) == sorted(map(repr, [*records, *keys]))


@pytest.mark.parametrize(
    "text", ['{"a": [1, {"b": NaN}], "a": 2}', '{"a": [], "b": {}, "c": [[]]}', "[]", "{}", " 7 ", '"x"']
)
def test_odd_texts_are_read_too(text: str) -> None:
    assert repr(reading.read_in_pieces(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text", ["", "[1, 2", '{"a": {"b": 1}, }', "[1 2]", '{"a" 1}', "{1: 2}", "[1] 2", '{"a": [1,]}']
)
def test_what_is_wrong_is_said_in_pythons_words(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as wanted:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        reading.read_in_pieces(text)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("domain", ["retail", "airline", "mock", "telecom"])
def test_a_database_is_the_one_that_tau2_loads(domain: str) -> None:
    build = tau2_compat.load().registry.get_env_constructor(domain)
    stock = build().tools.db
    with reading.in_pieces():
        found = build().tools.db
    assert type(found) is type(stock)
    assert found == stock


def test_no_step_validates_more_than_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2.domains.retail.data_model import RetailDB

    validate, given = RetailDB.model_validate, []

    def step(cls: Any, data: Any, **options: Any) -> Any:
        given.append(data)
        return validate(data, **options)

    monkeypatch.setattr(RetailDB, "model_validate", classmethod(step))
    build = tau2_compat.load().registry.get_env_constructor("retail")
    with reading.in_pieces():
        found = build().tools.db
    (data,) = given
    for table in ("products", "users", "orders"):
        assert data[table] == getattr(found, table), "its records are models already"


def test_what_a_database_must_not_hold_is_said_as_tau2_says_it(tmp_path: Path) -> None:
    database = tau2_compat.load().registry.get_env_constructor("mock")().tools.db
    broken = database.model_dump(mode="json")
    broken["users"]["broken"] = {"unknown": 1}
    file = tmp_path / "db.json"
    for content, what in ((broken, "users.broken"), ([1], "valid dictionary")):
        file.write_text(json.dumps(content))
        with pytest.raises(ValidationError) as wanted:
            type(database).load(str(file))
        with reading.in_pieces(), pytest.raises(ValidationError) as found:
            type(database).load(str(file))
        assert str(found.value) == str(wanted.value)
        assert what in str(found.value)


def test_tau2s_loaders_are_its_own_again_afterwards() -> None:
    from tau2.environment.db import DB
    from tau2.utils import io_utils

    before = DB.__dict__["load"]
    with pytest.raises(RuntimeError), reading.in_pieces():
        raise RuntimeError
    assert io_utils.json is json
    assert DB.__dict__["load"] is before
