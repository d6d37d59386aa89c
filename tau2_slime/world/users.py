"""User simulators: τ²'s own `UserSimulator`, awaited.

The prompt, the flipped roles, the tools and the message classes are τ²'s; only the call is ours: asynchronous, bounded,
retried, and a failure is the simulator's, never the agent's.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from tau2_slime.errors import ConfigError, UserSimulatorError
from tau2_slime.offload import PerLoop
from tau2_slime.text import well_formed_value
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import tool_schema
from tau2_slime.world.paid import PAYER

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0


@dataclass
class UserStats:
    """What the simulator cost this episode."""

    calls: int = 0
    retries: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    """US dollars, as far as litellm knows the price."""


class User(Protocol):
    """The other side of the conversation."""

    stats: UserStats

    def start(self, history: list[Any]) -> None:
        """Take over after ``history`` (τ² messages that the user has seen)."""

    async def reply(self, message: Any) -> Any:
        """The next `UserMessage` after ``message`` (an AssistantMessage, ToolMessage or MultiToolMessage).

        Raises:
            UserSimulatorError: no usable message could be had.
        """


@dataclass(frozen=True)
class UserSpec:
    """Who plays the user, and how to reach it."""

    model: str
    base_url: str | None = None
    api_key_var: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    retries: int = 4
    concurrency: int = 128

    def connection(self) -> dict[str, Any]:
        """litellm's ``api_base`` and ``api_key``, read from the environment now and kept nowhere.

        Raises:
            ConfigError: the named variable is not set.
        """
        provider = provider_of(self.model)
        base_url, key_var = self.base_url, self.api_key_var
        if provider == "openai" and base_url is None:
            base_url = "https://api.openai.com/v1"
        if provider == "openai" and key_var is None and base_url == "https://api.openai.com/v1":
            key_var = "OPENAI_API_KEY"
        out: dict[str, Any] = {}
        if base_url is not None:
            out["api_base"] = base_url
        if key_var is not None:
            key = os.environ.get(key_var)
            if not key:
                raise ConfigError(
                    f"user model {self.model!r} needs its key in the environment variable {key_var}, which is not set; "
                    "export it, or name another variable with user_api_key_var"
                )
            out["api_key"] = key
        elif base_url is not None and provider in ("openai", "hosted_vllm"):
            out["api_key"] = "none"  # an endpoint of one's own: the client insists on some key
        return out


def provider_of(model: str) -> str:
    """litellm's provider for ``model``; ``openai`` where it cannot tell (any OpenAI-compatible endpoint)."""
    return _known_provider(model) or "openai"


@lru_cache(maxsize=256)
def _known_provider(model: str) -> str | None:
    import litellm

    litellm.suppress_debug_info = True  # or it prints a list of providers whenever it does not know a name
    try:
        return str(litellm.get_llm_provider(model)[1])
    except Exception:  # litellm raises its BadRequestError for names that it does not know
        return None


_limits: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


class LitellmUser:
    """τ²'s user simulator over any litellm model."""

    def __init__(self, spec: UserSpec, *, tools: list[Any] | None, instructions: str) -> None:
        """``tools``: τ²'s user tools or None; ``instructions``: ``str(task.user_scenario)``."""
        self.spec = spec
        self.stats = UserStats()
        self._simulator = tau2_compat.build_user_simulator(spec.model, dict(spec.args), tools, instructions)
        self._tools = [tool_schema(tool) for tool in tools] if tools else None
        self._state: Any = None

    def start(self, history: list[Any]) -> None:
        self._state = self._simulator.get_init_state(message_history=list(history))

    async def reply(self, message: Any) -> Any:
        t = tau2_compat.load()
        state = self._state
        state.messages.extend(message.tool_messages if isinstance(message, t.MultiToolMessage) else [message])
        prompt = t.to_litellm_messages(state.system_messages + state.flip_roles())
        started = time.perf_counter()
        try:
            reply = await self._ask(prompt)
        finally:
            self.stats.seconds += time.perf_counter() - started
        state.messages.append(reply)
        return reply

    async def _ask(self, prompt: list[dict[str, Any]]) -> Any:
        connection = self.spec.connection()
        endpoint = f"{connection.get('api_base')}|{self.spec.model}"
        limit = _limits.get().setdefault(endpoint, asyncio.Semaphore(self.spec.concurrency))
        payer = PAYER.get()
        problem = ""
        for attempt in range(self.spec.retries + 1):
            if attempt:
                self.stats.retries += 1
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            async with limit:
                ticket = None
                if payer is not None:
                    own = "api_base" in connection and self.spec.base_url is not None
                    ticket = payer.before("user", self.spec.model, prompt, self.spec.args, own=own)
                self.stats.calls += 1
                response, unknown = None, False
                try:
                    response = await asyncio.wait_for(self._complete(prompt, connection), self.spec.timeout)
                    if response is None:  # what litellm makes of a 422 while it may drop parameters, as τ² tells it to
                        problem = "the endpoint cannot process the request (HTTP 422)"
                        break
                    return self._message(response)
                except TimeoutError:
                    unknown, problem = True, f"no answer within {self.spec.timeout:g} s"
                except _Unusable as error:
                    problem = str(error)
                except Exception as error:  # litellm's errors have no common base; all of them are the simulator's
                    problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    if _hopeless(error):
                        break
                finally:
                    if payer is not None:
                        payer.after(ticket, response, unknown=unknown)
        raise UserSimulatorError(f"user model {self.spec.model}: {problem} ({attempt + 1} tries)")

    async def _complete(self, prompt: list[dict[str, Any]], connection: dict[str, Any]) -> Any:
        import litellm

        if _known_provider(self.spec.model) is None:
            # A name of an endpoint of one's own, such as Qwen/Qwen3-4B: it speaks OpenAI's protocol.
            connection = {**connection, "custom_llm_provider": "openai"}
        return await litellm.acompletion(
            model=self.spec.model,
            messages=prompt,
            tools=self._tools,
            tool_choice="auto" if self._tools else None,
            timeout=self.spec.timeout,
            num_retries=0,
            max_retries=0,
            caching=False,  # τ² can switch a global response cache on, which would repeat one user for every sample
            **connection,
            **self.spec.args,
        )

    def _message(self, response: Any) -> Any:
        """The reply as τ²'s `UserMessage`, tool calls flipped to the user.

        Raises:
            _Unusable: empty, unparsable, or a tool call where the user has no tools.
        """
        t = tau2_compat.load()
        choice = response.choices[0]
        content, calls = well_formed_value(choice.message.content), choice.message.tool_calls or []
        if not (content or "").strip() and not calls:
            raise _Unusable("an empty message")
        if calls and not self._tools:
            raise _Unusable(f"a call of tool {calls[0].function.name!r}, but this user has no tools")
        try:
            tool_calls = [
                t.ToolCall(
                    id=call.id or "",
                    name=call.function.name,
                    arguments=well_formed_value(json.loads(call.function.arguments or "{}")),
                    requestor="user",
                )
                for call in calls
            ]
        except (ValueError, TypeError) as error:
            raise _Unusable(f"tool-call arguments that are no JSON object: {error}") from error
        cost = t.get_response_cost(response)
        self.stats.cost += cost or 0.0
        return t.UserMessage(
            role="user",
            content=content,
            tool_calls=tool_calls or None,
            cost=cost,
            usage=t.get_response_usage(response),
            raw_data=well_formed_value(choice.to_dict()),
        )


class _Unusable(Exception):
    pass


def _hopeless(error: Exception) -> bool:
    """True if another try cannot help: a bad key, an unknown model, a malformed request."""
    return getattr(error, "status_code", None) in (400, 401, 403, 404, 422)
