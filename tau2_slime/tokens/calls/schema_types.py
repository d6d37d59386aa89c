"""Arguments of a tool call, typed by the tool's JSON schema without losing anything.

Ids are strings in τ², and models write them as numbers; XML-like calls carry no types at all. A value is converted
only if the schema leaves one reading and the value keeps its spelling or its exact number; else it stays as it is and
a problem says so. Ranges, patterns and formats are left to the tool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tau2_slime.tokens.calls.literal_json import LiteralFloat, LiteralInt, UntypedText, to_plain_json
from tau2_slime.tokens.calls.text_values import NULL_SPELLINGS, container_in, exact_integer, number_in

Schema = dict[str, Any]
Fit = tuple[Any, list[str]]
"""A plain value and what is wrong with it; no problem means that it fits."""

MAX_SCHEMA_DEPTH = 100
"""Bound on nested schemas, for those that refer to themselves."""


def coerce(arguments: dict[str, Any], schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """(arguments as plain JSON values typed by `schema`, problems), in the order of `arguments`.

    `schema` is the "parameters" of a function schema: $ref into the schema itself, anyOf, oneOf, allOf, enum, const,
    lists of types, arrays and objects are understood. Values may be marked by `literal_json`. A name outside
    "properties" is a problem unless "additionalProperties" allows it; a schema without "properties" allows all names.
    """
    fitter = _SchemaFitter(schema)
    top = fitter.resolve(schema)
    strict = top if "additionalProperties" in top or "properties" not in top else {**top, "additionalProperties": False}
    return fitter.fit_object(arguments, strict, "", False, 0)


class _SchemaFitter:
    """One root schema; the methods return a plain value and the problems with it.

    `exact`: nothing may be converted (used to choose between the alternatives of anyOf).
    """

    def __init__(self, root: Schema) -> None:
        self.root = root

    def resolve(self, schema: Any) -> Schema:
        """`schema` with its $ref followed; {} (anything goes) for what is no schema."""
        for _ in range(MAX_SCHEMA_DEPTH):
            if not isinstance(schema, dict):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            target: Any = self.root
            for part in reference.removeprefix("#").split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                target = target.get(part) if isinstance(target, dict) else None
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **siblings} if isinstance(target, dict) else siblings
        return {}

    def fit(self, value: Any, schema: Any, path: str, exact: bool, depth: int) -> Fit:
        schema = self.resolve(schema)
        if depth > MAX_SCHEMA_DEPTH:
            return to_plain_json(value), [f"{path} is nested too deeply"]
        for part in schema.get("allOf") or ():
            rest = {key: item for key, item in schema.items() if key != "allOf"}
            schema = {**self.resolve(part), **rest}
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if alternatives:
            return self.fit_any(value, [self.resolve(one) for one in alternatives], path, exact, depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.fit_any(value, [{**schema, "type": one} for one in kind], path, exact, depth + 1)
        if "const" in schema or "enum" in schema:
            allowed = [schema["const"]] if "const" in schema else schema["enum"]
            return _fit_enum(value, allowed, path, exact)
        if kind == "object":
            return self.fit_object(value, schema, path, exact, depth + 1)
        if kind == "array":
            return self.fit_array(value, schema, path, exact, depth + 1)
        scalar = _SCALARS.get(kind) if isinstance(kind, str) else None
        if scalar is None:
            return _untyped(value), []
        fitted = scalar(value, exact)
        return (to_plain_json(value), [_mismatch(path, kind, value)]) if fitted is _NO_MATCH else (fitted, [])

    def fit_any(self, value: Any, alternatives: list[Schema], path: str, exact: bool, depth: int) -> Fit:
        """An alternative that fits as is, else the only conversion; an open object is the last resort.

        Pydantic writes `Model | dict` for τ²'s lists of flights and passengers: the open object would accept
        everything and so hide what the model knows about types.
        """
        if (
            isinstance(value, UntypedText)
            and value.strip() in NULL_SPELLINGS
            and any(_takes_null(a) for a in alternatives)
        ):
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
                return to_plain_json(value), [f"{path} is ambiguous: {value_in_words(value)} could be {readings}"]
        wanted = " or ".join(dict.fromkeys(schema_in_words(one) for one in alternatives))
        return to_plain_json(value), [f"{path} must be {wanted}, not {value_in_words(value)}"]

    def fit_object(self, value: Any, schema: Schema, path: str, exact: bool, depth: int) -> Fit:
        found = value if isinstance(value, dict) else container_in(value, dict) if not exact else None
        if found is None:
            return to_plain_json(value), [_mismatch(path, "object", value)]
        properties = schema.get("properties") or {}
        extra = schema.get("additionalProperties", True)
        fitted: dict[str, Any] = {}
        problems = [
            f"{_path_of(path, name)} is missing ({schema_in_words(self.resolve(properties.get(name)))})"
            for name in schema.get("required") or ()
            if name not in found
        ]
        for key, item in found.items():
            name, where = str(key), _path_of(path, str(key))
            if name in properties:
                part = self.resolve(properties[name])
                if _is_null(item, exact) and part.get("default", _NO_MATCH) is None:
                    fitted[name] = None
                    continue
                fitted[name], wrong = self.fit(item, part, where, exact, depth)
            elif extra is False:
                names = f"the arguments are {', '.join(properties)}" if properties else "there are no arguments"
                fitted[name], wrong = to_plain_json(item), [f"{where} is unexpected ({names})"]
            else:
                fitted[name], wrong = self.fit(item, extra, where, exact, depth)
            problems += wrong
        return fitted, problems

    def fit_array(self, value: Any, schema: Schema, path: str, exact: bool, depth: int) -> Fit:
        found = value if isinstance(value, list) else container_in(value, list) if not exact else None
        if found is None:
            return to_plain_json(value), [_mismatch(path, "array", value)]
        fits = [
            self.fit(item, schema.get("items"), f"{path}[{index}]", exact, depth) for index, item in enumerate(found)
        ]
        return [fitted for fitted, _ in fits], [problem for _, problems in fits for problem in problems]


_NO_MATCH: Any = object()
"""Does not fit."""


def _as_string(value: Any, exact: bool) -> Any:
    if isinstance(value, str):
        return to_plain_json(value)
    if exact or isinstance(value, bool):
        return _NO_MATCH
    if isinstance(value, (LiteralInt, LiteralFloat)):
        return value.literal
    return str(value) if isinstance(value, int) else _NO_MATCH  # a bare float does not say whether it was 1.5 or 1.50


def _as_integer(value: Any, exact: bool) -> Any:
    number = number_in(value) if isinstance(value, str) and not exact else value
    return _NO_MATCH if (integer := exact_integer(number)) is None else integer


def _as_number(value: Any, exact: bool) -> Any:
    number = number_in(value) if isinstance(value, str) and not exact else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        return _NO_MATCH
    return to_plain_json(number)


def _as_boolean(value: Any, exact: bool) -> Any:
    if isinstance(value, bool):
        return value
    spellings = {"true": True, "True": True, "false": False, "False": False}
    return spellings.get(value.strip(), _NO_MATCH) if isinstance(value, str) and not exact else _NO_MATCH


def _as_null(value: Any, exact: bool) -> Any:
    return (
        None
        if value is None or (not exact and isinstance(value, str) and value.strip() in NULL_SPELLINGS)
        else _NO_MATCH
    )


_SCALARS: dict[str, Callable[[Any, bool], Any]] = {
    "string": _as_string,
    "integer": _as_integer,
    "number": _as_number,
    "boolean": _as_boolean,
    "null": _as_null,
}


def _fit_enum(value: Any, allowed: list[Any], path: str, exact: bool) -> Fit:
    for one in allowed:
        if _equal_json(one, to_plain_json(value)):
            return one, []
    if not exact:
        spelled = value.strip() if isinstance(value, str) else _as_string(value, False)
        readings = [one for one in allowed if spelled in _spellings(one)]
        if len(readings) == 1:
            return readings[0], []
    return to_plain_json(value), [f"{path} must be {schema_in_words({'enum': allowed})}, not {value_in_words(value)}"]


def _spellings(value: Any) -> tuple[str, ...]:
    if value is None:
        return tuple(NULL_SPELLINGS)
    if isinstance(value, bool):
        return (str(value), str(value).lower())
    return (str(value),)


def _untyped(value: Any) -> Any:
    """A value of any type; an XML-like text that spells a list or an object means it, other text stays text."""
    if isinstance(value, UntypedText):
        for kind in (list, dict):
            found = container_in(value, kind)
            if found is not None:
                return to_plain_json(found)
    return to_plain_json(value)


def _is_null(value: Any, exact: bool) -> bool:
    return value is None or (not exact and isinstance(value, UntypedText) and value.strip() in NULL_SPELLINGS)


def _takes_null(schema: Schema) -> bool:
    return schema.get("type") == "null" or ("enum" in schema and None in schema["enum"])


def _equal_json(one: Any, other: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _path_of(path: str, name: str) -> str:
    return f"{path}.{name[:80]}" if path else f"argument {name[:80]!r}"


def _mismatch(path: str, kind: str, value: Any) -> str:
    return f"{path} must be {schema_in_words({'type': kind})}, not {value_in_words(value)}"


_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def schema_in_words(schema: Schema) -> str:
    """What a schema wants, in words for the model."""
    if "const" in schema:
        return value_in_words(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kinds = schema.get("type")
    words = [_WORDS.get(str(kind), "a value") for kind in (kinds if isinstance(kinds, list) else [kinds])]
    if kinds is None and (alternatives := schema.get("anyOf") or schema.get("oneOf")):
        words = [schema_in_words(one) if isinstance(one, dict) else "a value" for one in alternatives]
    return " or ".join(dict.fromkeys(words))


def value_in_words(value: Any) -> str:
    """A value in words for the model, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        text = repr(str(value))
        return f"the string {text if len(text) <= 62 else text[:60] + '…' + text[0]}"
    if isinstance(value, (int, float)):
        return f"the number {getattr(value, 'literal', repr(value))[:40]}"
    return "a list" if isinstance(value, list) else "an object"
