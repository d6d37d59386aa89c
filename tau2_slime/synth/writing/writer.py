"""Texts by a model for tasks that the gates have accepted: intents and facts go out, never calls."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tau2_slime.errors import ConfigError, EpisodeAborted
from tau2_slime.policy_rules.rules import Stated
from tau2_slime.synth.frames import Intent
from tau2_slime.synth.gates.held_out import HoldOut
from tau2_slime.synth.verify import Judge
from tau2_slime.synth.writing.answers import Answer, EndpointLost, PaidAnswers, WriterSpec, prompt_hash
from tau2_slime.synth.writing.checks import problem
from tau2_slime.synth.writing.reader import question, reads_back
from tau2_slime.world import tau2_compat

TRIES = 3
STOPS = (ConfigError, EndpointLost, EpisodeAborted, OSError)
"""A refused key, a dead endpoint, a budget that is used up, a full disk."""
_SYSTEM = """\
You write what a customer of a company wants, for the person who plays the customer. Speak to that person as "you", in a \
few plain, natural sentences. Make every request of the list, with every fact of it word for word. Add nothing: no other \
wish, no condition, no number, no price, no name, no hint of what the company may do. Vary how you begin, and in which \
order you tell things. Answer with the text alone."""


class Writer:
    """Writes the texts of one set. The same answers give the same texts, in whatever order they come."""

    def __init__(
        self,
        answers: PaidAnswers,
        writer: WriterSpec,
        reader: WriterSpec,
        wordings: Mapping[str, Mapping[str, Sequence[str]]],
        hold_out: HoldOut,
    ) -> None:
        """``wordings``: domain -> kind -> sentences."""
        self._answers, self._writer, self._reader = answers, writer, reader
        self._wordings, self._hold_out = wordings, hold_out

    async def write_all(
        self, rows: Sequence[Mapping[str, Any]], advance: Callable[[int, int, float], None]
    ) -> tuple[list[dict[str, Any]], Exception | None]:
        """The events in their order, and what stopped the writing early, if anything did.

        ``advance``: told how many texts are done, of how many, and what they have cost in dollars.
        """
        due = [row for row in rows if row["accepted"]]
        written: dict[int, dict[str, Any]] = {}
        stopped: Exception | None = None
        cost = 0.0
        limit = asyncio.Semaphore(self._writer.concurrency)

        async def one(row: Mapping[str, Any]) -> None:
            nonlocal cost, stopped
            try:
                async with limit:
                    made = await self.write(row)
            except STOPS as error:  # what is written stays, and what is being answered is kept
                stopped = stopped or error
                self._answers.refuse(stopped)
                return
            written[id(row)] = made
            cost += made["writer"]["cost"]
            advance(len(written), len(due), cost)

        await asyncio.gather(*(one(row) for row in due))
        return [written.get(id(row), dict(row)) for row in rows], stopped

    async def write(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One event with a text of the model, or with its template after `TRIES` tries.

        Raises what `PaidAnswers.ask` raises.
        """
        domain, intents = str(row["key"][0]), intents_of(row)
        told = row["task"]["user_scenario"]["instructions"]
        template, known = told["reason_for_call"], told["known_info"]
        prompt = ask_for(intents, domain)
        first_prompt, cost, problems = prompt_hash(prompt), 0.0, list[str]()
        for attempt in range(TRIES):
            answer = await self._answers.ask(self._writer, prompt)
            cost += answer.cost
            text = " ".join(answer.text.split())
            why = problem(text, intents, template, known) if text else "the answer was empty, cut or refused"
            made = _with_text(row, text)
            why = why or self._gates(domain, made, row["stated"])
            if why is None:
                asked = question(domain, text, known, self._wordings[domain])
                agree, more = await reads_back(self._answers, self._reader, asked, intents)
                cost += more
                if agree:
                    return self._signed(made, "model", attempt + 1, first_prompt, cost, problems)
                why = "a reader of the text alone does not find exactly these requests in it"
            problems.append(why)
            prompt = _told_again(prompt, answer, why)
        return self._signed(dict(row), "template", TRIES, first_prompt, cost, problems)

    def _gates(self, domain: str, made: Mapping[str, Any], stated: Mapping[str, Any]) -> str | None:
        task = tau2_compat.load().Task.model_validate(made["task"])
        verdict = Judge(domain, hold_out=self._hold_out, templates=True).judge_alone(task, stated_of(stated))
        return next((f"{gate}: {reason}" for gate, reason in verdict.failed.items()), None)

    def _signed(
        self, row: dict[str, Any], text: str, attempts: int, prompt: str, cost: float, problems: list[str]
    ) -> dict[str, Any]:
        return {
            **row,
            "writer": {
                "model": self._writer.model,
                "reader": self._reader.model,
                "text": text,
                "attempts": attempts,
                "prompt_hash": prompt,
                "cost": cost,
                "problems": problems,
            },
        }


def ask_for(intents: Sequence[Intent], domain: str) -> list[dict[str, str]]:
    """The prompt for a text about ``intents``: kinds, what they are about, and the facts."""
    requests = [
        {
            "request": intent.kind.replace("_", " "),
            "about": dict(intent.slots),
            "word for word": [fact for facts in intent.facts.values() for fact in facts],
        }
        for intent in intents
    ]
    content = json.dumps({"company": domain, "requests": requests}, ensure_ascii=False, indent=1)
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": content}]


def _told_again(prompt: Sequence[Mapping[str, str]], answer: Answer, why: str) -> list[dict[str, str]]:
    refused = {"role": "assistant", "content": answer.text or "(nothing)"}
    return [
        *map(dict, prompt),
        refused,
        {"role": "user", "content": f"That cannot be used: {why}. Write the whole text again."},
    ]


def _with_text(row: Mapping[str, Any], text: str) -> dict[str, Any]:
    task = copy.deepcopy(row["task"])
    task["user_scenario"]["instructions"]["reason_for_call"] = text
    return {**row, "task": task}


def intents_of(row: Mapping[str, Any]) -> list[Intent]:
    """The intents of an event, as they stood before it was written down."""
    found = []
    for intent, facts, means in zip(row["intents"], row["must_say"], row["means"], strict=True):
        slots = {slot: value for slot, value in intent.items() if slot != "kind"}
        found.append(Intent(intent["kind"], slots, {slot: tuple(values) for slot, values in facts.items()}, means))
    return found


def stated_of(row: Mapping[str, Any]) -> Stated:
    """What the customer states, as it stood before it was written down."""
    reasons = row["cancel_reasons"]
    return Stated(None if reasons is None else frozenset(reasons), row["asked_for_compensation"], row["refuel_gb"])
