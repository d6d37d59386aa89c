"""Gold play of a task, three ways: in this package's `Conversation`, in τ²'s `Orchestrator`, in τ²'s gym."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tau2_slime.episode.conversation import AgentTurn, Conversation, Limits
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.environment import new_world
from tau2_slime.world.users import UserStats

STOP = "Thanks, that is all. ###STOP###"
LIMITS = Limits(max_steps=1000, max_errors=1000, max_turns=1000)

Line = str | dict[str, Any]
"""A text, or one tool call: name, arguments, requestor."""


@dataclass(frozen=True)
class Script:
    """What both sides say in turn."""

    agent: list[Line]
    user: list[Line]

    @classmethod
    def of(cls, task: Any) -> Script:
        criteria = task.evaluation_criteria
        agent: list[Line] = []
        user: list[Line] = ["Hello, I need help."]
        for action in criteria.actions or []:
            call = {"name": action.name, "arguments": action.arguments, "requestor": action.requestor}
            if action.requestor == "assistant":
                agent.append(call)
            else:
                agent.append("Please do that.")
                user += [call, "I did it."]
        agent.append(" ".join(["All done.", *(criteria.communicate_info or [])]))
        return cls(agent, [*user, STOP])

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls in the order in which they are made."""
        users = iter([line for line in self.user if isinstance(line, dict)])
        return [line if isinstance(line, dict) else next(users) for line in self.agent[:-1]]


def scripts(domain: str, count: int) -> list[tuple[Any, Script]]:
    """``count`` of a domain's tasks that need no judge and begin with the user, spread over the base split."""
    tasks = [
        task
        for task in domains.tasks(domain, "base")
        if not scoring.needs_judge(task) and not (task.initial_state and task.initial_state.message_history)
    ]
    step = max(1, len(tasks) // count)
    return [(task, Script.of(task)) for task in tasks[::step][:count]]


def message(line: Line, role: str) -> Any:
    """A line as τ²'s message of that role."""
    t = tau2_compat.load()
    kind = t.AssistantMessage if role == "assistant" else t.UserMessage
    if isinstance(line, str):
        return kind(role=role, content=line, cost=0.0)
    return kind(role=role, content=None, tool_calls=[t.ToolCall(id="x", **{**line, "requestor": role})], cost=0.0)


# ---- this package ------------------------------------------------------------------------------------------------------


class Agent:
    """An `episode.Agent` that reads its lines."""

    def __init__(self, script: Script) -> None:
        self._lines = iter(script.agent)

    def start(self, history: list[Any]) -> None: ...

    async def respond(self, message_: Any | None) -> AgentTurn:
        return AgentTurn(message(next(self._lines), "assistant"))

    def is_stop(self, message_: Any) -> bool:
        return False


class User:
    """A `users.User` that reads its lines."""

    def __init__(self, script: Script) -> None:
        self.stats = UserStats()
        self._lines = iter(script.user)

    def start(self, history: list[Any]) -> None: ...

    async def reply(self, message_: Any) -> Any:
        return message(next(self._lines), "user")


async def converse(domain: str, task: Any, script: Script) -> float:
    """One episode; returns its reward."""
    world = await new_world(domain, "base", task, solo=False, env_kwargs={})
    conversation = Conversation(world, Agent(script), User(script), LIMITS)
    termination, _ = await conversation.play()
    assert termination is Termination.USER_STOP, termination
    info = scoring.score(
        world,
        conversation.messages,
        conversation.rejected,
        termination,
        started=tau2_compat.load().get_now(),
        duration=0.0,
    )
    return float(info.reward)


# ---- τ² ----------------------------------------------------------------------------------------------------------------


def evaluate(domain: str, task: Any, messages: list[Any]) -> Any:
    """τ²'s `evaluate_simulation` of an ended conversation."""
    t = tau2_compat.load()
    run = t.SimulationRun(
        id="benchmark",
        task_id=task.id,
        start_time=t.get_now(),
        end_time=t.get_now(),
        duration=0.0,
        termination_reason=t.TerminationReason.USER_STOP,
        messages=messages,
    )
    kind = t.EvaluationType.ALL
    return t.evaluate_simulation(simulation=run, task=task, evaluation_type=kind, solo_mode=False, domain=domain)


def orchestrate(domain: str, task: Any, script: Script) -> float:
    """One episode of τ²'s Orchestrator with its own evaluation; returns the reward."""
    t = tau2_compat.load()
    from tau2.orchestrator.orchestrator import Orchestrator

    agent_lines, user_lines = iter(script.agent), iter(script.user)

    class ScriptedAgent(t.LLMAgent):  # type: ignore[name-defined,misc]
        def generate_next_message(self, message_: Any, state: Any) -> Any:
            return message(next(agent_lines), "assistant"), state

    class ScriptedUser(t.UserSimulator):  # type: ignore[name-defined,misc]
        def generate_next_message(self, message_: Any, state: Any) -> Any:
            return message(next(user_lines), "user"), state

    environment = t.registry.get_env_constructor(domain)()
    run = Orchestrator(
        domain=domain,
        agent=ScriptedAgent(tools=environment.get_tools(), domain_policy=environment.get_policy(), llm="none"),
        user=ScriptedUser(tools=None, instructions=str(task.user_scenario), llm="none"),
        environment=environment,
        task=task,
        max_steps=1000,
        max_errors=1000,
    ).run()
    return float(evaluate(domain, task, run.messages).reward)


def play_gym(domain: str, task: Any, script: Script) -> float:
    """One episode of τ²'s `AgentGymEnv`, whose user model is replaced by the script; returns the reward."""
    import tau2.user.user_simulator as simulator
    from tau2.gym.gym_agent import AgentGymEnv

    simulator.generate = _generate
    key = f"script-{id(script)}"
    _user_lines[key] = iter(script.user)
    gym = AgentGymEnv(domain=domain, task_id=task.id, max_steps=1000, user_llm=key)
    gym.reset()
    reward, over = 0.0, False
    for line in script.agent:
        if over:
            break
        action = line if isinstance(line, str) else json.dumps(line)
        _, reward, over, _, _ = gym.step(action)
    assert over, "the conversation did not end"
    return float(reward)


_user_lines: dict[str, Any] = {}


def _generate(model: str, **_: Any) -> Any:
    """In place of τ²'s call of a model: the user's next line, as the model would say it."""
    return message(next(_user_lines[model]), "assistant")
