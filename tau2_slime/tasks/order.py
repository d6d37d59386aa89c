"""Whether a task's reward depends on an order that a policy may well choose otherwise: of the writes, or inside a list.

Every order that no tool refuses is played without a model, and its end compared with gold's. An order that a tool refuses,
where it took gold's, is not one that a policy could have chosen, nor is dated things other than by date. τ²'s own tasks
have such cases: of several items of one ``modify_pending_order_items``, the last one decides about all.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice, permutations
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import write_tools
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.world.types import Task

Dependence = Literal["", "writes", "lists"]
"""On what the end depends: on nothing of that kind, on the order of the writes, on the order inside a list."""

MOST_ORDERS = 120
"""Orders of one task that are tried: all of five writes, a sample of more."""


class _Step:
    """One gold action."""

    def __init__(self, name: str, arguments: dict[str, Any], requestor: str) -> None:
        self.name, self.arguments, self.requestor = name, arguments, requestor

    def with_lists(self, order: Sequence[int]) -> _Step:
        """The same call with its lists of that length in another order, all of them together: they are often pairs."""
        changed = {
            key: [value[i] for i in order] if _is_free(value) and len(value) == len(order) else value
            for key, value in self.arguments.items()
        }
        return _Step(self.name, changed, self.requestor)


def order_dependence(config: Tau2Config, task: Task) -> Dependence:
    """What ``task``'s end depends on; "" also where it has fewer than two writes and no list, or where nothing is compared.

    Takes from a millisecond to some tenths of a second. Raises what τ² raises where the task cannot begin.
    """
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria is not None else None) or []
    writes = write_tools(config.domain)
    steps = [_Step(a.name, a.arguments, a.requestor) for a in actions if a.name in writes]
    gold, gold_refused = _end(config, task, steps)
    if gold is None:
        return ""
    for number, step in enumerate(steps):
        for other in _other_lists(step):
            end, refused = _end(config, task, [*steps[:number], other, *steps[number + 1 :]])
            if refused <= gold_refused and end != gold:
                return "lists"
    for order in _other_orders(len(steps)):
        end, refused = _end(config, task, [steps[i] for i in order])
        if refused <= gold_refused and end != gold:
            return "writes"
    return ""


def _is_free(value: Any) -> TypeGuard[list[Any]]:
    """True for a list whose order nothing but its author has chosen: the segments of a journey follow one another."""
    return isinstance(value, list) and not any(isinstance(item, dict) and "date" in item for item in value)


def _other_lists(step: _Step) -> Iterator[_Step]:
    lengths = {len(value) for value in step.arguments.values() if _is_free(value)}
    return (step.with_lists(order) for length in sorted(lengths) for order in islice(_other_orders(length), 24))


def _other_orders(count: int) -> Iterator[Sequence[int]]:
    """Every order of ``count`` things but the first; of more than five a sample, the same every time."""
    if count <= 5:
        yield from islice(permutations(range(count)), 1, None)
        return
    rng = random.Random(count)
    for _ in range(MOST_ORDERS):
        yield rng.sample(range(count), count)


def _end(config: Tau2Config, task: Task, steps: Sequence[_Step]) -> tuple[Hashable, int]:
    """What τ² would compare after ``steps``, and how many of them a tool refused; None if nothing is compared."""
    t = tau2_compat.load()
    world = World(config.domain, config.task_split, task, env_kwargs=config.environment)
    world.set_state(world.history)
    refused = 0
    for number, step in enumerate(steps):
        call = t.ToolCall(id=f"step_{number}", name=step.name, arguments=step.arguments, requestor=step.requestor)
        result, _ = world.call(call)
        refused += bool(result.error)
        world.environment.sync_tools()
    criteria = task.evaluation_criteria
    compared: list[Hashable] = []
    if t.RewardType.DB in criteria.reward_basis:
        compared.append(world.database_state())
    if t.RewardType.ENV_ASSERTION in criteria.reward_basis:
        compared += [
            world.environment.run_env_assertion(a, raise_assertion_error=False) for a in criteria.env_assertions or []
        ]
    return (tuple(compared) if compared else None), refused
