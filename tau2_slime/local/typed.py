"""What a person types at the prompt: words, or a tool call as a command, such as ``/get_order order_id=#W1``.

A call's arguments are ``name=value``, each value up to the next name; or one JSON object; or, for the first argument alone,
just the value. The tool's schema says what type a value has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from tau2_slime.tokens.calls.json_text import BadJson, UntypedText, read_json
from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.schema_words import schema_in_words
from tau2_slime.tokens.calls.types import CallStatus, Json, JsonObject, ParsedCall, Tool

COMMAND = "/"
"""What a command begins with; words that begin with it are written with two."""

_NAME = re.compile(r"(?:^|(?<=\s))([A-Za-z_]\w*)=")


def read_call(line: str, tools: Sequence[Tool]) -> ParsedCall:
    """The checked call in ``line``, a name and arguments without `COMMAND`. Its ``error`` says what is wrong.

    >>> tool = {"type": "function", "function": {"name": "refund", "parameters": {"type": "object", "properties": {
    ...     "order": {"type": "string"}, "cents": {"type": "integer"}}, "required": ["order"]}}}
    >>> read_call("refund order=17 of May cents=250", [tool]).arguments
    {'order': '17 of May', 'cents': 250}
    >>> read_call("refund 17", [tool]).arguments, read_call("refund cents=2", [tool]).status.value
    ({'order': '17'}, 'bad_arguments')
    """
    name, _, rest = line.strip().partition(" ")
    known = list(properties(name, tools))
    try:
        arguments = _arguments(rest.strip(), known)
    except BadJson as problem:
        return ParsedCall(name, {}, CallStatus.INVALID_JSON, line, f"{name}: {problem}.")
    return checked_call(name, arguments, list(tools), line)


def properties(name: str, tools: Sequence[Tool]) -> dict[str, JsonObject]:
    """The arguments of the tool ``name`` with their schemas; empty for a tool that takes none, or that is not there."""
    found: dict[str, Any] = next((tool["function"] for tool in tools if tool["function"]["name"] == name), {})
    return dict((found.get("parameters") or {}).get("properties") or {})


def _arguments(text: str, known: Sequence[str]) -> JsonObject:
    if not text:
        return {}
    if text.startswith("{"):
        value = read_json(text)
        if not isinstance(value, dict):
            raise BadJson("the arguments are not a JSON object")
        return value
    # Only names of arguments part values, unless the first word is a name: then it is one that was mistyped.
    marks = [mark for mark in _NAME.finditer(text) if mark[1] in known or mark.start() == 0]
    if not marks or marks[0].start() > 0:
        if marks or not known:
            wanted = f"write {'=... '.join(known)}=..." if known else "it takes no argument"
            raise BadJson(f"{text.split()[0]!r} has no name: {wanted}")
        return {known[0]: _value(text)}
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: _value(text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)}


def _value(text: str) -> Json:
    """Lists, objects and quoted texts are JSON; the schema says what anything else is."""
    return read_json(text) if text[:1] in ("[", "{", '"') else UntypedText(text)


def completions(before: str, tools: Sequence[Tool], commands: Collection[str]) -> tuple[list[str], int]:
    """(what may stand here, how many characters of ``before`` it replaces); ``before``: the line up to the cursor.

    >>> tool = {"type": "function", "function": {"name": "pay", "parameters": {"properties": {"how": {"enum": ["now"]}}}}}
    >>> completions("/p", [tool], ["policy"]), completions("/pay h", [tool], []), completions("/pay how=", [tool], [])
    ((['pay', 'policy'], 1), (['how='], 1), (['now'], 0))
    """
    if not before.startswith(COMMAND):
        return [], 0
    name, blank, rest = before[len(COMMAND) :].partition(" ")
    names = [tool["function"]["name"] for tool in tools]
    if not blank:
        return sorted(one for one in (*names, *commands) if one.startswith(name)), len(name)
    word = re.split(r"\s", rest)[-1]
    if name not in names:
        return [one for one in names if one.startswith(word)] if name in commands else [], len(word)
    known = properties(name, tools)
    argument, equals, value = word.partition("=")
    if equals and argument in known:
        allowed = known[argument].get("enum")
        choices = [str(one) for one in allowed] if isinstance(allowed, list) else []
        return [one for one in choices if one.startswith(value)], len(value)
    given = {mark[1] for mark in _NAME.finditer(rest)}
    return [f"{one}=" for one in known if one.startswith(word) and one not in given], len(word)


def signature(tool: Tool) -> str:
    """The tool's name and arguments, those that may be left out in brackets.

    >>> signature({"function": {"name": "pay", "parameters": {"properties": {"how": {}, "tip": {}}, "required": ["how"]}}})
    '/pay how= [tip=]'
    """
    function = tool["function"]
    parameters = function.get("parameters") or {}
    required = parameters.get("required") or ()
    words = [f"{name}=" if name in required else f"[{name}=]" for name in parameters.get("properties") or {}]
    return " ".join([COMMAND + function["name"], *words])


def usage(tool: Tool) -> str:
    """`signature`, and the first sentence about it.

    >>> usage({"function": {"name": "pay", "description": "Pays a bill. It costs.\\n\\nMore."}})
    '/pay  Pays a bill.'
    """
    first = (tool["function"].get("description") or "").strip().split("\n")[0]
    return f"{signature(tool)}  {re.split(r'(?<=[.!?]) ', first)[0]}"


def details(tool: Tool) -> str:
    """Everything that the tool's schema says, for a person."""
    function = tool["function"]
    lines = [signature(tool), (function.get("description") or "").strip()]
    for name, schema in properties(function["name"], [tool]).items():
        lines.append(f"  {name} ({schema_in_words(schema)}): {schema.get('description') or ''}")
    return "\n".join(filter(None, lines))
