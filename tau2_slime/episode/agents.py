"""What the policy is asked, and what its reply means.

`TrainableLLMAgent` is τ²'s LLM agent made trainable. τ²'s own agent object gives the system prompt, the tools and the rule
for stopping; a `transcript.Speaker` gives the words. slime's servers sample them token by token into a ledger
(`policy.sampling`); another framework, or a model behind an API, answers in messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tau2_slime.config.settings import ArgumentTypes, Tau2Config
from tau2_slime.episode.conversation import AgentTurn, Limits
from tau2_slime.episode.examples import Example, examples_of, told
from tau2_slime.episode.transcript import PolicyStopped, Speaker
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Flaw, Termination
from tau2_slime.runtime.dotted_path import load_object
from tau2_slime.runtime.text import well_formed, well_formed_value
from tau2_slime.tokens.calls.action_text import NATIVE, action_format, in_format
from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.types import Call, CallStatus, ParsedTurn, Tool
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World, tool_schema
from tau2_slime.world.judge import JudgeSpec
from tau2_slime.world.users import User

if TYPE_CHECKING:
    from tau2_slime.episode.interrupted import Saved
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.world.types import AssistantMessage, Delivered, Message

AGENT_TYPES = ("llm", "solo", "gt")
"""τ²'s ``llm_agent``; ``llm_agent_solo`` (a ticket instead of a user, ``done`` ends the episode); ``llm_agent_gt`` (the gold
actions are in the system prompt)."""

# Calls that cannot be handed to the environment at all; it answers every other mistake (unknown tool, wrong arguments).
_UNREADABLE = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


class TrainableLLMAgent:
    """A `conversation.Agent` whose words come from a `Speaker`; `asolve` plays and scores a whole episode.

    For a prompt or an action format of one's own, subclass it, override `system_prompt`, `tool_schemas` or `interpret`, and
    name the class in the setting ``agent_path``.
    """

    argument_types: ArgumentTypes = "served"
    """The setting of that name."""
    examples: Sequence[Example] = ()
    """The conversations behind the system prompt (`examples`)."""
    examples_text = ""
    """How they are told, set by `start`."""
    path = ""
    """The setting ``agent_path`` that led here, as results record it."""

    def __init__(self, world: World, policy: Speaker, agent_type: str = "llm", registered: str | None = None) -> None:
        """``policy``: how the words are sampled. ``registered``: an agent of τ²'s registry that gives prompt and tools.

        Raises:
            ValueError: ``agent_type`` is not one of `AGENT_TYPES`, or τ² does not let it play ``world.task``.
            ConfigError: τ²'s registry has no agent ``registered``, or that agent has no prompt to train on.
        """
        if agent_type not in AGENT_TYPES:
            raise ValueError(f"agent_type={agent_type!r} is unknown; there are: {', '.join(AGENT_TYPES)}")
        self.agent_type = agent_type
        self.world = world
        self.policy = policy
        if registered is None:
            self.tau2_agent = tau2_compat.build_agent(agent_type, world.agent_tools, world.policy, world.task)
        else:
            self.tau2_agent = tau2_compat.build_registered_agent(
                registered, world.agent_tools, world.policy, world.task
            )
        self.tools = self.tool_schemas()
        self.transcript = policy.transcript(self.tools)
        self.tool_call_statuses: dict[str, int] = {}
        """`CallStatus` -> how many of the policy's calls had it."""
        self._pending: list[dict[str, Any]] = []
        """Chat messages that the policy has not been shown yet."""

    def system_prompt(self) -> str:
        """The first message of every conversation."""
        return str(self.tau2_agent.system_prompt)

    def tool_schemas(self) -> list[Tool]:
        """OpenAI function schemas of the tools that the model is offered."""
        return [tool_schema(tool) for tool in self.tau2_agent.tools]

    # ---- conversation.Agent ------------------------------------------------------------------------------------------

    def opening(
        self, history: Sequence[Message] = (), spell: Callable[[list[Call]], str] | None = None
    ) -> list[dict[str, Any]]:
        """What the model is shown before its first turn: the whole system prompt, and ``history``.

        ``spell``: how this model writes calls, where that is not the transcript's own way.
        """
        actions = self.transcript.actions
        chat = [{"role": "system", "content": self.system_prompt()}, *map(chat_message, history)]
        if actions is not None:
            chat = in_format(actions, chat, self.tools)
        if self.examples:
            self.examples_text = told(self.examples, spell or self.transcript.spell, actions)
            chat[0]["content"] += self.examples_text
        return chat

    def start(self, history: list[Message]) -> None:
        chat = self.opening(history)
        if self.transcript.ledger is None:
            self._pending = chat
        else:
            self.transcript.adopt(chat)

    def is_stop(self, message: AssistantMessage) -> bool:
        return bool(self.tau2_agent.is_stop(message))

    async def respond(self, message: Delivered | None) -> AgentTurn:
        if message is not None:
            self._pending += self.shown(getattr(message, "tool_messages", None) or [message])
        pending, self._pending = self._pending, []
        return self.interpret(await self.transcript.turn(pending))

    def shown(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """``messages`` as the model is shown them, in the form of the setting ``agent_strategy``."""
        chat, actions = list(map(chat_message, messages)), self.transcript.actions
        return chat if actions is None else in_format(actions, chat, self.tools)

    # ---- meaning -----------------------------------------------------------------------------------------------------

    def interpret(self, parsed: ParsedTurn) -> AgentTurn:
        """The parsed reply as τ²'s message. A call that cannot be read keeps its position and carries its error.

        Raises:
            PolicyStopped: the reply holds neither text nor a call, or more calls than the chat template can show.
        """
        t = tau2_compat.load()
        calls, rejected = [], {}
        for position, call in enumerate(parsed.calls):
            if self.argument_types == "schema" and call.status in (CallStatus.OK, CallStatus.BAD_ARGUMENTS):
                call = checked_call(call.name, call.arguments, self.tools, call.raw, call.id, by_schema=True)
            self.tool_call_statuses[str(call.status)] = self.tool_call_statuses.get(str(call.status), 0) + 1
            calls.append(
                t.ToolCall(
                    id=well_formed(call.id or f"call_{self.transcript.turns}_{position}"),
                    name=well_formed(call.name or "unknown"),
                    arguments=well_formed_value(call.arguments),
                    requestor="assistant",
                )
            )
            if call.status in _UNREADABLE:
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
        self.transcript.chat += self.shown([message])
        if self.agent_type == "solo" and calls:
            # τ²'s own rule: a message that calls `done` becomes the stop token, whatever else it calls.
            message = self.tau2_agent._check_if_stop_toolcall(message)
        return AgentTurn(message, rejected)

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
        excluded_flaws: Sequence[Flaw] = (),
    ) -> InteractionResult:
        """Play the task to its end and score it: `play.play_and_score` for an agent that one has built oneself."""
        from tau2_slime.episode.play import EpisodeSetup, play_and_score

        setup = EpisodeSetup(
            self,
            user,
            limits,
            user_model,
            judge=JudgeSpec() if allow_judge else None,
            excluded_flaws=tuple(excluded_flaws),
        )
        return await play_and_score(setup, aborted=aborted, saved=saved)


def build_agent(world: World, policy: Speaker, config: Tau2Config) -> TrainableLLMAgent:
    """The agent that the settings ``agent_type``, ``agent_path``, ``agent_strategy`` and ``argument_types`` describe.

    Raises:
        ConfigError: ``agent_path``, ``agent_strategy`` or ``few_shot`` names nothing that can be used.
        ValueError: τ² does not let it play ``world.task``.
    """
    agent_type, agent_path = config.agent_type, config.agent_path
    if agent_path is None:
        agent = TrainableLLMAgent(world, policy, agent_type)
    elif "." not in agent_path:
        agent = TrainableLLMAgent(world, policy, agent_type, agent_path)
    else:
        found = load_object(agent_path, what="agent_path")
        if not isinstance(found, type) or not issubclass(found, TrainableLLMAgent):
            raise ConfigError(f"agent_path {agent_path!r} is not a class derived from tau2_slime's TrainableLLMAgent")
        agent = found(world, policy, agent_type)
    if config.few_shot is not None:
        agent.examples = examples_of(config, world.domain, world.split, str(world.task.id))
    agent.path, agent.argument_types = agent_path or "", config.argument_types
    if config.agent_strategy != NATIVE and (actions := action_format(config.agent_strategy, solo=agent_type == "solo")):
        agent.transcript.actions = actions
    return agent


def chat_message(message: Message) -> dict[str, Any]:
    """A τ² message as the plain dict that chat templates take (OpenAI's form, arguments as a mapping)."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.id, "content": message.content or ""}
    out: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.role == "assistant" and message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return out
