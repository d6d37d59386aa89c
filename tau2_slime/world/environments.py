"""One episode's environment as τ²'s own constructor builds it, and scored as τ²'s own evaluator scores it.

`world/fast` holds a subclass that gives the same answers in a hundredth of the time. `domains.new_environment` chooses.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Environment, Message, RewardInfo, Task, ToolCall, ToolMessage

TASK_ARGUMENTS = ("task", "read_log_allowlist")
"""Arguments of τ²'s environment constructors that differ between the tasks of one domain."""


class EpisodeEnvironment:
    """τ²'s environment of one episode: its tools, its initial state and its evaluation."""

    quick = False
    """True if every method takes less time than handing the work to another thread."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def set_state(self, task: Task, history: list[Message]) -> None:
        """Apply the initial state of ``task`` and run the tool calls of ``history`` again.

        Raises:
            ValueError, AssertionError: the initial state or the history contradicts itself.
        """
        initial = task.initial_state
        self.environment.set_state(
            initialization_data=initial.initialization_data if initial else None,
            initialization_actions=initial.initialization_actions if initial else None,
            message_history=history,
        )

    def run_tool(self, call: ToolCall) -> ToolMessage:
        """τ²'s answer to ``call``, an error result included."""
        return self.environment.get_response(call)

    def evaluate(self, arguments: dict[str, Any], *, judge: bool) -> RewardInfo:
        """τ²'s reward for the episode that was played here.

        ``arguments`` are those of τ²'s ``evaluate_simulation``; ``judge`` says that it asks a paid LLM judge.
        Raises what τ² raises.
        """
        return tau2_compat.evaluate(self.environment, arguments)

    def evaluates_quickly(self, task: Task) -> bool:
        """True if `evaluate` of an episode of ``task`` takes about a millisecond."""
        return False

    @property
    def shared_tables(self) -> frozenset[str]:
        """Tables of the agent's database whose changed records `changed_records` names; the rest may differ anywhere."""
        return frozenset()

    def changed_records(self) -> set[tuple[str, str]]:
        """(table, key) of the records in `shared_tables` that the episode may have changed."""
        return set()


def plain_environment(domain: str, *, solo: bool, env_kwargs: dict[str, Any]) -> EpisodeEnvironment:
    """An environment of ``domain`` from τ²'s own constructor. Raises what τ² raises (no solo mode in this domain)."""
    environment = tau2_compat.build_environment(domain, solo=solo, env_kwargs=env_kwargs)
    tau2_compat.own_class_state(environment)
    return EpisodeEnvironment(environment)


def environment_key(domain: str, env_kwargs: dict[str, Any]) -> str:
    """The same text for two environments that differ in nothing but the task they are built for."""
    settings = {key: value for key, value in env_kwargs.items() if key not in TASK_ARGUMENTS}
    return f"{domain} {json.dumps(settings, sort_keys=True, default=str)}" if settings else domain
