"""What the policy is asked, and what its reply means.

`TrainableLLMAgent` is τ²'s LLM agent made trainable: its system prompt and tools are τ²'s own (asked from τ²'s agent
object), but the words are sampled token by token, and every token is kept in a ledger. `solo` and `gt` differ only in the
τ² agent they ask and in how an episode stops. The engine is an interface: whatever can continue token ids can play.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tau2_slime.episode import AgentTurn, Conversation, Limits, PolicyStopped
from tau2_slime.errors import EngineError, EngineUnavailable, EpisodeAborted
from tau2_slime.offload import offload, until_abort
from tau2_slime.outcome import Blame, InteractionResult, Termination, blame_for
from tau2_slime.tokens.chat_template import TemplateError
from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.tool_calls import CallStatus, ParsedTurn, ToolCallParser
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.users import User

if TYPE_CHECKING:
    from tau2_slime.tokens.chat_delta import ChatDelta
    from tau2_slime.tokens.engine import Completion

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

# A worker that updates its weights answers "aborted" until it is done; asking it more often helps nobody.
_RESUME_PAUSE = 0.2
_MAX_EMPTY_ABORTS = 3000

# Calls that cannot be handed to the environment at all; it answers every other mistake (unknown tool, wrong arguments).
_UNPARSED = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


class Engine(Protocol):
    """Continues token ids. `SglangEngine` is one; a Tinker sampling client behind an adapter is another."""

    async def generate(
        self,
        input_ids: list[int],
        sampling_params: dict[str, Any],
        *,
        routing_key: str,
        aborted: Callable[[], bool] = ...,
        extra: dict[str, Any] | None = None,
    ) -> Completion: ...


@dataclass
class Policy:
    """Everything that turns a conversation into sampled tokens, for one episode."""

    delta: ChatDelta
    parser: ToolCallParser
    engine: Engine
    sampling_params: Mapping[str, Any]
    """slime's sampling parameters; never changed, only ``max_new_tokens`` and ``stop_token_ids`` are set per call."""
    max_new_tokens: int
    """Tokens per turn at most."""
    context_limit: int | None = None
    """Tokens of the whole trajectory at most."""
    routing_key: str = ""
    stop_mismatch: Literal["replace", "end"] = "replace"
    measure_drift: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """Further top-level fields of every generate request."""


class TrainableAgentMixin:
    """Async policy calls over a token ledger, and `asolve`, which plays and scores a whole episode."""

    agent_type: str

    def __init__(self, world: World, policy: Policy) -> None:
        """Raises ValueError if τ² does not let this kind of agent play ``world.task``."""
        self.world = world
        self.policy = policy
        self.tau2_agent = tau2_compat.build_agent(self.agent_type, world.agent_tools, world.policy, world.task)
        self.tools: list[dict[str, Any]] = [tool.openai_schema for tool in self.tau2_agent.tools]
        self.ledger: TokenLedger | None = None
        self.generations: list[dict[str, Any]] = []
        self.tool_call_statuses: dict[str, int] = {}
        self.junctions: dict[str, int] = {}
        self.resumed_aborts = self.engine_retries = self.neutralised = self.round_trip_failures = 0
        self.generation_time = 0.0
        self.joins: list[tuple[int, int]] = []
        """Range of chat messages that each context segment of the ledger stands for."""
        self._aborted: Callable[[], bool] = lambda: False
        # The conversation as the chat template sees it: `_chat` is in the ledger, `_pending` is not yet.
        self._chat: list[dict[str, Any]] = []
        self._pending: list[dict[str, Any]] = []
        self._last_finish: Literal["stop", "length", "abort"] = "stop"
        self._turns = 0

    # ---- episode.Agent -----------------------------------------------------------------------------------------------

    def start(self, history: list[Any]) -> None:
        self._chat = [{"role": "system", "content": self.tau2_agent.system_prompt}]
        self._pending = [chat_message(message) for message in history]

    def is_stop(self, message: Any) -> bool:
        return bool(self.tau2_agent.is_stop(message))

    async def respond(self, message: Any | None) -> AgentTurn:
        if message is not None:
            parts = getattr(message, "tool_messages", None) or [message]
            self._pending.extend(chat_message(part) for part in parts)
        await self._feed()
        text, reasoning_open = await self._sample_turn()
        parsed = self.policy.parser.parse(text, self.tools, reasoning_open=reasoning_open)
        return self._turn(parsed)

    # ---- tokens ------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Put the pending messages into the ledger, in the chat template's own words."""
        delta = self.policy.delta
        if self.ledger is None:
            self._chat += self._pending
            try:
                first = await offload(delta.first_prompt_delta, list(self._chat), self.tools)
            except TemplateError as error:
                raise EngineError(f"chat template: {error}") from error
            self.neutralised += first.neutralised
            self.round_trip_failures += not first.round_trip_ok
            self.ledger = TokenLedger(first.ids)
        else:
            history, assistant = self._chat[:-1], self._chat[-1]
            try:
                addition = delta.between(history, assistant, self._pending, self.tools)
            except TemplateError as error:
                raise EngineError(f"chat template: {error}") from error
            self.neutralised += addition.neutralised
            self.round_trip_failures += not addition.round_trip_ok
            junction = delta.join(
                self.ledger,
                addition,
                finish=self._last_finish,
                stop_mismatch=self.policy.stop_mismatch,
                no_closer="synthesise",  # a turn cut by length never gets here; a stop string leaves no closer
            )
            self.junctions[junction.kind] = self.junctions.get(junction.kind, 0) + 1
            if junction.kind == "ended":
                raise PolicyStopped(
                    Termination.AGENT_ERROR,
                    "the turn did not end with the chat template's stop token (stop_mismatch: end)",
                )
            self.joins.append((len(self._chat), len(self._chat) + len(self._pending)))
            self._chat += self._pending
        self._pending = []

    async def _sample_turn(self) -> tuple[str, bool]:
        """Sample one assistant turn into the ledger: its text without the stop token, and whether reasoning was open."""
        assert self.ledger is not None
        policy, ledger = self.policy, self.ledger
        begin = len(ledger.tokens)
        budget, clamped = policy.max_new_tokens, False
        if policy.context_limit is not None and policy.context_limit - begin < budget:
            budget, clamped = policy.context_limit - begin, True
        if budget < 1:
            raise PolicyStopped(
                Termination.CONTEXT_LENGTH, f"{begin} tokens fill the context of {policy.context_limit}"
            )
        empty = 0
        while True:
            left = budget - (len(ledger.tokens) - begin)
            completion = await self._generate(ledger.tokens, left)
            if completion.ids:
                ledger.append_sampled(completion.ids, completion.log_probs, completion.weight_version)
            if completion.finish != "abort":
                break
            if self._aborted():
                raise EpisodeAborted("aborted while the policy was generating")
            # Not our abort: the server cut every request short for a weight update. Go on with the same turn.
            self.resumed_aborts += 1
            if budget - (len(ledger.tokens) - begin) < 1:
                completion.finish = "length"
                break
            empty = 0 if completion.ids else empty + 1
            if empty > _MAX_EMPTY_ABORTS:
                raise EngineUnavailable("the server keeps aborting the request before it samples a token")
            await until_abort(asyncio.sleep(_RESUME_PAUSE if empty else 0), self._aborted)
        self._last_finish = completion.finish
        self._turns += 1
        if completion.finish == "length":
            if clamped:
                raise PolicyStopped(
                    Termination.CONTEXT_LENGTH, f"the turn filled the context of {policy.context_limit}"
                )
            raise PolicyStopped(Termination.RESPONSE_LENGTH, f"the turn reached {policy.max_new_tokens} tokens")
        ids = ledger.tokens[begin:]
        if ids and (ids[-1] in policy.delta.stop_ids or completion.matched == ids[-1]):
            ids = ids[:-1]
        return policy.delta.template.decode(ids), policy.delta.report.reasoning_preopened

    async def _generate(self, input_ids: list[int], max_new_tokens: int) -> Completion:
        policy = self.policy
        params = dict(policy.sampling_params)
        params["max_new_tokens"] = max_new_tokens
        params["stop_token_ids"] = sorted({*(params.get("stop_token_ids") or []), *policy.delta.stop_ids})
        started = time.perf_counter()
        try:
            completion = await policy.engine.generate(
                list(input_ids), params, routing_key=policy.routing_key, aborted=self._aborted, extra=policy.extra
            )
        finally:
            self.generation_time += time.perf_counter() - started
        self.engine_retries += completion.retries
        self.generations.append({k: v for k, v in completion.meta.items() if not isinstance(v, list)})
        return completion

    # ---- meaning -----------------------------------------------------------------------------------------------------

    def _turn(self, parsed: ParsedTurn) -> AgentTurn:
        """The parsed reply as τ²'s message; malformed calls keep their place and carry their error."""
        t = tau2_compat.load()
        calls, rejected = [], {}
        for position, call in enumerate(parsed.calls):
            self.tool_call_statuses[str(call.status)] = self.tool_call_statuses.get(str(call.status), 0) + 1
            calls.append(
                t.ToolCall(
                    id=call.id or f"call_{self._turns}_{position}",
                    name=call.name or "unknown",
                    arguments=call.arguments,
                    requestor="assistant",
                )
            )
            if call.status in _UNPARSED:
                rejected[position] = call.error or "the tool call could not be read"
        if not calls and not (parsed.content or "").strip():
            why = "its reasoning never closed" if parsed.reasoning_unclosed else "neither text nor a tool call"
            raise PolicyStopped(Termination.AGENT_ERROR, f"the policy sent an empty message: {why}")
        last = self.generations[-1] if self.generations else {}
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
        self._chat.append(chat_message(message))
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
    ) -> InteractionResult:
        """Play the task to its end and score it. Raises nothing but CancelledError: every failure is in the result."""
        t = tau2_compat.load()
        started, clock = t.get_now(), time.perf_counter()
        self._aborted = aborted
        conversation = Conversation(self.world, self, user, limits, aborted=aborted)
        termination, detail = await conversation.play()
        blame = blame_for(termination, agent_errors=conversation.agent_errors, user_errors=conversation.user_errors)
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
            ledger=self.ledger,
            generations=self.generations,
        )
        if blame in (Blame.AGENT, Blame.LIMIT):
            await self._score(result, started, time.perf_counter() - clock, allow_judge)
        self._fill_stats(result, conversation, user)
        result.stats.total_time = time.perf_counter() - clock
        return result

    async def _score(self, result: InteractionResult, started: str, duration: float, allow_judge: bool) -> None:
        work = offload(
            scoring.score,
            self.world,
            result.messages,
            result.rejected_calls,
            result.termination,
            started=started,
            duration=duration,
            allow_judge=allow_judge,
        )
        try:
            info = await until_abort(work, self._aborted, grace=1.0)
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

    def _fill_stats(self, result: InteractionResult, conversation: Conversation, user: User | None) -> None:
        stats = result.stats
        stats.agent_turns, stats.user_turns = conversation.agent_turns, conversation.user_turns
        stats.steps = conversation.steps
        stats.agent_errors, stats.user_errors = conversation.agent_errors, conversation.user_errors
        stats.tool_calls, stats.junctions = self.tool_call_statuses, self.junctions
        stats.resumed_aborts, stats.engine_retries = self.resumed_aborts, self.engine_retries
        stats.neutralised, stats.round_trip_failures = self.neutralised, self.round_trip_failures
        stats.generation_time = self.generation_time
        if user is not None:
            stats.user_time, stats.user_cost = user.stats.seconds, user.stats.cost
            stats.user_calls, stats.user_retries = user.stats.calls, user.stats.retries
        if self.policy.measure_drift and self.ledger is not None:
            from tau2_slime.tokens.drift import measure

            stats.drift = measure(self.policy.delta, self.ledger, self._chat, self.joins, self.tools)


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


def agent_factory(agent_type: str, world: World, policy: Policy) -> TrainableAgentMixin:
    """The agent of that type: ``llm``, ``solo`` or ``gt``.

    Raises:
        ValueError: an unknown type, or a task that this type of agent cannot play.
    """
    if agent_type not in AGENT_TYPES:
        raise ValueError(f"agent_type={agent_type!r} is unknown; there are: {', '.join(AGENT_TYPES)}")
    return AGENT_TYPES[agent_type](world, policy)


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
