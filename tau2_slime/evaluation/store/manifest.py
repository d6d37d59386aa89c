"""`manifest.json` of an evaluation's folder: everything that its numbers depend on.

Three parts. ``subject``: the policy, which a comparison is about. ``protocol``: for each dataset, what must be equal for
numbers to be comparable (τ², tasks, reward basis, prompts, user, sampling, limits). ``software``: what else was installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from tau2_slime import __version__
from tau2_slime.config.task_split import names_a_file, short_name
from tau2_slime.data.files import source_hashes
from tau2_slime.episode.users import strategy_of, user_label
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import Dataset, Plan
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import domains, judge, tau2_compat
from tau2_slime.world.environment import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

FILE = "manifest.json"
FORMAT = 1

GROWING = ("tasks", "attempts")
"""Parts of the protocol that may grow in a folder: more tasks, more attempts."""


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
    agent_strategy: NotRequired[str]
    few_shot: NotRequired[dict[str, str | int]]
    """Digest of the file of examples, how many are shown, and the seed that chose them."""
    user_strategy: NotRequired[str]
    environment: NotRequired[dict[str, Any]]
    """What τ²'s environments are told beside the task, where anything is: the retrieval variant, say."""
    judge: NotRequired[dict[str, str | None]]
    """Model and endpoint, where an LLM judge may be asked."""
    """The class that plays the agent, if it is one of the user's own."""
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


class Manifest(TypedDict):
    """The content of the file."""

    format: int
    subject: dict[str, Any]
    """Description of the policy: ``kind``, ``name`` and more."""
    protocol: dict[str, DatasetProtocol]
    """Dataset -> its protocol."""
    software: dict[str, str]
    """Package -> version."""
    source: str
    """The configuration file, or "command line"."""


FieldDifference = tuple[str, object, object]
"""Dotted name of a field, and its two values."""


def build(plan: Plan, subject: Mapping[str, object]) -> Manifest:
    """The manifest of ``plan`` played by ``subject``. Builds an environment per domain: call it off the event loop."""
    return {
        "format": FORMAT,
        "subject": dict(subject),
        "protocol": {dataset.name: dataset_protocol(dataset) for dataset in plan.datasets},
        "software": {
            "tau2_slime": __version__,
            "litellm": importlib.metadata.version("litellm"),
            "transformers": importlib.metadata.version("transformers"),
        },
        "source": plan.source,
    }


def dataset_protocol(dataset: Dataset) -> DatasetProtocol:
    config = dataset.config
    solo = config.agent_type == "solo"
    pairs = sorted({(item.config.domain, item.config.task_split) for item in dataset.items})
    prompts = [_agent_prompt(domain, config.agent_type, _canonical(config.environment)) for domain, _ in pairs]
    tasks = [
        domains.find_task(item.config.domain, item.config.task_split, task_id=item.task_id) for item in dataset.items
    ]
    found: DatasetProtocol = {
        "tau2": tau2_version(),
        "domains": [f"{domain}/{short_name(split)}" for domain, split in pairs],
        "task_files": {name: sha for pair in pairs for name, sha in source_hashes(*pair).items()},
        "reward_basis": _digest([[str(task.id), _reward_basis(task)] for task in tasks]),
        "policy_prompt": _digest(prompts),
        "agent_type": config.agent_type,
        "user_model": "" if solo else user_label(config, config.user_model),
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
    if not solo and (strategy := strategy_of(config, config.user_model)) != "llm":
        found["user_strategy"] = strategy
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


def differences(one: object, other: object, at: str = "") -> list[FieldDifference]:
    """Every leaf in which two parts of manifests differ; ``at``: the name of the part."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found = []
        for key in dict.fromkeys([*one, *other]):
            found += differences(one.get(key), other.get(key), f"{at}.{key}" if at else str(key))
        return found
    return [] if one == other else [(at, one, other)]


def protocol_differences(one: DatasetProtocol, other: DatasetProtocol) -> list[FieldDifference]:
    """In what two protocols ask different things. More tasks or more attempts do not count.

    The reward basis is a digest over the tasks, so it is compared only where the tasks are the same.
    """
    skip = {*GROWING, *(("reward_basis",) if one["tasks"] != other["tasks"] else ())}
    old, new = ({key: value for key, value in part.items() if key not in skip} for part in (one, other))
    before, now = (cast("dict[str, str]", part.get("tasks_of_files") or {}) for part in (one, other))
    same_file = one["task_files"] == other["task_files"]
    changed: list[FieldDifference] = [
        (f"tasks_of_files.{name}", digest, now.get(name))
        for name, digest in before.items()
        if now.get(name, digest if same_file else None) != digest
    ]
    if before and now:  # what counts of a file of one's own are the tasks that both have
        for part in (old, new):
            part.pop("tasks_of_files", None)
            files = cast("dict[str, str]", part["task_files"])
            part["task_files"] = {name: sha for name, sha in files.items() if not names_a_file(name)}
    return [*differences(old, new), *changed]


def open_folder(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest`` into ``folder``, or check that the run there is the same one; more tasks or attempts are taken in.

    Raises:
        ConfigError: the folder holds another run; the fields that differ are named.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = read(folder) if path.exists() else None
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from None
    merged = manifest.copy()
    if earlier is not None:
        found = [
            (field, was, now)
            for field, was, now in differences(earlier["subject"], manifest["subject"], "subject")
            if not (field == "subject.tool_call_parser" and _is_name_of(was, now))
        ]
        for name, old in earlier["protocol"].items():
            if name in manifest["protocol"]:
                changed = protocol_differences(old, manifest["protocol"][name])
                # A field that an earlier version did not record cannot contradict it.
                found += [(f"{name}.{at}", was, now) for at, was, now in changed if at.partition(".")[0] in old]
        if found:
            fields = "; ".join(f"{field}: {_short(was)} there, {_short(now)} now" for field, was, now in found[:5])
            raise ConfigError(f"{folder} holds another run: {fields}. Give another --output-dir")
        merged["protocol"] = {**earlier["protocol"], **manifest["protocol"]}
    write_atomically(path, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return merged


def read(folder: Path) -> Manifest:
    """The manifest of a run's folder.

    Raises:
        ConfigError: the file is missing, damaged, or of another format.
    """
    path = folder / FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ConfigError(f"{path} has format {manifest['format']}; this version reads {FORMAT}")
        manifest["subject"]["name"], [part["tasks"] for part in manifest["protocol"].values()]
    except OSError as error:
        raise ConfigError(
            f"{folder} is not the folder of an evaluation: {FILE} cannot be read ({error.strerror})"
        ) from None
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    return cast("Manifest", manifest)


def protocol_digest(manifest: Manifest) -> str:
    """Twelve hexadecimal digits that name the run: the same for the same policy under the same protocol."""
    return _digest([manifest["subject"], manifest["protocol"]])[:12]


_PARSER_CLASSES = {"HermesParser": "hermes", "QwenXmlParser": "qwen_xml", "GlmParser": "glm", "SglangParser": "sglang:"}
"""The class that earlier versions recorded as ``tool_call_parser`` -> the parser's name, or how all its names begin."""


def _is_name_of(recorded: object, name: object) -> bool:
    """True if ``recorded`` is the class that an earlier version recorded for the parser called ``name``."""
    known = _PARSER_CLASSES.get(str(recorded), "")
    return bool(known) and (name == known or (known.endswith(":") and str(name).startswith(known)))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _canonical(value: object) -> str:
    """JSON with sorted keys: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, default=str)


def _digest(value: object) -> str:
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
    return _digest([agent_type, agent.system_prompt, [tool.openai_schema for tool in agent.tools]])


@lru_cache(maxsize=1)
def _user_prompt() -> str:
    """Digest of what the simulator is told in every task, with tools and without."""
    without = tau2_compat.build_user_simulator("none", {}, None, "-")
    tooled = tau2_compat.build_user_simulator("none", {}, [], "-")
    return _digest([without.system_prompt, tooled.system_prompt])
