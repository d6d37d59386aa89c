"""Telecom: the shipped compositions of faults, for other customers, with other personas. None of the held-out ones."""

from __future__ import annotations

import json
import random
import re
from functools import lru_cache
from typing import Any

from tau2_slime.policy_rules.rules import Call, Stated
from tau2_slime.synth.frames import Intent
from tau2_slime.synth.gates.held_out import HoldOut, composition, held_out
from tau2_slime.synth.proposal import WRITES, Proposal
from tau2_slime.synth.sandbox import gold_calls
from tau2_slime.world import domains, tau2_compat

_FIRST = (
    "Alice",
    "Marta",
    "Devon",
    "Priya",
    "Tomas",
    "Grace",
    "Omar",
    "Lucia",
    "Henry",
    "Naomi",
    "Felipe",
    "Ruth",
    "Ivan",
    "Clara",
)
_LAST = (
    "Nguyen",
    "Ortega",
    "Fischer",
    "Kaplan",
    "Iverson",
    "Mehta",
    "Dubois",
    "Larsen",
    "Quinn",
    "Romano",
    "Silva",
    "Tanner",
)
_PLACES = ("France", "Spain", "Italy", "Japan", "Portugal", "Norway", "Canada", "Greece")
_WRITING = frozenset(
    {"resume_line", "send_payment_request", "enable_roaming", "refuel_data", "suspend_line", "disable_roaming"}
)


@lru_cache(maxsize=8)
def compositions(hold_out: HoldOut) -> dict[str, tuple[dict[str, Any], ...]]:
    """Difficulty -> one row a composition that no held-out task has, and that a transfer does not solve."""
    banned = held_out("telecom", hold_out).compositions if hold_out != "none" else set()
    split = "full" if "full" in domains.splits("telecom") else "base"
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WRITES}
    seen: set[frozenset[str]] = set()
    for task in domains.tasks("telecom", split):
        key = composition(task)
        calls = gold_calls(task)
        if key in seen or key in banned or any(c.name == "transfer_to_human_agents" for c in calls):
            continue
        seen.add(key)
        difficulty = next((d for d, (least, most) in WRITES.items() if least <= len(calls) <= most), None)
        if difficulty is not None:
            found[difficulty].append(json.loads(task.model_dump_json()))
    return {name: tuple(rows) for name, rows in found.items()}


@lru_cache(maxsize=1)
def _personas() -> tuple[str | None, ...]:
    split = "full" if "full" in domains.splits("telecom") else "base"
    return tuple(dict.fromkeys(task.user_scenario.persona for task in domains.tasks("telecom", split)))


@lru_cache(maxsize=1)
def _database() -> str:
    """The tables that name customers, as JSON."""
    db = tau2_compat.build_environment("telecom", solo=False, env_kwargs={}).tools.db
    content = json.loads(db.model_dump_json())
    return json.dumps({table: content[table] for table in ("customers", "lines", "bills")})


def propose(rng: random.Random, difficulty: str, hold_out: HoldOut) -> Proposal | None:
    """One proposal; None if no composition has so many gold calls."""
    rows = compositions(hold_out)[difficulty]
    if not rows:
        return None
    row = rng.choice(rows)
    name = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
    number = rng.randint(2000, 9799)
    phone = f"555-{rng.randint(201, 989)}-{rng.randint(2000, 9999)}"
    renames = {
        "C1001": f"C{number}",
        "L1002": f"L{number + 1}",
        "L1001": f"L{number + 100}",
        "L1003": f"L{number + 200}",
        "John Smith": name,
        "john.smith": name.lower().replace(" ", "."),
        "555-123-2002": phone,
        "555-123-2001": f"555-{rng.randint(201, 989)}-1001",
        "555-123-2003": f"555-{rng.randint(201, 989)}-1002",
        "France": rng.choice(_PLACES),
    }
    pattern = re.compile("|".join(re.escape(old) for old in sorted(renames, key=len, reverse=True)))

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: renames[match.group(0)], text)

    made = json.loads(renamed(json.dumps(row)))
    made["user_scenario"]["persona"] = rng.choice(_personas())
    made["initial_state"]["initialization_data"] = {"agent_data": json.loads(renamed(_database())), "user_data": None}
    goals = [a["func_name"] for a in made["evaluation_criteria"]["env_assertions"] or []]
    faults = [
        f["func_name"] for f in made["initial_state"]["initialization_actions"] if f["func_name"] != "set_user_info"
    ]
    calls = [Call(a["name"], a["arguments"], a["requestor"]) for a in made["evaluation_criteria"]["actions"]]
    refuels = [c.arguments["gb_amount"] for c in calls if c.name == "refuel_data"]
    told = made["user_scenario"]["instructions"]
    return Proposal(
        domain="telecom",
        difficulty=difficulty,
        user=f"C{number}",
        intents=[Intent("repair", {"goal": " ".join(goals), "faults": " ".join(faults)})],
        calls=calls,
        reason=told["reason_for_call"],
        known=told["known_info"],
        unknown=told["unknown_info"],
        manner=told["task_instructions"],
        stated=Stated(refuel_gb=float(refuels[0]) if refuels else None),
        facts=[phone, name],
        row=made,
    )
