"""A whole episode: played, blamed, scored, and everything that was counted in one `InteractionResult`.

There is no other way to a result. Whoever has an agent (slime's door, another framework's, an evaluation of a model behind
an API, a baseline) gets its result here; the agents differ only in where their words come from (`transcript.Speaker`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from tau2_slime.episode import interrupted
from tau2_slime.episode.conversation import Agent, Conversation, Limits
from tau2_slime.episode.interrupted import Saved
from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.episode.transcript import Transcript
from tau2_slime.errors import EpisodeAborted, first_time
from tau2_slime.outcome import Blame, Flaw, Termination, blame_for
from tau2_slime.runtime.threads import offload, until_abort
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.users import LitellmUser, User, UserStats, quality

logger = logging.getLogger(__name__)


class Player(Agent, Protocol):
    """An agent that keeps account of what it said; `trainable_agents` has them."""

    agent_type: str
    world: World
    transcript: Transcript
    tool_call_statuses: dict[str, int]
    conversation: Conversation | None
    """What is being played; set here."""


async def solve(
    agent: Player,
    user: User | None,
    limits: Limits,
    *,
    user_model: str = "",
    allow_judge: bool = False,
    aborted: Callable[[], bool] = lambda: False,
    saved: Saved | None = None,
    gate: Sequence[Flaw] = (),
) -> InteractionResult:
    """Play the agent's task to its end and score it; the contract is `TrainableAgentMixin.asolve`'s."""
    world, transcript = agent.world, agent.transcript
    started, clock = tau2_compat.load().get_now(), time.perf_counter()
    transcript.aborted = aborted
    conversation = agent.conversation = Conversation(world, agent, user, limits, aborted=aborted)
    before = saved.stats if saved is not None else EpisodeStats()
    if saved is None:
        termination, detail = await conversation.play()
    else:
        transcript.resume(saved.transcript, saved.ledger)
        agent.tool_call_statuses = dict(before.tool_calls)
        if user is not None:
            user.stats = _user_stats(before)
        termination, detail = await conversation.play(saved.conversation)
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
        agent_type=agent.agent_type,
        user_model=user_model,
        termination=termination,
        blame=blame,
        detail=detail,
        messages=conversation.messages,
        rejected_calls=conversation.rejected,
        ledger=transcript.ledger,
        generations=transcript.generations,
        earlier_generations=len(saved.transcript["generations"]) if saved is not None else 0,
    )
    ended = None
    if blame is not Blame.INFRASTRUCTURE and termination is not Termination.USER_ERROR:
        ended = (str(termination), detail)
        await _score(result, world, started, time.perf_counter() - clock, allow_judge, aborted)
    _fill_stats(result.stats, agent, conversation, user)
    _judge_user(result, world, user, gate)
    await _measure_drift(result, transcript)
    result.stats.total_time = before.total_time + time.perf_counter() - clock
    result.stats.resumes = before.resumes + (saved is not None)
    if result.termination is Termination.ABORTED:
        result.saved = interrupted.save(
            identity(agent, user_model), conversation.state(ended), transcript.state(), result.stats, result.ledger
        )
    return result


def identity(agent: Player, user_model: str) -> dict[str, str]:
    """What must be the same for an interrupted episode to be taken up again."""
    world = agent.world
    return {
        "domain": world.domain,
        "task_split": world.split,
        "task_id": str(world.task.id),
        "agent_type": agent.agent_type,
        "user_model": user_model,
    }


async def _score(
    result: InteractionResult,
    world: World,
    started: str,
    duration: float,
    allow_judge: bool,
    aborted: Callable[[], bool],
) -> None:
    """Give ``result`` its official reward, or the failure that kept it from one. Raises nothing but CancelledError."""
    score = functools.partial(
        scoring.score,
        world,
        result.messages,
        result.rejected_calls,
        result.termination,
        started=started,
        duration=duration,
        allow_judge=allow_judge,
    )
    try:
        # Mostly less work than handing it to another thread, which then has to wait for this one's lock.
        quick = scoring.is_quick(world, allow_judge=allow_judge)
        info = score() if quick else await until_abort(offload(score), aborted, grace=1.0)
    except EpisodeAborted as error:
        result.termination, result.blame = Termination.ABORTED, Blame.INFRASTRUCTURE
        result.detail = f"{error} for the reward"
        return
    except Exception as error:  # whatever the evaluator (or its judge) raised, the agent did not do it
        result.termination, result.blame = Termination.INFRASTRUCTURE_ERROR, Blame.INFRASTRUCTURE
        result.detail = f"scoring failed: {type(error).__name__}: {error}"
        return
    result.reward = float(info.reward)
    result.reward_info = info.model_dump(mode="json", exclude_none=True)


_USER_STATS = {"seconds": "user_time"}
"""Counters of `UserStats` that `EpisodeStats` has by another name than ``user_`` and theirs."""


def _fill_stats(stats: EpisodeStats, agent: Player, conversation: Conversation, user: User | None) -> None:
    stats.agent_turns, stats.user_turns = conversation.agent_turns, conversation.user_turns
    stats.steps = conversation.steps
    stats.agent_errors, stats.user_errors = conversation.agent_errors, conversation.user_errors
    transcript = agent.transcript
    stats.tool_calls, stats.junctions = agent.tool_call_statuses, transcript.junctions
    stats.resumed_aborts, stats.engine_retries = transcript.resumed_aborts, transcript.engine_retries
    stats.neutralised, stats.round_trip_failures = transcript.neutralised, transcript.round_trip_failures
    stats.generation_time = transcript.generation_time
    if user is not None:
        for name, value in dataclasses.asdict(user.stats).items():
            setattr(stats, _USER_STATS.get(name, f"user_{name}"), value)


def _user_stats(stats: EpisodeStats) -> UserStats:
    """What an earlier part of the episode had counted."""
    names = [f.name for f in dataclasses.fields(UserStats)]
    return UserStats(**{name: copy.copy(getattr(stats, _USER_STATS.get(name, f"user_{name}"))) for name in names})


def _judge_user(result: InteractionResult, world: World, user: User | None, gate: Sequence[Flaw]) -> None:
    if not isinstance(user, LitellmUser):  # the gold script is no customer, and nobody trains with it
        return
    findings = quality.examine(
        quality.turns_of(result.messages), str(world.task.user_scenario), has_tools=bool(world.user_tools)
    )
    result.stats.user_flaws = dict(Counter(str(finding.flaw) for finding in findings))
    barred = next((finding for finding in findings if finding.flaw in gate), None)
    if barred is not None and result.trainable:
        result.blame = Blame.USER
        result.detail = f"the user simulator's fault: {barred.flaw} ({barred.words[:80]!r})"


async def _measure_drift(result: InteractionResult, transcript: Transcript) -> None:
    try:
        result.stats.drift = await offload(transcript.drift)
    except Exception as error:  # a metric: whatever is wrong with it, the episode is whole
        if first_time(f"drift: {error}"):
            logger.exception("the drift meter failed on %s/%s", result.domain, result.task_id)
