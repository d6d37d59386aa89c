"""What a user simulator asked for or stated before a write that is not gold's: it may be the cause of the write."""

from __future__ import annotations

import re

from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, as_text
from tau2_slime.diagnosis.meaning import Differing, expressed, names_specifically, speaks_of, specifics
from tau2_slime.diagnosis.story import Made, Said
from tau2_slime.diagnosis.words import (
    asks,
    sentences,
    squeeze,
    subject,
)


def gave_the_value(case: Case, call: Made, differences: list[Differing]) -> Finding | None:
    """The user's words hold the value with which a divergent write differs from gold, and the scenario does not."""
    for each in differences:
        for said in case.story.texts("user", before=call.turn):
            where = _first_said(case, said, each, call)
            if where is None:
                continue
            if len(differences) == 1 and each.kind == "payment" and not _PAYMENT.search(case.scenario):
                return _left_open(call, said, each, where)
            what = What.INVENTED if _is_fact(each) and not _known(case, said.turn, each) else What.OFF_SCRIPT
            path = f"{call.name}.{each.path}"
            evidence = (
                Evidence(said.turn, where[:200]),
                Evidence(call.turn, name=path, here=as_text(each.here), gold=as_text(each.gold)),
            )
            return Finding(Who.USER, what, said.turn, evidence, 0.8, each.kind, call.name)
    return None


_PAYMENT = re.compile(r"card|paypal|certificate|\bpay|refund|balance", re.I)


def _left_open(call: Made, said: Said, each: Differing, where: str) -> Finding:
    """The scenario says nothing of the payment that gold fixes, and the customer chose another one."""
    field = Evidence(call.turn, name=f"{call.name}.{each.path}", here=as_text(each.here), gold=as_text(each.gold))
    return Finding(Who.TASK, What.GOLD_LABEL, call.turn, (Evidence(said.turn, where[:200]), field), 0.6, tool=call.name)


def _first_said(case: Case, said: Said, each: Differing, call: Made) -> str | None:
    """The user's sentence that says the differing value, which neither its scenario nor the agent has said before.

    Small numbers count only beside what the call is about.
    """
    small = isinstance(each.here, (int, float)) and abs(each.here) < 100
    told = [case.scenario, *(one.text for one in case.story.texts("assistant", before=said.turn))]
    for sentence in sentences(said.text):
        if small and not subject(call.name).search(sentence):
            continue
        for form in expressed(sentence, each.here, each.gold, each.kind, case.world):
            if not any(form.search(text) for text in told):
                return sentence
    return None


def _known(case: Case, turn: int, each: Differing) -> bool:
    value = squeeze(as_text(each.here))
    return value in squeeze(case.scenario) or value in squeeze(case.heard_before(turn))


def _is_fact(each: Differing) -> bool:
    """An id, address, e-mail, name or amount; not a choice such as a cabin or a colour."""
    if each.kind in ("record", "amount"):
        return True
    if isinstance(each.here, (int, float)):
        return True
    name = each.path.split(".")[-1].split("[")[0]
    return bool(
        re.search(
            r"name|address|city|zip|state|country|email|phone|dob|payment_id|payment_method_id|flight_number", name
        )
    )


def asked_for(case: Case, call: Made) -> Said | None:
    """The user's text that asks for an extra write before the agent has offered it, and that its scenario does not hold."""
    about = subject(call.name)
    strict = case.alike(call.name) or bool(about.search(case.scenario))
    for said in case.story.texts("user", before=call.turn):
        if not speaks_of(said.text, call.name, call.arguments, case.world, strictly=False):
            continue
        if strict and not names_specifically(said.text, call.arguments, case.world):
            continue
        offered = [
            one
            for one in case.story.texts("assistant", before=said.turn)
            if speaks_of(one.text, call.name, call.arguments, case.world, strictly=strict) and asks(one.text)
        ]
        if offered:
            return None
        if strict and _scenario_names(case, call):
            return None
        return said
    return None


def _scenario_names(case: Case, call: Made) -> bool:
    """True if the scenario speaks of the record or an item of the write."""
    named = [
        (kind, value)
        for kind, value in specifics(call.arguments, case.world)
        if names_specifically(
            case.scenario, {"order_id": value} if kind == "record" else {"item_ids": [value]}, case.world
        )
    ]
    return bool(named)
