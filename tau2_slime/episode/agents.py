"""What the policy is asked, and what its reply means.

`TrainableLLMAgent` is τ²'s LLM agent made trainable: its system prompt and tools are τ²'s own (asked from τ²'s agent
object), and its words come from a `transcript.Speaker`. slime's servers sample them token by token, every token kept in a
ledger (`policy`); another framework or a model behind an API answers in messages. `solo` and `gt` differ only in the τ²
agent they ask and in how an episode stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tau2_slime.episode.conversation import AgentTurn, Conversation, Limits
from tau2_slime.episode.interrupted import Saved
from tau2_slime.episode.play import solve
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.transcript import PolicyStopped, Speaker
from tau2_slime.outcome import Flaw, Termination
from tau2_slime.runtime.text import well_formed, well_formed_value
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World, tool_schema
from tau2_slime.world.users import User

# Calls that cannot be handed to the environment at all; it answers every other mistake (unknown tool, wrong arguments).
_UNPARSED = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


class TrainableAgentMixin:
    """An `episode.Agent` whose words come from a `Speaker`, and `asolve`, which plays and scores a whole episode."""

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
            cost=last.get("cost", 0.0),
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
        return await solve(
            self,
            user,
            limits,
            user_model=user_model,
            allow_judge=allow_judge,
            aborted=aborted,
            saved=saved,
            gate=gate,
        )


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
