"""What an evaluation plays: datasets of tasks, each with its user simulator, sampling and number of attempts.

The file is the one that slime takes as ``--eval-config``; every key that slime knows is known here, and a wrong one is told
with its line and what is allowed.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.prompt_file import read_rows, task_index
from tau2_slime.evaluation.plan.yaml_source import Key, Source, load, spell
from tau2_slime.slime_adapter.request import DEFAULT_MAX_NEW_TOKENS
from tau2_slime.world import domains, scoring

GENERATE = "tau2_slime.generate_with_tau2.generate"


@dataclass(frozen=True)
class Item:
    """One task of one dataset."""

    config: Tau2Config
    metadata: Mapping[str, Any]
    """The data row's, with the dataset's overrides."""
    task_id: str
    repeat: int = 0
    """How many earlier rows of the dataset name the same task."""

    @property
    def name(self) -> str:
        """The same in every run that plays this task in this dataset."""
        return f"{self.config.domain}/{self.config.task_split}/{self.task_id}" + (
            f"#{self.repeat + 1}" if self.repeat else ""
        )


@dataclass(frozen=True)
class Dataset:
    """Tasks that one user simulator is met on."""

    name: str
    items: tuple[Item, ...]
    attempts: int
    sampling: Mapping[str, Any]
    """Sampling parameters in sglang's words, as slime would send them."""

    @property
    def config(self) -> Tau2Config:
        return self.items[0].config


@dataclass(frozen=True)
class Plan:
    """Everything to be played."""

    datasets: tuple[Dataset, ...]
    source: str = ""
    """Where it came from, for the manifest."""

    @property
    def episodes(self) -> int:
        return sum(len(dataset.items) * dataset.attempts for dataset in self.datasets)


def _number(low: float, high: float | None = None, *, above: bool = False) -> tuple[str, Any]:
    limit = f"> {low:g}" if above else f">= {low:g}"
    words = f"a number {limit}" + ("" if high is None else f" and <= {high:g}")

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (value > low if above else value >= low) and (high is None or value <= high)

    return words, fits


def _integer(low: int) -> tuple[str, Any]:
    return f"a whole number >= {low}", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low


def _list_of(kind: type, words: str) -> tuple[str, Any]:
    return f"a list of {words}", lambda v: isinstance(v, list) and all(isinstance(item, kind) for item in v)


_TEXT = ("a text that is not empty", lambda v: isinstance(v, str) and bool(v))
_SWITCH = ("true or false", lambda v: isinstance(v, bool))
_MAPPING = ("a mapping", lambda v: isinstance(v, dict))
_ANYTHING = ("anything", lambda v: True)

# What slime allows beside these two in both places; the value's meaning in words, and a test of it.
KEYS: dict[str, tuple[str, Any]] = {
    "n_samples_per_eval_prompt": _integer(1),
    "temperature": _number(0),
    "top_p": _number(0, 1, above=True),
    "top_k": (
        "-1 or a whole number >= 1",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and (v == -1 or v >= 1),
    ),
    "max_response_len": _integer(1),
    "min_new_tokens": _integer(0),
    "repetition_penalty": _number(0, 2, above=True),
    "stop": _list_of(str, "texts"),
    "stop_token_ids": _list_of(int, "token ids"),
    "skip_special_tokens": _SWITCH,
    "no_stop_trim": _SWITCH,
    "input_key": _TEXT,
    "metadata_key": _TEXT,
    "label_key": _TEXT,
    "tool_key": _TEXT,
    "custom_generate_function_path": (GENERATE, lambda v: v == GENERATE),
    "metadata_overrides": _MAPPING,
    # slime's, without a meaning for τ²: accepted, so that one file serves both doors.
    **dict.fromkeys(
        (
            *("rm_type", "custom_rm_path", "multimodal_keys", "apply_chat_template", "apply_chat_template_kwargs"),
            *("app_service", "eval_task_timeout", "min_eval_samples", "eval_early_stop_remaining"),
            *("eval_early_stop_idle_timeout", "message_processor", "reward_model", "remote_environment"),
        ),
        _ANYTHING,
    ),
}
_OWN = {"name": _TEXT, "path": _TEXT}


def load_plan(
    path: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    attempts: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """The plan in ``path``. ``overrides`` are `Tau2Config` keys that win over every dataset's own.

    Raises:
        ConfigError: the first mistake, with file, line, key and what is allowed.
    """
    source = load(path, environ)
    root: Key = ()
    body = source.data
    if isinstance(body, dict) and "eval" in body:
        root, body = ("eval",), body["eval"]
    if not isinstance(body, dict):
        raise source.error(root, "must be a mapping with 'defaults' and 'datasets', at the root or under 'eval'")
    _known(source, root, body, {"defaults": _ANYTHING, "datasets": _ANYTHING})
    defaults = body.get("defaults") or {}
    _checked(source, (*root, "defaults"), defaults, KEYS)
    entries = _entries(source, (*root, "datasets"), body.get("datasets"))
    found: list[Dataset] = []
    for key, entry in entries:
        _checked(source, key, entry, {**_OWN, **KEYS})
        for name in _OWN:
            if name not in entry:
                raise source.error(key, f"the dataset has no {name!r}")
        if any(entry["name"] == other.name for other in found):
            raise source.error((*key, "name"), f"{entry['name']!r} is the name of an earlier dataset; names are unique")
        found.append(_dataset(source, key, {**defaults, **entry}, dict(overrides or {}), attempts))
    return Plan(tuple(found), str(path))


def default_plan(
    chosen: Sequence[str],
    users: Sequence[str],
    *,
    split: str | None = None,
    tasks: int | None = 10,
    attempts: int = 4,
    sampling: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Domains x user simulators without a file; ``split`` None: test, or base where there is no test.

    Raises:
        ConfigError: an unknown domain or split, or a setting that is not valid.
    """
    found = []
    for domain in chosen:
        known = domains.splits(domain)
        wanted = split or ("test" if "test" in known else "base")
        pool = [task for task in domains.tasks(domain, wanted) if not scoring.needs_judge(task)][:tasks]
        for user in users:
            metadata = {"domain": domain, "task_split": wanted, **(overrides or {}), "user_model": user}
            config = Tau2Config.resolve(None, metadata)
            items = tuple(Item(config, {**metadata, "task_id": task.id}, str(task.id)) for task in pool)
            name = f"{domain}-{wanted}-{user.rpartition('/')[2]}"
            found.append(Dataset(name, items, attempts, sampling_params(sampling or {})))
    return Plan(tuple(found), "command line")


def sampling_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """slime's keys -> sglang's, with slime's own defaults for what is not named."""
    out: dict[str, Any] = {
        "temperature": entry.get("temperature", 1.0),
        "top_p": entry.get("top_p", 1.0),
        "top_k": entry.get("top_k", -1),
        "max_new_tokens": entry.get("max_response_len") or DEFAULT_MAX_NEW_TOKENS,
        "stop": entry.get("stop"),
        "stop_token_ids": entry.get("stop_token_ids"),
        "skip_special_tokens": entry.get("skip_special_tokens", False),
        "no_stop_trim": entry.get("no_stop_trim", True),
        "spaces_between_special_tokens": False,
    }
    for name in ("repetition_penalty", "min_new_tokens"):
        if entry.get(name) is not None:
            out[name] = entry[name]
    return out


def _entries(source: Source, key: Key, value: Any) -> list[tuple[Key, dict[str, Any]]]:
    """The datasets, written as a list or as a mapping by name."""
    if isinstance(value, dict):
        pairs: list[tuple[Key, Any]] = [((*key, name), entry) for name, entry in value.items()]
        named = [(k, {"name": str(k[-1]), **e} if isinstance(e, dict) else e) for k, e in pairs]
    elif isinstance(value, list):
        named = [((*key, i), entry) for i, entry in enumerate(value)]
    else:
        raise source.error(key, "must be a list of datasets, or a mapping from their names")
    if not named:
        raise source.error(key, "there is no dataset")
    return named


def _known(source: Source, key: Key, mapping: Mapping[Any, Any], allowed: Mapping[str, Any]) -> None:
    for name in mapping:
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise source.error((*key, name), f"unknown key{hint} (allowed: {', '.join(allowed)})")


def _checked(source: Source, key: Key, mapping: Any, allowed: Mapping[str, tuple[str, Any]]) -> None:
    if not isinstance(mapping, dict):
        raise source.error(key, f"must be a mapping, not {type(mapping).__name__}")
    _known(source, key, mapping, allowed)
    for name, value in mapping.items():
        words, fits = allowed[name]
        if value is not None and not fits(value):
            raise source.error((*key, name), f"{value!r} is not allowed; give {words}")


def _dataset(
    source: Source, key: Key, entry: dict[str, Any], overrides: dict[str, Any], attempts: int | None
) -> Dataset:
    rows = read_rows(source, (*key, "path"), entry["path"])
    metadata_key, input_key = entry.get("metadata_key") or "metadata", entry.get("input_key") or "input"
    seen: Counter[tuple[str, str, str]] = Counter()
    items = []
    for position, row in enumerate(rows):
        own = row.get(metadata_key)
        metadata = {**(own if isinstance(own, dict) else {}), **(entry.get("metadata_overrides") or {}), **overrides}
        try:
            config = Tau2Config.resolve(None, metadata)
            task = domains.find_task(
                config.domain,
                config.task_split,
                task_id=metadata.get("task_id"),
                index=task_index(metadata, row.get(input_key)),
            )
            scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
        except ConfigError as error:
            raise source.error(_culprit(source, key, str(error)), f"row {position} of the data: {error}") from None
        where = (config.domain, config.task_split, str(task.id))
        items.append(Item(config, {**metadata, "task_id": task.id}, str(task.id), seen[where]))
        seen[where] += 1
    n = attempts or entry.get("n_samples_per_eval_prompt") or 1
    return Dataset(entry["name"], tuple(items), int(n), sampling_params(entry))


def _culprit(source: Source, key: Key, problem: str) -> Key:
    """The override that an error of the configuration is about, if it names one."""
    overrides = (*key, "metadata_overrides")
    named = [k for k in source.lines if k[:-1] == overrides and (f"{k[-1]!r}" in problem or f"{k[-1]}=" in problem)]
    return named[0] if named else key


__all__ = ["GENERATE", "Dataset", "Item", "Plan", "default_plan", "load_plan", "sampling_params", "spell"]
