"""What the writes of an episode, and gold's, do to τ²'s databases. Only writes are replayed: reads change nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.diagnosis.policy import CallsBefore, violations_of
from tau2_slime.diagnosis.records import Difference, differences, ids_in, known_before, normal, record_of, records
from tau2_slime.diagnosis.story import TRANSFER, Made, Story
from tau2_slime.policy_rules.rules import Violation

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.types import Task

MAX_GOLD = 512
"""Tasks whose gold play is kept."""


@dataclass(frozen=True)
class GoldWrite:
    """A gold action that changes something."""

    requestor: str
    name: str
    arguments: dict[str, Any]
    touched: frozenset[str]
    violations: tuple[Violation, ...] = ()
    """Rules of the policy that it breaks, in the state in which gold makes it."""


@dataclass
class GoldPlay:
    """What a task's gold actions do."""

    task: Task
    scenario: str
    """What the task tells the user."""
    world: World
    """After the gold actions."""
    writes: list[GoldWrite]
    refused: list[GoldWrite]
    """Gold writes that the environment answers with an error; they change nothing."""
    transfers: bool
    """Gold transfers the customer to a human."""
    names: frozenset[str]
    """Ids that stand in the writes' arguments and results."""

    @property
    def basis(self) -> set[str]:
        """What the reward looks at: DB, COMMUNICATE, ENV_ASSERTION, ACTION, NL_ASSERTION."""
        criteria = self.task.evaluation_criteria
        return {str(kind.value) for kind in criteria.reward_basis} if criteria is not None else set()

    @property
    def communicate(self) -> list[str]:
        criteria = self.task.evaluation_criteria
        return list(criteria.communicate_info or []) if criteria is not None else []


@dataclass
class Played:
    """The end of an episode beside gold's."""

    world: World
    differences: list[Difference]
    """(path, before, here, gold) of each field that the episode leaves otherwise than gold; values are JSON."""
    differing: frozenset[str]
    """The records of these fields."""
    equal_but_for_order: bool
    """True if nothing differs once lists are sorted and generated ids are renamed."""
    failed_assertions: tuple[int, ...]
    """Positions of the task's environment assertions that do not hold."""


def fresh_world(domain: str, split: str, task: Task) -> World:
    """A world in the task's initial state. Raises what τ² raises for a state that contradicts itself."""
    from tau2_slime.world.environment import World

    world = World(domain, split, task)
    world.set_state(world.history)
    world.environment.sync_tools()
    return world


def run(world: World, requestor: str, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """Make one call: the result's text, and whether it is an error."""
    from tau2_slime.world import tau2_compat

    call = tau2_compat.load().ToolCall(id="diagnosis", name=name, arguments=dict(arguments), requestor=requestor)
    result, _ = world.call(call)
    world.environment.sync_tools()
    return str(result.content or ""), bool(result.error)


def writes(world: World, requestor: str, name: str) -> bool:
    """True if the side has a tool of that name that changes something."""
    kit = world.environment.user_tools if requestor == "user" else world.environment.tools
    if kit is None or name not in kit.tools:
        return False
    return str(kit.tool_type(name).value) == "write"


_golds: OrderedDict[str, GoldPlay] = OrderedDict()


def gold_play(domain: str, split: str, task: Task, scenario: str) -> GoldPlay:
    """What gold does, kept for the task's other attempts."""
    key = f"{domain}/{task.model_dump_json()}"
    found = _golds.get(key)
    if found is not None:
        return found
    world = fresh_world(domain, split, task)
    made: list[GoldWrite] = []
    refused: list[GoldWrite] = []
    names, transfers = set[str](), False
    before = CallsBefore(domain, world)
    for action in (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []:
        transfers = transfers or action.name == TRANSFER
        requestor, arguments = str(action.requestor), dict(action.arguments)
        if not writes(world, requestor, action.name):
            before.add(requestor, action.name, arguments, "", False)
            continue
        broken = violations_of(domain, world, action.name, arguments, scenario, before.past)
        result, error, touched = watched(world, requestor, action.name, arguments)
        before.add(requestor, action.name, arguments, result, error)
        names |= ids_in(arguments) | ids_in(result)
        write = GoldWrite(requestor, action.name, arguments, touched, broken)
        (refused if error else made).append(write)
    found = GoldPlay(task, scenario, world, made, refused, transfers, frozenset(names))
    _golds[key] = found
    while len(_golds) > MAX_GOLD:
        _golds.popitem(last=False)
    return found


def play(story: Story, gold: GoldPlay, domain: str, split: str) -> Played:
    """Replay the episode's writes; marks each call of ``story`` that took effect, and compares the end with gold's."""
    world = fresh_world(domain, split, gold.task)
    begun = len(world.history)
    names = set(gold.names)
    calls_before = CallsBefore(domain, world)
    for call in story.calls:
        call.writes = writes(world, call.requestor, call.name)
        if not call.writes or not call.reached or call.turn < begun:
            if call.reached:
                calls_before.add(call.requestor, call.name, call.arguments, call.result or "", call.error)
            continue
        told = "\n".join((gold.scenario, *(said.text for said in story.texts("user", before=call.turn))))
        call.violations = violations_of(domain, world, call.name, call.arguments, told, calls_before.past)
        result, error, call.touched = watched(world, call.requestor, call.name, call.arguments)
        calls_before.add(call.requestor, call.name, call.arguments, result, error)
        call.effective = not error and not (call.error and call.result is not None)
        names |= ids_in(call.arguments) | ids_in(result)
    before = fresh_world(domain, split, gold.task)
    states = [records(each, names) for each in (before, world, gold.world)]
    found = list(differences(*states))
    return Played(
        world,
        found,
        frozenset(record_of(path) for path, *_ in found),
        not found or normal(states[1]) == normal(states[2]),
        failed_assertions(world),
    )


def failed_assertions(world: World) -> tuple[int, ...]:
    """Positions of the task's environment assertions that do not hold in ``world``; one that raises does not hold."""
    criteria = world.task.evaluation_criteria
    failed = []
    for position, assertion in enumerate((criteria.env_assertions if criteria else None) or []):
        try:
            if not world.environment.run_env_assertion(assertion, raise_assertion_error=False):
                failed.append(position)
        except Exception:  # τ²'s own function, given whatever the episode has made of the data
            failed.append(position)
    return tuple(failed)


def without(story: Story, left_out: Made, gold: GoldPlay, domain: str, split: str) -> tuple[int, ...]:
    """The assertions that fail if the episode goes the same way without one call."""
    world = fresh_world(domain, split, gold.task)
    for call in story.calls:
        if call.writes and call.reached and call is not left_out:
            run(world, call.requestor, call.name, call.arguments)
    return failed_assertions(world)


def watched(world: World, requestor: str, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool, frozenset[str]]:
    """Make a call: its result, whether that is an error, and which records it changed."""
    names = ids_in(arguments)
    before = records(world, names)
    result, error = run(world, requestor, name, arguments)
    after = records(world, names | ids_in(result))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    if changed - before.keys():  # a record that only the result names: it may have been there before
        new = {key for key in changed - before.keys() if key in known_before(world)}
        changed -= new
    return result, error, frozenset(changed)
