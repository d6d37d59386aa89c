"""What a task says, so that one that was edited in place is not taken for what it was before."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.types import InitializationData, InitialState

MOST_SAID = 50
"""Records of a task's own data that are compared by what they say. A whole database is known by its object."""


def gold_key(world: World) -> Hashable:
    """The task object with what its gold end state depends on: a changed copy of a task is another one, and so is a task
    that was edited in place."""
    task = world.task
    actions = task.evaluation_criteria.actions if task.evaluation_criteria is not None else None
    allowed = sorted(world.env_kwargs.get("read_log_allowlist") or ())
    says = (said_by(task.initial_state), *(action.model_dump_json() for action in actions or ()), json.dumps(allowed))
    return id(task), id(task.initial_state), id(actions), says


def said_by(initial: InitialState | None) -> str:
    """What a task begins with, as JSON; empty where it begins with nothing."""
    if initial is None:
        return ""
    return f"{initial.model_dump_json(exclude={'initialization_data'})} {data_said_by(initial.initialization_data)}"


def data_said_by(data: InitializationData | None) -> str:
    """What a task's own data says, as JSON; empty for a whole database."""
    if data is None:
        return ""
    tables = [*(data.agent_data or {}).values(), *(data.user_data or {}).values()]
    whole = sum(len(table) for table in tables if isinstance(table, dict)) > MOST_SAID
    return "" if whole else str(data.model_dump_json())
