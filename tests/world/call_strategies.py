"""What a policy may ask of its tools: the right thing, nearly the right thing, and nonsense."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tau2_slime.world import domains
from tau2_slime.world.environment import World
from tests.parity_play import Call
from tests.world.twins import gold_calls

JUNK: list[Any] = [
    None,
    True,
    0,
    -3,
    7,
    2.5,
    "",
    "nobody",
    "#W0000000",
    [],
    ["a", "b"],
    [None],
    {},
    {"a": "dict"},
    [{}],
    "ünïcødé ✓\n",
    10**25,
    float("inf"),
]
NAMES = ["no_such_tool", "", "db", "__class__", "use_tool", "update_db", "get_db_hash"]


@dataclass(frozen=True)
class Knowledge:
    """What there is to say in a domain."""

    schemas: dict[str, dict[str, Any]]
    """(requestor:name) -> JSON schema of the parameters."""
    values: dict[str, list[Any]]
    """Parameter -> what gold actions and the database know for it."""


@cache
def knowledge(domain: str) -> Knowledge:
    task = domains.tasks(domain, "base")[0]
    world = World(domain, "base", task)
    schemas = {}
    for requestor, kit in (("assistant", world.environment.tools), ("user", world.environment.user_tools)):
        for tool in kit.get_tools().values() if kit is not None else ():
            schemas[f"{requestor}:{tool.name}"] = tool.openai_schema["function"]["parameters"]
    values: dict[str, list[Any]] = defaultdict(list)
    for task in domains.tasks(domain, "base"):
        for call in gold_calls(task):
            for key, value in call.arguments.items():
                if value not in values[key]:
                    values[key].append(value)
    return Knowledge(schemas, dict(values))


def value_for(known: Knowledge, name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    options: list[st.SearchStrategy[Any]] = [st.sampled_from(JUNK)]
    if known.values.get(name):
        options = [st.sampled_from(known.values[name])] * 6 + options
    if schema.get("enum"):
        options += [st.sampled_from(schema["enum"])] * 4
    kind = schema.get("type")
    if kind == "integer":
        options += [st.integers(-2, 2000)] * 2
    elif kind == "number":
        options += [st.floats(-5, 100, allow_nan=False)] * 2
    elif kind == "string":
        options.append(st.text(max_size=8))
    return st.one_of(options)


@st.composite
def any_call(draw: st.DrawFn, domain: str) -> Call:
    """A call after a tool's schema, its arguments from anywhere."""
    known = knowledge(domain)
    which = draw(st.sampled_from(sorted(known.schemas)))
    requestor, _, name = which.partition(":")
    arguments = {
        key: draw(value_for(known, key, schema)) for key, schema in known.schemas[which].get("properties", {}).items()
    }
    return Call(name, copy.deepcopy(arguments), requestor, "any")


@st.composite
def bent(draw: st.DrawFn, call: Call, domain: str) -> Call:
    """``call``, or something close to it."""
    kind = draw(st.integers(0, 9))
    arguments = copy.deepcopy(call.arguments)
    name, requestor = call.name, call.requestor
    keys = sorted(arguments)
    if kind == 6 and keys:
        arguments[draw(st.sampled_from(keys))] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    elif kind == 7 and keys:
        key = draw(st.sampled_from(keys))
        others = knowledge(domain).values.get(key)
        arguments[key] = copy.deepcopy(draw(st.sampled_from(others))) if others else arguments[key]
    elif kind == 8 and keys:
        del arguments[draw(st.sampled_from(keys))]
    elif kind == 9:
        choice = draw(st.integers(0, 3))
        if choice == 0:
            name = draw(st.sampled_from(NAMES))
        elif choice == 1:
            arguments[draw(st.sampled_from(["surplus", "self", "tool_name", "requestor"]))] = "x"
        elif choice == 2:
            requestor = "user" if requestor == "assistant" else "assistant"
        else:
            name, arguments = "calculate", {"expression": "2 + 2 * 3"}
    return Call(name, arguments, requestor, call.id)


@st.composite
def sequence(draw: st.DrawFn, domain: str) -> tuple[Any, list[Call]]:
    """A task and what is done in it: some of its gold calls, in any order, bent, with other calls between them."""
    task = draw(st.sampled_from(domains.tasks(domain, "base")))
    gold = gold_calls(task)
    calls = []
    for _ in range(draw(st.integers(0, 7))):
        if gold and draw(st.integers(0, 2)):
            calls.append(draw(bent(draw(st.sampled_from(gold)), domain)))
        else:
            calls.append(draw(any_call(domain)))
    return task, calls
