"""`EpisodeEnvironment` without parsing, copying or replaying: the one interface of this folder.

`domains.new_environment` asks `fast_environment` first and takes τ²'s own way wherever that answers None.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import first_time
from tau2_slime.world import tau2_compat
from tau2_slime.world.environments import EpisodeEnvironment
from tau2_slime.world.fast.evaluator_stubs import evaluate_with_stubs, knows_gold
from tau2_slime.world.fast.factories import EnvironmentFactory, factory_of, known_factory
from tau2_slime.world.fast.replays import Executed, calls_with_results, why_replay_needed
from tau2_slime.world.fast.shared_db import NotShared

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, RewardInfo, Task, ToolCall, ToolMessage

logger = logging.getLogger(__name__)


def fast_environment(domain: str, *, solo: bool, env_kwargs: dict[str, Any]) -> FastEnvironment | None:
    """An environment of ``domain``; None if its sources or arguments are not among those that were verified.

    Raises what τ²'s constructor raises (no solo mode in this domain).
    """
    factory = factory_of(domain, env_kwargs)
    return None if factory is None else FastEnvironment(factory, solo=solo, env_kwargs=env_kwargs)


def builds_quickly(domain: str, env_kwargs: dict[str, Any]) -> bool:
    """True if `fast_environment` takes about a millisecond: this process has read the domain."""
    return known_factory(domain, env_kwargs) is not None


class FastEnvironment(EpisodeEnvironment):
    """An environment from a factory that remembers what it ran, so that scoring need not run it again."""

    quick = True

    def __init__(self, factory: EnvironmentFactory, *, solo: bool, env_kwargs: dict[str, Any]) -> None:
        self.factory = factory
        self.built = factory.build(solo=solo, env_kwargs=env_kwargs)
        self._solo, self._env_kwargs = solo, env_kwargs
        self._task: Task | None = None
        self.executed: Executed | None = None
        """Every call that ran here, in order; None if the environment did not begin with a task's initial state."""
        super().__init__(self.built.environment)

    def set_state(self, task: Task, history: list[Message]) -> None:
        used_before, self._task, self.executed = self._task is not None, task, None
        super().set_state(task, history)
        if not used_before:
            self.executed = calls_with_results(history)

    def run_tool(self, call: ToolCall) -> ToolMessage:
        database = self.built.database
        if database is not None and call.name in self.factory.read_only_tools:
            with database.reading():
                result = self.environment.get_response(call)
        else:
            result = self.environment.get_response(call)
        if self.executed is not None:
            self.executed.append((call, result))
        return result

    def evaluate(self, arguments: dict[str, Any], *, judge: bool) -> RewardInfo:
        t = tau2_compat.load()
        task, run = arguments["task"], arguments["simulation"]
        if run.termination_reason not in (t.TerminationReason.AGENT_STOP, t.TerminationReason.USER_STOP):
            return super().evaluate(arguments, judge=judge)  # τ² answers without an environment
        executed = self.executed if task is self._task else None
        why = why_replay_needed(run.messages, executed, solo=self._solo)
        if why is None:
            try:
                return evaluate_with_stubs(arguments, self.built, self.factory, self._env_kwargs)
            except NotShared as error:
                why = str(error)
            except Exception as error:  # τ²'s own replay, below, says whether it raises as well
                if judge:  # asking again would ask the judge again
                    raise
                why = f"{type(error).__name__}: {error}"
        # τ² itself raises for some episodes; where it does not, it is right, and that must not stay unknown.
        info = super().evaluate(arguments, judge=judge)
        if first_time("scored by τ²'s own replay", why):
            logger.warning("task %s: %s; τ²'s own, slower replay scores such episodes", task.id, why)
        return info

    def evaluates_quickly(self, task: Task) -> bool:
        return knows_gold(task, self.factory, self._env_kwargs)

    @property
    def shared_tables(self) -> frozenset[str]:
        database = self.built.database
        if database is None or self.environment.tools.db is not database.db:
            return frozenset()
        return frozenset(name for name, table in database.tables.items() if getattr(database.db, name) is table)

    def changed_records(self) -> set[tuple[str, str]]:
        database = self.built.database
        if database is None:
            return set()
        return {(name, str(key)) for name, table in database.tables.items() for key in table.changed()}
