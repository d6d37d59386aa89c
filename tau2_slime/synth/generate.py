"""From a seed to accepted tasks: proposals in a fixed order, each judged, each verdict written down before the next one."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError
from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.synth import frames
from tau2_slime.synth.gates.held_out import HoldOut, held_out
from tau2_slime.synth.journal import Journal
from tau2_slime.synth.proposal import WRITES, Proposal
from tau2_slime.synth.sampling import airline, airline_wording, mock, retail, retail_wording, telecom, telecom_wording
from tau2_slime.synth.sandbox import Sandbox
from tau2_slime.synth.verify import Judge, Verdict
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.synth.workers import Workers
    from tau2_slime.world.types import Task

SAMPLER_VERSION = 2
MOST_ATTEMPTS = 400
"""Proposals and dead ends for one task; after them the database holds no more of the kind."""
DOMAINS = ("airline", "mock", "retail", "telecom")
SAMPLERS = {"airline": airline.AirlineSampler, "retail": retail.RetailSampler}
WORDINGS = {
    "airline": airline_wording.FRAMES,
    "mock": mock.FRAMES,
    "retail": retail_wording.FRAMES,
    "telecom": telecom_wording.FRAMES,
}


@dataclass(frozen=True)
class Plan:
    """One set of tasks of one difficulty."""

    domain: str
    difficulty: str
    count: int
    seed: int
    hold_out: HoldOut = "test"
    weights: Mapping[str, float] = field(default_factory=dict)
    """Kind of intent, in telecom a tool of the gold -> how often it is drawn, 1 if it is not named."""

    @property
    def prefix(self) -> str:
        """How the ids of its tasks begin: other tasks of the same seed, by weights or another hold-out, have other ids."""
        own = "" if self.hold_out == "test" and not self.weights else f"{self.hold_out} {sorted(self.weights.items())}"
        mark = f"-{hashlib.sha256(own.encode()).hexdigest()[:6]}" if own else ""
        return f"{self.domain}_{self.difficulty}_{self.seed}{mark}_"

    def check(self) -> None:
        """Raises ConfigError for what no sampler can make."""
        if self.domain not in DOMAINS:
            raise ConfigError(f"--domain {self.domain!r}: synth makes tasks for {', '.join(DOMAINS)}")
        if self.difficulty not in WRITES:
            raise ConfigError(f"--difficulty {self.difficulty!r} is unknown: it is {', '.join(WRITES)}")


@dataclass
class Event:
    """What became of one proposal."""

    plan: Plan
    slot: int
    attempt: int
    proposal: Proposal
    row: dict[str, Any]
    verdict: Verdict
    alone: bool
    """The gates accepted it before it was compared with the rest of the set."""

    def as_row(self) -> dict[str, Any]:
        """One line of the journal; the same for the same seed."""
        p = self.proposal
        return {
            "key": [self.plan.domain, self.plan.difficulty, self.plan.seed, self.slot, self.attempt],
            "accepted": self.verdict.accepted,
            "failed": self.verdict.failed,
            "task": self.row,
            "user": p.user,
            "intents": [{"kind": intent.kind, **dict(intent.slots)} for intent in p.intents],
            "must_say": [{slot: list(facts) for slot, facts in intent.facts.items()} for intent in p.intents],
            "means": [dict(intent.means) for intent in p.intents],
            "stated": {
                "cancel_reasons": sorted(p.stated.cancel_reasons) if p.stated.cancel_reasons is not None else None,
                "asked_for_compensation": p.stated.asked_for_compensation,
                "refuel_gb": p.stated.refuel_gb,
            },
            "writes": sum(
                call.name in POLICIES[self.plan.domain].writes or call.requestor == "user" for call in p.calls
            ),
            "calls": len(p.calls),
        }


class Generator:
    """The proposals of one plan. ``judge`` is shared by the plans of a set: nothing is made twice in it."""

    def __init__(self, plan: Plan, judge: Judge) -> None:
        plan.check()
        self.plan, self._judge = plan, judge
        self._users: list[str] = []
        self._box: Sandbox | None = None
        if plan.domain in ("retail", "airline"):
            self._box = Sandbox(plan.domain, blank_task())
            banned = held_out(plan.domain, plan.hold_out).users if plan.hold_out != "none" else set()
            with self._box.reading() as db:
                room = (retail if plan.domain == "retail" else airline).users(db)
            least = WRITES[plan.difficulty][0]
            self._users = [user for user, count in room.items() if count >= least and user not in banned]

    def events(self, begin: tuple[int, int] = (0, 0), workers: Workers | None = None) -> Iterator[Event]:
        """Every proposal from (slot, attempt) ``begin`` on, judged. Ends early where the database holds no more.

        ``workers``: processes that make and judge slots ahead; the events are the same without them.
        """
        slot, attempt = begin
        ahead = workers.slots(self.plan, slot + 1) if workers is not None else None
        made = self.slot(slot, attempt) if slot < self.plan.count else []
        while slot < self.plan.count:
            admitted = False
            for event in made:
                event.verdict = self._judge.admit(_task(event.row), event.verdict)
                admitted, attempt = event.verdict.accepted, event.attempt + 1
                yield event
            if admitted:
                slot, attempt = slot + 1, 0
                if slot < self.plan.count:
                    made = next(ahead) if ahead is not None else self.slot(slot)
            elif made and made[-1].alone:
                made = self.slot(slot, attempt)  # like another task of the set
            else:
                return

    def slot(self, slot: int, attempt: int = 0) -> list[Event]:
        """The proposals of one slot from ``attempt`` on, up to one that the gates accept, without a look at other slots."""
        made: list[Event] = []
        for number in range(attempt, MOST_ATTEMPTS):
            proposal = self._propose(slot, number)
            if proposal is None:
                continue
            row = proposal.task_row(f"{self.plan.prefix}{slot:05d}")
            verdict = self._judged(proposal, _task(row))
            made.append(Event(self.plan, slot, number, proposal, row, verdict, alone=verdict.accepted))
            if verdict.accepted:
                break
        return made

    def draws(self, count: int) -> Iterator[Proposal]:
        """What is drawn first for ``count`` tasks, not judged; fewer where the database gives nothing."""
        drawn = (self._propose(slot, 0) for slot in range(count))
        return (proposal for proposal in drawn if proposal is not None)

    def _propose(self, slot: int, attempt: int) -> Proposal | None:
        plan = self.plan
        rng = random.Random(f"{SAMPLER_VERSION} {plan.domain} {plan.difficulty} {plan.seed} {slot} {attempt}")
        if plan.domain == "telecom":
            deck = telecom.Deck(plan.difficulty, plan.hold_out, plan.seed, tuple(sorted(plan.weights.items())))
            return telecom.propose(rng, deck, slot=slot, first=attempt == 0)
        if plan.domain == "mock":
            return mock.propose(rng, plan.difficulty, plan.weights)
        if not self._users:
            return None
        assert self._box is not None
        user = rng.choice(self._users)
        sampler = SAMPLERS[plan.domain](rng, self._box, user, plan.weights)
        return sampler.build(plan.difficulty)

    def _judged(self, proposal: Proposal, task: Task) -> Verdict:
        understood = frames.read(proposal.reason, WORDINGS[self.plan.domain])
        if understood is None or not frames.same(understood, proposal.intents):
            return Verdict(task.id, {"G17": "the text does not read as its intents"}, {})
        return self._judge.judge_alone(task, proposal.stated)


def _task(row: Mapping[str, Any]) -> Task:
    task: Task = tau2_compat.load().Task.model_validate(row)
    return task


def blank_task() -> Task:
    """A task without initial state and gold, for an untouched environment."""
    return _task(
        {
            "id": "blank",
            "user_scenario": {"instructions": "nothing"},
            "evaluation_criteria": {"actions": [], "reward_basis": ["DB"]},
        }
    )


def run(
    plans: Sequence[Plan],
    journal: Journal,
    *,
    seen: Sequence[Mapping[str, Any]] = (),
    workers: Workers | None = None,
    done: Callable[[Mapping[str, Any], int, int], None] = lambda row, accepted, total: None,
) -> list[dict[str, Any]]:
    """Make what ``plans`` ask for, and return all events in their order, those of an interrupted run included.

    Args:
        seen: rows of tasks that exist already (``--output-file``); nothing is made like them.
        workers: processes to share the work among; the events are the same without them.
        done: told about each event, with how many tasks are accepted, of how many.
    """
    judges: dict[str, Judge] = {}
    for plan in plans:
        plan.check()
        judges.setdefault(plan.domain, Judge(plan.domain, hold_out=plan.hold_out, templates=True))
    known = [(row, _domain_of(row)) for row in seen]
    for task_row, domain in [*known, *((r["task"], r["key"][0]) for r in journal.rows if r["accepted"])]:
        if domain in judges:
            judges[domain].remember(_task(task_row))
    total = sum(plan.count for plan in plans)
    accepted = sum(row["accepted"] for row in journal.rows)
    for plan in plans:
        own = [row for row in journal.rows if row["key"][:3] == [plan.domain, plan.difficulty, plan.seed]]
        begin = (0, 0)
        if any(not str(row["task"]["id"]).startswith(plan.prefix) for row in own):
            raise ConfigError(f"{journal.path.parent} was begun with another --hold-out; give another --output-dir")
        if own:
            _, _, _, slot, attempt = own[-1]["key"]
            begin = (slot + 1, 0) if own[-1]["accepted"] else (slot, attempt + 1)
        for event in Generator(plan, judges[plan.domain]).events(begin, workers):
            row = event.as_row()
            journal.add(row)
            accepted += event.verdict.accepted
            done(row, accepted, total)
    wanted = [[plan.domain, plan.difficulty, plan.seed] for plan in plans]
    return sorted(
        (r for r in journal.rows if r["key"][:3] in wanted), key=lambda r: (wanted.index(r["key"][:3]), r["key"][3:])
    )


def _domain_of(row: Mapping[str, Any]) -> str:
    told = row["user_scenario"]["instructions"]
    return str(told.get("domain", "")) if isinstance(told, Mapping) else ""


def yields(rows: Sequence[Mapping[str, Any]]) -> tuple[int, Counter[str]]:
    """(accepted, gate -> rejected proposals)."""
    gates: Counter[str] = Counter()
    for row in rows:
        gates.update(row["failed"])
    return sum(bool(row["accepted"]) for row in rows), gates
