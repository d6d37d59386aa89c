"""A policy behind any litellm model: calls are asynchronous, limited in number and retried; messages instead of tokens.

It speaks through the same agents as a trained policy (`episode.agents`): τ²'s system prompt and tools; tool calls are read
and checked alike. Reasoning that a server leaves at the beginning of the text is shown to nobody.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.episode.transcript import Transcript
from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.runtime.loops import PerLoop, until_abort
from tau2_slime.runtime.server_errors import speaks_of_length
from tau2_slime.runtime.text import well_formed_value
from tau2_slime.tokens.calls.parsers.chat_server import parsed_call, parsed_reply
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world import tau2_compat
from tau2_slime.world.billing import PAYER
from tau2_slime.world.users.spec import ModelSpec, load_litellm, provider_of

if TYPE_CHECKING:
    from litellm import ModelResponse

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds before the second try, and the most before a later one."""


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
        self.spec, self.args = spec, {**sampling, **spec.args}

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _ApiTranscript(self, tools)


class _ApiTranscript(Transcript):
    def __init__(self, speaker: ApiSpeaker, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._spec, self._args = speaker.spec, speaker.args

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        self.chat += messages
        started = time.perf_counter()
        try:
            turn: ParsedTurn = await until_abort(self._ask(), self.aborted)
        finally:
            self.generation_time += time.perf_counter() - started
        self.turns += 1
        return turn

    async def _ask(self) -> ParsedTurn:
        spec, connection = self._spec, self._spec.connection()
        prompt = [litellm_message(message) for message in self.chat]
        gate = _gates.get().setdefault(
            f"{connection.get('api_base')}|{spec.model}", asyncio.Semaphore(spec.concurrency)
        )
        payer, problem = PAYER.get(), ""
        for attempt in range(spec.retries + 1):
            if attempt:
                self.engine_retries += 1
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            async with gate:
                ticket = None
                if payer is not None:
                    own = spec.base_url is not None
                    ticket = payer.before("policy", spec.model, [*prompt, *self.tools], self._args, own=own)
                response, unknown = None, False
                try:
                    response = await asyncio.wait_for(self._complete(prompt, connection), spec.timeout)
                    if response is None:
                        raise EngineRejected(f"policy model {spec.model}: it cannot process the request (HTTP 422)")
                    message = response.choices[0].message
                    if (message.content or "").strip() or message.tool_calls or attempt == spec.retries:
                        return self._read(response)
                    problem = "an empty message"  # τ² asks again, too; the last one is the agent's own
                except TimeoutError:
                    unknown, problem = True, f"no answer within {spec.timeout:g} s"
                except EngineRejected:
                    raise
                except Exception as error:  # litellm's errors have no common base
                    problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    status = getattr(error, "status_code", None)
                    # litellm knows the words of few servers for a prompt that is too long.
                    too_long = status == 400 and speaks_of_length(str(error))
                    if too_long or type(error).__name__ == "ContextWindowExceededError":
                        raise ContextOverflow(f"policy model {spec.model}: {problem}") from error
                    if status in (400, 401, 403, 404, 422):
                        raise EngineRejected(f"policy model {spec.model}: {problem}") from error
                finally:
                    if payer is not None:
                        payer.after(ticket, response, unknown=unknown)
        raise EngineUnavailable(f"policy model {spec.model}: {problem} ({spec.retries + 1} tries)")

    async def _complete(self, prompt: list[dict[str, Any]], connection: dict[str, Any]) -> ModelResponse | None:
        """One call; None after an HTTP 422, for which litellm raises nothing."""
        litellm = load_litellm()
        litellm.suppress_debug_info = True  # type: ignore[attr-defined]
        if provider_of(self._spec.model) == "openai" and not self._spec.model.startswith("openai/"):
            connection = {**connection, "custom_llm_provider": "openai"}
        response: ModelResponse | None = await litellm.acompletion(
            model=self._spec.model,
            messages=prompt,
            tools=self.tools or None,
            tool_choice="auto" if self.tools else None,
            timeout=self._spec.timeout,
            num_retries=0,
            max_retries=0,
            caching=False,
            drop_params=True,
            **connection,
            **self._args,
        )
        return response

    def _read(self, response: ModelResponse) -> ParsedTurn:
        t = tau2_compat.load()
        usage = t.get_response_usage(response) or {}
        self.generations.append({**usage, "cost": t.get_response_cost(response)})
        said = response.choices[0].message
        calls = [
            parsed_call(call.function.name or "", call.function.arguments or "", self.tools, call.id)
            for call in said.tool_calls or []
        ]
        return parsed_reply(well_formed_value(said.content), None, calls)


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
