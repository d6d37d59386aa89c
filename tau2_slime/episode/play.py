"""A whole episode: played, scored, blamed and counted, in one `InteractionResult`.

Every door gets its result here: slime's, another framework's, an evaluation of a model behind an API, a baseline. They
differ only in where the agent's words come from (`transcript.Speaker`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tau2_slime.episode import interrupted, own_functions
from tau2_slime.episode.conversation import Conversation, Limits
from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.errors import EpisodeAborted, first_time
from tau2_slime.outcome import Blame, Flaw, Termination, blame_for
from tau2_slime.runtime import tracebacks
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import offload
from tau2_slime.runtime.secrets import described, redact
from tau2_slime.tokens.calls.action_text import NATIVE
from tau2_slime.world import judge, scoring, tau2_compat
from tau2_slime.world.judge import JudgeSpec
from tau2_slime.world.users import User, UserStats, quality

if TYPE_CHECKING:
    from tau2_slime.episode.agents import TrainableLLMAgent
    from tau2_slime.episode.interrupted import EpisodeIdentity, Saved

logger = logging.getLogger(__name__)


@dataclass
class EpisodeSetup:
    """What one episode is played with; `setup.build_episode` makes it from a configuration."""

    agent: TrainableLLMAgent
    user: User | None
    """None exactly in solo episodes."""
    limits: Limits
    user_model: str = ""
    """Name of the user simulator, as results show it."""
    judge: JudgeSpec | None = None
    """Who judges where the task's reward needs an LLM judge; None: such a task cannot be scored."""
    excluded_flaws: tuple[Flaw, ...] = ()
    """An episode whose user simulator shows one of these counts as the simulator's failure."""
    examine_user: bool = False
    """Look for flaws in what the user simulator said: True for every user but the scripted ones."""
    metrics: tuple[str, ...] = ()
    """Dotted paths of the run's own metrics (`own_functions.Metric`)."""
    reward_parts: tuple[str, ...] = ()
    """Dotted paths of the run's own reward parts (`own_functions.RewardPart`)."""
    seeds: dict[str, int] = field(default_factory=dict)
    """By role (``user``, ``policy``): the seed with which its model is asked, where there is one."""
    user_strategy: str = "llm"
    """How the simulator comes to its messages (`world.users.strategies`)."""
    after_hop: Callable[[], object] | None = None
    """Called after each hop of the conversation."""
    conversation: Conversation | None = None
    """Set by `play_and_score`: the episode in progress, or over."""
    taken_up: Saved | None = None
    """Set by `play_and_score`: what it was taken up from."""

    @property
    def identity(self) -> EpisodeIdentity:
        world = self.agent.world
        return {
            "domain": world.domain,
            "task_split": world.split,
            "task_id": str(world.task.id),
            "agent_type": self.agent.agent_type,
            "agent_path": self.agent.path,
            "agent_strategy": NATIVE if self.agent.transcript.actions is None else self.agent.transcript.actions.name,
            "user_model": self.user_model,
            "user_strategy": self.user_strategy,
            "retrieval_variant": str(world.env_kwargs.get("retrieval_variant", "")),
        }


async def play_and_score(
    setup: EpisodeSetup, *, aborted: Callable[[], bool] = lambda: False, saved: Saved | None = None
) -> InteractionResult:
    """Play the task to its end and score it.

    ``aborted`` is looked at four times a second; once it is true, the episode ends as ABORTED and the result's ``saved``
    holds what a later call needs to go on. ``saved``: what an earlier call left.

    Raises:
        CancelledError: the caller was cancelled.
        CannotResume: ``saved`` does not fit this episode. Every other failure is in the result.
    """
    agent, user, setup.taken_up = setup.agent, setup.user, saved
    world, transcript = agent.world, agent.transcript
    started, clock = tau2_compat.load().get_now(), time.perf_counter()
    transcript.aborted = aborted
    conversation = setup.conversation = Conversation(
        world, agent, user, setup.limits, aborted=aborted, after_hop=setup.after_hop
    )
    before = saved.stats if saved is not None else EpisodeStats()
    if saved is not None:
        transcript.resume(saved.transcript, saved.ledger)
        agent.tool_call_statuses = dict(before.tool_calls)
        conversation.policy.update(before.policy)
        if user is not None:
            user.stats = _user_stats(before)
    termination, detail = await conversation.play(saved.conversation if saved is not None else None)
    blame = blame_for(
        termination,
        agent_errors=conversation.agent_errors,
        user_errors=conversation.user_errors,
        agent_turns=conversation.agent_turns,
    )
    if blame is Blame.USER and termination is Termination.USER_STOP:
        detail = "the user ended the conversation before the agent had a turn"
    result = _result(setup, conversation, termination, blame, detail, saved)
    ended = None
    if blame is not Blame.INFRASTRUCTURE and termination is not Termination.USER_ERROR:
        ended = (str(termination), result.detail)
        await _score(result, setup, started, time.perf_counter() - clock, aborted)
    _count(result.stats, setup, conversation)
    if setup.examine_user:
        _examine_user(result, setup)
    if transcript.measures_drift and result.termination is not Termination.ABORTED:
        await _measure_drift(result, setup)
    result.stats.total_time = before.total_time + time.perf_counter() - clock
    result.stats.resumes = before.resumes + (saved is not None)
    if result.trainable and (setup.metrics or setup.reward_parts):
        await _call_own_functions(result, setup)
    if result.termination is Termination.ABORTED:
        result.saved = interrupted.save(setup.identity, conversation, transcript, result.stats, ended)
    return result


def so_far(setup: EpisodeSetup) -> InteractionResult:
    """The episode in progress as if it were aborted now, so that it can be kept; its ``saved`` is what goes on from here.

    Call it after a hop, while somebody is asked for a message, or after a failure.

    Raises:
        ValueError: the episode has not begun.
    """
    if setup.conversation is None:
        raise ValueError("the episode has not begun")
    saved = setup.taken_up
    result = _result(setup, setup.conversation, Termination.ABORTED, Blame.INFRASTRUCTURE, "", saved)
    _count(result.stats, setup, setup.conversation)
    if saved is not None:
        result.stats.total_time, result.stats.resumes = saved.stats.total_time, saved.stats.resumes
    result.saved = interrupted.save(
        setup.identity, setup.conversation, setup.agent.transcript, result.stats, setup.conversation.ended
    )
    return result


def _result(
    setup: EpisodeSetup,
    conversation: Conversation,
    termination: Termination,
    blame: Blame,
    detail: str,
    saved: Saved | None,
) -> InteractionResult:
    """What was said, with the ending; neither scored nor counted."""
    transcript = setup.agent.transcript
    return InteractionResult(
        **setup.identity,
        termination=termination,
        blame=blame,
        examples=setup.agent.examples_text,
        detail=redact(detail) if detail else "",
        messages=conversation.messages,
        rejected_calls=conversation.rejected,
        ledger=transcript.ledger,
        generations=transcript.generations,
        earlier_generations=len(saved.transcript["generations"]) if saved is not None else 0,
    )


async def _call_own_functions(result: InteractionResult, setup: EpisodeSetup) -> None:
    def call() -> tuple[dict[str, float], dict[str, float]]:
        metrics = own_functions.custom_metrics(result, setup.metrics)
        return metrics, own_functions.reward_parts(result, setup.reward_parts)

    result.custom_metrics, result.reward_parts = await offload(call)


async def _score(
    result: InteractionResult, setup: EpisodeSetup, started: str, duration: float, aborted: Callable[[], bool]
) -> None:
    """Give ``result`` its official reward, or the failure that kept it from one. Raises nothing but CancelledError."""
    world, judgement = setup.agent.world, None
    score = functools.partial(
        scoring.score,
        world,
        result.messages,
        result.rejected_calls,
        result.termination,
        started=started,
        duration=duration,
        allow_judge=setup.judge is not None,
    )
    try:
        if setup.judge is not None and _is_judged(result, setup):
            said = scoring.replayable(result.messages, result.rejected_calls)
            async with UntilAbort(aborted):
                judgement = await judge.ask(setup.judge, world.task, said)
            score.keywords["verdicts"] = judgement.verdicts
        # Quick scoring takes less than handing it to another thread, which would wait for this one's lock.
        if scoring.is_quick(world, allow_judge=setup.judge is not None):
            info = score()
        else:
            async with UntilAbort(aborted, grace=1.0):
                info = await offload(score)
    except EpisodeAborted as error:
        result.termination, result.blame = Termination.ABORTED, Blame.INFRASTRUCTURE
        result.detail = f"{error} for the reward"
        return
    except Exception as error:
        raising = scoring.raising_assertion(world)
        if raising is not None:  # the agent left a state that an assertion cannot even read: then it is not met
            result.reward, result.reward_info = 0.0, {"reward": 0.0, "info": {"note": f"not met, it raises: {raising}"}}
            return
        result.termination, result.blame = Termination.INFRASTRUCTURE_ERROR, Blame.INFRASTRUCTURE
        result.detail = f"scoring failed: {described(error)}"
        return
    result.reward = float(info.reward)
    result.reward_info = info.model_dump(mode="json", exclude_none=True)
    if judgement is not None:
        result.reward_info["info"] = {**(result.reward_info.get("info") or {}), "judge": judgement.record()}


def _is_judged(result: InteractionResult, setup: EpisodeSetup) -> bool:
    """True if τ² would ask its judge about this episode: not about one that was stopped, which earns 0."""
    ended = result.termination in (Termination.AGENT_STOP, Termination.USER_STOP)
    return ended and scoring.needs_judge(setup.agent.world.task)


_USER_STATS = {"seconds": "user_time"}
"""Counters of `UserStats` that `EpisodeStats` has under a name other than ``user_<name>``."""


def _count(stats: EpisodeStats, setup: EpisodeSetup, conversation: Conversation) -> None:
    stats.agent_turns, stats.user_turns = conversation.agent_turns, conversation.user_turns
    stats.steps, stats.seeds = conversation.steps, dict(setup.seeds)
    stats.agent_errors, stats.user_errors = conversation.agent_errors, conversation.user_errors
    stats.policy = dict(conversation.policy)
    transcript = setup.agent.transcript
    stats.tool_calls, stats.junctions = setup.agent.tool_call_statuses, transcript.junctions
    stats.resumed_aborts, stats.engine_retries = transcript.resumed_aborts, transcript.engine_retries
    stats.neutralised, stats.round_trip_failures = transcript.neutralised, transcript.round_trip_failures
    stats.generation_time = transcript.generation_time
    if setup.user is not None:
        for name in UserStats.__dataclass_fields__:
            setattr(stats, _USER_STATS.get(name, f"user_{name}"), getattr(setup.user.stats, name))


def _user_stats(stats: EpisodeStats) -> UserStats:
    """What an earlier part of the episode had counted."""
    names = [f.name for f in dataclasses.fields(UserStats)]
    return UserStats(**{name: copy.copy(getattr(stats, _USER_STATS.get(name, f"user_{name}"))) for name in names})


def _examine_user(result: InteractionResult, setup: EpisodeSetup) -> None:
    """Count the user simulator's flaws; one of `EpisodeSetup.excluded_flaws` makes the episode the simulator's failure."""
    world = setup.agent.world
    findings = quality.examine(
        quality.turns_of(result.messages),
        str(world.task.user_scenario),
        has_tools=bool(world.user_tools),
        given=len(quality.turns_of(world.history)),
    )
    result.stats.user_flaws = dict(Counter(str(finding.flaw) for finding in findings))
    barred = next((finding for finding in findings if finding.flaw in setup.excluded_flaws), None)
    if barred is not None and result.trainable:
        result.blame = Blame.USER
        result.detail = f"the user simulator's fault: {barred.flaw} ({barred.words[:80]!r})"


async def _measure_drift(result: InteractionResult, setup: EpisodeSetup) -> None:
    try:
        result.stats.drift = await offload(setup.agent.transcript.drift)
    except Exception as error:  # a metric: whatever is wrong with it, the episode is whole
        if first_time("drift meter", str(error)):
            tracebacks.log(logger, f"the drift meter failed on {result.domain}/{result.task_id}", error)
