"""`synth verify` over official tasks and over mutations of them: the right gate, and no false rejection."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.synth.verify import Judge, verify
from tests.synth.tasks import make_row, official, row_of


def judged(domain: str, row: object, hold_out: str = "none") -> dict[str, str]:
    return Judge(domain, hold_out=hold_out).judge_row(row, "row 1").failed  # type: ignore[arg-type]


# Retail: user, orders and payment methods as they stand in τ²'s database.
FIND = ("find_user_id_by_name_zip", {"first_name": "Fatima", "last_name": "Johnson", "zip": "78712"})
KNOWN = "You are Fatima Johnson in zip code 78712."
CANCEL = ("cancel_pending_order", {"order_id": "#W5199551", "reason": "no longer needed"})
CANCEL_OTHER = ("cancel_pending_order", {"order_id": "#W8665881", "reason": "no longer needed"})
WATCH = (
    "return_delivered_order_items",
    {"order_id": "#W9389413", "item_ids": ["2554056026"], "payment_method_id": "paypal_5364164"},
)


def retail(reason: str, *actions: Any, **more: Any) -> dict[str, Any]:
    return make_row("retail", "t", reason, KNOWN, [FIND, *actions], **more)


GOOD = retail("You want to cancel order #W5199551 because you no longer need it.", CANCEL)


def test_a_clean_task_is_accepted() -> None:
    assert judged("retail", GOOD) == {}


@pytest.mark.parametrize(
    "task_id", ["0", "1", "59", "66", "69", "73", "75", "76", "78", "80", "81", "82", "88", "103", "109"]
)
def test_clean_official_retail_tasks_are_accepted(task_id: str) -> None:
    assert judged("retail", row_of(official("retail")[task_id]), "test") == {}


@pytest.mark.parametrize("task_id", ["11", "12", "20", "21", "42"])
def test_clean_official_airline_tasks_are_accepted(task_id: str) -> None:
    assert judged("airline", row_of(official("airline")[task_id]), "test") == {}


def changed(row: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    out = deepcopy(row)
    *path, last = place.split(".")
    here: Any = out
    for key in path:
        here = here[int(key) if key.isdigit() else key]
    here[int(last) if last.isdigit() else last] = value
    return out


ACTIONS = "evaluation_criteria.actions"
REASON = "user_scenario.instructions.reason_for_call"
ADDRESS = {
    "address1": "1 Main Street",
    "address2": "",
    "city": "Austin",
    "state": "TX",
    "country": "USA",
    "zip": "78701",
}

MUTATIONS = {
    "no scenario": ("G1", {key: value for key, value in GOOD.items() if key != "user_scenario"}),
    "a key that τ² does not read": ("G1", {**GOOD, "evaluation_critera": {"actions": []}}),
    "unknown tool": ("G2", changed(GOOD, f"{ACTIONS}.1.name", "delete_order")),
    "missing argument": ("G2", changed(GOOD, f"{ACTIONS}.1.arguments", {"order_id": "#W5199551"})),
    "extra argument": ("G2", changed(GOOD, f"{ACTIONS}.1.arguments.force", True)),
    "wrong type": ("G2", changed(GOOD, f"{ACTIONS}.0.arguments.zip", 78712)),
    "order that does not exist": ("G3", changed(GOOD, f"{ACTIONS}.1.arguments.order_id", "#W0000000")),
    "only reads": (
        "G4",
        retail("You want to know the status of order #W5199551.", ("get_order_details", {"order_id": "#W5199551"})),
    ),
    "an address that is overwritten": (
        "G6",
        retail(
            (
                "First change the address of order #W5199551 to 2 Oak Street, Austin, 78701, then to 1 Main "
                "Street, Austin, 78701."
            ),
            ("modify_pending_order_address", {"order_id": "#W5199551", **ADDRESS, "address1": "2 Oak Street"}),
            ("modify_pending_order_address", {"order_id": "#W5199551", **ADDRESS}),
        ),
    ),
    "not the customer's reason": (
        "G7",
        retail("You want to cancel order #W5199551 because you ordered it by mistake.", CANCEL),
    ),
    "a reason that the policy does not know": (
        "G7",
        retail("You want to cancel order #W5199551 because you found it cheaper elsewhere.", CANCEL),
    ),
    "after a transfer": (
        "G7",
        retail(
            "You no longer need order #W5199551: cancel it.", ("transfer_to_human_agents", {"summary": "s"}), CANCEL
        ),
    ),
    "nothing to do": ("G8", retail("You want to cancel order #W5199551 for a refund in cash; else you keep it.")),
    "an order that nobody names": (
        "G9",
        retail("You want to cancel order #W5199551 because you no longer need it.", CANCEL, CANCEL_OTHER),
    ),
    "an address that nobody says": (
        "G9",
        retail(
            "You moved. Order #W5199551 must go to your new address, 9 Elm Street, Austin.",
            ("modify_pending_order_address", {"order_id": "#W5199551", **ADDRESS}),
        ),
    ),
    "a request of another kind": ("G9", retail("You want to cancel order #W5199551, no longer needed.", CANCEL, WATCH)),
    "a tool's name": ("G11", changed(GOOD, REASON, "Ask for cancel_pending_order on #W5199551: no longer needed.")),
    "a payment id": (
        "G11",
        changed(GOOD, REASON, "Cancel order #W5199551, no longer needed, refund to paypal_5364164."),
    ),
    "a stop token": ("G11", changed(GOOD, REASON, "Cancel order #W5199551, no longer needed. Then say ###STOP###.")),
    "words of grading": (
        "G11",
        changed(GOOD, REASON, "Cancel #W5199551, no longer needed: this is the expected action."),
    ),
    "a verdict": (
        "G11",
        changed(GOOD, REASON, "Cancel #W5199551, no longer needed. The agent should refuse all else."),
    ),
    "a short value": (
        "G15",
        retail(GOOD["user_scenario"]["instructions"]["reason_for_call"], CANCEL, communicate_info=["1"]),
    ),
    "a value that no tool shows": (
        "G15",
        retail(GOOD["user_scenario"]["instructions"]["reason_for_call"], CANCEL, communicate_info=["99123.77"]),
    ),
    "a value that the customer says": (
        "G15",
        retail(
            "You no longer need order #W5199551, cancel it; tell me whether I get 5364164.",
            CANCEL,
            communicate_info=["5364164"],
        ),
    ),
    "a request that is left out": (
        "G17",
        retail(
            "Please cancel order #W5199551, no longer needed. Cancel order #W8665881 as well, no longer needed.", CANCEL
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_retail_mutation_fails_at_its_gate(name: str) -> None:
    gate, row = MUTATIONS[name]
    assert gate in judged("retail", row)


def test_lists_whose_order_decides_are_refused_and_others_are_not() -> None:
    for task_id in ("20", "21", "36", "37", "100"):
        assert "G14" in judged("retail", row_of(official("retail")[task_id]))
    for task_id in ("8", "14", "20", "24", "25", "40"):
        assert "G14" not in judged("airline", row_of(official("airline")[task_id]))


def test_a_second_bill_with_an_invented_id_is_not_repeatable() -> None:
    found = next(t for t in official("telecom").values() if "data_usage_exceeded" in t.id)
    row = row_of(found)
    assert judged("telecom", row) == {}
    from tau2_slime.world.tau2_compat import build_environment

    db = build_environment("telecom", solo=False, env_kwargs={}).tools.db
    bills = [json.loads(b.model_dump_json()) for b in db.bills if b.status.value != "Draft"]
    kept = {b["bill_id"] for b in bills}
    customers = [json.loads(c.model_dump_json()) for c in db.customers]
    for customer in customers:
        customer["bill_ids"] = [b for b in customer["bill_ids"] if b in kept]
    row["initial_state"]["initialization_data"] = {
        "agent_data": {"bills": bills, "customers": customers},
        "user_data": None,
    }
    assert "G5" in judged("telecom", row)


def test_telecom_rules_amounts_and_transfers() -> None:
    found = row_of(next(t for t in official("telecom").values() if "data_usage_exceeded" in t.id))
    position = next(i for i, a in enumerate(found["evaluation_criteria"]["actions"]) if a["name"] == "refuel_data")
    more = changed(found, f"{ACTIONS}.{position}.arguments.gb_amount", 5.0)
    assert "G7" in judged("telecom", more)
    less = changed(found, f"{ACTIONS}.{position}.arguments.gb_amount", 1.0)
    assert "G9" in judged("telecom", less)
    transfer = next(t for t in official("telecom").values() if "lock_sim_card_pin" in t.id)
    assert "G8" in judged("telecom", row_of(transfer))


def test_the_test_split_is_held_out() -> None:
    for domain in ("retail", "airline", "telecom"):
        from tau2_slime.world import domains

        for task in domains.tasks(domain, "test")[:6]:
            assert "G10" in judged(domain, row_of(task), "test")
            assert "G10" not in judged(domain, row_of(task), "none")
    composition = row_of(domains.tasks("telecom", "test")[0])
    told = changed(changed(composition, "id", "mine"), "user_scenario.persona", None)
    assert "G10" in judged("telecom", told, "test")


def test_the_second_of_two_alike_is_a_duplicate_whatever_its_words() -> None:
    judge = Judge("retail", hold_out="none")
    again = changed({**GOOD, "id": "u"}, REASON, "Order #W5199551 is no longer needed, so cancel it, please.")
    assert judge.judge_row(GOOD, "").accepted
    assert set(judge.judge_row(again, "").failed) == {"G16"}
    namesake = {**MUTATIONS["a request that is left out"][1], "id": GOOD["id"]}
    assert "has the id" in judge.judge_row(namesake, "").failed["G16"]


def test_a_file_of_anything_gets_one_line_a_row(tmp_path: Path) -> None:
    tasks, report = tmp_path / "tasks.jsonl", tmp_path / "out.jsonl"
    rows = [json.dumps(GOOD), '"x"', "null", "{broken", json.dumps({"id": "half"})]
    tasks.write_text("\n".join(rows) + "\n", encoding="utf-8")
    verify("retail", tasks, report, hold_out="none")
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["t", "line 2", "line 3", "line 4", "half"]
    assert [line["verdict"] for line in lines] == ["accept", "reject", "reject", "reject", "reject"]
    assert all(line["failed"] == ["G1"] and set(line["reasons"]) == {"G1"} for line in lines[1:])
