"""Arguments of a tool call, compared with the tool's JSON schema, and typed by it where the format says no types.

JSON says what type a value has, and every server hands it on as it was said: so does this module. XML-like calls carry no
types at all: there, and everywhere with ``by_schema``, a value is converted if the schema leaves one reading and the value
keeps its text or its exact number. Otherwise it stays as it is, and a problem says so. Ranges, patterns and formats are
left to the tool.

>>> schema = {"type": "object", "properties": {"user_id": {"type": "string"}, "bags": {"type": "integer"}}}
>>> coerce({"user_id": 4711}, schema)
({'user_id': 4711}, ["argument 'user_id' must be a string, not the number 4711"])
>>> coerce({"user_id": 4711, "bags": "2"}, schema, by_schema=True)
({'user_id': '4711', 'bags': 2}, [])
>>> coerce({"bags": "two"}, schema)
({'bags': 'two'}, ["argument 'bags' must be an integer, not the string 'two'"])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tau2_slime.tokens.calls.json_text import UntypedText
from tau2_slime.tokens.calls.schema_words import schema_in_words, value_in_words
from tau2_slime.tokens.calls.text_values import NULL_TEXTS, SCALARS, NoMatch, as_string, list_in, object_in
from tau2_slime.tokens.calls.types import CallStatus, Json, JsonObject, ParsedCall, Tool

Fit = tuple[Json, list[str]]
"""A plain value, and what is wrong with it; no problem means that it fits."""

MAX_SCHEMA_DEPTH = 100
"""Bound on nested schemas, for those that refer to themselves."""


_COMPOSING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "const", "enum"})
"""Words of a schema that say more about a value than its type."""


def checked_call(
    name: str,
    arguments: dict[str, Any],
    tools: list[Tool],
    raw: str,
    call_id: str | None = None,
    *,
    by_schema: bool = False,
) -> ParsedCall:
    """A call that could be read, compared with the tools: OK, UNKNOWN_TOOL or BAD_ARGUMENTS.

    Args:
        name: the tool's name.
        arguments: by name; a value whose type the format does not say is an `UntypedText`.
        tools: the tools that were offered.
        raw: the text of the call.
        call_id: the id that the model wrote, if the format has one.
        by_schema: the schema types every argument, not only those of formats without types (``argument_types: schema``).
    """
    offered = {tool["function"]["name"]: tool["function"] for tool in tools or []}
    if name not in offered:
        choices = f"the tools are {', '.join(offered)}" if offered else "none was offered"
        error = f"No tool is named {name[:80]!r}; {choices}."
        return ParsedCall(name, plain_arguments(arguments), CallStatus.UNKNOWN_TOOL, raw, error, call_id)
    typed, problems = coerce(arguments, offered[name].get("parameters") or {}, by_schema=by_schema)
    if problems:
        error = f"The call of {name} does not fit its schema: {'; '.join(problems)}."
        return ParsedCall(name, typed, CallStatus.BAD_ARGUMENTS, raw, error, call_id)
    return ParsedCall(name, typed, CallStatus.OK, raw, None, call_id)


def coerce(arguments: JsonObject, schema: JsonObject, *, by_schema: bool = False) -> tuple[JsonObject, list[str]]:
    """(arguments as plain JSON values, problems), in the order of `arguments`. Never raises.

    Args:
        arguments: by name; a value whose type the format does not say is an `UntypedText`.
        schema: the "parameters" of a function schema. $ref into the schema itself, anyOf, oneOf, allOf, enum, const, lists
            of types, arrays and objects are understood. A name outside "properties" is a problem unless
            "additionalProperties" allows it; a schema without "properties" allows all names.
        by_schema: also convert values whose type was said.
    """
    fitter = _SchemaFitter(schema, by_schema)
    top = fitter.resolve(schema) if "$ref" in schema else schema
    strict = top if "additionalProperties" in top or "properties" not in top else {**top, "additionalProperties": False}
    as_said = not by_schema and not any(isinstance(value, UntypedText) for value in arguments.values())
    typed, problems = fitter.fit_members(arguments, strict, "", as_said, 0)
    return (dict(arguments) if as_said else typed), problems


@dataclass(frozen=True)
class _SchemaFitter:
    """One root schema; the methods return a plain value and the problems with it.

    `exact`: nothing may be converted (used to choose between the alternatives of anyOf).
    """

    root: JsonObject
    by_schema: bool
    """Convert also what was said with its type: a member of a list that stands in an untyped text."""

    def resolve(self, schema: Json) -> JsonObject:
        """`schema` with its $ref followed; {}, which fits anything, if it is not a schema."""
        for _ in range(MAX_SCHEMA_DEPTH):
            if not isinstance(schema, dict):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            target: Json = self.root
            for part in reference.removeprefix("#").split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                target = target.get(part) if isinstance(target, dict) else None
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **siblings} if isinstance(target, dict) else siblings
        return {}

    def fit(self, value: Json, schema: Json, path: str, exact: bool, depth: int) -> Fit:
        schema = self.resolve(schema)
        if depth > MAX_SCHEMA_DEPTH:
            return _plain(value), [f"{path} is nested too deeply"]
        for part in _array(schema.get("allOf")):
            rest = {key: item for key, item in schema.items() if key != "allOf"}
            schema = {**self.resolve(part), **rest}
        alternatives = _array(schema.get("anyOf") or schema.get("oneOf"))
        if alternatives:
            return self.fit_any(value, [self.resolve(one) for one in alternatives], path, exact, depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.fit_any(value, [{**schema, "type": one} for one in kind], path, exact, depth + 1)
        if "const" in schema or "enum" in schema:
            allowed = [schema["const"]] if "const" in schema else _array(schema["enum"])
            return _fit_enum(value, allowed, path, exact)
        if kind == "object":
            return self.fit_object(value, schema, path, exact, depth + 1)
        if kind == "array":
            return self.fit_array(value, schema, path, exact, depth + 1)
        scalar = SCALARS.get(kind) if isinstance(kind, str) else None
        if scalar is None:
            return _fit_anything(value), []
        fitted = scalar(value, exact)
        if isinstance(fitted, NoMatch):
            return _mismatch(value, schema, path)
        return (_plain(value) if exact and not self.by_schema else fitted), []

    def fit_any(self, value: Json, alternatives: list[JsonObject], path: str, exact: bool, depth: int) -> Fit:
        """An alternative that fits as is, else the only conversion; an open object is the last resort.

        Pydantic writes `Model | dict` for τ²'s lists of flights and passengers: the open object would accept
        everything and so hide what the model knows about types.
        """
        if isinstance(value, UntypedText) and value.strip() in NULL_TEXTS and any(map(_takes_null, alternatives)):
            return None, []
        last_resort = [one for one in alternatives if one.get("type") == "object" and not one.get("properties")]
        first = [one for one in alternatives if one not in last_resort]
        for group in (first, last_resort):
            for one in group:
                fitted, problems = self.fit(value, one, path, True, depth)
                if not problems:
                    return fitted, []
            if exact:
                continue
            converted = [
                fitted
                for fitted, problems in (self.fit(value, one, path, False, depth) for one in group)
                if not problems
            ]
            if converted and all(_equal_json(converted[0], other) for other in converted):
                return converted[0], []
            if converted:
                readings = ", ".join(value_in_words(one) for one in converted)
                return _plain(value), [f"{path} is ambiguous: {value_in_words(value)} could be {readings}"]
        wanted = " or ".join(dict.fromkeys(schema_in_words(one) for one in alternatives))
        return _plain(value), [f"{path} must be {wanted}, not {value_in_words(value)}"]

    def fit_object(self, value: Json, schema: JsonObject, path: str, exact: bool, depth: int) -> Fit:
        found = value if isinstance(value, dict) or exact else object_in(value)
        if not isinstance(found, dict):
            return _mismatch(value, schema, path)
        return self.fit_members(found, schema, path, exact or (found is not value and not self.by_schema), depth)

    def fit_members(
        self, found: JsonObject, schema: JsonObject, path: str, exact: bool, depth: int
    ) -> tuple[JsonObject, list[str]]:
        """The members of an object, each typed by its own schema."""
        properties, required = schema.get("properties"), schema.get("required")
        properties = properties if isinstance(properties, dict) else {}
        extra = schema.get("additionalProperties", True)
        fitted: JsonObject = {}
        problems = [
            f"{_argument_in_words(path, name)} is missing ({schema_in_words(self.resolve(properties.get(name)))})"
            for name in (required if isinstance(required, list) else ())
            if isinstance(name, str) and name not in found
        ]
        for key, item in found.items():
            name = str(key)
            wanted = properties.get(name)
            plain = isinstance(wanted, dict) and wanted.get("type") == "string" and _COMPOSING.isdisjoint(wanted)
            if plain and type(item) is str:  # as most arguments are
                fitted[name] = item
                continue
            where = _argument_in_words(path, name)
            if name in properties:
                part = self.resolve(wanted)
                if "default" in part and part["default"] is None and _is_null(item, exact):
                    fitted[name] = None
                    continue
                fitted[name], wrong = self.fit(item, part, where, exact, depth)
            elif extra is False:
                names = f"the arguments are {', '.join(properties)}" if properties else "it takes none"
                fitted[name], wrong = _plain(item), [f"{where} is unexpected ({names})"]
            else:
                fitted[name], wrong = self.fit(item, extra, where, exact, depth)
            problems += wrong
        return fitted, problems

    def fit_array(self, value: Json, schema: JsonObject, path: str, exact: bool, depth: int) -> Fit:
        found = value if isinstance(value, list) or exact else list_in(value)
        if not isinstance(found, list):
            return _mismatch(value, schema, path)
        exact = exact or (found is not value and not self.by_schema)
        fits = [
            self.fit(item, schema.get("items"), f"{path}[{index}]", exact, depth) for index, item in enumerate(found)
        ]
        return [fitted for fitted, _ in fits], [problem for _, problems in fits for problem in problems]


def _fit_enum(value: Json, allowed: list[Json], path: str, exact: bool) -> Fit:
    for one in allowed:
        if _equal_json(one, _plain(value)):
            return one, []
    if not exact:
        text = value.strip() if isinstance(value, str) else as_string(value, False)
        readings = [one for one in allowed if text in _texts_of(one)]
        if len(readings) == 1:
            return readings[0], []
    return _mismatch(value, {"enum": allowed}, path)


def _texts_of(value: Json) -> tuple[str, ...]:
    """How models write a value of an enum as text."""
    if value is None:
        return tuple(NULL_TEXTS)
    if isinstance(value, bool):
        return (str(value), str(value).lower())
    return (str(value),)


def _fit_anything(value: Json) -> Json:
    """A value whose type is left open: untyped text that reads as a list or an object is one, other text stays text."""
    if isinstance(value, UntypedText):
        for found in (list_in(value), object_in(value)):
            if found is not None:
                return _plain(found)
    return _plain(value)


def _mismatch(value: Json, schema: JsonObject, path: str) -> Fit:
    return _plain(value), [f"{path} must be {schema_in_words(schema)}, not {value_in_words(value)}"]


def _plain(value: Json) -> Json:
    return str(value) if isinstance(value, UntypedText) else value


def plain_arguments(arguments: JsonObject) -> JsonObject:
    """``arguments`` with ordinary texts in place of every `UntypedText`."""
    return {str(name): _plain(value) for name, value in arguments.items()}


def _is_null(value: Json, exact: bool) -> bool:
    return value is None or (not exact and isinstance(value, UntypedText) and value.strip() in NULL_TEXTS)


def _takes_null(schema: JsonObject) -> bool:
    return schema.get("type") == "null" or None in _array(schema.get("enum"))


def _equal_json(one: Json, other: Json) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _array(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _argument_in_words(path: str, name: str) -> str:
    """The member ``name`` of what ``path`` names already; an empty ``path``: an argument of the call itself."""
    return f"{path}.{name[:80]}" if path else f"argument {name[:80]!r}"
