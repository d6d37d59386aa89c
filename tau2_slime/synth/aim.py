"""From what a policy fails at to what is drawn more often: weights by kind of intent, and how they move the mix."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.policy_rules.rules import Call
from tau2_slime.synth.generate import Generator, Plan
from tau2_slime.synth.sandbox import gold_calls
from tau2_slime.synth.verify import Judge
from tau2_slime.world import tau2_compat


class Failing(NamedTuple):
    """One way in which a policy fails in a domain, and how often."""

    tools: tuple[str, ...]
    argument: str
    """item, amount, payment or value; empty if no argument was wrong."""
    rule: str
    times: float


class _Kind(NamedTuple):
    """What a kind of intent exercises."""

    tool: str
    arguments: str
    rules: str


KINDS: dict[str, dict[str, _Kind]] = {
    "retail": {
        "cancel": _Kind("cancel_pending_order", "value", "R3 R4"),
        "return": _Kind("return_delivered_order_items", "item payment", "R7 R9 R10 R11"),
        "exchange": _Kind("exchange_delivered_order_items", "item payment", "R7 R8 R9 R11 R12 R13"),
        "modify": _Kind("modify_pending_order_items", "item payment", "R5 R6 R7 R8 R11 R13"),
        "address": _Kind("modify_pending_order_address", "value", "R5"),
        "payment": _Kind("modify_pending_order_payment", "payment", "R5 R7 R14 R15"),
        "user_address": _Kind("modify_user_address", "value", "R16"),
    },
    "airline": {
        "cancel": _Kind("cancel_reservation", "", "A16 A17 A21"),
        "bags": _Kind("update_reservation_baggages", "value payment", "A6 A12 A15"),
        "rename": _Kind("update_reservation_passengers", "value", "A14"),
        "cabin": _Kind("update_reservation_flights", "value payment", "A5 A10 A15"),
        "flight": _Kind("update_reservation_flights", "value payment", "A5 A7 A8 A9 A11 A15"),
        "book": _Kind("book_reservation", "amount value payment", "A3 A4 A5 A6 A7"),
        "certificate": _Kind("send_certificate", "amount", "A18 A19 A20"),
    },
    "telecom": {
        "enable_roaming": _Kind("enable_roaming", "", ""),
        "refuel_data": _Kind("refuel_data", "amount", "T4"),
        "send_payment_request": _Kind("send_payment_request", "value", "T2"),
        "resume_line": _Kind("resume_line", "", "T3"),
        **{name: _Kind(name, "value", "") for name in ("grant_app_permission", "set_network_mode_preference")},
        **{
            name: _Kind(name, "", "")
            for name in (
                *("disconnect_vpn", "make_payment", "reboot_device", "reseat_sim_card", "reset_apn_settings"),
                *("toggle_airplane_mode", "toggle_data", "toggle_data_saver_mode", "toggle_roaming"),
                "toggle_wifi_calling",
            )
        },
    },
    "mock": {
        "create": _Kind("create_task", "", "M1"),
        "describe": _Kind("create_task", "value", "M1"),
        "complete": _Kind("update_task_status", "", "M1"),
        "finish": _Kind("update_task_status", "", "M1"),
    },
}
"""Domain -> kind of intent -> what it exercises.

A customer of telecom has one trouble with many repairs: there a kind is a tool of the gold, also one of the customer's.
"""
BY_RULE, BY_ARGUMENT = 0.5, 0.25
"""How much a kind with the same rule, or the same kind of argument, counts beside one with the tool itself."""
FLOOR = 0.5
"""Weight of a kind at which nothing fails: what the policy can do is not forgotten."""
SAMPLE = 200
"""Proposals that show the mix without weights."""


def weights_for(domain: str, failing: Iterable[Failing]) -> tuple[dict[str, float], float]:
    """(kind of intent -> how often it is drawn, 1 on average; failures that no kind is about).

    Equal for equal failures in any order; empty if nothing can be aimed at.
    """
    kinds = KINDS.get(domain, {})
    hits: dict[str, float] = defaultdict(float)
    elsewhere = 0.0
    for one in sorted(failing):
        scores = {name: score for name, kind in kinds.items() if (score := _score(kind, one))}
        for name, score in scores.items():
            hits[name] += one.times * score / sum(scores.values())
        elsewhere += 0.0 if scores else one.times
    total = sum(hits.values())
    if not total:
        return {}, elsewhere
    return {name: round(FLOOR + (1 - FLOOR) * len(kinds) * hits[name] / total, 4) for name in kinds}, elsewhere


def _score(kind: _Kind, failing: Failing) -> float:
    if kind.tool in failing.tools:
        return 1.0
    if failing.rule in kind.rules.split():
        return BY_RULE
    return BY_ARGUMENT if failing.argument in kind.arguments.split() else 0.0


def shift_of(plans: Sequence[Plan], rows: Sequence[Mapping[str, Any]], judge: Judge) -> dict[str, list[dict[str, Any]]]:
    """How the weights of ``plans`` (of one domain) moved the mix: shares before and after, by kind and by write tool.

    ``rows``: the proposals that were made. Before: as many proposals of the same plans without weights, at most `SAMPLE`.
    """
    before, after = (Counter[str](), Counter[str]()), (Counter[str](), Counter[str]())
    validate, domain = tau2_compat.load().Task.model_validate, plans[0].domain

    def count(into: tuple[Counter[str], Counter[str]], intents: Iterable[str], calls: Sequence[Call]) -> None:
        if domain == "telecom":
            into[0].update(call.name for call in calls if call.name in KINDS[domain])
            return
        into[0].update(intents)
        into[1].update(call.name for call in calls if call.name in POLICIES[domain].writes)

    for plan in plans:
        for proposal in Generator(replace(plan, weights={}), judge).draws(max(1, min(SAMPLE, len(rows)) // len(plans))):
            count(before, (intent.kind for intent in proposal.intents), proposal.calls)
    for row in rows:
        count(after, (intent["kind"] for intent in row["intents"]), gold_calls(validate(row["task"])))
    weights = plans[0].weights
    names = ("intents", "tools")
    return {
        name: [
            {
                "name": key,
                **({"weight": weights.get(key, 1.0)} if name == "intents" else {}),
                "before": round(old[key] / max(1, old.total()), 4),
                "after": round(new[key] / max(1, new.total()), 4),
            }
            for key in sorted({*old, *new, *(list(weights) if name == "intents" else [])})
        ]
        for name, old, new in zip(names, before, after, strict=True)
    }


def shift_lines(shift: Mapping[str, Any]) -> list[str]:
    """The shift as Markdown."""
    lines = ["Mix shifted by failures, as shares of the proposals:", "", "| intent or tool | weight | before | after |"]
    lines += ["| --- | --- | --- | --- |"]
    for one in (*shift["intents"], *shift["tools"]):
        weight = f"{one['weight']:g}" if "weight" in one else ""
        lines.append(f"| {one['name']} | {weight} | {one['before']:.1%} | {one['after']:.1%} |")
    return [*lines, ""]
