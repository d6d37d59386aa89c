"""Why a task of one's own cannot be played in its domain, as far as that shows without playing it."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tau2_slime.world.types import Task, ToolKit


class Kits(NamedTuple):
    """The tools of a domain's two sides."""

    assistant: ToolKit | None
    user: ToolKit | None


def problem(task: Task, kits: Kits) -> str | None:
    """The first reason, in words that name the field; None if there is none."""
    return next(_problems(task, kits), None)


def _problems(task: Task, kits: Kits) -> Iterator[str]:
    criteria, initial = task.evaluation_criteria, task.initial_state
    if criteria is None or not criteria.reward_basis:
        yield "nothing of it is graded (no evaluation_criteria, or an empty reward_basis): every episode would earn 1.0"
        return
    for number, action in enumerate(criteria.actions or []):
        kit = getattr(kits, action.requestor)
        place = f"evaluation_criteria.actions.{number}"
        if kit is None or action.name not in _tool_names(kit):
            # A user's call that only the agent has, or a Python method of the kit, is refused by τ² when it is played.
            yield f"{place}: {action.name!r} is not a tool of the {_side(action.requestor)} in this domain"
    calls = [
        ("initial_state.initialization_actions", call) for call in (initial and initial.initialization_actions) or []
    ]
    calls += [("evaluation_criteria.env_assertions", call) for call in criteria.env_assertions or []]
    for place, call in calls:
        kit = getattr(kits, call.env_type)
        function = None if call.func_name.startswith("_") else getattr(kit, call.func_name, None)
        if not callable(function):
            yield f"{place}: {call.func_name!r} is not a function of the {_side(call.env_type)}'s environment"
        elif not _fits(_signature(kit, call.func_name), call.arguments):
            yield f"{place}: {call.func_name} does not take the arguments {', '.join(call.arguments) or '(none)'}"
    data = initial.initialization_data if initial is not None else None
    for side, change in (("assistant", data and data.agent_data), ("user", data and data.user_data)):
        if change is not None:
            yield from _wrong_tables(side, change, getattr(kits, side))


def _wrong_tables(side: str, change: Mapping[str, object], kit: ToolKit | None) -> Iterator[str]:
    name = "agent_data" if side == "assistant" else "user_data"
    place = f"initial_state.initialization_data.{name}"
    if kit is None or kit.db is None:
        yield f"{place}: the {_side(side)} has no database in this domain"
        return
    known = type(kit.db).model_fields
    for table in change:
        if table not in known:
            yield f"{place}: the database has no {table!r}; it has: {', '.join(known)}"


def _side(requestor: str) -> str:
    return "agent" if requestor == "assistant" else "user"


# A file has up to a million rows, and τ² makes the table of its tools anew each time it is asked for it.
@lru_cache(maxsize=64)
def _tool_names(kit: ToolKit) -> frozenset[str]:
    return frozenset(kit.tools)


@lru_cache(maxsize=1024)
def _signature(kit: ToolKit, function: str) -> inspect.Signature:
    return inspect.signature(getattr(kit, function))


def _fits(signature: inspect.Signature, arguments: Mapping[str, object]) -> bool:
    try:
        signature.bind(**arguments)
    except TypeError:
        return False
    return True
