"""What a run is: the folder's `manifest.json` with a fingerprint of everything that its numbers depend on.

Three parts. ``subject``: the policy, which a comparison is about. ``protocol``: per dataset what must be equal for numbers
to be comparable (τ², tasks, reward basis, prompts, user, sampling, limits). ``software``: what else was installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tau2_slime import __version__
from tau2_slime.data.files import source_hashes
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import Dataset, Plan
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import domains, tau2_compat

FILE = "manifest.json"
FORMAT = 1

# Parts of the protocol in which a folder may grow: more tasks, more attempts.
GROWING = ("tasks", "attempts")


def build(plan: Plan, subject: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of ``plan`` played by ``subject``. Builds an environment per domain: call it off the event loop."""
    return {
        "format": FORMAT,
        "subject": dict(subject),
        "protocol": {dataset.name: protocol(dataset) for dataset in plan.datasets},
        "software": {
            "tau2_slime": __version__,
            "litellm": importlib.metadata.version("litellm"),
            "transformers": importlib.metadata.version("transformers"),
        },
        "source": plan.source,
    }


def protocol(dataset: Dataset) -> dict[str, Any]:
    """What a dataset's numbers depend on beside the policy."""
    config = dataset.config
    pairs = sorted({(item.config.domain, item.config.task_split) for item in dataset.items})
    tasks = [
        domains.find_task(item.config.domain, item.config.task_split, task_id=item.task_id) for item in dataset.items
    ]
    scripted = config.user_model.startswith("scripted")
    return {
        "tau2": tau2_version(),
        "domains": [f"{domain}/{split}" for domain, split in pairs],
        "task_files": {name: sha for domain, _ in pairs for name, sha in source_hashes(domain).items()},
        "reward_basis": _digest(
            [
                [str(task.id), sorted(str(basis.value) for basis in task.evaluation_criteria.reward_basis)]
                if task.evaluation_criteria is not None
                else [str(task.id), None]
                for task in tasks
            ]
        ),
        "policy_prompt": _digest(
            [_prompt(domain, config.agent_type, _frozen(config.env_kwargs)) for domain, _ in pairs]
        ),
        "agent_type": config.agent_type,
        "user_model": config.user_model if config.agent_type != "solo" else "",
        "user_base_url": config.user_base_url,
        "user_args": {} if scripted else dict(config.user_args),
        "user_prompt": None if config.agent_type == "solo" else _user_prompt(),
        "sampling": dict(dataset.sampling),
        "limits": {"max_steps": config.max_steps, "max_errors": config.max_errors, "max_turns": config.max_turns},
        "chat_template_kwargs": dict(config.chat_template_kwargs),
        "allow_llm_judge": config.allow_llm_judge,
        "tasks": [item.name for item in dataset.items],
        "attempts": dataset.attempts,
    }


def layout(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dataset -> its items, attempts and user model, for `records.units`."""
    return {
        name: {"items": part["tasks"], "attempts": part["attempts"], "user_model": part["user_model"]}
        for name, part in manifest["protocol"].items()
    }


def tau2_version() -> dict[str, str | None]:
    """Version and, for an installation from a repository, the commit."""
    name, _, version = tau2_compat.version().partition(" ")
    commit = None
    try:
        url = importlib.metadata.distribution(name).read_text("direct_url.json")
        commit = json.loads(url).get("vcs_info", {}).get("commit_id") if url else None
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    return {"distribution": name, "version": version, "commit": commit}


def differences(one: Any, other: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    """``(field, value, value)`` of every leaf in which two parts of manifests differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found = []
        for key in dict.fromkeys([*one, *other]):
            found += differences(one.get(key), other.get(key), f"{at}.{key}" if at else str(key))
        return found
    return [] if one == other else [(at, one, other)]


def open_folder(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
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
    merged = dict(manifest)
    if earlier is not None:
        found = [
            (field, was, now)
            for field, was, now in differences(earlier["subject"], manifest["subject"], "subject")
            if not (field == "subject.tool_call_parser" and _is_name_of(was, now))
        ]
        names = [*earlier["protocol"], *(n for n in manifest["protocol"] if n not in earlier["protocol"])]
        merged["protocol"] = {}
        for name in names:
            old, new = earlier["protocol"].get(name), manifest["protocol"].get(name)
            if old is not None and new is not None:
                # The reward basis is one of the tasks: with other tasks it says nothing.
                skip = {*GROWING, *(("reward_basis",) if old["tasks"] != new["tasks"] else ())}
                found += [
                    d for key in old if key not in skip for d in differences(old[key], new.get(key), f"{name}.{key}")
                ]
            merged["protocol"][name] = new if new is not None else old
        if found:
            fields = "; ".join(f"{field}: {_short(was)} there, {_short(now)} now" for field, was, now in found[:5])
            raise ConfigError(f"{folder} holds another run: {fields}. Give another --output-dir")
    write_atomically(path, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return merged


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run's folder.

    Raises:
        ConfigError: there is none, or it is not one.
    """
    try:
        manifest = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ConfigError(f"{folder / FILE} has format {manifest['format']}; this version reads {FORMAT}")
        manifest["subject"], manifest["protocol"]
    except OSError as error:
        raise ConfigError(f"{folder} is no evaluation's folder: {FILE} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / FILE} is damaged: {type(error).__name__}: {error}") from None
    return dict(manifest)


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Twelve hex digits that name the run."""
    return _digest([manifest["subject"], manifest["protocol"]])[:12]


_PARSER_CLASSES = {"HermesParser": "hermes", "QwenXmlParser": "qwen_xml", "GlmParser": "glm", "SglangParser": "sglang:"}
"""The class that earlier versions recorded as ``tool_call_parser`` -> the parser's name, or how all its names begin."""


def _is_name_of(recorded: object, name: object) -> bool:
    """True if ``recorded`` is the class that an earlier version recorded for the parser called ``name``."""
    known = _PARSER_CLASSES.get(str(recorded), "")
    return bool(known) and (name == known or (known.endswith(":") and str(name).startswith(known)))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _frozen(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping, sort_keys=True, default=str)


@lru_cache(maxsize=64)
def _prompt(domain: str, agent_type: str, env_kwargs: str) -> str:
    """Digest of the policy's system prompt and tools in a domain; without the parts that each task fills in."""
    task = domains.tasks(domain, "base")[0] if "base" in domains.splits(domain) else None
    if task is None:
        task = domains.tasks(domain, next(iter(domains.splits(domain))))[0]
    solo = agent_type == "solo"
    try:
        world = domains.World(domain, "base", task, solo=solo, env_kwargs=json.loads(env_kwargs))
    except ValueError as error:  # τ²'s own refusal
        raise ConfigError(f"agent_type={agent_type!r} in {domain}: {error}") from None
    agent = tau2_compat.build_agent("llm", world.agent_tools, world.policy, task)
    return _digest([agent_type, agent.system_prompt, [tool.openai_schema for tool in agent.tools]])


@lru_cache(maxsize=1)
def _user_prompt() -> str:
    """Digest of what the simulator is told in every task, with and without tools."""
    without = tau2_compat.build_user_simulator("none", {}, None, "-")
    tooled = tau2_compat.build_user_simulator("none", {}, [], "-")
    return _digest([without.system_prompt, tooled.system_prompt])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
