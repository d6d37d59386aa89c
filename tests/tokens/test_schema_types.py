"""Arguments typed by the tool's schema: what is converted, what is refused, what is never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.tokens.calls.json_text import BadJson, UntypedText, read_json
from tau2_slime.tokens.calls.schema_types import coerce

PASSENGER = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "bags": {"type": "integer"}},
    "required": ["name"],
}


def typed(value: Any, schema: dict[str, Any]) -> tuple[Any, list[str]]:
    """One argument `x` of that schema, with ``argument_types: schema``."""
    arguments, problems = coerce({"x": value}, {"type": "object", "properties": {"x": schema}}, by_schema=True)
    return arguments["x"], problems


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 and from true, and ordinary values from marked ones."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    ("spelling", "schema", "wanted"),
    [
        ("1234567", {"type": "string"}, "1234567"),
        ("12345678901234567890123", {"type": "string"}, "12345678901234567890123"),
        ('"3"', {"type": "integer"}, 3),
        ("3.0", {"type": "integer"}, 3),
        ('"2.5"', {"type": "number"}, 2.5),
        ("2", {"type": "number"}, 2),
        ('"true"', {"type": "boolean"}, True),
        ('"[1, 2]"', {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ("[1001, 1002]", {"type": "array", "items": {"type": "string"}}, ["1001", "1002"]),
        ('"{\\"name\\": 7}"', PASSENGER, {"name": "7"}),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ('"null"', {"anyOf": [{"type": "string"}, {"type": "null"}]}, "null"),
        ("5", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "5"),
        ('"5"', {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
        ('"5"', {"type": ["integer", "null"]}, 5),
        ("null", {"type": "string", "default": None}, None),
        ("4", {"enum": ["3", "4"], "type": "string"}, "4"),
        ('"4"', {"enum": [3, 4], "type": "integer"}, 4),
        ('"1"', {"type": "integer", "allOf": [{"minimum": 0}]}, 1),
        # Pydantic's `Model | dict`: the open object must not hide what the model knows
        ('{"name": 42}', {"anyOf": [PASSENGER, {"type": "object", "additionalProperties": True}]}, {"name": "42"}),
        ('{"other": 42}', {"anyOf": [PASSENGER, {"type": "object", "additionalProperties": True}]}, {"other": 42}),
        ("5", {}, 5),
    ],
)
def test_json_value_becomes_what_the_schema_says(spelling: str, schema: dict[str, Any], wanted: Any) -> None:
    value, problems = typed(read_json(spelling), schema)
    assert problems == []
    assert same(value, wanted)


@pytest.mark.parametrize(
    ("text", "schema", "wanted"),
    [
        ("00123", {"type": "string"}, "00123"),
        (" spaced ", {"type": "string"}, " spaced "),
        ('{"a": 1}', {"type": "string"}, '{"a": 1}'),
        ("null", {"type": "string"}, "null"),
        ("3", {"type": "integer"}, 3),
        ("\n-3\n", {"type": "integer"}, -3),
        ("0.5", {"type": "number"}, 0.5),
        ("True", {"type": "boolean"}, True),
        ("false", {"type": "boolean"}, False),
        ("None", {"type": "null"}, None),
        ("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("12", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12"),
        ('["a", "b"]', {"type": "array", "items": {"type": "string"}}, ["a", "b"]),
        ("['a', True, None]", {"type": "array"}, ["a", True, None]),
        ("{'name': 'O\\'Hara', 'bags': 2}", PASSENGER, {"name": "O'Hara", "bags": 2}),
        ('[{"name": 150}]', {"type": "array", "items": PASSENGER}, [{"name": "150"}]),
    ],
)
def test_untyped_text_becomes_what_the_schema_says(text: str, schema: dict[str, Any], wanted: Any) -> None:
    value, problems = typed(UntypedText(text), schema)
    assert problems == []
    assert same(value, wanted)


@pytest.mark.parametrize(
    ("spelling", "schema"),
    [
        ('"abc"', {"type": "integer"}),
        ('"03"', {"type": "integer"}),
        ("2.5", {"type": "integer"}),
        ("true", {"type": "integer"}),
        ("1", {"type": "boolean"}),
        ("true", {"type": "string"}),
        ("1.50", {"type": "string"}),  # the text may have been "1.5"
        ("1e3", {"type": "string"}),
        ("null", {"type": "string"}),
        ('["a"]', {"type": "string"}),
        ('"a"', {"type": "array"}),
        ('"[1, 2"', {"type": "array"}),
        ('"[1]"', {"type": "object"}),
        ('"first"', {"enum": ["business", "economy"]}),
        ('["x"]', {"type": "array", "items": {"type": "integer"}}),
        ('{"bags": 1}', PASSENGER),
        ('"3"', {"anyOf": [{"type": "integer"}, {"type": "array"}, {"const": "4"}, {"enum": [3.0]}, {"type": "null"}]}),
    ],
)
def test_value_without_a_single_lossless_reading_stays_and_is_reported(spelling: str, schema: dict[str, Any]) -> None:
    value, problems = typed(read_json(spelling), schema)
    if schema.get("anyOf"):
        assert problems == [] and value == 3  # the integer 3 and the 3.0 of the enum are one number
        return
    assert len(problems) == 1
    assert "'x'" in problems[0]
    assert same(value, json.loads(spelling))


def test_two_readings_are_ambiguous() -> None:
    value, problems = typed("true", {"anyOf": [{"type": "boolean"}, {"enum": ["True", True]}, {"const": "TRUE"}]})
    assert (value, problems) == (True, [])
    value, problems = typed(UntypedText("1"), {"anyOf": [{"enum": ["1 ", "1"]}, {"type": "integer"}]})
    assert (value, problems) == ("1", [])
    value, problems = typed(read_json("10"), {"anyOf": [{"type": "string"}, {"enum": ["10", "ten"]}]})
    assert (value, problems) == ("10", [])
    value, problems = typed("[1]", {"anyOf": [{"type": "array"}, {"type": "array", "items": {"type": "string"}}]})
    assert value == "[1]"
    assert len(problems) == 1 and "ambiguous" in problems[0]


def test_missing_and_unexpected_arguments_are_named() -> None:
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    arguments, problems = coerce({"order": "#W1"}, schema)
    assert arguments == {"order": "#W1"}
    assert len(problems) == 2
    assert "order_id" in problems[0] and "missing" in problems[0]
    assert "'order'" in problems[1] and "unexpected" in problems[1]


def test_additional_properties_and_schemas_without_properties_are_open() -> None:
    open_schema = {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}}
    assert coerce({"n": UntypedText("4")}, open_schema) == ({"n": 4}, [])
    assert coerce({"n": "4"}, {"type": "object"}) == ({"n": "4"}, [])
    assert coerce({}, {}) == ({}, [])


def test_references_are_followed_even_in_circles() -> None:
    tree: dict[str, Any] = {
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}},
                "required": ["id"],
            },
            "Loop": {"$ref": "#/$defs/Loop"},
        },
        "properties": {"node": {"$ref": "#/$defs/Node"}, "loop": {"$ref": "#/$defs/Loop"}},
    }
    given_arguments = {"node": read_json('{"id": 1, "next": {"id": 2}}'), "loop": 3}
    arguments, problems = coerce(given_arguments, tree, by_schema=True)
    assert problems == []
    assert arguments == {"node": {"id": "1", "next": {"id": "2"}}, "loop": 3}


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "1e999", "[" * 5000, "1" * 5000, "[" * 90 + "]" * 90]
)
def test_json_that_no_tool_should_see_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        read_json(text)


@pytest.mark.parametrize(
    "text", ["[" * 9000, "[" + "-" * 9000 + "1]", "{1: 2}", "[(1,)]", "[b'a']", "[1e999]", "['\\d']", "{" * 30 + "'"]
)
def test_hostile_python_literals_never_raise(text: str) -> None:
    value, _ = typed(UntypedText(text), {"anyOf": [{"type": "array"}, {"type": "object"}]})
    assert value in (text, ["\\d"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [{"type": kind} for kind in ("string", "integer", "number", "boolean", "null", "array", "object")]
        + [{}, {"enum": ["1", 2, None, True]}, {"const": 3}, {"$ref": "#/$defs/A"}]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda alternatives: {"anyOf": alternatives}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda properties, extra: {"type": "object", "properties": properties, "additionalProperties": extra},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.booleans(),
        ),
    ),
    max_leaves=6,
)


@given(value=JSON, schema=SCHEMAS)
def test_what_was_said_in_json_stays_as_it_was_said(value: Any, schema: dict[str, Any]) -> None:
    """As every server hands it on; and a value that fits its schema has no problem."""
    import jsonschema

    whole = {"type": "object", "$defs": {"A": {"type": ["integer", "string"]}}, "properties": {"x": schema}}
    arguments, problems = coerce({"x": value}, whole)
    assert same(arguments, {"x": value})
    if jsonschema.Draft202012Validator(whole).is_valid({"x": value}) and "anyOf" not in json.dumps(schema):
        assert not problems


def test_a_list_in_an_untyped_text_holds_what_it_says() -> None:
    schema = {"properties": {"x": {"type": "array", "items": PASSENGER}}}
    assert coerce({"x": UntypedText('[{"name": 150}]')}, schema) == (
        {"x": [{"name": 150}]},
        ["argument 'x'[0].name must be a string, not the number 150"],
    )


@given(value=JSON, schema=SCHEMAS, raw=st.booleans())
def test_any_value_against_any_schema(value: Any, schema: dict[str, Any], raw: bool) -> None:
    """Never raises; the result is plain JSON, fits the schema where no problem is told, and is then left alone."""
    import jsonschema

    definitions = {"A": {"type": ["integer", "string"]}}
    whole = {"type": "object", "$defs": definitions, "properties": {"x": schema}}
    argument = UntypedText(json.dumps(value)) if raw else read_json(json.dumps(value))
    arguments, problems = coerce({"x": argument}, whole, by_schema=True)
    assert same(json.loads(json.dumps(arguments)), arguments)
    if not problems:
        jsonschema.validate(arguments, whole)
        again, problems = coerce(arguments, whole, by_schema=True)
        assert problems == []
        assert same(again, arguments)
    if not raw and jsonschema.Draft202012Validator(whole).is_valid({"x": value}) and "anyOf" not in json.dumps(schema):
        assert not problems
        assert arguments["x"] == value  # what fits is never changed
