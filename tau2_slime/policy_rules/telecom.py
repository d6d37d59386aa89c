"""Telecom's policy, T1 to T5."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from tau2_slime.policy_rules.rules import (
    Call,
    Past,
    Record,
    Rule,
    Stated,
    Violation,
    by_id,
    ends_with_a_transfer,
    out_of_order,
)

TODAY = date(2025, 2, 25)
"""The day that the policy names."""
MOST_REFUEL_GB = 2.0
_CONTRACT = r"not allowed to lift the suspension"

rules = by_id(
    Rule(
        "T1",
        "identify the customer by phone number, id, or name and date of birth",
        soft=True,
        pattern=r"must first identify the customer",
    ),
    Rule(
        "T2",
        "a payment request is for an overdue bill, and one at a time awaits payment",
        pattern=r"check the bill status to make sure it is overdue",
    ),
    Rule(
        "T3",
        "a line is resumed only when all overdue bills are paid and its contract has not ended",
        pattern=r"allowed to lift the suspension after",
    ),
    Rule(
        "T4",
        "at most 2 GB are refuelled, and as much as the customer wants",
        pattern=r"maximum amount of data that can be refueled",
    ),
    ends_with_a_transfer("T5"),
)
writes = frozenset(
    {"suspend_line", "resume_line", "send_payment_request", "enable_roaming", "disable_roaming", "refuel_data"}
)


def check(db: Record, call: Call, past: Past, stated: Stated) -> Iterator[Violation]:
    """See `DomainPolicy.check`."""
    if call.requestor != "assistant" or call.name not in writes:
        return
    a = call.arguments
    yield from out_of_order(call, past, rules["T5"], rules["T1"])
    holder = next((c for c in db.customers if c.customer_id == a["customer_id"]), None)
    if holder is None:
        return  # the tool refuses it
    bills = [bill for bill in db.bills if bill.bill_id in holder.bill_ids]
    line = next((line for line in db.lines if line.line_id == a.get("line_id")), None)
    if call.name == "send_payment_request":
        bill = next((bill for bill in bills if bill.bill_id == a["bill_id"]), None)
        if bill is not None and bill.status.value != "Overdue":
            yield Violation(rules["T2"], f"bill {bill.bill_id} is {bill.status.value}")
        if any(bill.status.value == "Awaiting Payment" for bill in bills):
            yield Violation(rules["T2"], "another bill awaits payment", r"only have one bill in the awaiting payment")
    if call.name == "resume_line" and line is not None:
        if any(bill.status.value in ("Overdue", "Awaiting Payment") for bill in bills):
            yield Violation(rules["T3"], f"{holder.customer_id} has a bill to pay")
        if line.contract_end_date is not None and line.contract_end_date < TODAY:
            yield Violation(rules["T3"], f"the contract of {line.line_id} ended on {line.contract_end_date}", _CONTRACT)
    if call.name == "refuel_data" and line is not None:
        amount = float(a["gb_amount"])
        if line.data_refueling_gb + amount > MOST_REFUEL_GB + 1e-9:
            yield Violation(rules["T4"], f"{line.data_refueling_gb + amount:g} GB are more than {MOST_REFUEL_GB:g}")
        elif stated.refuel_gb is not None and abs(amount - stated.refuel_gb) > 1e-9:
            yield Violation(rules["T4"], f"the customer wants {stated.refuel_gb:g} GB, not {amount:g}")


def customer(db: Record, call: Call, answer: str) -> str | None:
    """See `DomainPolicy.customer`."""
    if call.requestor == "assistant" and isinstance(call.arguments.get("customer_id"), str):
        return str(call.arguments["customer_id"])
    return None


def identifies(call: Call) -> bool:
    """See `DomainPolicy.identifies`."""
    return call.name.startswith("get_customer_by_")
