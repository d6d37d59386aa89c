"""Recorded runs -> τ²'s tasks, conversations and rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.taubench_v1.recorded import RESPOND, Step, V1Run, V1Task, steps, task_of
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, RewardInfo, Task

DOMAINS = ("airline", "retail")
"""v1's domains."""
STOP = "###STOP###"
TRANSFER = "transfer_to_human_agents"
THINK = "think"


@dataclass
class Replayed:
    """One run, played again."""

    run: V1Run
    termination: Termination
    messages: list[Message] = field(default_factory=list)
    """τ²'s messages, tool results one by one."""
    reward_info: RewardInfo | None = None
    """None for a run without a trajectory."""
    thoughts: int = 0
    """``think`` calls that were left out."""
    answers: int = 0
    """Tool results."""
    flipped: int = 0
    """Tool results that are an error in v1 and not in τ², or the other way round."""

    @property
    def reward(self) -> float | None:
        return None if self.reward_info is None else self.reward_info.reward

    @property
    def agrees(self) -> bool | None:
        """Whether τ²'s reward is the one that v1 recorded; None if there was nothing to play."""
        return None if self.reward is None else abs(self.reward - self.run.reward) < 1e-6


def domain_of(runs: Sequence[V1Run]) -> str:
    """The domain whose tools the runs use. v1's files do not name it.

    Raises:
        ConfigError: the tools fit both domains alike.
    """
    used: Counter[str] = Counter()
    for run in runs:
        if run.traj:
            used.update(call.name for step in steps(run) for call in step.calls)
            used.update(action.name for action in task_of(run).actions)
    known = {domain: sum(n for tool, n in used.items() if tool in _tools(domain)) for domain in DOMAINS}
    best, other = sorted(known, key=lambda domain: -known[domain])
    if known[best] == known[other]:
        raise ConfigError(
            f"the tools of these runs ({', '.join(sorted(used)) or 'none'}) fit {best} and {other} alike: give --domain"
        )
    return best


def _tools(domain: str) -> set[str]:
    return {tool.name for tool in World(domain, "base", domains.tasks(domain, "base")[0]).agent_tools}


def ending(run: V1Run, conversation: Sequence[Step]) -> Termination:
    """How v1 ended the run."""
    if not conversation:
        return Termination.INFRASTRUCTURE_ERROR
    last = conversation[-1]
    if last.role == "user":
        return Termination.USER_STOP if STOP in (last.text or "") else Termination.MAX_STEPS
    return Termination.AGENT_STOP if TRANSFER in [call.name for call in last.calls] else Termination.MAX_STEPS


def tau2_tasks(runs: Sequence[V1Run], domain: str) -> dict[int, Task]:
    """v1's task number -> τ²'s `Task` (named ``v1_<number>``), of every task with a trajectory.

    Raises:
        ConfigError: one number stands for two tasks.
    """
    found: dict[int, V1Task] = {}
    for run in runs:
        if run.traj:
            task = task_of(run)
            if found.setdefault(run.task_id, task) != task:
                raise ConfigError(
                    f"{run.name} is another task than task {run.task_id} of an earlier trial: the file mixes two "
                    "releases of tau-bench; convert them apart"
                )
    return {number: _tau2_task(number, task, domain) for number, task in sorted(found.items())}


def _tau2_task(number: int, task: V1Task, domain: str) -> Task:
    """A task whose reward is that of the database and of what was said."""
    actions = [a for a in task.actions if a.name != RESPOND]
    converted: Task = tau2_compat.load().Task.model_validate(
        {
            "id": f"v1_{number}",
            "description": {"purpose": f"Task {number} of tau-bench v1, {domain}."},
            "user_scenario": {"instructions": task.instruction},
            "evaluation_criteria": {
                "actions": [
                    {"action_id": f"v1_{number}_{i}", "requestor": "assistant", "name": a.name, "arguments": a.kwargs}
                    for i, a in enumerate(actions)
                ],
                "communicate_info": task.outputs,
                "reward_basis": ["DB", "COMMUNICATE"],
            },
        }
    )
    return converted


def replay(run: V1Run, task: Task | None, domain: str) -> Replayed:
    """Play the run's calls in a fresh environment of ``domain`` and score it.

    ``task``: the run's, from `tau2_tasks`; None for a run without a trajectory, which is not played.
    """
    conversation = steps(run)
    out = Replayed(run, ending(run, conversation))
    if not conversation or task is None:
        return out
    t = tau2_compat.load()
    world = World(domain, "base", task)
    world.set_state([])
    tools = {tool.name for tool in world.agent_tools}
    rejected: dict[int, list[int]] = {}
    for step in conversation:
        calls = [call for call in step.calls if call.name != THINK or THINK in tools]
        out.thoughts += len(step.calls) - len(calls)
        if step.calls and not calls:
            continue
        kind = t.UserMessage if step.role == "user" else t.AssistantMessage
        made = [t.ToolCall(id=c.id, name=c.name, arguments=c.arguments, requestor="assistant") for c in calls]
        index = len(out.messages)
        out.messages.append(kind(role=step.role, content=step.text, tool_calls=made or None, timestamp=None))
        for position, (call, tool_call) in enumerate(zip(calls, made, strict=True)):
            result, reached = world.call(tool_call)
            if not reached:
                rejected.setdefault(index, []).append(position)
            result.timestamp = None
            out.messages.append(result)
            out.answers += 1
            out.flipped += result.error != call.answer.startswith(("Error", "Unknown action"))
    now = t.get_now()
    out.reward_info = scoring.score(world, out.messages, rejected, out.termination, started=now, duration=0.0)
    return out
