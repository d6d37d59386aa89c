"""The environment of one episode, of the installed τ²: its tools, its databases, and what it ran."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from tau2_slime.runtime.garbage_collection import builds_what_stays
from tau2_slime.runtime.loops import offload
from tau2_slime.world import tau2_compat
from tau2_slime.world.guards import GUARDS, LONG_ANSWER, MAX_ANSWER

try:  # the folder is optional: without it τ²'s own code does the same, more slowly
    from tau2_slime.world.fast.building import fast_environment
    from tau2_slime.world.fast.reading import in_pieces as in_pieces  # for `domains`, too: the folder has one door
except ModuleNotFoundError as _error:
    if _error.name not in ("tau2_slime.world.fast", "tau2_slime.world.fast.building"):
        raise
    fast_environment, in_pieces = None, nullcontext  # type: ignore[assignment]

if TYPE_CHECKING:
    from tau2_slime.world.types import DB, Environment, Message, Task, Tau2Tool, ToolCall, ToolMessage

# Tools and their schemas by what they depend on. Both live as long as the process, so that an id stays what it is.
_tools: dict[str, tuple[list[Tau2Tool], list[Tau2Tool] | None]] = {}
_schemas: dict[int, dict[str, Any]] = {}


def tool_schema(tool: Tau2Tool) -> dict[str, Any]:
    """The OpenAI function schema of a τ² tool. Every episode shares it: read it, never write to it."""
    return _schemas.get(id(tool)) or tool.openai_schema


class World:
    """One episode's environment: τ²'s own, plus the guards that keep the policy from hanging the process."""

    def __init__(
        self, domain: str, split: str, task: Task, *, solo: bool = False, env_kwargs: dict[str, Any] | None = None
    ):
        """Build a fresh environment for ``task``: the domain's first takes up to 0.5 s, every later one a millisecond.

        Raises what τ²'s constructor raises (no solo mode in this domain).
        """
        self.domain = domain
        self.split = split
        self.task = task
        self.solo = solo
        self.env_kwargs = tau2_compat.environment_kwargs(domain, task, dict(env_kwargs or {}))
        """What τ²'s evaluator must build its own environments with."""
        settings = {key: value for key, value in self.env_kwargs.items() if key not in tau2_compat.TASK_ARGUMENTS}
        self.kind = f"{domain} {json.dumps(settings, sort_keys=True, default=str)}"
        """The same for two environments that differ in nothing but the task they are built for."""
        self.fast = None
        """What `world/fast` does for this environment; None where only τ²'s own way is known to be right."""
        if fast_environment is not None:
            self.fast = fast_environment(domain, self.kind, solo=solo, env_kwargs=self.env_kwargs)
        self.quick = self.fast is not None
        """True if the environment's own work takes less time than handing it to another thread."""
        self.environment: Environment = (
            self.fast.environment
            if self.fast is not None
            else tau2_compat.build_environment(domain, solo=solo, env_kwargs=self.env_kwargs)
        )
        self.policy: str = self.environment.get_policy()
        self.agent_tools, self.user_tools = self._described_tools()
        """τ²'s tools of both sides, for their schemas only: calls go through `call`. Shared between episodes."""
        self.began_with: tuple[Task, list[Message]] | None = None
        """The task and the history that `set_state` applied; None before that, and if it was called a second time."""
        self.ran: list[tuple[ToolCall, ToolMessage]] = []
        """Every call that τ² ran here, with its result."""
        self._fresh = True

    def _described_tools(self) -> tuple[list[Tau2Tool], list[Tau2Tool] | None]:
        # Describing the tools parses every docstring, 15 to 50 ms: once per process, not once per episode.
        own = getattr(self.task, "user_tools", None)
        key = f"{self.kind} {self.solo} {own}"
        found = _tools.get(key)
        if found is None:
            # Of tasks that name their own there may be hundreds, and each freeze is for good.
            with builds_what_stays() if own is None else nullcontext():
                agent = self.environment.get_tools()
                if self.solo and self.environment.user_tools is not None:
                    agent += self.environment.get_user_tools()
                user = tau2_compat.user_tools(self.environment, self.task)
                _schemas.update((id(tool), tool.openai_schema) for tool in [*agent, *(user or [])])
                found = _tools[key] = agent, user
        return list(found[0]), found[1]

    @property
    def history(self) -> list[Message]:
        """A new list of the messages that the task begins with; most tasks have none."""
        initial = self.task.initial_state
        return list(initial.message_history or []) if initial is not None else []

    def call(self, tool_call: ToolCall) -> tuple[ToolMessage, bool]:
        """Run one tool call: ``(result, reached)``. ``reached`` is False if a guard answered instead of τ²."""
        guard = GUARDS.get(tool_call.name)
        refusal = guard(tool_call.arguments, self.environment.tools) if guard is not None else None
        if refusal is not None:
            return self.error_result(tool_call, refusal), False
        run = self.environment.get_response if self.fast is None else self.fast.run_tool
        result = run(tool_call)
        if len(result.content or "") > MAX_ANSWER and self._only_reads(tool_call):
            return self.error_result(tool_call, LONG_ANSWER), False
        self.ran.append((tool_call, result))
        return result, True

    def _only_reads(self, call: ToolCall) -> bool:
        kit = self.environment.user_tools if call.requestor == "user" else self.environment.tools
        return kit is not None and call.name in kit.tools and bool(kit.tool_type(call.name).value == "read")

    def error_result(self, tool_call: ToolCall, text: str) -> ToolMessage:
        """An error result in τ²'s own form, for a call that must not or cannot reach the environment."""
        return tau2_compat.load().ToolMessage(
            id=tool_call.id, content=f"Error: {text}", requestor=tool_call.requestor, role="tool", error=True
        )

    def set_state(self, history: list[Message]) -> None:
        """Apply the task's initial state and replay ``history``'s tool calls, as τ²'s orchestrator does.

        Raises:
            ValueError, AssertionError: the initial state or the history contradicts itself.
        """
        fresh, self._fresh, self.began_with = self._fresh, False, None
        if self.fast is not None:
            self.fast.set_state(self.task, history)
        else:
            initial = self.task.initial_state
            self.environment.set_state(
                initialization_data=initial.initialization_data if initial else None,
                initialization_actions=initial.initialization_actions if initial else None,
                message_history=history,
            )
        if fresh:
            self.began_with = self.task, list(history)

    @contextmanager
    def reading(self) -> Iterator[DB]:
        """The agent's database for code that only reads it, without private copies of its records."""
        shared = self.fast.database if self.fast is not None else None
        with shared.reading() if shared is not None else nullcontext():
            yield self.environment.tools.db

    def database_state(self) -> Hashable:
        """Equal for two worlds of one task exactly if τ²'s hashes of both their databases are."""
        if self.fast is not None:
            return self.fast.comparable_state()
        return self.environment.get_db_hash(), self.environment.get_user_db_hash()


_quick: set[str] = set()
"""Domains with their environment arguments whose environments take about a millisecond to build from now on."""


async def new_world(domain: str, split: str, task: Task, *, solo: bool, env_kwargs: dict[str, Any]) -> World:
    """A `World`, built off the loop where that takes longer than handing it to another thread."""
    build = partial(World, domain, split, task, solo=solo, env_kwargs=env_kwargs)
    kind = f"{domain} {env_kwargs}"
    if kind in _quick:
        return build()
    world = await offload(build)
    if world.quick:
        _quick.add(kind)
    return world
