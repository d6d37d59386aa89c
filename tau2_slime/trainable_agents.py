"""What the policy is asked, and what its reply means.

`TrainableLLMAgent` is τ²'s LLM agent made trainable: its system prompt and tools are τ²'s own (asked from τ²'s agent
object), but the words are sampled token by token, and every token is kept in a ledger. `solo` and `gt` differ only in the
τ² agent they ask and in how an episode stops. The engine is an interface: whatever can continue token ids can play.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tau2_slime import resume
from tau2_slime.episode import AgentTurn, Conversation, Limits, PolicyStopped
from tau2_slime.errors import EpisodeAborted, first_time
from tau2_slime.flaws import Flaw
from tau2_slime.offload import offload, until_abort
from tau2_slime.outcome import Blame, EpisodeStats, InteractionResult, Termination, blame_for
from tau2_slime.policy import Policy, Speaker
from tau2_slime.resume import Saved
from tau2_slime.text import well_formed, well_formed_value
from tau2_slime.tokens.tool_calls import CallStatus, ParsedTurn
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.domains import World, tool_schema
from tau2_slime.world.users import LitellmUser, User, UserStats, quality

__all__ = [
    "AGENT_TYPES",
    "InteractionResult",
    "Policy",
    "TrainableAgentMixin",
    "TrainableGTAgent",
    "TrainableLLMAgent",
    "TrainableSoloAgent",
    "agent_factory",
]

logger = logging.getLogger(__name__)

# Calls that cannot be handed to the environment at all; it answers every other mistake (unknown tool, wrong arguments).
_UNPARSED = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


class TrainableAgentMixin:
    """Async policy calls over a token ledger, and `asolve`, which plays and scores a whole episode."""

    agent_type: str

    def __init__(self, world: World, policy: Speaker) -> None:
        """Raises ValueError if τ² does not let this kind of agent play ``world.task``."""
        self.world = world
        self.policy = policy
        self.tau2_agent = tau2_compat.build_agent(self.agent_type, world.agent_tools, world.policy, world.task)
        self.tools: list[dict[str, Any]] = [tool_schema(tool) for tool in self.tau2_agent.tools]
        self.transcript = policy.transcript(self.tools)
        self.tool_call_statuses: dict[str, int] = {}
        self._pending: list[dict[str, Any]] = []
        """Chat messages that the policy has not been shown yet."""
        self.conversation: Conversation | None = None
        """What is being played, from the start of `asolve` on."""

    # ---- episode.Agent -----------------------------------------------------------------------------------------------

    def start(self, history: list[Any]) -> None:
        system = {"role": "system", "content": self.tau2_agent.system_prompt}
        chat = [system, *(chat_message(message) for message in history)]
        if self.transcript.ledger is None:
            self._pending = chat
        else:
            self.transcript.adopt(chat)

    def is_stop(self, message: Any) -> bool:
        return bool(self.tau2_agent.is_stop(message))

    async def respond(self, message: Any | None) -> AgentTurn:
        if message is not None:
            parts = getattr(message, "tool_messages", None) or [message]
            self._pending.extend(chat_message(part) for part in parts)
        pending, self._pending = self._pending, []
        return self._turn(await self.transcript.turn(pending))

    # ---- meaning -----------------------------------------------------------------------------------------------------

    def _turn(self, parsed: ParsedTurn) -> AgentTurn:
        """The parsed reply as τ²'s message; malformed calls keep their place and carry their error."""
        t = tau2_compat.load()
        calls, rejected = [], {}
        for position, call in enumerate(parsed.calls):
            self.tool_call_statuses[str(call.status)] = self.tool_call_statuses.get(str(call.status), 0) + 1
            calls.append(
                t.ToolCall(
                    id=well_formed(call.id or f"call_{self.transcript.turns}_{position}"),
                    name=well_formed(call.name or "unknown"),
                    arguments=well_formed_value(call.arguments),
                    requestor="assistant",
                )
            )
            if call.status in _UNPARSED:
                rejected[position] = call.error or "the tool call could not be read"
        if not calls and not (parsed.content or "").strip():
            why = "its reasoning never closed" if parsed.reasoning_unclosed else "neither text nor a tool call"
            raise PolicyStopped(Termination.AGENT_ERROR, f"the policy sent an empty message: {why}")
        if len(calls) > 1 and not self.transcript.parallel_calls:
            raise PolicyStopped(
                Termination.AGENT_ERROR, f"{len(calls)} tool calls in one turn; this chat template knows one"
            )
        last = self.transcript.generations[-1] if self.transcript.generations else {}
        message = t.AssistantMessage(
            role="assistant",
            content=parsed.content,
            tool_calls=calls or None,
            cost=0.0,
            usage={
                "prompt_tokens": last.get("prompt_tokens", 0),
                "completion_tokens": last.get("completion_tokens", 0),
            },
            raw_data={"reasoning": parsed.reasoning} if parsed.reasoning else None,
        )
        self.transcript.chat.append(chat_message(message))
        return AgentTurn(self._finish_message(message), rejected)

    def _finish_message(self, message: Any) -> Any:
        return message

    # ---- the whole episode -------------------------------------------------------------------------------------------

    async def asolve(
        self,
        user: User | None,
        limits: Limits,
        *,
        user_model: str = "",
        allow_judge: bool = False,
        aborted: Callable[[], bool] = lambda: False,
        saved: Saved | None = None,
        gate: Sequence[Flaw] = (),
    ) -> InteractionResult:
        """Play the task to its end and score it; ``saved``: from where an earlier rollout left it.

        ``gate``: what makes an episode that is otherwise fine the simulator's failure, if its simulator did it.

        Raises nothing but CancelledError, and CannotResume if ``saved`` cannot be taken up: every failure of the episode
        is in the result.
        """
        t = tau2_compat.load()
        started, clock = t.get_now(), time.perf_counter()
        self.transcript.aborted = aborted
        conversation = self.conversation = Conversation(self.world, self, user, limits, aborted=aborted)
        before = saved.stats if saved is not None else EpisodeStats()
        if saved is None:
            termination, detail = await conversation.play()
        else:
            self.transcript.resume(saved.transcript, saved.ledger)
            self.tool_call_statuses = dict(before.tool_calls)
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
            domain=self.world.domain,
            task_split=self.world.split,
            task_id=self.world.task.id,
            agent_type=self.agent_type,
            user_model=user_model,
            termination=termination,
            blame=blame,
            detail=detail,
            messages=conversation.messages,
            rejected_calls=conversation.rejected,
            ledger=self.transcript.ledger,
            generations=self.transcript.generations,
            earlier_generations=len(saved.transcript["generations"]) if saved is not None else 0,
        )
        ended = None
        if blame is not Blame.INFRASTRUCTURE and termination is not Termination.USER_ERROR:
            ended = (str(termination), detail)
            await score_into(result, self.world, started, time.perf_counter() - clock, allow_judge, aborted)
        self._fill_stats(result, conversation, user)
        self._judge_user(result, user, gate)
        try:
            result.stats.drift = await offload(self.transcript.drift)
        except Exception as error:  # a metric: whatever is wrong with it, the episode is whole
            if first_time(f"drift: {error}"):
                logger.exception("the drift meter failed on %s/%s", self.world.domain, self.world.task.id)
        result.stats.total_time = before.total_time + time.perf_counter() - clock
        result.stats.resumes = before.resumes + (saved is not None)
        if result.termination is Termination.ABORTED:
            result.saved = resume.save(
                identity(self, user_model),
                conversation.state(ended),
                self.transcript.state(),
                result.stats,
                result.ledger,
            )
        return result

    def _judge_user(self, result: InteractionResult, user: User | None, gate: Sequence[Flaw]) -> None:
        if not isinstance(user, LitellmUser):  # the gold script is no customer, and nobody trains with it
            return
        findings = quality.examine(
            quality.turns_of(result.messages), str(self.world.task.user_scenario), has_tools=bool(self.world.user_tools)
        )
        result.stats.user_flaws = dict(Counter(str(finding.flaw) for finding in findings))
        barred = next((finding for finding in findings if finding.flaw in gate), None)
        if barred is not None and result.trainable:
            result.blame = Blame.USER
            result.detail = f"the user simulator's fault: {barred.flaw} ({barred.words[:80]!r})"

    def _fill_stats(self, result: InteractionResult, conversation: Conversation, user: User | None) -> None:
        stats = result.stats
        stats.agent_turns, stats.user_turns = conversation.agent_turns, conversation.user_turns
        stats.steps = conversation.steps
        stats.agent_errors, stats.user_errors = conversation.agent_errors, conversation.user_errors
        transcript = self.transcript
        stats.tool_calls, stats.junctions = self.tool_call_statuses, transcript.junctions
        stats.resumed_aborts, stats.engine_retries = transcript.resumed_aborts, transcript.engine_retries
        stats.neutralised, stats.round_trip_failures = transcript.neutralised, transcript.round_trip_failures
        stats.generation_time = transcript.generation_time
        if user is not None:
            for name, value in dataclasses.asdict(user.stats).items():
                setattr(stats, _USER_STATS.get(name, f"user_{name}"), value)


class TrainableLLMAgent(TrainableAgentMixin):
    """τ²'s ``llm_agent``."""

    agent_type = "llm"


class TrainableGTAgent(TrainableAgentMixin):
    """τ²'s ``llm_agent_gt``: the gold actions are in the system prompt."""

    agent_type = "gt"


class TrainableSoloAgent(TrainableAgentMixin):
    """τ²'s ``llm_agent_solo``: a ticket instead of a user; calling ``done`` ends the episode."""

    agent_type = "solo"

    def _finish_message(self, message: Any) -> Any:
        # τ²'s own rule: a message that calls `done` becomes the stop token, whatever else it calls.
        return self.tau2_agent._check_if_stop_toolcall(message) if message.tool_calls else message


AGENT_TYPES: dict[str, type[TrainableAgentMixin]] = {
    agent.agent_type: agent for agent in (TrainableLLMAgent, TrainableGTAgent, TrainableSoloAgent)
}


def agent_factory(agent_type: str, world: World, policy: Speaker) -> TrainableAgentMixin:
    """The agent of that type: ``llm``, ``solo`` or ``gt``.

    Raises:
        ValueError: an unknown type, or a task that this type of agent cannot play.
    """
    if agent_type not in AGENT_TYPES:
        raise ValueError(f"agent_type={agent_type!r} is unknown; there are: {', '.join(AGENT_TYPES)}")
    return AGENT_TYPES[agent_type](world, policy)


_USER_STATS = {"seconds": "user_time"}
"""Counters of `UserStats` that `EpisodeStats` has by another name than ``user_`` and theirs."""


def _user_stats(stats: EpisodeStats) -> UserStats:
    """What an earlier part of the episode had counted."""
    names = [f.name for f in dataclasses.fields(UserStats)]
    return UserStats(**{name: copy.copy(getattr(stats, _USER_STATS.get(name, f"user_{name}"))) for name in names})


async def score_into(
    result: InteractionResult,
    world: World,
    started: str,
    duration: float,
    allow_judge: bool,
    aborted: Callable[[], bool] = lambda: False,
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
        if random.random() < world.audit_rate:
            audit = scoring.audit(info, world, result.messages, result.rejected_calls, result.termination)
            info = await until_abort(audit, aborted)
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


def identity(agent: TrainableAgentMixin, user_model: str) -> dict[str, str]:
    """What must be the same for an interrupted episode to be taken up again."""
    world = agent.world
    return {
        "domain": world.domain,
        "task_split": world.split,
        "task_id": str(world.task.id),
        "agent_type": agent.agent_type,
        "user_model": user_model,
    }


def chat_message(message: Any) -> dict[str, Any]:
    """A τ² message as the plain dict that chat templates take."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.id, "content": message.content or ""}
    out: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.role == "assistant" and message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return out
