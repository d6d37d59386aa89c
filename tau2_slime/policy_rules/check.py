"""The policy rules over a sequence of calls: each call is judged in the state that it meets."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from tau2_slime.policy_rules import airline, mock, retail, telecom
from tau2_slime.policy_rules.rules import NOTHING_STATED, Call, DomainPolicy, Past, Stated, Violation
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import DB

_MODULES: dict[str, ModuleType] = {"airline": airline, "retail": retail, "telecom": telecom, "mock": mock}
POLICIES: dict[str, DomainPolicy] = {name: cast(DomainPolicy, module) for name, module in _MODULES.items()}
"""Domain -> its rules. A domain that is missing here has none in code."""


class PolicyWatch:
    """Judges calls one after the other. Whoever owns it plays them, and reports each with its answer."""

    def __init__(self, domain: str, stated: Stated = NOTHING_STATED, past: Past | None = None) -> None:
        """Raises KeyError for a domain without rules. ``past``: what an earlier watch of the same calls came to know."""
        self.policy = POLICIES[domain]
        self.past = past or Past()
        self._stated = stated

    def violations(self, db: DB, call: Call) -> list[Violation]:
        """What ``call`` would break in the state ``db``. Arguments that do not fit the tool's schema break nothing here."""
        try:
            return list(self.policy.check(db, call, self.past, self._stated))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            return []

    def ran(self, db: DB, call: Call, answer: str, *, error: bool = False) -> None:
        """``call`` was played in the state ``db``, and τ² answered."""
        try:
            found = None if error else self.policy.customer(db, call, answer)
        except (KeyError, TypeError, AttributeError):
            found = None
        self.past = self.past.after(
            call,
            customer=found,
            identified=not error and self.policy.identifies(call),
            write=not error and call.name in self.policy.writes,
        )


def violations(
    domain: str, database: DB, calls: Iterable[Call], stated: Stated = NOTHING_STATED
) -> list[tuple[int, Violation]]:
    """(position of the call, the rule that it breaks), over calls that are played on a copy of ``database``.

    Soft rules are included; `Rule.soft` tells them. Only the agent's database is known here: calls of the user that need the
    user's own are answered with an error, and the agent's calls after them are judged all the same.

    Raises:
        KeyError: the domain has no rules in code.
    """
    watch = PolicyWatch(domain, stated)
    kit: Any = type(tau2_compat.build_environment(domain, solo=False, env_kwargs={}).tools)(deepcopy(database))
    found: list[tuple[int, Violation]] = []
    for position, call in enumerate(calls):
        found += [(position, violation) for violation in watch.violations(kit.db, call)]
        try:
            answer, error = str(kit.use_tool(call.name, **call.arguments)), False
        except Exception as failure:  # τ²'s tools raise whatever they like: the call failed
            answer, error = str(failure), True
        watch.ran(kit.db, call, answer, error=error)
    return found
