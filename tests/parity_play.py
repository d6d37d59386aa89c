"""One script, played twice: by τ²'s own Orchestrator and by this package's Conversation.

A `Script` says what agent and user say in turn, whatever they hear. `play_tau2` and `play_ours` return the same record,
so that a test can compare them field by field.
"""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tau2_slime.episode.conversation import AgentTurn, Conversation, Limits
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.users import UserStats

STOP = "###STOP###"
OFFLINE = "no_knowledge"
"""The retrieval variant of banking_knowledge where a test is not about documents."""
CANNOT_RUN = ("telecom-workflow",)  # telecom's tasks under another policy: same tools, same environment


@dataclass
class Call:
    name: str
    arguments: dict[str, Any]
    requestor: str = "assistant"
    id: str = ""


@dataclass
class Turn:
    content: str | None = None
    calls: list[Call] = field(default_factory=list)


@dataclass
class Script:
    agent: list[Turn]
    user: list[Turn]
    max_steps: int = 1000
    max_errors: int = 1000


@dataclass
class Played:
    """What happened, in plain data."""

    termination: str
    steps: int
    errors: int
    messages: list[dict[str, Any]]
    agent_heard: list[Any]
    user_heard: list[Any]


# ---- plain data ------------------------------------------------------------------------------------------------------


def plain(message: Any) -> Any:
    """What a message says and to whom, without times, costs and indices."""
    if message is None:
        return None
    if hasattr(message, "tool_messages"):
        return [plain(part) for part in message.tool_messages]
    if message.role == "tool":
        return {key: getattr(message, key) for key in ("role", "id", "content", "requestor", "error")}
    calls = message.tool_calls
    return {
        "role": message.role,
        "content": message.content,
        "tool_calls": None if calls is None else [call.model_dump() for call in calls],
    }


def message_of(turn: Turn, role: str, *, solo: bool = False) -> Any:
    """The turn as τ²'s message. In solo mode a call of ``done`` turns into the stop text, as τ²'s own agent does it."""
    t = tau2_compat.load()
    content, calls = turn.content, [t.ToolCall(**copy.deepcopy(vars(call))) for call in turn.calls]
    if solo and any(call.name == "done" for call in calls):
        content, calls = STOP, []
    kind = t.AssistantMessage if role == "assistant" else t.UserMessage
    return kind(role=role, content=content, tool_calls=calls or None, cost=0.0)


class _Lines:
    """The turns of one side, and what it says when they are used up."""

    def __init__(self, turns: list[Turn], last: Turn) -> None:
        self._turns, self._last = iter(turns), last

    def next(self) -> Turn:
        return next(self._turns, self._last)


def _agent_lines(script: Script, solo: bool) -> _Lines:
    return _Lines(script.agent, Turn(calls=[Call("done", {})]) if solo else Turn("Is there anything else?"))


def _user_lines(script: Script) -> _Lines:
    return _Lines(script.user, Turn(f"No, thanks. {STOP}"))


# ---- τ² --------------------------------------------------------------------------------------------------------------


def tau2_environment(domain: str, task: Any, *, solo: bool = False) -> Any:
    """A fresh environment, built as τ²'s own runner builds it."""
    constructor = tau2_compat.load().registry.get_env_constructor(domain)
    kwargs = runner_env_kwargs(domain, task)
    return constructor(solo_mode=True, **kwargs) if solo else constructor(**kwargs)


def play_tau2(
    domain: str, task: Any, script: Script, *, solo: bool = False, environment: Any = None
) -> tuple[Played, Any]:
    """Play with τ²'s Orchestrator: the record, and τ²'s SimulationRun. Raises what τ² raises."""
    t = tau2_compat.load()
    from tau2.orchestrator.orchestrator import Orchestrator
    from tau2.user.user_simulator import DummyUser

    agent_heard: list[Any] = []
    user_heard: list[Any] = []
    agent_lines, user_lines = _agent_lines(script, solo), _user_lines(script)

    class Agent(t.LLMSoloAgent if solo else t.LLMAgent):  # type: ignore[misc]
        def get_init_state(self, message_history: Any = None) -> Any:
            agent_heard.append([plain(m) for m in message_history or []])
            return super().get_init_state(message_history)

        def generate_next_message(self, message: Any, state: Any) -> Any:
            agent_heard.append(plain(message))
            return message_of(agent_lines.next(), "assistant", solo=solo), state

    class User(t.UserSimulator):  # type: ignore[misc]
        def get_init_state(self, message_history: Any = None) -> Any:
            user_heard.append([plain(m) for m in message_history or []])
            return super().get_init_state(message_history)

        def generate_next_message(self, message: Any, state: Any) -> Any:
            user_heard.append(plain(message))
            return message_of(user_lines.next(), "user"), state

    environment = environment or tau2_environment(domain, task, solo=solo)
    agent_kwargs = {"task": task} if solo else {}
    orchestrator = Orchestrator(
        domain=domain,
        agent=Agent(tools=[], domain_policy=environment.get_policy(), llm="none", **agent_kwargs),
        user=DummyUser() if solo else User(tools=None, instructions=str(task.user_scenario), llm="none"),
        environment=environment,
        task=task,
        max_steps=script.max_steps,
        max_errors=script.max_errors,
        solo_mode=solo,
    )
    run = orchestrator.run()
    played = Played(
        termination=run.termination_reason.value,
        steps=orchestrator.step_count,
        errors=orchestrator.num_errors,
        messages=[plain(m) for m in run.messages],
        agent_heard=agent_heard,
        user_heard=user_heard,
    )
    return played, run


def runner_env_kwargs(domain: str, task: Any, variant: str = OFFLINE) -> dict[str, Any]:
    """What τ²'s own runner passes to environments of ``domain``; ``variant``: of retrieval, where there is any."""
    if domain != "banking_knowledge":
        return {}
    from tau2.data_model.simulation import TextRunConfig
    from tau2.runner.build import _build_env_kwargs

    config = TextRunConfig(domain=domain, agent="llm_agent", retrieval_config=variant)
    return dict(_build_env_kwargs(config, task))


def score_tau2(domain: str, task: Any, run: Any, *, solo: bool = False, variant: str = OFFLINE) -> Any:
    """τ²'s verdict on its own run: RewardInfo as data, or the type of what it raised."""
    t = tau2_compat.load()
    kwargs = {"env_kwargs": runner_env_kwargs(domain, task, variant)} if domain == "banking_knowledge" else {}
    try:
        info = t.evaluate_simulation(
            simulation=run, task=task, evaluation_type=t.EvaluationType.ALL, solo_mode=solo, domain=domain, **kwargs
        )
    except Exception as error:  # compared with what our own door raises
        return type(error)
    return info.model_dump(mode="json")


# ---- ours ------------------------------------------------------------------------------------------------------------


class ScriptedAgent:
    """An `episode.Agent` that reads its lines."""

    def __init__(self, script: Script, *, solo: bool = False) -> None:
        self.heard: list[Any] = []
        self._lines, self._solo = _agent_lines(script, solo), solo

    def start(self, history: list[Any]) -> None:
        self.heard.append([plain(m) for m in history])

    async def respond(self, message: Any | None) -> AgentTurn:
        self.heard.append(plain(message))
        return AgentTurn(message_of(self._lines.next(), "assistant", solo=self._solo))

    def is_stop(self, message: Any) -> bool:
        return self._solo and bool(tau2_compat.load().LLMSoloAgent.is_stop(message))


class ScriptedUser:
    """A `users.User` that reads its lines."""

    def __init__(self, script: Script) -> None:
        self.heard: list[Any] = []
        self.stats = UserStats()
        self._lines = _user_lines(script)

    def start(self, history: list[Any]) -> None:
        self.heard.append([plain(m) for m in history])

    async def reply(self, message: Any) -> Any:
        self.heard.append(plain(message))
        return message_of(self._lines.next(), "user")


def play_ours(
    domain: str, task: Any, script: Script, *, solo: bool = False, world: World | None = None
) -> tuple[Played, Conversation]:
    """Play with `Conversation`: the record, and the conversation itself."""
    world = world or World(domain, "base", task, solo=solo)
    agent, user = ScriptedAgent(script, solo=solo), None if solo else ScriptedUser(script)
    limits = Limits(max_steps=script.max_steps, max_errors=script.max_errors, max_turns=10**9)
    conversation = Conversation(world, agent, user, limits)
    termination, _ = asyncio.run(conversation.play())
    played = Played(
        termination=str(termination),
        steps=conversation.steps,
        errors=conversation.agent_errors + conversation.user_errors,
        messages=[plain(m) for m in conversation.messages],
        agent_heard=agent.heard,
        user_heard=user.heard if user is not None else [],
    )
    return played, conversation


def score_ours(conversation: Conversation, played: Played) -> Any:
    """Our verdict: RewardInfo as data, or the type of what was raised."""
    from tau2_slime.outcome import Termination

    now = tau2_compat.load().get_now()
    try:
        info = scoring.score(
            conversation.world,
            conversation.messages,
            conversation.rejected,
            Termination(played.termination),
            started=now,
            duration=0.0,
        )
    except Exception as error:  # compared with what τ² itself raises
        return type(error)
    return info.model_dump(mode="json")


# ---- scripts ---------------------------------------------------------------------------------------------------------


def without_judge(task: Any) -> Any:
    """``task`` without what only an LLM judge could grade; everything else of its reward stays."""
    if not scoring.needs_judge(task):
        return task
    criteria = task.evaluation_criteria.model_copy(update={"nl_assertions": None})
    return task.model_copy(update={"evaluation_criteria": criteria})


def user_opens(task: Any) -> bool:
    """True if the user speaks first: after the greeting, or after a history that ends with the agent's text."""
    history = task.initial_state.message_history if task.initial_state is not None else None
    return not history or history[-1].role == "assistant"


def gold_script(task: Any, *, solo: bool = False) -> Script:
    """The task's gold actions, each by whom it belongs to; every fact to be told is told; then the user stops."""
    criteria = task.evaluation_criteria
    agent: list[Turn] = []
    user: list[Turn] = [Turn("Hello, I need help.")] if user_opens(task) else []
    for number, action in enumerate((criteria.actions if criteria else None) or []):
        call = Call(action.name, action.arguments, "assistant" if solo else action.requestor, f"gold_{number}")
        if call.requestor == "assistant":
            agent.append(Turn(calls=[call]))
        else:
            agent.append(Turn(f"Please do step {number}."))
            user += [Turn(calls=[call]), Turn(f"I did step {number}.")]
    if not solo:
        agent.append(Turn(" ".join(["All done.", *((criteria.communicate_info if criteria else None) or [])])))
    return Script(agent, user)


@cache
def _known_calls(domain: str) -> tuple[tuple[str, dict[str, Any], str], ...]:
    found = []
    for task in domains.tasks(domain, "base"):
        criteria = task.evaluation_criteria
        for action in (criteria.actions if criteria else None) or []:
            found.append((action.name, action.arguments, action.requestor))
    return tuple(found)


def random_call(rng: random.Random, domain: str, task: Any, requestor: str) -> Call:
    """A call that works, or one of the many that do not."""
    criteria = task.evaluation_criteria
    own = [(a.name, a.arguments, a.requestor) for a in (criteria.actions if criteria else None) or []]
    pool = [c for c in (own if own and rng.random() < 0.5 else _known_calls(domain)) if c[2] == requestor]
    name, arguments, _ = rng.choice(pool or list(_known_calls(domain)))
    arguments = copy.deepcopy(arguments)
    kind = rng.random()
    if kind < 0.55:
        pass
    elif kind < 0.63:
        name = rng.choice(["no_such_tool", "", "use_tool", "db", "__class__"])
    elif kind < 0.71:
        for key in rng.sample(sorted(arguments), k=min(len(arguments), 1)):
            del arguments[key]
    elif kind < 0.78:
        arguments["surplus"] = 1
    elif kind < 0.88:
        arguments[rng.choice(["tool_name", "requestor", "self"])] = rng.choice(["user", "x", 1])
    elif kind < 0.94:
        for key in rng.sample(sorted(arguments), k=min(len(arguments), 1)):
            arguments[key] = rng.choice([["a", "list"], {"a": "dict"}, None, 7, "nobody", True])
    else:
        name, arguments = "calculate", {"expression": rng.choice(["2 + 2", "1/0", "(1", "2**10", "x", "  3", "0.1*3"])}
    other = "user" if requestor == "assistant" else "assistant"
    who = other if rng.random() < 0.04 else requestor
    return Call(name, arguments, who, rng.choice(["", "same", f"call_{rng.randrange(1000)}"]))


def _random_text(rng: random.Random, *, stops: float) -> str:
    words = rng.choice(["Hello.", "Please wait", " indented", "two\nlines", "ünïcødé ✓", "{}", "done"])
    if rng.random() < stops:
        words += rng.choice([STOP, " ###TRANSFER### ", "###OUT-OF-SCOPE###", "###stop###"])
    return words


def _random_turn(rng: random.Random, domain: str, task: Any, role: str, *, calls: float, stops: float) -> Turn:
    if rng.random() >= calls:
        return Turn(_random_text(rng, stops=stops))
    content = _random_text(rng, stops=stops) if rng.random() < 0.25 else rng.choice([None, None, "", "  "])
    count = rng.choice([1, 1, 1, 2, 3])
    return Turn(content, [random_call(rng, domain, task, role) for _ in range(count)])


def random_script(domain: str, task: Any, seed: int, *, solo: bool = False) -> Script:
    """A conversation of anything that either side might do, with limits that often bite; the same for the same seed."""
    rng = random.Random(f"{domain}/{task.id}/{seed}/{solo}")
    has_user_tools = any(requestor == "user" for _, _, requestor in _known_calls(domain))
    agent = []
    for _ in range(rng.randrange(1, 14)):
        if solo and rng.random() < 0.06:
            turn = Turn(calls=[Call("done", {})])
            if rng.random() < 0.5:
                turn.calls.insert(rng.randrange(2), random_call(rng, domain, task, "assistant"))
        else:
            turn = _random_turn(
                rng, domain, task, "assistant", calls=0.93 if solo else 0.6, stops=0.0 if solo else 0.15
            )
        agent.append(turn)
    user = [
        _random_turn(rng, domain, task, "user", calls=0.4 if has_user_tools else 0.08, stops=0.12)
        for _ in range(rng.randrange(1, 10))
    ]
    return Script(
        agent,
        user,
        max_steps=1000 if rng.random() < 0.4 else rng.randrange(1, 25),
        max_errors=1000 if rng.random() < 0.4 else rng.randrange(1, 6),
    )
