"""Does the agent keep to its domain's policy? Each call is judged in the state that it meets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from tau2_slime.errors import first_time
from tau2_slime.policy_rules import airline, mock, retail, telecom
from tau2_slime.policy_rules.rules import NOTHING_STATED, Call, DomainPolicy, Past, Stated, Violation
from tau2_slime.policy_rules.stated import stated_in
from tau2_slime.runtime import tracebacks
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.types import DB, Message, ToolCall

logger = logging.getLogger(__name__)

_MODULES: dict[str, ModuleType] = {"airline": airline, "retail": retail, "telecom": telecom, "mock": mock}
POLICIES: dict[str, DomainPolicy] = {name: cast(DomainPolicy, module) for name, module in _MODULES.items()}
"""Domain -> its rules. A domain that is missing here has none in code."""
WRITES, BROKEN = "writes", "broken"
"""Names of counters in `EpisodeStats.policy`, beside those of the rules."""


@dataclass
class PolicyWatch:
    """Judges calls one after the other. Whoever owns it plays them, and reports each with its answer."""

    policy: DomainPolicy
    stated: Stated = NOTHING_STATED
    past: Past = field(default_factory=Past)
    """What is known of the calls before: at first, what an earlier watch of the same calls came to know."""

    def violations(self, db: DB, call: Call) -> list[Violation]:
        """What ``call`` would break in the state ``db``. Arguments that do not fit the tool's schema break nothing here."""
        try:
            return list(self.policy.check(db, call, self.past, self.stated))
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
    watch = PolicyWatch(POLICIES[domain], stated)
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


def broken_rules(world: World, call: ToolCall, messages: Sequence[Message]) -> list[str] | None:
    """The rules that the agent's ``call`` would break now, each once; None if it is not a write that rules know.

    ``messages``: everything before it. A reason counts if the user has given it. Rules that τ²'s gold lists may leave out
    (`Rule.soft`) are not asked. Never raises. Well under a millisecond.
    """
    policy = POLICIES.get(world.domain)
    if policy is None or call.name not in policy.writes:
        return None
    try:
        if world.solo:
            told = str(getattr(world.task, "ticket", None) or "")
        else:
            told = "\n".join(str(message.content) for message in messages if message.role == "user" and message.content)
        with world.reading() as db:
            watch = PolicyWatch(policy, stated_in(world.domain, told))
            asked: list[ToolCall] = []
            for message in messages:
                if message.role != "tool":
                    asked = list(getattr(message, "tool_calls", None) or [])
                elif asked:
                    done = asked.pop(0)
                    made = Call(done.name, done.arguments, "user" if done.requestor == "user" else "assistant")
                    watch.ran(db, made, str(message.content or ""), error=bool(getattr(message, "error", False)))
            found = watch.violations(db, Call(call.name, call.arguments))
        return list(dict.fromkeys(one.rule.id for one in found if not one.rule.soft))
    except Exception as error:  # a metric, over whatever the policy has sampled: the episode goes on
        if first_time("policy rules", f"{world.domain} {call.name}: {error!r}"):
            tracebacks.log(logger, f"the policy rules failed on {world.domain} {call.name}", error)
        return None
