"""Which task a solo episode plays. Its prompt has a ticket and no case reference, and τ²'s telecom tasks share five tickets.

Where tasks with the same ticket need different actions, the policy first calls tools that only read. It compares their
answers with those that each task's initial state would give, and so finds the task.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from tau2_slime.local.gold import DONE_TOOL, GoldScript, ScriptTurn
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import domains, splits, tasks

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.types import Call
    from tau2_slime.world.types import Environment, Task

logger = logging.getLogger(__name__)

Played = frozenset[tuple[str, str]]
"""Domains with a split or task file beside ``base``."""


@dataclass(frozen=True)
class _Candidate:
    """One of the tasks with the ticket."""

    script: GoldScript
    answers: tuple[str, ...]
    """What the tools answer to the case's questions in this task's initial state."""


@dataclass(frozen=True)
class SoloCase:
    """One ticket, and how to tell the tasks with that ticket apart."""

    name: str
    """``domain/id`` of the first task; empty if no task has the ticket."""
    questions: tuple[Call, ...]
    """Calls to make first. Empty if all the ticket's tasks have the same script."""
    candidates: tuple[_Candidate, ...]

    @classmethod
    def find(cls, ticket: str, played: Played = frozenset()) -> SoloCase:
        """The case of ``ticket``, among the tasks of each domain's ``base`` split and those that are ``played``.

        Takes seconds: it reads every domain's tasks and may build an environment for each.
        """
        domain, pool = _tasks_by_ticket(played).get(ticket.strip(), ("", []))
        scripts = [GoldScript.from_task(task, solo=True) for task in pool]
        name = f"{domain}/{pool[0].id}" if pool else ""
        if len({_script_key(script) for script in scripts}) < 2:
            return cls(name, (), tuple(_Candidate(script, ()) for script in scripts[:1]))
        answers = _Answers(domain, pool, scripts)
        questions = answers.choose_questions()
        candidates = tuple(_Candidate(script, answers.of(i, questions)) for i, script in enumerate(scripts))
        return cls(name, tuple(questions), candidates)

    def answer(self, heard: Sequence[str]) -> GoldScript:
        """The script of the task that fits ``heard``: the texts that followed the questions, in the questions' order."""
        fitting = [
            candidate
            for candidate in self.candidates
            if all(answer in text for answer, text in zip(candidate.answers, heard, strict=False))
        ]
        # One answer may be part of another one, so take the candidate whose answers are the longest.
        best = max(fitting or self.candidates, key=lambda c: sum(map(len, c.answers)), default=None)
        return GoldScript((ScriptTurn("call", (DONE_TOOL, {})),)) if best is None else best.script


MOST_TASKS = 300
"""Of a split or a task file beside ``base``: telling more of them apart would take minutes."""


@lru_cache(maxsize=8)
def _tasks_by_ticket(played: Played) -> dict[str, tuple[str, list[Task]]]:
    """Ticket -> domain and its tasks: of each domain's ``base`` split (its first split where it has no ``base``), and of
    what is ``played``."""
    found: dict[str, tuple[str, list[Task]]] = {}
    pools: list[tuple[str, Iterable[Task]]] = []
    for domain in domains():
        try:
            names = splits(domain)
            base = "base" if "base" in names else next(iter(names))
            pools.append((domain, tasks(domain, base)))
            others = sorted(split for owner, split in played if owner == domain and split != base)
            pools += [(domain, islice(tasks(domain, split), MOST_TASKS)) for split in others]
        except Exception as error:  # a domain that cannot be loaded here (a missing extra) has no tickets
            logger.info("no tickets from domain %s: %s", domain, error)
            continue
    for domain, pool in pools:
        for task in pool:
            owner, same = found.setdefault((task.ticket or "").strip(), (domain, []))
            # Telecom's tasks are there again under another domain's name, and a split shares tasks with another one.
            if owner == domain and not any(task is known for known in same):
                same.append(task)
    found.pop("", None)
    return found


def _script_key(script: GoldScript) -> str:
    return json.dumps([turn.call for turn in script.turns], sort_keys=True, default=str)


class _Answers:
    """What the reading tools answer in the initial state of each task."""

    def __init__(self, domain: str, pool: Sequence[Task], scripts: Sequence[GoldScript]) -> None:
        """``scripts``: one for each task of ``pool``."""
        self._scripts = [_script_key(script) for script in scripts]
        values = sorted({value for task in pool for value in _argument_values(task)})
        self._rows: list[dict[str, str]] = []
        self._calls: dict[str, Call] = {}
        for task in pool:
            environment = _initial_environment(domain, task)
            if not self._calls:
                self._calls = {json.dumps(call): call for call in _reading_calls(environment, values)}
            self._rows.append({key: _ask(environment, call) for key, call in self._calls.items()})

    def choose_questions(self) -> list[Call]:
        """A few calls whose answers tell tasks with different scripts apart, as far as any calls can."""
        keys = [key for key in self._calls if all(row[key] for row in self._rows)]
        chosen: list[str] = []
        while True:
            confused = self._confused(chosen)
            best = min(keys, key=lambda key: self._confused([*chosen, key]), default=None)
            if not confused or best is None or self._confused([*chosen, best]) == confused:
                return [self._calls[key] for key in chosen]
            chosen.append(best)

    def of(self, index: int, questions: Sequence[Call]) -> tuple[str, ...]:
        """The answers to ``questions`` in the initial state of task number ``index``."""
        return tuple(self._rows[index][json.dumps(call)] for call in questions)

    def _confused(self, keys: Sequence[str]) -> int:
        """How many tasks the answers to ``keys`` cannot tell from one with another script."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for row, script in zip(self._rows, self._scripts, strict=True):
            groups.setdefault(tuple(row[key] for key in keys), []).append(script)
        return sum(len(group) for group in groups.values() if len(set(group)) > 1)


def _initial_environment(domain: str, task: Task) -> Environment:
    environment: Environment = tau2_compat.build_environment(domain, solo=True, env_kwargs={})
    initial = task.initial_state
    environment.set_state(
        initialization_data=initial.initialization_data if initial else None,
        initialization_actions=initial.initialization_actions if initial else None,
        message_history=[],
    )
    return environment


def _argument_values(task: Task) -> Iterator[str]:
    """Names and ids in the arguments of the task's actions."""
    initial = task.initial_state
    for action in [*((initial and initial.initialization_actions) or []), *(task.evaluation_criteria.actions or [])]:
        yield from (value for value in action.arguments.values() if isinstance(value, str) and len(value) < 40)


def _reading_calls(environment: Environment, values: Sequence[str]) -> Iterator[Call]:
    """Calls that change nothing: of every tool without arguments, then of every tool with one, with each of ``values``."""
    single: list[tuple[str, str]] = []
    for kit in filter(None, (environment.user_tools, environment.tools)):
        for name, tool in kit.get_tools().items():
            required = tool.openai_schema["function"]["parameters"].get("required") or []
            if kit.tool_type(name).value != "read":
                continue
            if not required:
                yield name, {}
            elif len(required) == 1:
                single.append((name, required[0]))
    yield from ((name, {parameter: value}) for name, parameter in single for value in values)


def _ask(environment: Environment, call: Call) -> str:
    """The tool's answer; "" if it is an error."""
    result = environment.get_response(tau2_compat.load().ToolCall(id="q", name=call[0], arguments=dict(call[1])))
    return "" if result.error else str(result.content).strip()
