"""Telecom: τ²'s compositions of faults for other customers, lines, plans, places and personas. None of the held-out ones."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from statistics import mean
from typing import Any, NamedTuple

from tau2_slime.policy_rules.rules import Call, Stated
from tau2_slime.synth.frames import write
from tau2_slime.synth.gates.held_out import HoldOut, composition, held_out
from tau2_slime.synth.proposal import WRITES, Proposal
from tau2_slime.synth.sampling.telecom_wording import FIRST_NAMES, FRAMES, LAST_NAMES, PLACES, told
from tau2_slime.synth.sandbox import gold_calls
from tau2_slime.world import domains, tau2_compat

_PLANS = {"P1001": 5.0, "P1002": 15.0, "P1004": 25.0}
"""Plans of phones -> their data in GB."""
_REFUELS = (0.5, 1.0, 1.5, 2.0)
_OVERUSE = (0.1, 0.4)
"""GB beyond the plan, less than any refuel."""
_CUSTOMER, _LINE, _OTHER_LINES = "C1001", "L1002", ("L1001", "L1003")
"""Of every task that τ² ships."""


class Puzzle(NamedTuple):
    """A composition with a persona: what a task is about, whoever the customer is."""

    row: dict[str, Any]
    persona: str | None


@lru_cache(maxsize=8)
def compositions(hold_out: HoldOut) -> dict[str, tuple[dict[str, Any], ...]]:
    """Difficulty -> one row a composition that no held-out task has, and that a transfer does not solve."""
    banned = held_out("telecom", hold_out).compositions if hold_out != "none" else set()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WRITES}
    seen: set[frozenset[str]] = set()
    for task in domains.tasks("telecom", _largest_split()):
        key = composition(task)
        calls = gold_calls(task)
        if key in seen or key in banned or any(c.name == "transfer_to_human_agents" for c in calls):
            continue
        seen.add(key)
        difficulty = next((d for d, (least, most) in WRITES.items() if least <= len(calls) <= most), None)
        if difficulty is not None:
            found[difficulty].append(json.loads(task.model_dump_json()))
    return {name: tuple(rows) for name, rows in found.items()}


def _largest_split() -> str:
    return "full" if "full" in domains.splits("telecom") else "base"


@lru_cache(maxsize=1)
def _personas() -> tuple[str | None, ...]:
    return tuple(dict.fromkeys(task.user_scenario.persona for task in domains.tasks("telecom", _largest_split())))


class Deck(NamedTuple):
    """What decides in which order puzzles are drawn."""

    difficulty: str
    hold_out: HoldOut
    seed: int
    weights: tuple[tuple[str, float], ...] = ()
    """Tool of the gold -> how often it is drawn, 1 if it is not named. A puzzle weighs as its tools do on average,
    and nothing if one of them does."""


class Drawn(NamedTuple):
    """The puzzles of a deck, and what each weighs."""

    puzzles: tuple[Puzzle, ...]
    weights: tuple[float, ...]


@lru_cache(maxsize=64)
def _drawn(deck: Deck) -> tuple[Drawn, Drawn]:
    """All in their order; and those in which a call names the customer, so that another one makes another task."""
    found = [Puzzle(row, persona) for row in compositions(deck.hold_out)[deck.difficulty] for persona in _personas()]
    rng, by_tool = random.Random(f"telecom {deck.difficulty} {deck.seed}"), dict(deck.weights)
    rng.shuffle(found)
    weights = []
    for puzzle in found:
        each = [by_tool.get(action["name"], 1.0) for action in _actions(puzzle)]
        weights.append(mean(each) if all(each) else 0.0)
    order: Sequence[int] = range(len(found))
    if by_tool:  # without repetition, the heavier the earlier
        race = [rng.expovariate(weight) if weight else math.inf for weight in weights]
        order = sorted((i for i in order if weights[i]), key=race.__getitem__)
    bound = [i for i in order if any(action["requestor"] == "assistant" for action in _actions(found[i]))]
    every, some = (Drawn(tuple(found[i] for i in one), tuple(weights[i] for i in one)) for one in (order, bound))
    return every, some


def _actions(puzzle: Puzzle) -> list[dict[str, Any]]:
    actions: list[dict[str, Any]] = puzzle.row["evaluation_criteria"]["actions"]
    return actions


@lru_cache(maxsize=1)
def _database() -> str:
    """The tables that name customers, as JSON."""
    db = tau2_compat.build_environment("telecom", solo=False, env_kwargs={}).tools.db
    content = json.loads(db.model_dump_json())
    return json.dumps({table: content[table] for table in ("customers", "lines", "bills")})


def propose(rng: random.Random, deck: Deck, *, slot: int, first: bool) -> Proposal | None:
    """The proposal of a ``slot``: each puzzle once, then those that another customer makes new. None if there are none.

    ``first``: no proposal of the slot was refused yet.
    """
    every, bound = _drawn(deck)
    if first and slot < len(every.puzzles):
        return _told(rng, deck.difficulty, every.puzzles[slot])
    return _told(rng, deck.difficulty, rng.choices(*bound)[0]) if bound.puzzles else None


def _told(rng: random.Random, difficulty: str, puzzle: Puzzle) -> Proposal:
    name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    number, phone = rng.randint(2000, 9799), f"555-{rng.randint(201, 989)}-{rng.randint(2000, 9999)}"
    place, refuel = rng.choice(PLACES), rng.choice(_REFUELS)
    other = rng.randint(201, 989)
    renames = {
        _CUSTOMER: f"C{number}",
        _LINE: f"L{number + 1}",
        **dict(zip(_OTHER_LINES, (f"L{number + 100}", f"L{number + 200}"), strict=True)),
        "John Smith": name,
        "john.smith": name.lower().replace(" ", "."),
        "555-123-2002": phone,
        **{"555-123-2001": f"555-{other}-1001", "555-123-2003": f"555-{other}-1002"},
        "France": place,
        "2.0 GB": f"{refuel} GB",
    }
    pattern = re.compile("|".join(re.escape(old) for old in sorted(renames, key=len, reverse=True)))

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: renames[match.group(0)], text)

    official = puzzle.row["user_scenario"]["instructions"]
    own = told(
        rng,
        official["reason_for_call"],
        official["known_info"].partition("555-123-2002.")[2].strip(),
        **{"name": name, "phone": phone, "place": place},
        gb=refuel,
        plain=puzzle.persona is None,
    )
    made = json.loads(renamed(json.dumps(puzzle.row, ensure_ascii=False)))
    made["user_scenario"]["persona"] = puzzle.persona
    made["user_scenario"]["instructions"] |= {
        "reason_for_call": (reason := write(rng, [own.trouble], FRAMES)),
        "known_info": own.known,
        "task_instructions": own.manner,
    }
    data = json.loads(renamed(_database()))
    _fit(rng, made, data, line=renames[_LINE], refuel=refuel)
    made["initial_state"]["initialization_data"] = {"agent_data": data, "user_data": None}
    calls = [Call(a["name"], a["arguments"], a["requestor"]) for a in made["evaluation_criteria"]["actions"]]
    buys = any(call.name == "refuel_data" for call in calls)
    return Proposal(
        domain="telecom",
        difficulty=difficulty,
        user=renames[_CUSTOMER],
        intents=[own.trouble],
        calls=calls,
        reason=reason,
        known=own.known,
        unknown=None,
        manner=own.manner,
        stated=Stated(refuel_gb=refuel if buys else None),
        row=made,
    )


def _fit(rng: random.Random, made: dict[str, Any], data: dict[str, Any], *, line: str, refuel: float) -> None:
    """Another plan, usage, contract and place among the customer's lines, and the amount that the customer buys."""
    plan, limit = rng.choice(tuple(_PLANS.items()))
    own = next(entry for entry in data["lines"] if entry["line_id"] == line)
    own["plan_id"], own["data_used_gb"] = plan, round(limit * rng.uniform(0.2, 0.8), 1)
    own["contract_end_date"] = f"20{rng.randint(26, 28)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    holder = next(entry for entry in data["customers"] if line in entry["line_ids"])
    rng.shuffle(holder["line_ids"])
    for action in made["initial_state"]["initialization_actions"]:
        if action["func_name"] == "set_data_usage":
            action["arguments"]["data_used_gb"] = round(limit + rng.uniform(*_OVERUSE), 1)
    for action in made["evaluation_criteria"]["actions"]:
        if action["name"] == "refuel_data":
            action["arguments"]["gb_amount"] = refuel
    for assertion in made["evaluation_criteria"]["env_assertions"] or []:
        if assertion["func_name"] == "assert_data_refueling_amount":
            assertion["arguments"]["expected_amount"] = refuel
