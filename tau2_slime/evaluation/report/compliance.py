"""Which rules of the policy the agent broke: the counts of `policy_rules.check` over a run, by domain and by rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.evaluation.report.table import Table
from tau2_slime.evaluation.statistics.summary import Summary, outcome_of
from tau2_slime.policy_rules.check import BROKEN, POLICIES, WRITES


@dataclass
class Compliance:
    """The agent's writes in the episodes of one domain; excluded episodes are left out."""

    domain: str
    episodes: int = 0
    """Those with a write that rules know."""
    writes: int = 0
    broken: int = 0
    """Writes that break a rule."""
    broke: int = 0
    """Episodes with such a write."""
    paid: int = 0
    """Of these: solved, by τ²'s reward."""
    rules: Counter[str] = field(default_factory=Counter)
    """Rule -> episodes that broke it."""
    rules_paid: Counter[str] = field(default_factory=Counter)

    def add(self, counts: dict[str, int], *, solved: bool) -> None:
        """Count an episode by what `EpisodeStats.policy` says of it."""
        self.episodes += 1
        self.writes += counts[WRITES]
        self.broken += counts.get(BROKEN, 0)
        self.broke += counts.get(BROKEN, 0) > 0
        self.paid += solved and counts.get(BROKEN, 0) > 0
        for rule in counts.keys() - {WRITES, BROKEN}:
            self.rules[rule] += 1
            self.rules_paid[rule] += solved


def compliance_of(summary: Summary) -> list[Compliance]:
    """Every domain whose agent wrote something that rules in code could judge, by name."""
    found: dict[str, Compliance] = {}
    for record in summary.played:
        counts = record["stats"].get("policy") or {}
        if counts.get(WRITES) and not record["excluded"]:
            one = found.setdefault(record["domain"], Compliance(record["domain"]))
            one.add(counts, solved=outcome_of(record) == "solved")
    return [found[domain] for domain in sorted(found)]


def compliance_table(summary: Summary) -> Table | None:
    """A row for each domain, and one for each rule that was broken in it, the most frequent first."""
    rows: list[list[str]] = []
    for one in compliance_of(summary):
        kept = 1 - one.broken / one.writes
        said = f"{kept:.1%} of {one.writes:,} writes break no rule"
        rows.append([one.domain, "all", said, str(one.broke), f"{one.broke / one.episodes:.1%}", str(one.paid)])
        for rule, count in sorted(one.rules.items(), key=lambda pair: (-pair[1], pair[0])):
            share = f"{count / one.episodes:.1%}"
            rows.append(["", rule, _clause(one.domain, rule), str(count), share, str(one.rules_paid[rule])])
    if not rows:
        return None
    note = (
        "Episodes in which the agent broke the rule, and their share of those with a write. Each write is judged in the "
        "state that it meets, by what the customer has said. 'solved': τ²'s reward, which does not ask these rules, paid it."
    )
    columns = ["domain", "rule", "what the policy asks for", "episodes", "share", "solved"]
    return Table("Compliance with the policy", columns, rows, note, text_columns=3)


def compliance_json(summary: Summary) -> list[dict[str, Any]]:
    """The same for summary.json."""
    return [
        {**vars(one), "rules": dict(one.rules), "rules_paid": dict(one.rules_paid)} for one in compliance_of(summary)
    ]


def _clause(domain: str, rule: str) -> str:
    """Records may come from another version, whose rules are not known here."""
    known = POLICIES[domain].rules.get(rule) if domain in POLICIES else None
    return known.clause if known is not None else "-"
