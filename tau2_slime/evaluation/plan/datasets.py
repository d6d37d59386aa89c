"""What an evaluation plays: datasets of tasks, each with its user simulator, sampling and number of attempts.

The file is the one that slime takes as ``--eval-config``. A mistake in it is told with its line and with what is allowed.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import absolute, anchored, short_name
from tau2_slime.data.rows import read_rows, row_task
from tau2_slime.data.selection import unplayable
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.keys import DATASET_KEYS, KEYS, below, checked
from tau2_slime.evaluation.plan.yaml_source import YamlSource, read_yaml
from tau2_slime.slime_adapter.request import DEFAULT_MAX_NEW_TOKENS
from tau2_slime.world import domains, retrieval


@dataclass(frozen=True)
class Item:
    """One task of one dataset."""

    config: Tau2Config
    metadata: Mapping[str, object]
    """The data row's, with the dataset's overrides."""
    task_id: str
    repeat: int = 0
    """How many earlier rows of the dataset name the same task."""

    @property
    def name(self) -> str:
        """The same in every run that plays this task in this dataset."""
        return f"{self.config.domain}/{short_name(self.config.task_split)}/{self.task_id}" + (
            f"#{self.repeat + 1}" if self.repeat else ""
        )


@dataclass(frozen=True)
class Dataset:
    """Tasks that are played with one user simulator and one way of sampling."""

    name: str
    items: tuple[Item, ...]
    """At least one."""
    attempts: int
    """Episodes of each task."""
    sampling: Mapping[str, object]
    """sglang's sampling parameters, as slime would send them."""

    @property
    def config(self) -> Tau2Config:
        return self.items[0].config


@dataclass(frozen=True)
class Plan:
    """Everything that an evaluation plays."""

    datasets: tuple[Dataset, ...]
    source: str = ""
    """The file that it came from, or ``command line``; for the manifest."""

    @property
    def episodes(self) -> int:
        return sum(len(dataset.items) * dataset.attempts for dataset in self.datasets)


def load_plan(
    path: Path,
    *,
    overrides: Mapping[str, object] | None = None,
    attempts: int | None = None,
    sampling: Mapping[str, object] | None = None,
    tau2: Mapping[str, object] | None = None,
) -> Plan:
    """The plan in ``path``, a YAML file in the format of slime's ``--eval-config``.

    ``overrides`` (`Tau2Config` keys), ``attempts`` (episodes of each task) and ``sampling`` (by sglang's names) win over
    the file's; every dataset's own settings win over ``tau2``, the ``tau2:`` mapping of a training job.

    Raises:
        ConfigError: the first mistake, with file, line, key and what is allowed.
    """
    source = read_yaml(path)
    root, body = "", source.data
    if isinstance(body, dict) and "eval" in body:
        root, body = "eval", body["eval"]
    if not isinstance(body, dict):
        raise source.error(root, "must be a mapping with 'defaults' and 'datasets', at the root or under 'eval'")
    for name in body:  # other keys may hold what interpolations refer to
        near = difflib.get_close_matches(str(name), ("defaults", "datasets"), n=1)
        if near and name not in near:
            raise source.error(below(root, name), f"unknown key; did you mean {near[0]!r}?")
    defaults = checked(source, below(root, "defaults"), body.get("defaults") or {}, KEYS)
    found: list[Dataset] = []
    for key, value in _entries(source, below(root, "datasets"), body.get("datasets")):
        entry = checked(source, key, value, {**DATASET_KEYS, **KEYS})
        for name in DATASET_KEYS:
            if entry.get(name) is None:
                raise source.error(key, f"the dataset has no {name!r}")
        if str(entry["name"]) in [other.name for other in found]:
            raise source.error(f"{key}.name", f"{entry['name']!r} is the name of an earlier dataset; names are unique")
        dataset = _dataset(source, key, {**defaults, **entry}, overrides or {}, attempts, tau2)
        found.append(replace(dataset, sampling={**dataset.sampling, **(sampling or {})}))
    return Plan(tuple(found), str(path))


def default_plan(
    chosen: Sequence[str],
    users: Sequence[str],
    *,
    split: str | None = None,
    tasks: int | None = 10,
    task_ids: Sequence[str] = (),
    attempts: int = 4,
    sampling: Mapping[str, object] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Plan:
    """The domains ``chosen`` x the user models ``users``, without a file.

    ``split``: τ²'s; None: test, or base where test is missing or lacks one of ``task_ids``. ``tasks``: at most so
    many of each domain; None: all. ``task_ids``: exactly these of each domain.
    ``attempts``: episodes of each task. ``sampling``: by sglang's names. ``overrides``: `Tau2Config` keys for all.

    Raises:
        ConfigError: an unknown domain or split, or a setting that is not valid.
    """
    found = []
    users = list(dict.fromkeys(users))
    short = Counter(user.rpartition("/")[2] for user in users)
    for domain in dict.fromkeys(chosen):
        wanted = absolute(split or domains.usual_split(domain, "test", task_ids))
        for user in users:
            metadata = {"domain": domain, "task_split": wanted, **(overrides or {}), "user_model": user}
            config = Tau2Config.resolve(None, metadata)
            retrieval.require(domain, config.environment)
            why = partial(unplayable, domain, agent_type=config.agent_type, allow_judge=config.allow_llm_judge)
            pool = [domains.find_task(domain, wanted, task_id=task_id) for task_id in dict.fromkeys(task_ids)]
            for task in pool:
                if reason := why(task):
                    raise ConfigError(f"--task-ids {task.id}: {reason}")
            if not pool:
                pool = list(islice((task for task in domains.tasks(domain, wanted) if why(task) is None), tasks))
            if not pool:
                raise ConfigError(
                    f"{domain}/{wanted}: no task that agent_type={config.agent_type} can play and τ² score"
                )
            items = tuple(Item(config, {**metadata, "task_id": task.id}, str(task.id)) for task in pool)
            model = user.rpartition("/")[2]
            name = f"{domain}-{short_name(wanted)}-{model if short[model] == 1 else user}"
            found.append(Dataset(name, items, attempts, {**sampling_params({}), **(sampling or {})}))
    return Plan(tuple(found), "command line")


def sampling_params(entry: Mapping[str, object]) -> dict[str, object]:
    """slime's keys -> sglang's, with slime's own defaults for what is not named.

    >>> sampling_params({"temperature": 0.5})["temperature"], sampling_params({})["top_p"]
    (0.5, 1.0)
    """
    out: dict[str, object] = {
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


def _entries(source: YamlSource, key: str, value: object) -> list[tuple[str, object]]:
    """(key, dataset) of the datasets, which are written as a list or as a mapping by name."""
    if isinstance(value, dict):
        entries = [
            (below(key, name), {"name": name, **entry} if isinstance(entry, dict) else entry)
            for name, entry in value.items()
        ]
    elif isinstance(value, list):
        entries = [(f"{key}[{i}]", entry) for i, entry in enumerate(value)]
    else:
        raise source.error(key, "must be a list of datasets, or a mapping from their names")
    if not entries:
        raise source.error(key, "holds no dataset")
    return entries


def _dataset(
    source: YamlSource,
    key: str,
    entry: Mapping[str, object],
    overrides: Mapping[str, object],
    attempts: int | None,
    tau2: Mapping[str, object] | None,
) -> Dataset:
    def text_of(name: str) -> str | None:
        return str(entry[name]) if entry.get(name) else None

    given = entry.get("metadata_overrides") or {}
    assert isinstance(given, dict)
    metadata_overrides = anchored(given, source.path.parent)
    try:
        rows = read_rows(str(entry["path"]))
    except ConfigError as error:
        raise source.error(f"{key}.path", str(error)) from None
    label_key, metadata_key = text_of("label_key"), text_of("metadata_key")
    if metadata_key is not None and not any(metadata_key in row.content for row in rows):
        raise source.error(f"{key}.metadata_key", f"no row of {entry['path']} has the key {metadata_key!r}")
    seen: Counter[tuple[str, str, str]] = Counter()
    items = []
    for row in rows:
        if label_key is not None and label_key not in row.content:
            raise source.error(f"{key}.label_key", f"{row.where} has no key {label_key!r}; slime stops there")
        try:
            found = row_task(
                row,
                overrides={**metadata_overrides, **overrides},
                input_key=text_of("input_key"),
                metadata_key=metadata_key or "metadata",
                tau2=tau2,
            )
        except ConfigError as error:
            raise source.error(
                _culprit(f"{key}.metadata_overrides", metadata_overrides, str(error)) or key, str(error)
            ) from None
        task = (found.config.domain, short_name(found.config.task_split), str(found.task.id))
        items.append(Item(found.config, found.metadata, task[-1], seen[task]))
        seen[task] += 1
    count = attempts or entry.get("n_samples_per_eval_prompt") or 1
    assert isinstance(count, int)
    return Dataset(str(entry["name"]), tuple(items), count, sampling_params(entry))


def _culprit(key: str, overrides: Collection[str], problem: str) -> str | None:
    """The override below ``key`` that an error of the configuration is about, if it names one."""
    named = [name for name in overrides if f"{name!r}" in problem or f"{name}=" in problem]
    return f"{key}.{named[0]}" if named else None
