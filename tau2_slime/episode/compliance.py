"""Does the agent keep to its domain's policy? Each of its writes is judged in the state that it meets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.errors import first_time
from tau2_slime.policy_rules.check import POLICIES, PolicyWatch
from tau2_slime.policy_rules.rules import Call
from tau2_slime.policy_rules.stated import stated_in
from tau2_slime.runtime import tracebacks

if TYPE_CHECKING:
    from tau2_slime.world.domains import World
    from tau2_slime.world.types import Message, ToolCall

logger = logging.getLogger(__name__)

WRITES, BROKEN = "writes", "broken"
"""Names of counters in `EpisodeStats.policy`, beside those of the rules."""


def broken_rules(world: World, call: ToolCall, messages: Sequence[Message]) -> list[str] | None:
    """The rules that the agent's ``call`` would break now, each once; None if it is not a write that rules know.

    ``messages``: everything before it. A reason counts if the user has given it. Rules that τ²'s gold lists may leave out
    (`Rule.soft`) are not asked. Never raises. Well under a millisecond.
    """
    policy = POLICIES.get(world.domain)
    if policy is None or call.name not in policy.writes:
        return None
    try:
        with world.reading() as db:
            watch = PolicyWatch(world.domain, stated_in(world.domain, _told(world, messages)))
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


def _told(world: World, messages: Sequence[Message]) -> str:
    said = [str(message.content) for message in messages if message.role == "user" and message.content]
    return "\n".join(said) if not world.solo else str(getattr(world.task, "ticket", None) or "")
