"""G10: nothing of a held-out split: no customer, record, write, end state, telecom composition, and hardly a phrase."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.world import domains

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

HoldOut = Literal["test", "base", "none"]
GRAM = 8
MOST_OVERLAP = 0.5
"""Share of a text's 8-grams that one held-out text may hold."""
LEAST_GRAMS = 4
RECORDS = ("order_id", "reservation_id")


def canonical(call: Call) -> str:
    """A call with its arguments in one spelling; lists whose order τ² ignores are sorted."""
    arguments = dict(call.arguments)
    if call.name == "return_delivered_order_items" and isinstance(arguments.get("item_ids"), list):
        arguments["item_ids"] = sorted(map(str, arguments["item_ids"]))
    return f"{call.requestor}.{call.name} {json.dumps(arguments, sort_keys=True, default=str)}"


def composition(task: Task) -> frozenset[str]:
    """Telecom's puzzle: what is broken and what must hold, whoever the customer is and however it is told."""
    initial, criteria = task.initial_state, task.evaluation_criteria
    faults = [
        (
            f.func_name,
            {k: v for k, v in f.arguments.items() if k in ("abroad", "mode", "permission", "app_name", "enabled")},
        )
        for f in (initial and initial.initialization_actions) or []
        if f.func_name not in ("set_user_info", "simulate_network_search")
    ]
    goals = [a.func_name for a in (criteria and criteria.env_assertions) or []]
    return frozenset(
        [f"fault {name} {json.dumps(arguments, sort_keys=True, default=str)}" for name, arguments in faults]
        + [f"goal {name}" for name in goals]
    )


def grams(text: str) -> set[str]:
    """The 8-grams of words."""
    words = text.split()
    return {" ".join(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


@dataclass
class HeldOut:
    """What the held-out tasks of a domain touch."""

    users: set[str] = field(default_factory=set)
    records: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    ends: set[Hashable] = field(default_factory=set)
    compositions: set[frozenset[str]] = field(default_factory=set)
    grams: dict[str, set[str]] = field(default_factory=dict)
    """8-gram -> ids of the held-out tasks that have it; those of other tasks are left out."""


def _touched(calls: Iterable[Call]) -> set[str]:
    return {str(call.arguments[key]) for call in calls for key in RECORDS if key in call.arguments}


@lru_cache(maxsize=16)
def held_out(domain: str, hold_out: HoldOut) -> HeldOut:
    """The index of a domain's held-out tasks; empty where the domain has no such split."""
    index = HeldOut()
    known = domains.splits(domain)
    if hold_out not in known:
        return index
    held = {task.id for task in domains.tasks(domain, hold_out)}
    everyday: set[str] = set()
    for task in domains.tasks(domain, "base" if "base" in known else hold_out):
        if domain == "telecom":
            if task.id in held:
                index.compositions.add(composition(task))
            continue
        case = Case(domain, task)
        if task.id not in held:
            everyday |= grams(case.text)
            continue
        if case.customer is not None:
            index.users.add(case.customer)
        index.records |= _touched(case.calls)
        index.writes |= {canonical(call) for call in case.writes}
        if case.end != case.start.state():
            index.ends.add(case.end)
        for gram in grams(case.text):
            index.grams.setdefault(gram, set()).add(task.id)
    for gram in everyday:
        index.grams.pop(gram, None)
    return index


def check(case: Case, found: Findings, hold_out: HoldOut) -> None:
    """G10."""
    if hold_out == "none" or case.domain == "mock":
        return
    index = held_out(case.domain, hold_out)
    if case.domain == "telecom":
        if composition(case.task) in index.compositions:
            found.fail("G10", f"its faults and goals are those of a task of the {hold_out} split")
        return
    if case.customer in index.users:
        found.fail("G10", f"{case.customer} is the customer of a task of the {hold_out} split")
    if shared := _touched(case.calls) & index.records:
        found.fail("G10", f"{sorted(shared)[0]} is used by a task of the {hold_out} split")
    if any(canonical(call) in index.writes for call in case.writes):
        found.fail("G10", f"a write is that of a task of the {hold_out} split")
    if case.writes and case.end in index.ends:
        found.fail("G10", f"the end state is that of a task of the {hold_out} split")
    own = grams(case.text)
    counts: dict[str, int] = {}
    for gram in own:
        for task_id in index.grams.get(gram, ()):
            counts[task_id] = counts.get(task_id, 0) + 1
    most = max(counts.values(), default=0)
    if most >= LEAST_GRAMS and most > MOST_OVERLAP * len(own):
        found.fail("G10", f"half of its text is that of a task of the {hold_out} split")
