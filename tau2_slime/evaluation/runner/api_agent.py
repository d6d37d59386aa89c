"""A policy behind any chat endpoint that litellm knows: calls are asynchronous, limited in number and retried.

It speaks through the same agents as a trained policy (`episode.agents`): τ²'s system prompt and tools; tool calls are read
and checked alike. Reasoning that a server leaves at the beginning of the text is shown to nobody.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tau2_slime.chat.completion import Completion, Ending, with_providers_own
from tau2_slime.chat.faults import RETRIED, CallFailed, Fault, UnusableMessage
from tau2_slime.episode.transcript import PolicyStopped, Transcript
from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.outcome import Termination
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.tokens.calls.parsers.chat_server import chat_turn
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world.billing import PAYER, is_bill_unknown
from tau2_slime.world.users.completion import KeptMessage, complete
from tau2_slime.world.users.spec import ModelSpec

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds before the second try, and the most before a later one."""
PAID_GRACE = 2.0
"""Seconds for which a run that stops waits for answers that are on their way: each has its price."""


@dataclass(frozen=True)
class ApiSpec(ModelSpec):
    """Which model plays the agent. Its `args` override the dataset's sampling."""

    ROLE = "policy model"
    KEY_OPTION = "--policy-api-key-var"

    timeout: float = 600.0
    """Seconds of one call."""
    concurrency: int = 64
    """Calls at a time."""


_gates: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


class ApiSpeaker:
    """The `transcript.Speaker` of one episode."""

    def __init__(self, spec: ApiSpec, sampling: dict[str, Any]) -> None:
        """``sampling``: litellm arguments, as from `litellm_sampling`."""
        self.spec = replace(spec, args={**sampling, **spec.args})

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _ApiTranscript(self, tools)


class _ApiTranscript(Transcript):
    def __init__(self, speaker: ApiSpeaker, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._spec = speaker.spec
        self._came: dict[int, Mapping[str, Any]] = {}
        """Position in `chat` -> the server's message that was understood as that turn."""
        self._said: dict[int, str] = {}
        """Position in `chat` -> the text of that turn, where actions are text."""
        self._written: list[KeptMessage] = []
        """`chat` as the requests have it, as far as it was sent."""

    def adopt(self, chat: list[dict[str, Any]]) -> None:
        super().adopt(chat)
        self._written = []

    def _prompt(self) -> list[dict[str, Any]]:
        for position in range(len(self._written), len(self.chat)):  # each message is written once
            message = litellm_message(self.chat[position])
            if position in self._came:
                message = with_providers_own(message, self._came[position])
            if position in self._said:
                message = {**message, "content": self._said[position]}
            self._written.append(KeptMessage(message))
        return list(self._written)

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        self.chat += messages
        started = time.perf_counter()
        try:
            async with UntilAbort(self.aborted, grace=PAID_GRACE):
                answer = await self._ask()
        finally:
            self.generation_time += time.perf_counter() - started
        self.turns += 1
        if answer.ending is Ending.CUT:
            raise PolicyStopped(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
        if answer.ending is Ending.FILTERED:
            raise PolicyStopped(Termination.AGENT_ERROR, "the provider's content filter took the policy's message")
        self._came[len(self.chat)] = (answer.raw or {}).get("message") or {}
        if self.actions is not None:
            self._said[len(self.chat)] = answer.said.content or ""
        return chat_turn(answer.said, self.tools, self.actions)

    async def _ask(self) -> Completion:
        """One answer, or the last one of an agent that says nothing."""
        spec, connection = self._spec, self._spec.connection()
        prompt = self._prompt()
        gate = _gates.get().setdefault(
            f"{connection.get('api_base')}|{spec.model}", asyncio.Semaphore(spec.concurrency)
        )
        problem, pause = "", 0.0
        for attempt in range(spec.retries + 1):
            if attempt:
                self.engine_retries += 1
                backoff = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random())
                await asyncio.sleep(max(backoff, pause))
            async with gate:
                try:
                    answer = await self._call(prompt)
                except CallFailed as failed:
                    problem, pause = str(failed), failed.retry_after or 0.0
                    if isinstance(failed, UnusableMessage) and attempt == spec.retries:
                        raise PolicyStopped(
                            Termination.AGENT_ERROR, f"the policy's message cannot be used: {problem}"
                        ) from None
                    if failed.fault not in RETRIED:
                        kind = ContextOverflow if failed.fault is Fault.CONTEXT_OVERFLOW else EngineRejected
                        raise kind(f"policy model {spec.model}: {problem}") from None
                    continue
            said = answer.said
            if answer.ending is Ending.FAILED:
                problem = "the server stopped in the middle of the message"
                continue
            silent = not (said.content or "").strip() and not said.calls and answer.ending is not Ending.CUT
            if attempt == spec.retries or not (silent or answer.ending is Ending.FILTERED):
                return answer
            problem = "an empty message"  # τ² asks again, too; the last one is the agent's own
        raise EngineUnavailable(f"policy model {spec.model}: {problem} ({spec.retries + 1} tries)")

    async def _call(self, prompt: list[dict[str, Any]]) -> Completion:
        """One call, paid for by the episode's payer. Raises CallFailed."""
        spec, payer, ticket, billed, unknown = self._spec, PAYER.get(), None, None, False
        if payer is not None:
            own = spec.base_url is not None
            ticket = payer.before("policy", spec.model, [*prompt, *self.offered], spec.args, own=own)
        try:
            billed = answer = await complete(spec, prompt, self.offered or None)
        except (CallFailed, asyncio.CancelledError) as failed:
            unknown = is_bill_unknown(failed)
            billed = failed.billed if isinstance(failed, CallFailed) else None
            raise
        finally:
            if payer is not None:
                payer.after(ticket, billed, unknown=unknown)
        self.generations.append({**asdict(answer.usage), "cost": answer.cost})
        return answer


def litellm_message(message: dict[str, Any]) -> dict[str, Any]:
    """A chat message in the form in which τ² passes its own messages to litellm."""
    if message["role"] != "assistant":
        return dict(message)
    calls = message.get("tool_calls")
    if not calls:
        return {**message, "tool_calls": None}
    spelled = [
        {
            "id": call["id"],
            "name": call["function"]["name"],
            "function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"]["arguments"])},
            "type": "function",
        }
        for call in calls
    ]
    return {**message, "content": message["content"] or None, "tool_calls": spelled}


def litellm_sampling(sampling: dict[str, Any]) -> dict[str, Any]:
    """A dataset's sampling by OpenAI's names. Values that change nothing are left out, so the provider's default holds."""
    out = {"temperature": sampling["temperature"], "max_tokens": sampling["max_new_tokens"]}
    if sampling.get("top_p") not in (None, 1.0):
        out["top_p"] = sampling["top_p"]
    if sampling.get("stop"):
        out["stop"] = sampling["stop"]
    return out
