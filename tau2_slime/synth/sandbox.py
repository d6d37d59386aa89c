"""τ²'s real environment of one task, in which calls are played and states are compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from tau2_slime.policy_rules.check import POLICIES, PolicyWatch
from tau2_slime.policy_rules.rules import NOTHING_STATED, Call, Stated, Violation
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.world.types import DB, Task, ToolMessage

SPLIT = "base"


class Step(NamedTuple):
    """One call that was played."""

    call: Call
    answer: str
    error: bool
    violations: tuple[Violation, ...]


class Sandbox:
    """A fresh environment after the task's initial state."""

    def __init__(self, domain: str, task: Task, stated: Stated = NOTHING_STATED) -> None:
        """Raises whatever τ² raises if the initial state contradicts itself."""
        initial = task.initial_state
        self._brings_data = initial is not None and initial.initialization_data is not None
        self.world = World(domain, SPLIT, task)
        self.world.set_state(self.world.history)
        self._watch = PolicyWatch(POLICIES[domain], stated) if domain in POLICIES else None
        self._calls = 0

    @property
    def db(self) -> DB:
        """The agent's database. Read it inside `reading`."""
        found: DB = self.world.environment.tools.db
        return found

    @property
    def customer(self) -> str | None:
        """Whom the calls so far work for."""
        return self._watch.past.customer if self._watch is not None else None

    def reading(self) -> AbstractContextManager[DB]:
        """See `World.reading`."""
        return self.world.reading()

    def state(self) -> Hashable:
        """Equal for two sandboxes of one domain exactly if τ²'s hashes of both databases are."""
        environment = self.world.environment
        if self.world.fast is not None and not self._brings_data:
            return self.world.fast.database_state()
        return environment.get_db_hash(), environment.get_user_db_hash()

    def is_write(self, call: Call) -> bool:
        """True if the tool may change a state, by τ²'s own word."""
        environment = self.world.environment
        kit = environment.user_tools if call.requestor == "user" else environment.tools
        return kit is not None and kit.has_tool(call.name) and kit.tool_type(call.name).value == "write"

    def violations(self, call: Call) -> list[Violation]:
        """The hard rules that ``call`` would break now."""
        if self._watch is None:
            return []
        with self.reading() as db:
            return [v for v in self._watch.violations(db, call) if not v.rule.soft]

    def play(self, call: Call) -> ToolMessage:
        """τ²'s answer to ``call``. What hangs τ² is answered by the product's guards."""
        self._calls += 1
        message = tau2_compat.load().ToolCall(
            id=f"call_{self._calls}", name=call.name, arguments=dict(call.arguments), requestor=call.requestor
        )
        result, _ = self.world.call(message)
        if self._watch is not None:
            with self.reading() as db:
                self._watch.ran(db, call, result.content or "", error=bool(result.error))
        return result

    def step(self, call: Call) -> Step:
        """Judge ``call``, then play it."""
        broken = tuple(self.violations(call))
        result = self.play(call)
        return Step(call, result.content or "", bool(result.error), broken)

    def run(self, calls: Iterable[Call]) -> bool:
        """Play ``calls`` until one breaks a rule or fails; True if none does."""
        return all(not (self.violations(call) or self.play(call).error) for call in calls)


def gold_calls(task: Task) -> list[Call]:
    """The task's gold actions of both sides."""
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria is not None else None) or []
    return [Call(a.name, dict(a.arguments), "user" if a.requestor == "user" else "assistant") for a in actions]


def end_state(domain: str, task: Task, calls: Sequence[Call]) -> Hashable | None:
    """Where ``calls`` lead; None if one of them fails. The policy is not asked."""
    box = Sandbox(domain, task)
    return None if any(box.play(call).error for call in calls) else box.state()
