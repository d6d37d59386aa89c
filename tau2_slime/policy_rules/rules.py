"""What a policy rule is, what it may know, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

Record: TypeAlias = Any
"""A record of τ²'s database, or the database itself. Its fields are those of the domain's data model in τ²."""
Requestor = Literal["assistant", "user"]


@dataclass(frozen=True)
class Call:
    """One tool call of the agent or of the user."""

    name: str
    arguments: Mapping[str, Any]
    requestor: Requestor = "assistant"


@dataclass(frozen=True)
class Rule:
    """One clause of a domain's policy."""

    id: str
    """Such as ``R10``: a letter for the domain, and a number."""
    clause: str
    """What the policy asks for, in one sentence."""
    soft: bool = False
    """A gold list may leave it out: τ²'s own lists omit reads."""
    pattern: str = ""
    """A regular expression that matches the policy's own sentence; empty if no sentence says it."""


def by_id(*rules: Rule) -> dict[str, Rule]:
    """A domain's rules by their ids, in order."""
    return {rule.id: rule for rule in rules}


def ends_with_a_transfer(rule_id: str) -> Rule:
    """The rule that every domain with human agents has."""
    return Rule(
        rule_id,
        "nothing is changed after a transfer to a human",
        pattern=r"transfer the user to a human agent if and only if",
    )


class Violation(NamedTuple):
    """A rule that a call breaks, and why."""

    rule: Rule
    why: str
    own_pattern: str = ""
    """Like `Rule.pattern`, where the policy has a sentence for just this case."""

    @property
    def pattern(self) -> str:
        """Matches the sentence of the policy that is broken."""
        return self.own_pattern or self.rule.pattern

    def __str__(self) -> str:
        return f"{self.rule.id}: {self.why} ({self.rule.clause})"


@dataclass(frozen=True)
class Stated:
    """What only the customer can say. A field that is None is not known, and no rule judges by it."""

    cancel_reasons: frozenset[str] | None = None
    """Retail: the policy's own reasons that the customer gives, empty if it gives only others. Airline: ``health``,
    ``weather`` or ``other``."""
    asked_for_compensation: bool | None = None
    refuel_gb: float | None = None
    """Telecom: the amount of data that the customer wants to buy."""


NOTHING_STATED = Stated()


@dataclass(frozen=True)
class Past:
    """What happened before a call, as far as rules ask for it."""

    customer: str | None = None
    """The user id whose data the agent works with."""
    identified: bool = False
    transferred: bool = False
    writes: tuple[Call, ...] = ()
    changed: frozenset[str] = field(default_factory=frozenset)
    """Airline: reservations that were changed or cancelled."""

    def after(self, call: Call, *, customer: str | None, identified: bool, write: bool) -> Past:
        changed = self.changed
        if write and isinstance(call.arguments.get("reservation_id"), str):
            changed |= {call.arguments["reservation_id"]}
        return replace(
            self,
            customer=self.customer or customer,
            identified=self.identified or identified,
            transferred=self.transferred or call.name == "transfer_to_human_agents",
            writes=(*self.writes, call) if write else self.writes,
            changed=changed,
        )


def out_of_order(call: Call, past: Past, transfer: Rule, lookup: Rule | None = None) -> Iterator[Violation]:
    """What is wrong with the moment of a write: it comes after a transfer, or before the customer is looked up."""
    if past.transferred:
        yield Violation(transfer, f"{call.name} comes after the transfer")
    if lookup is not None and not past.identified:
        yield Violation(lookup, f"{call.name} comes before the customer is looked up")


def of_another_customer(rule: Rule, past: Past, what: str, owner: str) -> Iterator[Violation]:
    """``what`` does not belong to the customer with whom the agent works."""
    if past.customer is not None and owner != past.customer:
        yield Violation(rule, f"{what} belongs to {owner}, not to {past.customer}")


class DomainPolicy(Protocol):
    """The rules of one domain."""

    rules: Mapping[str, Rule]
    writes: frozenset[str]
    """Tools of the agent that change the database."""

    def check(self, db: Record, call: Call, past: Past, stated: Stated) -> Iterator[Violation]:
        """What ``call`` would break in the state ``db``, τ²'s database model of the domain, which is only read."""
        ...

    def customer(self, db: Record, call: Call, answer: str) -> str | None:
        """The user id that ``call`` works with, if that shows; ``answer`` is what τ² said to the call."""
        ...

    def identifies(self, call: Call) -> bool:
        """True if ``call`` looks the customer up as the policy asks."""
        ...
