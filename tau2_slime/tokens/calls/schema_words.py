"""Schemas, values and arguments in words: what the model reads when its call does not fit."""

from __future__ import annotations

from tau2_slime.tokens.calls.types import Json, JsonObject

_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def schema_in_words(schema: JsonObject) -> str:
    """What a schema wants.

    >>> schema_in_words({"anyOf": [{"type": "integer"}, {"type": "null"}]})
    'an integer or null'
    """
    if "const" in schema:
        return value_in_words(schema["const"])
    allowed, kinds = schema.get("enum"), schema.get("type")
    if isinstance(allowed, list):
        return "one of " + ", ".join(map(str, allowed))
    words = [_KINDS.get(str(kind), "a value") for kind in (kinds if isinstance(kinds, list) else [kinds])]
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if kinds is None and isinstance(alternatives, list):
        words = [schema_in_words(one) if isinstance(one, dict) else "a value" for one in alternatives]
    return " or ".join(dict.fromkeys(words))


def value_in_words(value: Json) -> str:
    """A value, cut to a readable length.

    >>> value_in_words("x" * 99)
    "the string 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = repr(str(value))
        return f"the string {text if len(text) <= 62 else text[:60] + '…' + text[0]}"
    if isinstance(value, (int, float)):
        return f"the number {getattr(value, 'literal', repr(value))[:40]}"
    return "a list" if isinstance(value, list) else "an object"


def argument_in_words(path: str, name: str) -> str:
    """The member ``name`` of what ``path`` names already; an empty ``path``: an argument of the call itself."""
    return f"{path}.{name[:80]}" if path else f"argument {name[:80]!r}"
