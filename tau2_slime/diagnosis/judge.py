"""A model's opinion on failures of which the rules are not sure: kept apart from the rules', and never above them.

The model sees scenario, policy, gold, every message with its calls and results, the differing database fields and what the
rules found. Its answer has a fixed form. Its quotation must stand in the message that it names, else the answer is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tau2_slime.chat.completion import Completion
from tau2_slime.chat.faults import CallFailed, Fault
from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.decide import case_of
from tau2_slime.diagnosis.findings import Diagnosis, What, Who
from tau2_slime.diagnosis.story import read_story
from tau2_slime.errors import BudgetSpent, ConfigError
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.runtime.files import append_line, ends_with_a_whole_line, json_lines
from tau2_slime.world.judge import JudgeSpec, JudgeUnavailable, answered, read_answer

SURE = 0.5
"""Findings below this are asked about."""
LONGEST_RESULT = 1500
"""Characters of one tool result that the model is shown."""
_DECIDED = {What.INFRASTRUCTURE, What.SIMULATOR_FAILURE, What.LENGTH_LIMIT, What.ORDER_DEPENDENT, What.GOLD_LABEL}
_INSTRUCTIONS = """\
You read a failed episode of a customer-service benchmark and say why it failed. "agent" is the assistant that is tested, \
"user" the simulated customer, "task" a wrong label, "infrastructure" a broken server. Name the first message that leads \
away from what the scenario, the policy and the gold actions want and that nothing repairs later. Answer with one JSON \
object and nothing else: {"who": ..., "what": ..., "turn": index of that message, "quote": words that stand in that \
message exactly like this, "why": one sentence}. What may be said:
"""


def worth_asking(diagnosis: Diagnosis, *, every: bool) -> bool:
    """True for failures of which the rules are less than half sure; ``every``: for all that the ending does not decide."""
    found = diagnosis.finding
    return diagnosis.failed and found.what not in _DECIDED and (every or found.sure < SURE)


def question(trajectory: Trajectory, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """The prompt, in OpenAI's messages."""
    try:
        case: Case | None = case_of(trajectory, read_story(trajectory))
    except Exception:  # a task that this τ² does not know: the conversation alone has to do
        case = None
    kinds = f"who: {', '.join(Who)}; what: {', '.join(What)}"
    parts = [f"# Conversation\n{_conversation(trajectory)}"]
    if case is not None:
        gold = "\n".join(f"{w.requestor}: {w.name}({json.dumps(w.arguments)})" for w in case.gold.writes) or "no writes"
        fields = "\n".join(f"{path}: here {here}, gold {gold}" for path, _, here, gold in case.played.differences[:30])
        parts = [
            f"# Policy\n{case.world.policy}",
            f"# Scenario of the user\n{case.scenario}",
            f"# Gold writes\n{gold}\nto be said: {case.gold.communicate or 'nothing'}",
            *parts,
            f"# Database fields that differ at the end\n{fields or 'none'}",
        ]
    parts.append(f"# What the rules found\n{json.dumps(diagnosis.finding.to_dict())}")
    return [
        {"role": "system", "content": _INSTRUCTIONS + kinds},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _conversation(trajectory: Trajectory) -> str:
    lines = []
    for turn, message in enumerate(trajectory.messages):
        calls = [f"{c.get('name')}({json.dumps(c.get('arguments'))})" for c in message.get("tool_calls") or []]
        text = str(message.get("content") or "")
        text = text[:LONGEST_RESULT] if message.get("role") == "tool" else text
        lines.append(f"[{turn}] {message.get('role')}: {' '.join(filter(None, (text, *calls)))}")
    return "\n".join(lines)


def read_opinion(answer: Completion, trajectory: Trajectory) -> dict[str, Any]:
    """``who``, ``what``, ``turn``, ``quote`` and ``why`` of an answer.

    Raises:
        CallFailed: it is not of the asked form, or its quotation does not stand in the message that it names.
    """
    value = read_answer(answer)
    turn = value.get("turn") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("who") not in {*Who} or value.get("what") not in {*What}:
        raise CallFailed(Fault.GARBAGE, f"who or what is none of those that may be said: {value}")
    if type(turn) is not int or not 0 <= turn < len(trajectory.messages):
        raise CallFailed(Fault.GARBAGE, f"turn {turn} is not a message")
    quote, message = value.get("quote"), trajectory.messages[turn]
    calls = [f"{c.get('name')}({json.dumps(c.get('arguments'))})" for c in message.get("tool_calls") or []]
    if not isinstance(quote, str) or not quote or not any(quote in t for t in (str(message.get("content")), *calls)):
        raise CallFailed(Fault.GARBAGE, f"the quotation does not stand in message {turn}: {quote}")
    shown = {"who": str(value["who"]), "what": str(value["what"]), "turn": turn, "quote": quote[:200]}
    return {**shown, "why": str(value.get("why") or "")[:500]}


class Opinions:
    """Answers that were paid for, kept in a file of JSON lines, so that the same command goes on where it stopped."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        for row in json_lines(path) if path is not None else ():
            if row is None:  # the last line of a process that was killed
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._known[str(row["key"])] = dict(row["opinion"])

    def get(self, key: str) -> dict[str, Any] | None:
        return self._known.get(key)

    def add(self, key: str, opinion: dict[str, Any]) -> None:
        """Keep an answer. Raises OSError: the file cannot be written."""
        self._known[key] = opinion
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": key, "opinion": opinion}, ensure_ascii=False)
            append_line(self._path, line if ends_with_a_whole_line(self._path) else f"\n{line}")


async def judge_all(
    asked: Sequence[tuple[Trajectory, Diagnosis]],
    spec: JudgeSpec,
    opinions: Opinions,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Fill ``judge`` of each diagnosis; a line for each that got no usable answer, and why.

    Raises:
        ConfigError: the model refuses the key, or its variable is not set: one error, however many episodes are left.
        BudgetSpent: the budget is used up; what was answered is kept.
    """
    spec = spec.resolved()
    done, problems = 0, list[str]()

    async def one(trajectory: Trajectory, diagnosis: Diagnosis) -> None:
        nonlocal done
        prompt = question(trajectory, diagnosis)
        key = hashlib.sha256(json.dumps([spec.model, spec.args, prompt], sort_keys=True).encode()).hexdigest()
        known = opinions.get(key)
        if known is not None:
            opinion = known
        else:
            try:
                opinion, _, _ = await answered(spec, prompt, lambda answer: read_opinion(answer, trajectory))
            except JudgeUnavailable as error:
                if error.fault is Fault.AUTHENTICATION:
                    raise ConfigError(f"{error}; nothing more was asked") from error
                problems.append(f"{diagnosis.episode}: {error}")
                return
            opinions.add(key, opinion)
        found = diagnosis.finding
        agrees = (opinion["who"], opinion["what"]) == (found.who.value, str(found.what))
        diagnosis.judge = {"model": spec.model, **opinion, "agrees": agrees}
        done += 1
        advance(done, len(asked))

    tasks = [asyncio.create_task(one(trajectory, diagnosis)) for trajectory, diagnosis in asked]
    try:
        await asyncio.gather(*tasks)
    except (ConfigError, BudgetSpent):
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return sorted(problems)
