"""One whole episode of an agent that has no tokens: played by the same `Conversation`, scored by the same evaluator."""

from __future__ import annotations

import time
from collections.abc import Callable

from tau2_slime.episode import Agent, Conversation, Limits
from tau2_slime.outcome import Blame, InteractionResult, Termination, blame_for
from tau2_slime.trainable_agents import score_into
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.users import User


async def play(
    world: World,
    agent: Agent,
    user: User | None,
    limits: Limits,
    *,
    agent_type: str = "llm",
    user_model: str = "",
    allow_judge: bool = False,
    aborted: Callable[[], bool] = lambda: False,
) -> InteractionResult:
    """Play ``world.task`` to its end and score it. Raises nothing but CancelledError: failures are in the result."""
    started, clock = tau2_compat.load().get_now(), time.perf_counter()
    conversation = Conversation(world, agent, user, limits, aborted=aborted)
    termination, detail = await conversation.play()
    blame = blame_for(
        termination,
        agent_errors=conversation.agent_errors,
        user_errors=conversation.user_errors,
        agent_turns=conversation.agent_turns,
    )
    if blame is Blame.USER and termination is Termination.USER_STOP:
        detail = "the user ended the conversation before the agent had a turn"
    result = InteractionResult(
        domain=world.domain,
        task_split=world.split,
        task_id=world.task.id,
        agent_type=agent_type,
        user_model=user_model,
        termination=termination,
        blame=blame,
        detail=detail,
        messages=conversation.messages,
        rejected_calls=conversation.rejected,
    )
    if blame is not Blame.INFRASTRUCTURE and termination is not Termination.USER_ERROR:
        await score_into(result, world, started, time.perf_counter() - clock, allow_judge, aborted)
    stats = result.stats
    stats.agent_turns, stats.user_turns = conversation.agent_turns, conversation.user_turns
    stats.steps = conversation.steps
    stats.agent_errors, stats.user_errors = conversation.agent_errors, conversation.user_errors
    stats.total_time = time.perf_counter() - clock
    if user is not None:
        stats.user_time, stats.user_cost = user.stats.seconds, user.stats.cost
        stats.user_calls, stats.user_retries = user.stats.calls, user.stats.retries
    return result
