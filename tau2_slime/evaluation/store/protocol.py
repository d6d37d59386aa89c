"""What a dataset's numbers depend on, apart from the policy: τ², tasks, reward basis, prompts, user, sampling, limits."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from tau2_slime.config.task_split import names_a_file, short_name
from tau2_slime.data.files import source_hashes
from tau2_slime.episode.users import user_role
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import Dataset
from tau2_slime.world import domains, judge, tau2_compat
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


class Tau2Version(TypedDict):
    """The installed τ²."""

    distribution: str
    version: str
    commit: str | None
    """Of an installation from a repository."""


class DatasetProtocol(TypedDict):
    """What a dataset's numbers depend on, apart from the policy. Digests are SHA-256 in hexadecimal."""

    tau2: Tau2Version
    domains: list[str]
    """``<domain>/<task split>``."""
    task_files: dict[str, str]
    """τ²'s task files, or one's own -> digest."""
    tasks_of_files: NotRequired[dict[str, str]]
    """Name of an item -> digest of its task, for each that comes from a file of one's own."""
    reward_basis: str
    """Digest of what each task's reward consists of."""
    policy_prompt: str
    """Digest of the agent's system prompts and tools."""
    agent_type: str
    agent_path: NotRequired[str]
    """The class that plays the agent, if it is one of the user's own."""
    agent_strategy: NotRequired[str]
    few_shot: NotRequired[dict[str, str | int]]
    """Digest of the file of examples, how many are shown, and the seed that chose them."""
    user_strategy: NotRequired[str]
    environment: NotRequired[dict[str, Any]]
    """What τ²'s environments are told beside the task, where anything is: the retrieval variant, say."""
    judge: NotRequired[dict[str, str | None]]
    """Model and endpoint, where an LLM judge may be asked."""
    user_model: str
    """Empty in solo mode."""
    user_base_url: str | None
    user_args: dict[str, Any]
    user_prompt: str | None
    """Digest of the simulator's system prompts; None in solo mode."""
    sampling: dict[str, Any]
    """Sampling parameters by sglang's names."""
    limits: dict[str, int]
    chat_template_kwargs: dict[str, Any]
    allow_llm_judge: bool
    tasks: list[str]
    """Names of the items, in order."""
    attempts: int


def dataset_protocol(dataset: Dataset) -> DatasetProtocol:
    """The protocol of ``dataset``. Builds an environment per domain: call it off the event loop."""
    config = dataset.config
    solo, role = config.agent_type == "solo", user_role(config, config.user_model)
    pairs = sorted({(item.config.domain, item.config.task_split) for item in dataset.items})
    prompts = [_agent_prompt(domain, config.agent_type, _canonical(config.environment)) for domain, _ in pairs]
    tasks = [
        domains.find_task(item.config.domain, item.config.task_split, task_id=item.task_id) for item in dataset.items
    ]
    found: DatasetProtocol = {
        "tau2": tau2_version(),
        "domains": [f"{domain}/{short_name(split)}" for domain, split in pairs],
        "task_files": {name: sha for pair in pairs for name, sha in source_hashes(*pair).items()},
        "reward_basis": digest([[str(task.id), _reward_basis(task)] for task in tasks]),
        "policy_prompt": digest(prompts),
        "agent_type": config.agent_type,
        "user_model": role.label,
        "user_base_url": config.user_base_url,
        "user_args": {} if config.user_model.startswith("scripted") else dict(config.user_args),
        "user_prompt": None if solo else _user_prompt(),
        "sampling": dict(dataset.sampling),
        "limits": {"max_steps": config.max_steps, "max_errors": config.max_errors, "max_turns": config.max_turns},
        "chat_template_kwargs": dict(config.chat_template_kwargs),
        "allow_llm_judge": config.allow_llm_judge,
        "tasks": [item.name for item in dataset.items],
        "attempts": dataset.attempts,
    }
    own = {item.name: item.config for item in dataset.items if names_a_file(item.config.task_split)}
    if own:
        ids = {item.name: item.task_id for item in dataset.items}
        found["tasks_of_files"] = {
            name: domains.task_file(its.domain, its.task_split).digest(ids[name]) for name, its in own.items()
        }
    if config.allow_llm_judge:
        found["judge"] = {"model": config.judge_model or judge.tau2s_model(), "base_url": config.judge_base_url}
    if config.environment:
        found["environment"] = json.loads(_canonical(config.environment))
    if config.agent_strategy != "native":
        found["agent_strategy"] = config.agent_strategy
    if config.few_shot is not None:
        sha = hashlib.sha256(Path(config.few_shot).read_bytes()).hexdigest()
        found["few_shot"] = {"sha256": sha, "count": config.few_shot_count, "seed": config.few_shot_seed}
    if role.strategy != "llm":
        found["user_strategy"] = role.strategy
    if config.agent_path is not None:
        found["agent_path"] = config.agent_path
    return found


def _reward_basis(task: Task) -> list[str] | None:
    criteria = task.evaluation_criteria
    return None if criteria is None else sorted(str(basis.value) for basis in criteria.reward_basis)


def tau2_version() -> Tau2Version:
    """Raises ConfigError if the installation's record of where it came from is damaged."""
    name, _, version = tau2_compat.version().partition(" ")
    commit = None
    try:
        url = importlib.metadata.distribution(name).read_text("direct_url.json")  # None: from a package index
        commit = json.loads(url).get("vcs_info", {}).get("commit_id") if url else None
    except importlib.metadata.PackageNotFoundError:
        pass
    except ValueError as error:
        raise ConfigError(f"direct_url.json of the installed {name} is damaged ({error}): install it again") from None
    return {"distribution": name, "version": version, "commit": commit}


def _canonical(value: object) -> str:
    """JSON with sorted keys: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, default=str)


def digest(value: object) -> str:
    """SHA-256 of ``value`` as JSON, in hexadecimal; equal values have equal digests."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


@lru_cache(maxsize=64)
def _agent_prompt(domain: str, agent_type: str, env_kwargs: str) -> str:
    """Digest of the policy's system prompt and tools in a domain, without what each task adds. ``env_kwargs``: JSON."""
    split = "base" if "base" in domains.splits(domain) else next(iter(domains.splits(domain)))
    task = domains.tasks(domain, split)[0]
    solo = agent_type == "solo"
    try:
        world = World(domain, "base", task, solo=solo, env_kwargs=json.loads(env_kwargs))
    except ValueError as error:  # τ² refuses the combination
        raise ConfigError(f"agent_type={agent_type!r} in {domain}: {error}") from None
    agent = tau2_compat.build_agent("llm", world.agent_tools, world.policy, task)
    return digest([agent_type, agent.system_prompt, [tool.openai_schema for tool in agent.tools]])


@lru_cache(maxsize=1)
def _user_prompt() -> str:
    """Digest of what the simulator is told in every task, with tools and without."""
    without = tau2_compat.build_user_simulator("none", {}, None, "-")
    tooled = tau2_compat.build_user_simulator("none", {}, [], "-")
    return digest([without.system_prompt, tooled.system_prompt])
