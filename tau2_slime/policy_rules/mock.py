"""The mock domain's policy, M1."""

from __future__ import annotations

from collections.abc import Iterator

from tau2_slime.policy_rules.rules import Call, Past, Record, Rule, Stated, Violation, by_id

rules = by_id(
    Rule("M1", "a task has an existing user and a title, its status is pending or completed, none is deleted"),
)
writes = frozenset({"create_task", "update_task_status", "delete_task"})


def check(db: Record, call: Call, past: Past, stated: Stated) -> Iterator[Violation]:
    """See `DomainPolicy.check`."""
    a = call.arguments
    if call.name == "delete_task":
        yield Violation(rules["M1"], "a task is deleted")
    if call.name == "create_task" and (a["user_id"] not in db.users or not str(a["title"]).strip()):
        yield Violation(rules["M1"], "the user does not exist, or the title is empty")
    if call.name == "update_task_status" and a["status"] not in ("pending", "completed"):
        yield Violation(rules["M1"], f"the status {a['status']!r} does not exist")


def customer(db: Record, call: Call, answer: str) -> str | None:
    """See `DomainPolicy.customer`."""
    return None


def identifies(call: Call) -> bool:
    """See `DomainPolicy.identifies`."""
    return False
