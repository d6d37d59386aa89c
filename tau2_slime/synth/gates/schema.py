"""G1 and G2: the row is a τ² task, and its calls fit the tools of whoever makes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.synth.sandbox import SPLIT
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Task, ToolKit

NEWER_KEYS = frozenset({"annotations", "user_tools", "required_documents", "issues", "$schema"})
"""Keys that other releases of τ² write into a task, and that do not change what is graded."""
_MOST_CHARS = 300


def task_of_row(row: object) -> tuple[Task | None, str]:
    """The task, and why the row is none (G1). A key that τ² would not read is refused: its content would be lost."""
    if not isinstance(row, dict):
        return None, "it is not JSON" if isinstance(row, str) else f"a row is a JSON object, not {type(row).__name__}"
    try:
        task: Task = tau2_compat.load().Task.model_validate(row)
        again = tau2_compat.load().Task.model_validate_json(task.model_dump_json())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][:8]) or "the row"
        return None, f"{place}: {first['msg']}"[:_MOST_CHARS]
    except (RecursionError, ValueError, TypeError) as error:
        return None, f"{type(error).__name__}: {error}"[:_MOST_CHARS]
    if again != task:
        return None, "the task does not read as itself after it was written"
    if not task.id.strip():
        return None, "id: it is empty"
    lost = _lost(row, json.loads(task.model_dump_json()), "")
    return (None, f"{lost}: τ² does not read it, its content would be lost") if lost else (task, "")


def _lost(row: object, kept: object, place: str) -> str | None:
    """Where ``row`` holds something that ``kept``, which τ² made of it, does not."""
    if isinstance(row, Mapping):
        if not isinstance(kept, Mapping):
            return place
        for key, value in row.items():
            here = f"{place}.{key}" if place else str(key)
            if value is None or key in NEWER_KEYS:
                continue
            if key not in kept:
                return here
            found = _lost(value, kept[key], here)
            if found:
                return found
        return None
    if isinstance(row, list):
        if not isinstance(kept, list) or len(kept) != len(row):
            return place
        pairs = enumerate(zip(row, kept, strict=True))
        return next((found for i, (a, b) in pairs if (found := _lost(a, b, f"{place}.{i}"))), None)
    if isinstance(row, bool) or isinstance(kept, bool):
        return None if row is kept else place
    if isinstance(row, int | float) and isinstance(kept, int | float):
        return None if row == kept else place
    return None if str(row) == str(kept) or row == kept else place


def check(case: Case, found: Findings) -> None:
    """G2 over gold actions, initial actions and assertions."""
    kits = _kits(case)
    for position, call in enumerate(case.calls):
        problem = _problem(kits[call.requestor][1], call.name, call.arguments)
        if problem:
            found.fail("G2", f"action {position}: {problem}")
    criteria, initial = case.task.evaluation_criteria, case.task.initial_state
    functions = [
        *(("initial action", f) for f in (initial and initial.initialization_actions) or []),
        *(("assertion", f) for f in (criteria and criteria.env_assertions) or []),
    ]
    for kind, function in functions:
        kit = kits["user" if function.env_type == "user" else "assistant"][0]
        method = None if function.func_name.startswith("_") else getattr(kit, function.func_name, None)
        if not callable(method):
            found.fail("G2", f"{kind} {function.func_name!r} does not exist in the environment")
            continue
        try:
            inspect.signature(method).bind(**function.arguments)
        except TypeError as error:
            found.fail("G2", f"{kind} {function.func_name}: {error}")


def _kits(case: Case) -> dict[str, tuple[ToolKit | None, dict[str, type[BaseModel]]]]:
    """Each side's tool kit, and the schemas of its tools by name."""
    world = World(case.domain, SPLIT, case.task)
    environment = world.environment
    return {
        "assistant": (environment.tools, {tool.name: tool.params for tool in world.agent_tools}),
        "user": (environment.user_tools, {tool.name: tool.params for tool in world.user_tools or []}),
    }


def _problem(schemas: Mapping[str, type[BaseModel]], name: str, arguments: Mapping[str, object]) -> str | None:
    schema = schemas.get(name)
    if schema is None:
        return f"{name!r} is not a tool of the one who calls it"
    extra = sorted(set(arguments) - set(schema.model_fields))
    if extra:
        return f"{name} does not take {', '.join(extra)}"
    try:
        schema.model_validate_json(json.dumps(arguments), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{name}: {'.'.join(str(p) for p in first['loc'][:4])}: {first['msg']}"[:_MOST_CHARS]
    except (ValueError, TypeError) as error:
        return f"{name}: {error}"[:_MOST_CHARS]
    return _wrong_records(name, arguments)


_RECORDS = {
    "flights": ("flight_number", "date"),
    "passengers": ("first_name", "last_name", "dob"),
    "payment_methods": ("payment_id", "amount"),
}
"""Airline's lists of records: the schema takes any object in them, the tool does not."""


def _wrong_records(name: str, arguments: Mapping[str, object]) -> str | None:
    for key, fields in _RECORDS.items():
        records = arguments.get(key)
        if not isinstance(records, Sequence) or isinstance(records, str):
            continue
        for position, record in enumerate(records):
            if not isinstance(record, Mapping) or set(record) != set(fields):
                return f"{name}: {key}.{position} has not exactly the fields {', '.join(fields)}"
            for field in fields:
                wanted = int if field == "amount" else str
                if not isinstance(record[field], wanted) or isinstance(record[field], bool):
                    return f"{name}: {key}.{position}.{field} is not of the type {wanted.__name__}"
    return None
