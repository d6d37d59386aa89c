"""What a set of tasks is like, in numbers: yield, gates, difficulty, diversity, beside the official train split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.policy_rules.stated import text_of
from tau2_slime.synth.aim import shift_lines
from tau2_slime.synth.gates.held_out import canonical
from tau2_slime.synth.sandbox import gold_calls
from tau2_slime.world import domains, tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


TEXTS = 50
"""At most so many texts of each side are compared, and as many of one as of the other."""
LABELS = {
    "tasks": "tasks",
    "calls": "gold calls a task",
    "writes": "gold writes a task",
    "without_write": "share of tasks without a write",
    "communicating": "share of tasks that ask for a value",
    "tool_entropy": "entropy of tools, bits",
    "write_entropy": "entropy of writing tools, bits",
    "write_sets": "different sets of writes",
    "write_multisets": "different combinations of writing tools",
    "distinct_3": "distinct word trigrams, equally many texts",
    "jaccard": "words that two texts share (Jaccard)",
}
"""Field of `Diversity` -> what the report calls it."""


class Diversity(NamedTuple):
    """Measures of one set. Entropies and divergences are in bits."""

    tasks: int
    calls: float
    """Mean gold calls a task."""
    writes: float
    without_write: float
    """Share."""
    communicating: float
    """Share of tasks that ask for a value."""
    tool_entropy: float
    write_entropy: float
    write_sets: int
    """Distinct canonical sets of writes."""
    write_multisets: int
    """Distinct multisets of write tools."""
    bigrams: frozenset[tuple[str, str]]
    """Tools that follow each other in a gold list."""
    tools: Counter[str]
    distinct_3: float
    """Share of distinct word trigrams, at `TEXTS` texts."""
    jaccard: float
    """Mean similarity of the words of two texts, over as many."""


def entropy(counts: Mapping[str, int]) -> float:
    """Shannon entropy in bits.

    >>> entropy({"a": 1, "b": 1})
    1.0
    """
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values() if n) if total else 0.0


def divergence(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Jensen-Shannon divergence in bits: 0 for equal distributions, 1 for disjoint ones.

    >>> divergence({"a": 1}, {"b": 3}), divergence({"a": 1, "b": 1}, {"a": 2, "b": 2})
    (1.0, 0.0)
    """
    one, two = sum(first.values()), sum(second.values())
    if not one or not two:
        return 0.0
    total = 0.0
    for name in set(first) | set(second):
        p, q = first.get(name, 0) / one, second.get(name, 0) / two
        middle = (p + q) / 2
        total += sum(x * math.log2(x / middle) / 2 for x in (p, q) if x)
    return abs(round(total, 12))


def distinct_n(texts: Sequence[str], n: int = 3) -> float:
    """Distinct word n-grams as a share of all.

    >>> distinct_n(["a b c", "a b c"])
    0.5
    """
    grams = [
        tuple(words[i : i + n]) for text in texts for words in [text.lower().split()] for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def mean_jaccard(texts: Sequence[str]) -> float:
    """Mean Jaccard similarity of the sets of words of two texts."""
    sets = [set(text.lower().split()) for text in texts]
    pairs = list(combinations(sets, 2))
    return sum(len(a & b) / max(1, len(a | b)) for a, b in pairs) / len(pairs) if pairs else 0.0


def measure(domain: str, tasks: Iterable[Task], *, texts: int = TEXTS) -> Diversity:
    """The measures of ``tasks``; text measures over ``texts`` of them at even distances: sets of other sizes compare."""
    policy = POLICIES[domain]
    chosen = list(tasks)
    lists = [gold_calls(task) for task in chosen]
    writes = [[c for c in calls if c.name in policy.writes or c.requestor == "user"] for calls in lists]
    tools = Counter(c.name for calls in lists for c in calls)
    read = min(texts, len(chosen))
    words = [text_of(chosen[i * len(chosen) // read]) for i in range(read)]
    count = max(1, len(chosen))
    return Diversity(
        tasks=len(chosen),
        calls=sum(map(len, lists)) / count,
        writes=sum(map(len, writes)) / count,
        without_write=sum(not w for w in writes) / count,
        communicating=sum(bool(t.evaluation_criteria and t.evaluation_criteria.communicate_info) for t in chosen)
        / count,
        tool_entropy=entropy(tools),
        write_entropy=entropy(Counter(c.name for w in writes for c in w)),
        write_sets=len({tuple(sorted(map(canonical, w))) for w in writes}),
        write_multisets=len({tuple(sorted(c.name for c in w)) for w in writes}),
        bigrams=frozenset(pair for calls in lists for pair in _bigrams([c.name for c in calls])),
        tools=tools,
        distinct_3=distinct_n(words),
        jaccard=mean_jaccard(words),
    )


def _bigrams(names: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(names))


def official_train(domain: str, *, texts: int = TEXTS) -> Diversity:
    """The measures of the official train split, or of all tasks in a domain without one."""
    return measure(domain, _official(domain), texts=texts)


def _official(domain: str) -> Sequence[Task]:
    return domains.tasks(domain, "train" if "train" in domains.splits(domain) else "base")


def examples(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Three accepted events at even distances, so that they are of several domains and difficulties."""
    accepted = [row for row in rows if row["accepted"]]
    count = min(3, len(accepted))
    return [accepted[i * len(accepted) // count] for i in range(count)]


def summary(domain: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Yield, gates and diversity of the events of one domain, as plain data."""
    accepted = [row for row in rows if row["accepted"]]
    validate = tau2_compat.load().Task.model_validate
    texts = min(TEXTS, len(accepted), len(_official(domain)))
    own = measure(domain, [validate(row["task"]) for row in accepted], texts=texts)
    train = official_train(domain, texts=texts)
    gates: Counter[str] = Counter(gate for row in rows for gate in row["failed"])
    kinds: Counter[str] = Counter(intent["kind"] for row in accepted for intent in row["intents"])
    covered = len(own.bigrams & train.bigrams) / max(1, len(train.bigrams))
    return {
        "domain": domain,
        "proposals": len(rows),
        "accepted": len(accepted),
        "yield": len(accepted) / max(1, len(rows)),
        "rejected_by": dict(sorted(gates.items(), key=lambda item: int(item[0][1:]))),
        "users": len({row["user"] for row in accepted}),
        "intents": dict(kinds.most_common()),
        "official_bigrams_covered": covered,
        "js_divergence_of_tools": divergence(own.tools, train.tools),
        "measures": {"synthetic": _plain(own), "official train": _plain(train)},
        "tools": {"synthetic": dict(own.tools.most_common()), "official train": dict(train.tools.most_common())},
    }


def _plain(found: Diversity) -> dict[str, float | int]:
    return {
        name: value if isinstance(value, int) else round(value, 4)
        for name, value in found._asdict().items()
        if isinstance(value, int | float)
    }


def markdown(summaries: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """The report as a page: a section a domain, and three tasks to read."""
    lines = ["# Synthetic tasks", ""]
    for found in summaries:
        lines += [
            f"## {found['domain']}",
            "",
            (
                f"{found['accepted']} of {found['proposals']} proposals accepted ({found['yield']:.1%}), "
                f"{found['users']} customers."
            ),
            "",
        ]
        rejected = ", ".join(f"{gate} {count}" for gate, count in found["rejected_by"].items())
        lines += [f"Rejected by gate: {rejected or 'none'}.", ""]
        if found.get("shift"):
            lines += shift_lines(found["shift"])
        lines += ["| measure | synthetic | official train |", "| --- | --- | --- |"]
        own, train = found["measures"]["synthetic"], found["measures"]["official train"]
        lines += [f"| {LABELS[name]} | {value:.4g} | {train[name]:.4g} |" for name, value in own.items()]
        lines += [
            "",
            f"Official tool bigrams covered: {found['official_bigrams_covered']:.0%}. "
            f"Jensen-Shannon divergence of tools: {found['js_divergence_of_tools']:.3f} bits.",
            "",
            f"Intents: {', '.join(f'{kind} {count}' for kind, count in found['intents'].items())}.",
            "",
        ]
    lines += ["## Three tasks", ""]
    for row in examples(rows):
        told = row["task"]["user_scenario"]["instructions"]
        lines += [f"### {row['task']['id']}", "", *(f"> {line}" for line in told["reason_for_call"].split("\n")), ""]
        lines += [f"- `{a['name']}` {a['arguments']}" for a in row["task"]["evaluation_criteria"]["actions"]] + [""]
    return "\n".join(lines) + "\n"
