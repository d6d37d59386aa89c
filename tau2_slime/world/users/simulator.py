"""The user simulator of training: τ²'s own `UserSimulator`, awaited.

The prompt, the flipped roles, the tools and the message classes are τ²'s. Only the call is this package's: asynchronous,
bounded, retried, and handed on to the next simulator where that is wanted. A failed call is the simulator's failure.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import BudgetSpent, UserSimulatorError, first_time
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.runtime.text import well_formed_value
from tau2_slime.world import tau2_compat
from tau2_slime.world.billing import PAYER
from tau2_slime.world.domains import tool_schema
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.completion import Completion, RequestedCall, complete
from tau2_slime.world.users.faults import OUTAGE, RETRIED, CallFailed, Fault
from tau2_slime.world.users.protocol import UserStats
from tau2_slime.world.users.reasoning import strip_reasoning
from tau2_slime.world.users.spec import UserSpec
from tau2_slime.world.users.spending import spending

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, Tau2Tool, ToolCall, UserMessage

logger = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds before the second try of a call, doubled before each further one up to the maximum."""


_limits: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


class SimulatorUnavailable(Exception):
    """This simulator cannot play on; another one may."""


class LitellmUser:
    """τ²'s user simulator over any litellm model; a `protocol.User`."""

    def __init__(
        self,
        spec: UserSpec,
        *,
        tools: list[Tau2Tool] | None,
        instructions: str,
        others: Sequence[UserSpec] = (),
    ) -> None:
        """``tools``: τ²'s user tools or None; ``instructions``: ``str(task.user_scenario)``.

        ``others``: who plays on, in this order, when ``spec`` is out. Whoever has taken over stays for the episode.
        """
        self.spec = spec
        self.stats = UserStats()
        self._simulators = [spec, *others]
        self._playing = 0
        self._tau2_user = tau2_compat.build_user_simulator(spec.model, dict(spec.args), tools, instructions)
        self._tools = [tool_schema(tool) for tool in tools] if tools else None
        self._state: Any = None
        """τ²'s state of its simulator, made in `start`."""

    def start(self, history: list[Message]) -> None:
        self._state = self._tau2_user.get_init_state(message_history=list(history))
        labels = [spec.label for spec in self._simulators]
        took_over = [labels.index(name) for name in self.stats.played if name in labels]  # of an interrupted episode
        self._playing = max(took_over, default=0)

    async def reply(self, message: Delivered) -> UserMessage:
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

    async def _ask(self, prompt: list[dict[str, Any]]) -> UserMessage:
        """The reply of the simulator that plays now, or of the next one that can."""
        problems = []
        while True:
            spec = self._simulators[self._playing]
            last = self._playing == len(self._simulators) - 1
            try:
                reply = await self._ask_one(spec, prompt, may_leave=not last)
            except SimulatorUnavailable as out:
                problems.append(f"user model {spec.label}: {out}")
                if last:
                    raise UserSimulatorError("; ".join(problems)) from None
                self._playing += 1
                told = f"user simulator {spec.label} is out, {self._simulators[self._playing].label} plays on"
                if first_time(told, str(out)):
                    logger.warning("tau2_slime: %s: %s", told, out)
            else:
                self.stats.played[spec.label] = self.stats.played.get(spec.label, 0) + 1
                return reply

    async def _ask_one(self, spec: UserSpec, prompt: list[dict[str, Any]], *, may_leave: bool) -> UserMessage:
        """One usable message of ``spec``, after as many tries as it has.

        Raises:
            SimulatorUnavailable: it cannot play; at once, if ``may_leave`` and it is known to be out.
            UserAuthenticationError: it refuses the key.
            BudgetSpent: no more calls.
        """
        spec.ready()
        address = f"{spec.host}|{spec.model}"
        endpoint = endpoints.endpoint_of(address)
        limit = _limits.get().setdefault(f"{address}|{spec.concurrency}", asyncio.Semaphore(spec.concurrency))
        patience = spec.patience
        problem = ""
        for attempt in range(spec.retries + 1):
            if attempt:
                self.stats.retries += 1
                await self._wait(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            async with limit:
                while wait := endpoint.enter():
                    why = f"{problem}; " if problem else ""
                    if wait > patience or (may_leave and (endpoint.is_out or wait > BACKOFF_MAX)):
                        raise SimulatorUnavailable(
                            f"{why}its endpoint is out for another {wait:.0f} s ({attempt} tries)"
                        )
                    patience -= wait
                    await self._wait(wait + min(wait, 1.0) * random.random())  # not all at the same moment
                try:
                    spending.check(spec.budget)
                except BudgetSpent:
                    endpoint.dropped()
                    raise
                try:
                    return await self._call(spec, prompt, endpoint)
                except CallFailed as failed:
                    problem = str(failed)
                    self.stats.faults[failed.fault] = self.stats.faults.get(failed.fault, 0) + 1
                    if failed.fault is Fault.AUTHENTICATION:
                        raise endpoints.refuse_key(spec.host, spec.key_variable, spec.label, problem) from None
                    if failed.retry_after:
                        endpoint.hold(failed.retry_after)
                    if failed.fault not in RETRIED:
                        break
        raise SimulatorUnavailable(f"{problem} ({attempt + 1} tries)")

    async def _wait(self, seconds: float) -> None:
        started = time.perf_counter()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.stats.waited += time.perf_counter() - started

    async def _call(self, spec: UserSpec, prompt: list[dict[str, Any]], endpoint: endpoints.Endpoint) -> UserMessage:
        """One call; the endpoint's breaker learns how it went.

        Raises:
            CallFailed: nothing usable came of it.
        """
        payer, ticket, answer, unknown = PAYER.get(), None, None, False
        if payer is not None:
            try:
                ticket = payer.before("user", spec.model, prompt, spec.args, own=spec.base_url is not None)
            except BaseException:  # refused or cancelled: the place that was taken is free again
                endpoint.dropped()
                raise
        self.stats.calls += 1
        started = time.perf_counter()
        outcome = endpoint.dropped  # cancelled, or a mistake of this package, unless something else is known
        try:
            answer = await asyncio.wait_for(complete(spec, prompt, self._tools), spec.timeout)
            outcome = endpoint.succeeded
        except TimeoutError:
            outcome, unknown = endpoint.failed, True
            raise CallFailed(Fault.TIMEOUT, f"no answer within {spec.timeout:g} s") from None
        except CallFailed as failed:
            outcome = endpoint.failed if failed.fault in OUTAGE else endpoint.succeeded
            unknown = failed.fault is Fault.TIMEOUT
            raise
        finally:
            outcome()
            if answer is None:
                spending.failed(spec.label)
            if payer is not None:
                payer.after(ticket, answer, unknown=unknown)
        cost = self._book(spec, answer, time.perf_counter() - started)
        return self._message(spec.label, answer, cost)

    def _book(self, spec: UserSpec, answer: Completion, seconds: float) -> float:
        """Book an answer, usable or not, and return its price in US dollars."""
        usage, cost = answer.usage, answer.cost
        if spec.price is not None:
            cost = (usage.prompt_tokens * spec.price.input + usage.completion_tokens * spec.price.output) / 1e6
        self.stats.cost += cost
        self.stats.prompt_tokens += usage.prompt_tokens
        self.stats.completion_tokens += usage.completion_tokens
        spending.answered(spec.label, seconds, usage.prompt_tokens, usage.completion_tokens, cost)
        return cost

    def _message(self, label: str, answer: Completion, cost: float) -> UserMessage:
        """The reply as τ²'s `UserMessage`, tool calls flipped to the user.

        Raises:
            CallFailed: empty, filtered, unparsable, or a tool call where the user has no tools.
        """
        content = answer.content
        if content:
            content, stripped = strip_reasoning(content)
            if stripped and first_time(f"reasoning of {label}"):
                logger.warning(
                    "tau2_slime: user model %s sends its reasoning as text, which is cut off. Serve it with a reasoning "
                    "parser, or without thinking",
                    label,
                )
        if not (content or "").strip() and not answer.calls:
            if answer.finish_reason == "content_filter":
                raise CallFailed(Fault.CONTENT_FILTER, "the provider's content filter took the message")
            raise CallFailed(Fault.GARBAGE, "an empty message")
        if answer.calls and not self._tools:
            raise CallFailed(Fault.GARBAGE, f"a call of tool {answer.calls[0].name!r}, but this user has no tools")
        return tau2_compat.load().UserMessage(
            role="user",
            content=content,
            tool_calls=[_tool_call(call) for call in answer.calls] or None,
            cost=cost,
            usage={
                "completion_tokens": answer.usage.completion_tokens,
                "prompt_tokens": answer.usage.prompt_tokens,
            },
            raw_data=answer.raw,
        )


def _tool_call(call: RequestedCall) -> ToolCall:
    """The user's call in τ²'s form.

    Raises:
        CallFailed: its arguments are not a JSON object.
    """
    try:
        arguments = well_formed_value(json.loads(call.arguments))
    except (ValueError, RecursionError) as error:
        raise CallFailed(Fault.GARBAGE, f"arguments of tool {call.name!r} that are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise CallFailed(Fault.GARBAGE, f"arguments of tool {call.name!r} that are not a JSON object")
    return tau2_compat.load().ToolCall(id=call.id, name=call.name, arguments=arguments, requestor="user")
