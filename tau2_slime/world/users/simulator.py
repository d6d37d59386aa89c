"""User simulators: τ²'s own `UserSimulator`, awaited.

The prompt, the flipped roles, the tools and the message classes are τ²'s; only the call is ours: asynchronous, bounded,
retried, handed on to the next simulator where that is wanted, and a failure is the simulator's, never the agent's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tau2_slime.errors import BudgetSpent, UserSimulatorError, first_time
from tau2_slime.runtime.text import well_formed_value
from tau2_slime.runtime.threads import PerLoop
from tau2_slime.world import tau2_compat
from tau2_slime.world.billing import PAYER
from tau2_slime.world.domains import tool_schema
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.completion import complete, cost_of
from tau2_slime.world.users.faults import OUTAGE, RETRIED, CallFailed, Fault, of_exception
from tau2_slime.world.users.reasoning import spoken
from tau2_slime.world.users.spec import UserSpec
from tau2_slime.world.users.spending import spending, usage_of

logger = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0


@dataclass
class UserStats:
    """What the simulator cost this episode."""

    calls: int = 0
    retries: int = 0
    seconds: float = 0.0
    """Waiting for the reply, everything included."""
    cost: float = 0.0
    """US dollars, as far as the price is known."""
    waited: float = 0.0
    """Of `seconds`: because an endpoint was out, or between two tries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """Calls that gave nothing usable, by `faults.Fault`."""
    played: dict[str, int] = field(default_factory=dict)
    """Messages by the simulator that wrote them, in the order in which they took over."""


class User(Protocol):
    """The other side of the conversation."""

    stats: UserStats

    def start(self, history: list[Any]) -> None:
        """Take over after ``history`` (τ² messages that the user has seen)."""

    async def reply(self, message: Any) -> Any:
        """The next `UserMessage` after ``message`` (an AssistantMessage, ToolMessage or MultiToolMessage).

        Raises:
            UserSimulatorError: no usable message could be had.
            ConfigError: no message can be had in this run: a refused key, a spent budget.
        """


_limits: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


class LitellmUser:
    """τ²'s user simulator over any litellm model."""

    def __init__(
        self,
        spec: UserSpec,
        *,
        tools: list[Any] | None,
        instructions: str,
        others: Sequence[UserSpec] = (),
    ) -> None:
        """``tools``: τ²'s user tools or None; ``instructions``: ``str(task.user_scenario)``.

        ``others``: who plays on, in this order, when ``spec`` is out. Whoever has taken over stays for the episode.
        """
        self.spec = spec
        self.stats = UserStats()
        self._team = [spec, *others]
        self._at = 0
        self._simulator = tau2_compat.build_user_simulator(spec.model, dict(spec.args), tools, instructions)
        self._tools = [tool_schema(tool) for tool in tools] if tools else None
        self._state: Any = None

    def start(self, history: list[Any]) -> None:
        self._state = self._simulator.get_init_state(message_history=list(history))
        labels = [spec.label for spec in self._team]
        took_over = [labels.index(name) for name in self.stats.played if name in labels]  # of an interrupted episode
        self._at = max(took_over, default=0)

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
        """The reply of whoever plays now, or of the next one who can."""
        problems = []
        while True:
            spec = self._team[self._at]
            last = self._at == len(self._team) - 1
            try:
                reply = await self._ask_one(spec, prompt, may_leave=not last)
            except _Out as out:
                problems.append(f"user model {spec.label}: {out}")
                if last:
                    raise UserSimulatorError("; ".join(problems)) from None
                self._at += 1
                told = f"user simulator {spec.label} is out, {self._team[self._at].label} plays on"
                if first_time(told, str(out)):
                    logger.warning("tau2_slime: %s: %s", told, out)
            else:
                self.stats.played[spec.label] = self.stats.played.get(spec.label, 0) + 1
                return reply

    async def _ask_one(self, spec: UserSpec, prompt: list[dict[str, Any]], *, may_leave: bool) -> Any:
        """One usable message of ``spec``, after as many tries as it has.

        Raises:
            _Out: it cannot play; at once, if ``may_leave`` and it is known to be out.
            UserAuthenticationError: it refuses the key.
            BudgetSpent: no more calls.
        """
        connection = spec.connection()
        address = f"{spec.host}|{spec.model}"
        endpoints.check_key(spec.host, spec.key_variable)
        place = endpoints.endpoint(address)
        limit = _limits.get().setdefault(f"{address}|{spec.concurrency}", asyncio.Semaphore(spec.concurrency))
        patience = spec.patience
        problem = ""
        for attempt in range(spec.retries + 1):
            if attempt:
                self.stats.retries += 1
                await self._wait(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            async with limit:
                while wait := place.enter():
                    why = f"{problem}; " if problem else ""
                    if wait > patience or (may_leave and (place.out or wait > BACKOFF_MAX)):
                        raise _Out(f"{why}its endpoint is out for another {wait:.0f} s ({attempt} tries)")
                    patience -= wait
                    await self._wait(wait + min(wait, 1.0) * random.random())  # not all at the same moment
                try:
                    spending.check(spec.budget)
                except BudgetSpent:
                    place.dropped()
                    raise
                try:
                    return await self._call(spec, prompt, connection, place)
                except CallFailed as failed:
                    problem = str(failed)
                    self.stats.faults[failed.fault] = self.stats.faults.get(failed.fault, 0) + 1
                    if failed.fault is Fault.AUTHENTICATION:
                        raise endpoints.refuse_key(spec.host, spec.key_variable, spec.label, problem) from None
                    if failed.retry_after:
                        place.hold(failed.retry_after)
                    if failed.fault not in RETRIED:
                        break
        raise _Out(f"{problem} ({attempt + 1} tries)")

    async def _wait(self, seconds: float) -> None:
        started = time.perf_counter()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.stats.waited += time.perf_counter() - started

    async def _call(
        self, spec: UserSpec, prompt: list[dict[str, Any]], connection: dict[str, Any], place: endpoints.Endpoint
    ) -> Any:
        """One call; the endpoint's breaker is told how it went.

        Raises:
            CallFailed: nothing usable came of it.
        """
        payer, ticket, response, unknown = PAYER.get(), None, None, False
        if payer is not None:
            try:
                ticket = payer.before("user", spec.model, prompt, spec.args, own=spec.base_url is not None)
            except BaseException:  # refused or cancelled: the place that was taken is free again
                place.dropped()
                raise
        self.stats.calls += 1
        started = time.perf_counter()
        outcome = place.dropped  # cancelled, unless something else is known
        try:
            response = await asyncio.wait_for(complete(spec, prompt, self._tools, connection), spec.timeout)
            outcome = place.succeeded
            cost = self._bill(spec, response, time.perf_counter() - started)
        except TimeoutError:
            outcome, unknown = place.failed, True
            raise CallFailed(Fault.TIMEOUT, f"no answer within {spec.timeout:g} s") from None
        except Exception as error:  # litellm's errors have no common base; all of them are the simulator's
            failed = of_exception(error)
            outcome = place.failed if failed.fault in OUTAGE else place.succeeded
            raise CallFailed(failed.fault, _without(connection, str(failed)), failed.retry_after) from None
        finally:
            outcome()
            if response is None:
                spending.failed(spec.label)
            if payer is not None:
                payer.after(ticket, response, unknown=unknown)
        return self._message(spec.label, response, cost)

    def _bill(self, spec: UserSpec, response: Any, seconds: float) -> float | None:
        """Book an answer, usable or not, and return its price; None if nobody knows it."""
        if response is None:
            return None
        prompt, completion = usage_of(response)
        if spec.price is not None:
            cost: float | None = (prompt * spec.price.input + completion * spec.price.output) / 1e6
        else:
            cost = cost_of(response)
        self.stats.cost += cost or 0.0
        self.stats.prompt_tokens += prompt
        self.stats.completion_tokens += completion
        spending.answered(spec.label, seconds, prompt, completion, cost or 0.0)
        return cost

    def _message(self, label: str, response: Any, cost: float | None) -> Any:
        """The reply as τ²'s `UserMessage`, tool calls flipped to the user.

        Raises:
            CallFailed: empty, filtered, unparsable, or a tool call where the user has no tools.
        """
        if response is None:  # what litellm makes of a 422 while it may drop parameters, as τ² tells it to
            raise CallFailed(Fault.REJECTED, "the endpoint cannot process the request (HTTP 422)")
        t = tau2_compat.load()
        if not getattr(response, "choices", None):
            raise CallFailed(Fault.GARBAGE, "an answer without choices")
        choice = response.choices[0]
        content, calls = well_formed_value(choice.message.content), choice.message.tool_calls or []
        if content:
            content, thought = spoken(content)
            if thought and first_time(f"thoughts of {label}"):
                logger.warning(
                    "tau2_slime: user model %s sends its thoughts as text; they are cut off. %s", label, _CURE
                )
        if not (content or "").strip() and not calls:
            if choice.finish_reason == "content_filter":
                raise CallFailed(Fault.CONTENT_FILTER, "the provider's content filter took the message")
            raise CallFailed(Fault.GARBAGE, "an empty message")
        if calls and not self._tools:
            name = calls[0].function.name
            raise CallFailed(Fault.GARBAGE, f"a call of tool {name!r}, but this user has no tools")
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
        except (ValueError, TypeError, RecursionError) as error:
            raise CallFailed(Fault.GARBAGE, f"tool-call arguments that are no JSON object: {error}") from error
        return t.UserMessage(
            role="user",
            content=content,
            tool_calls=tool_calls or None,
            cost=cost,
            usage=t.get_response_usage(response),
            raw_data=well_formed_value(choice.to_dict()),
        )


_CURE = "Serve it with a reasoning parser, or without thinking"


class _Out(Exception):
    """This simulator cannot play on."""


def _without(connection: dict[str, Any], text: str) -> str:
    """``text`` without the key, should the endpoint have repeated it."""
    key = connection.get("api_key") or ""
    return text.replace(key, "***") if len(key) > 4 else text
