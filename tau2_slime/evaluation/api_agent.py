"""A policy behind any litellm model: τ²'s own LLM agent, awaited, bounded, retried; messages instead of tokens.

System prompt, tools and message conversion are τ²'s. Two things are this package's, so that an API model and a trained one
are treated alike: a malformed tool call is answered by an error result instead of ending the run, and reasoning that a
server leaves in the text (``<think>…</think>`` at its beginning) is not shown to the user or the evaluator.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.episode import AgentTurn
from tau2_slime.errors import ConfigError, ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.offload import PerLoop, until_abort
from tau2_slime.text import well_formed, well_formed_value
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World, tool_schema
from tau2_slime.world.paid import PAYER
from tau2_slime.world.users import UserSpec, provider_of

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class ApiSpec:
    """Which model plays the agent, and how to reach it."""

    model: str
    base_url: str | None = None
    api_key_var: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    """litellm arguments; they win over the dataset's sampling."""
    timeout: float = 600.0
    retries: int = 4
    concurrency: int = 64
    """Calls in flight."""

    def connection(self) -> dict[str, Any]:
        """As `UserSpec.connection`. Raises ConfigError if the key's variable is not set."""
        try:
            return UserSpec(self.model, self.base_url, self.api_key_var).connection()
        except ConfigError as error:
            said = str(error).replace("user model", "policy model").replace("user_api_key_var", "--policy-api-key-var")
            raise ConfigError(said) from None


_gates: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


class ApiAgent:
    """An `episode.Agent` for one episode."""

    def __init__(
        self,
        spec: ApiSpec,
        world: World,
        sampling: dict[str, Any],
        kind: str = "llm",
        aborted: Callable[[], bool] = bool,
    ) -> None:
        """``sampling``: litellm arguments. Raises ValueError if τ² does not let this kind of agent play the task."""
        self._spec, self._args, self._aborted = spec, {**sampling, **spec.args}, aborted
        self._agent = tau2_compat.build_agent(kind, world.agent_tools, world.policy, world.task)
        self._tools = [tool_schema(tool) for tool in self._agent.tools]
        self._solo = kind == "solo"
        self._messages: list[Any] = []
        self.calls: dict[str, int] = {}
        """Tool calls by status, as the token path counts them."""
        self.retries = 0
        self.seconds = 0.0

    def start(self, history: list[Any]) -> None:
        system = tau2_compat.load().SystemMessage(role="system", content=self._agent.system_prompt)
        self._messages = [system, *history]

    def is_stop(self, message: Any) -> bool:
        return bool(self._agent.is_stop(message))

    async def respond(self, message: Any | None) -> AgentTurn:
        if message is not None:
            self._messages.extend(getattr(message, "tool_messages", None) or [message])
        started = time.perf_counter()
        try:
            turn = await until_abort(self._ask(), self._aborted)
        finally:
            self.seconds += time.perf_counter() - started
        if self._solo and turn.message.tool_calls:
            turn = AgentTurn(self._agent._check_if_stop_toolcall(turn.message), turn.rejected)
        self._messages.append(turn.message)
        return turn

    async def _ask(self) -> AgentTurn:
        spec, connection = self._spec, self._spec.connection()
        prompt = tau2_compat.load().to_litellm_messages(self._messages)
        gate = _gates.get().setdefault(
            f"{connection.get('api_base')}|{spec.model}", asyncio.Semaphore(spec.concurrency)
        )
        payer, problem = PAYER.get(), ""
        for attempt in range(spec.retries + 1):
            if attempt:
                self.retries += 1
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            async with gate:
                ticket = None
                if payer is not None:
                    own = spec.base_url is not None
                    ticket = payer.before("policy", spec.model, [*prompt, *self._tools], self._args, own=own)
                response, unknown = None, False
                try:
                    response = await asyncio.wait_for(self._complete(prompt, connection), spec.timeout)
                    if response is None:
                        raise EngineRejected(f"policy model {spec.model}: it cannot process the request (HTTP 422)")
                    message = response.choices[0].message
                    if (message.content or "").strip() or message.tool_calls or attempt == spec.retries:
                        return self._turn(response)
                    problem = "an empty message"  # τ² asks again, too; in the end it is the agent's own silence
                except TimeoutError:
                    unknown, problem = True, f"no answer within {spec.timeout:g} s"
                except EngineRejected:
                    raise
                except Exception as error:  # litellm's errors have no common base
                    problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    if type(error).__name__ == "ContextWindowExceededError" or _too_long(error):
                        raise ContextOverflow(f"policy model {spec.model}: {problem}") from error
                    if getattr(error, "status_code", None) in (400, 401, 403, 404, 422):
                        raise EngineRejected(f"policy model {spec.model}: {problem}") from error
                finally:
                    if payer is not None:
                        payer.after(ticket, response, unknown=unknown)
        raise EngineUnavailable(f"policy model {spec.model}: {problem} ({spec.retries + 1} tries)")

    async def _complete(self, prompt: list[dict[str, Any]], connection: dict[str, Any]) -> Any:
        import litellm

        litellm.suppress_debug_info = True
        if provider_of(self._spec.model) == "openai" and not self._spec.model.startswith("openai/"):
            connection = {**connection, "custom_llm_provider": "openai"}
        return await litellm.acompletion(
            model=self._spec.model,
            messages=prompt,
            tools=self._tools or None,
            tool_choice="auto" if self._tools else None,
            timeout=self._spec.timeout,
            num_retries=0,
            max_retries=0,
            caching=False,
            drop_params=True,
            **connection,
            **self._args,
        )

    def _turn(self, response: Any) -> AgentTurn:
        t = tau2_compat.load()
        said = response.choices[0].message
        content = well_formed_value(said.content)
        if isinstance(content, str):
            content = _THOUGHT.sub("", content, count=1) if _THOUGHT.match(content) else content
        calls, rejected = [], {}
        for position, call in enumerate(said.tool_calls or []):
            arguments, problem = _arguments(call.function.arguments)
            status = "ok" if problem is None else "invalid_json"
            self.calls[status] = self.calls.get(status, 0) + 1
            if problem is not None:
                rejected[position] = problem
            name = well_formed(call.function.name or "unknown")
            calls.append(t.ToolCall(id=well_formed(call.id or f"call_{position}"), name=name, arguments=arguments))
        message = t.AssistantMessage(
            role="assistant",
            content=content,
            tool_calls=calls or None,
            cost=t.get_response_cost(response),
            usage=t.get_response_usage(response),
        )
        return AgentTurn(message, rejected)


def _too_long(error: Exception) -> bool:
    """True for a 400 that speaks of the context; litellm knows the words of few servers."""
    said = str(error).lower()
    return getattr(error, "status_code", None) == 400 and bool(re.search(r"context (length|window|limit|size)", said))


def _arguments(text: str | None) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        return {}, f"the arguments are no JSON: {error}"
    if not isinstance(value, dict):
        return {}, "the arguments are no JSON object"
    return well_formed_value(value), None


def litellm_sampling(sampling: dict[str, Any]) -> dict[str, Any]:
    """A dataset's sampling in OpenAI's words; what is at its neutral value is left to the provider."""
    out = {"temperature": sampling["temperature"], "max_tokens": sampling["max_new_tokens"]}
    if sampling.get("top_p") not in (None, 1.0):
        out["top_p"] = sampling["top_p"]
    if sampling.get("stop"):
        out["stop"] = sampling["stop"]
    return out
