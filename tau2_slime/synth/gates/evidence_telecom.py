"""Telecom: who calls, and how much data the customer wants to buy."""

from __future__ import annotations

from tau2_slime.synth.gates.case import Case, Findings


def check(case: Case, found: Findings) -> None:
    """G9: the customer can be found, and the amount of data is said."""
    with case.start.reading() as db:
        customers = {c.customer_id: c for c in db.customers}
        lines = {line.line_id: line for line in db.lines}
        for call in case.writes:
            if call.requestor != "assistant":
                continue
            holder = customers.get(str(call.arguments.get("customer_id")))
            if holder is None:
                continue
            line = lines.get(str(call.arguments.get("line_id")))
            phones = [holder.phone_number, *(lines[i].phone_number for i in holder.line_ids if i in lines)]
            by_name = holder.full_name.lower() in case.text and str(holder.date_of_birth) in case.text
            if (
                not any(phone in case.text for phone in phones)
                and not by_name
                and holder.customer_id.lower() not in case.text
            ):
                found.fail("G9", f"{call.name}: nothing that the customer says leads to {holder.customer_id}")
            elif line is not None and line.phone_number not in case.text and any(p in case.text for p in phones[1:]):
                found.fail("G9", f"{call.name}: {line.line_id} is not the line that the customer names")
            if call.name == "refuel_data":
                amount = float(call.arguments["gb_amount"])
                spoken = case.stated.refuel_gb
                if spoken is None:
                    found.fail("G9", "refuel_data: the customer names no amount of data")
                elif abs(spoken - amount) > 1e-9:
                    found.fail("G9", f"refuel_data: the customer wants {spoken:g} GB, the gold buys {amount:g}")
