"""The tasks of one split that a request lets into its files, and why the others stay out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from tau2_slime.config.settings import AgentType, Tau2Config
from tau2_slime.config.task_split import names_a_file, path_of
from tau2_slime.data.request import DataRequest
from tau2_slime.data.rows import RowContent, row_content
from tau2_slime.errors import ConfigError
from tau2_slime.tasks.facts import all_facts
from tau2_slime.world import domains, scoring, tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Selection:
    """The tasks of one split that stay in."""

    domain: str
    split: str
    positions: tuple[int, ...]
    """In τ²'s task list of the split, ascending."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of tasks."""
    part: str | None = None
    """The name of the fraction, if the split was divided."""
    weight: int = 1
    """How often each task stands in a combined file."""

    def rows(self) -> list[RowContent]:
        """slime's rows of these tasks, each once."""
        pool = domains.tasks(self.domain, self.split)
        return [row_content(self.domain, self.split, index, str(pool[index].id)) for index in self.positions]

    @property
    def reasons(self) -> str:
        """What was left out, in words."""
        return ", ".join(f"{count} tasks {reason}" for reason, count in self.left_out.items())

    @property
    def stem(self) -> str:
        """``retail_train``, ``retail_dev``, ``telecom_full_train`` (test tasks left out), ``mock_base``, ``retail_mine``."""
        label = self.domain if self.split in (TRAIN, TEST) else f"{self.domain}_{word_of(self.split)}"
        if self.part:
            return f"{label}_{self.part}"
        if self.split in (TRAIN, TEST):
            return f"{label}_{self.split}"
        return f"{label}_{TRAIN}" if any(reason.startswith("in split") for reason in self.left_out) else label


def word_of(split: str) -> str:
    """A split's name in a file's: a task file's name up to the first dot."""
    return path_of(split).name.partition(".")[0] if names_a_file(split) else split


def select_tasks(request: DataRequest, domain: str, split: str, *, training: bool) -> Selection:
    """The tasks of ``domain``/``split`` that the request lets in. Raises ConfigError for test tasks if ``training``."""
    # A file's task 7 is not τ²'s task 7: none of the splits has any of them.
    pool, members = domains.tasks(domain, split), {} if names_a_file(split) else domains.splits(domain)
    excluded: tuple[str, ...] = ()
    if training and request.exclude_splits is not None:
        excluded = request.exclude_splits
    elif training and split not in (TRAIN, TEST) and not request.allow_test_tasks:
        excluded = (TEST,)
    reasons: dict[str, set[str]] = {
        f"in split {name}": set(members.get(name, ())) for name in excluded if name != split
    }
    left_out: Counter[str] = Counter()
    kept: list[int] = []
    for index, task in enumerate(pool):
        reason = next((reason for reason, ids in reasons.items() if task.id in ids), None)
        reason = reason or unplayable(domain, task, request.agent_type, allow_judge=request.allow_llm_judge)
        reason = reason or _dropped(request, domain, split, index)
        if reason is None:
            kept.append(index)
        else:
            left_out[reason] += 1
    test = set(members.get(TEST, ()))
    leaked = sum(pool[index].id in test for index in kept)
    if training and leaked and not request.allow_test_tasks:
        cure = "" if split == TEST else "leave them out with --exclude-split test, or "
        raise ConfigError(
            f"{domain}/{split}: {leaked} of {len(kept)} tasks for training are in the domain's test split; "
            f"{cure}train on them all the same with --allow-test-tasks"
        )
    return Selection(domain, split, tuple(kept[: request.limit]), dict(left_out))


TRIVIAL, ORDERED = "paid for nothing (--drop-trivial)", "decided by an order (--drop-order-dependent)"


def _dropped(request: DataRequest, domain: str, split: str, index: int) -> str | None:
    if not (request.drop_trivial or request.drop_order_dependent):
        return None
    trivial, ordered = _judged(domain, split, request.agent_type, request.drop_order_dependent)[index]
    return TRIVIAL if request.drop_trivial and trivial else ORDERED if ordered else None


@lru_cache(maxsize=64)
def _judged(domain: str, split: str, agent_type: AgentType, order: bool) -> tuple[tuple[bool, bool], ...]:
    """Of each task of the split: whether it is paid for nothing, and whether an order decides it."""
    config = Tau2Config(domain=domain, task_split=split, agent_type=agent_type)
    return tuple((one.trivial, bool(one.order)) for one in all_facts(config, domains.tasks(domain, split), order=order))


def fractions_of(selection: Selection, request: DataRequest) -> list[Selection]:
    """The selection itself, or its random fractions: disjoint, together complete, each in τ²'s order."""
    if not request.fractions or selection.split == TEST or not selection.positions:
        return [selection]
    where = f"{selection.domain}/{selection.split}"
    for name, _ in request.fractions:
        if name != TRAIN and name in domains.splits(selection.domain):
            raise ConfigError(f"--fractions: {name!r} is a split of τ²'s {selection.domain}; call the part dev, say")
    count = len(selection.positions)
    exact = [share * count for _, share in request.fractions]
    sizes = [int(size + 1e-9) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: sizes[i] - exact[i])
    for i in by_remainder[: count - sum(sizes)]:
        sizes[i] += 1
    shuffled = list(selection.positions)
    random.Random(f"{request.seed}/{where}").shuffle(shuffled)
    parts = []
    for (name, share), size in zip(request.fractions, sizes, strict=True):
        if size == 0:
            raise ConfigError(f"--fractions {name}={share:g}: that is not one of the {count} tasks of {where}")
        taken, shuffled = shuffled[:size], shuffled[size:]
        parts.append(Selection(selection.domain, selection.split, tuple(sorted(taken)), selection.left_out, name))
    return parts


def unplayable(domain: str, task: Task, agent_type: AgentType, *, allow_judge: bool) -> str | None:
    """Why the task stays out, in words that name the option; None if it can be played and scored."""
    if scoring.needs_judge(task) and not allow_judge:
        return "graded by an LLM judge (--allow-llm-judge, or allow_llm_judge: true, keeps them)"
    if agent_type == "llm":
        return None
    tau2 = tau2_compat.load()
    agent_class = tau2.LLMGTAgent if agent_type == "gt" else tau2.LLMSoloAgent
    if not agent_class.check_valid_task(task) or (agent_type == "solo" and not _has_solo_mode(domain)):
        return f"not playable by --agent-type {agent_type}"
    return None


@lru_cache(maxsize=64)
def _has_solo_mode(domain: str) -> bool:
    try:
        tau2_compat.build_environment(domain, solo=True, env_kwargs={})
    except ValueError:  # τ²'s own refusal
        return False
    return True
