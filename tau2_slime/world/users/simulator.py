"""The user simulator of training: τ²'s own `UserSimulator`, awaited.

The prompt, the flipped roles, the tools and the message classes are τ²'s. Only the call is this package's: asynchronous,
bounded, retried, and handed on to the next simulator where that is wanted. A failed call is the simulator's failure.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tau2_slime.chat.completion import Completion, with_providers_own
from tau2_slime.chat.faults import OUTAGE, RETRIED, CallFailed, Fault
from tau2_slime.errors import BudgetSpent, UserSimulatorError, first_time
from tau2_slime.outcome import Flaw
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.world import tau2_compat
from tau2_slime.world.billing import PAYER, is_bill_unknown
from tau2_slime.world.environment import tool_schema
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.answers import SPOKEN_BY, user_message
from tau2_slime.world.users.completion import KeptMessage, complete
from tau2_slime.world.users.protocol import UserStats
from tau2_slime.world.users.spec import UserSpec
from tau2_slime.world.users.spending import spending
from tau2_slime.world.users.strategies import STRATEGIES, Read

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, Tau2Tool, UserMessage

logger = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds before the second try of a call, doubled before each further one up to the maximum."""
LEAST_ROOM = 4096
"""Tokens that a simulator whose message was cut gets at its second try, if that is more than four times what it had."""

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
        strategy: str = "llm",
        gate: Sequence[Flaw] = tuple(Flaw),
        verifier: UserSpec | None = None,
    ) -> None:
        """``tools``: τ²'s user tools or None; ``instructions``: ``str(task.user_scenario)``.

        ``others``: who plays on, in this order, when ``spec`` is out. Whoever has taken over stays for the episode.
        ``strategy``: one of `strategies.STRATEGIES`. ``gate``: the flaws for which ``rules`` asks again. ``verifier``: who
        judges drafts; None: whoever plays.
        """
        self.spec = spec
        self.stats = UserStats()
        self._simulators = [spec, *others]
        self._playing = 0
        self._tau2_user = tau2_compat.build_user_simulator(spec.model, dict(spec.args), tools, instructions)
        self._tools = [tool_schema(tool) for tool in tools] if tools else None
        self._state: Any = None
        """τ²'s state of its simulator, made in `start`."""
        self.given: Sequence[Message] = ()
        """The beginning of the conversation that this simulator did not play."""
        self._written: dict[str, list[KeptMessage]] = {}
        """By the simulator's label: the conversation as its requests have it, as far as it was sent."""
        self.scenario, self.has_tools, self.gate = instructions, bool(tools), gate
        self._strategy, self._verifier = strategy, verifier

    def start(self, history: list[Message]) -> None:
        self._state = self._tau2_user.get_init_state(message_history=list(history))
        self._written = {}
        own = sum(self.stats.played.values())  # of an interrupted episode
        users = [position for position, message in enumerate(history) if message.role == "user"]
        self.given = history[: users[-own]] if 0 < own <= len(users) else list(history)
        labels = [spec.label for spec in self._simulators]
        took_over = [labels.index(name) for name in self.stats.played if name in labels]
        self._playing = max(took_over, default=0)

    async def reply(self, message: Delivered) -> UserMessage:
        t = tau2_compat.load()
        state = self._state
        state.messages.extend(message.tool_messages if isinstance(message, t.MultiToolMessage) else [message])
        started, paid = time.perf_counter(), self.stats.cost
        try:
            reply = await STRATEGIES[self._strategy](self)
        finally:
            self.stats.seconds += time.perf_counter() - started
        if self._strategy != "llm":
            reply.cost = self.stats.cost - paid  # of every call that it took
        label = (reply.raw_data or {})[SPOKEN_BY]
        self.stats.played[label] = self.stats.played.get(label, 0) + 1
        state.messages.append(reply)
        return reply

    # ---- what a strategy asks (`strategies.Simulator`) ---------------------------------------------------------------

    @property
    def seen(self) -> Sequence[Message]:
        return list(self._state.messages)

    async def draft(
        self, kind: str = "draft", told: Sequence[dict[str, Any]] = (), order: str = "", read: Read | None = None
    ) -> UserMessage:
        return await self._ask(_Question(kind, list(told), order, read, self._tools))

    async def judge(self, prompt: list[dict[str, Any]]) -> str:
        question = _Question("verdict", prompt, whole=True)
        try:
            spec = self._verifier or self._simulators[self._playing]
            return str((await self._ask_one(spec, question, may_leave=True)).content)
        except SimulatorUnavailable as out:
            raise UserSimulatorError(f"verifier: {out}") from None

    def unverified(self) -> None:
        self.stats.unverified += 1

    def _prompt(self, spec: UserSpec) -> list[dict[str, Any]]:
        """The conversation as ``spec``'s model sees it; each turn of its own with what its provider wants back."""
        state, written = self._state, self._written.setdefault(spec.label, [])
        system = [] if written else state.system_messages
        new = state.messages[max(0, len(written) - len(state.system_messages)) :]
        flipped = state.model_copy(update={"messages": new}).flip_roles() if new else []
        sent = tau2_compat.load().to_litellm_messages(system + flipped)
        for said, message in zip([*system, *new], sent, strict=True):  # each message is written once
            raw = (said.raw_data or {}) if said.role == "user" else {}
            own = raw.get(SPOKEN_BY) == spec.label and isinstance(raw.get("message"), dict)
            written.append(KeptMessage(with_providers_own(message, raw["message"]) if own else message))
        return list(written)

    async def _ask(self, question: _Question) -> UserMessage:
        """The reply of the simulator that plays now, or of the next one that can."""
        problems = []
        while True:
            spec = self._simulators[self._playing]
            last = self._playing == len(self._simulators) - 1
            try:
                return await self._ask_one(spec, question, may_leave=not last)
            except SimulatorUnavailable as out:
                problems.append(f"user model {spec.label}: {out}")
                if last:
                    raise UserSimulatorError("; ".join(problems)) from None
                self._playing += 1
                told = f"user simulator {spec.label} is out, {self._simulators[self._playing].label} plays on"
                if first_time(told, str(out)):
                    logger.warning("tau2_slime: %s: %s", told, out)

    async def _ask_one(self, spec: UserSpec, question: _Question, *, may_leave: bool) -> UserMessage:
        """One usable message of ``spec``, after as many tries as it has.

        Raises:
            SimulatorUnavailable: it cannot play; at once, if ``may_leave`` and it is known to be out.
            UserAuthenticationError: it refuses the key.
            BudgetSpent: no more calls.
        """
        spec.ready()
        prompt = question.prompt(self._prompt(spec))
        address = f"{spec.host}|{spec.model}"
        endpoint = endpoints.endpoint_of(address)
        limit = _limits.get().setdefault(
            f"{address}|{spec.concurrency}", asyncio.Semaphore(endpoints.part_of(spec.concurrency))
        )
        patience = spec.patience
        problem, asked = "", spec
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
                    return await self._call(asked, prompt, endpoint, question)
                except CallFailed as failed:
                    problem = str(failed)
                    self.stats.faults[failed.fault] = self.stats.faults.get(failed.fault, 0) + 1
                    if failed.fault is Fault.AUTHENTICATION:
                        raise endpoints.refuse_key(spec.host, spec.key_variable, spec.label, problem) from None
                    if failed.retry_after:
                        endpoint.hold(failed.retry_after)
                    if failed.fault is Fault.CUT and asked is spec:
                        asked = _with_more_room(spec)
                    elif failed.fault not in RETRIED:
                        break
        raise SimulatorUnavailable(f"{problem} ({attempt + 1} tries)")

    async def _wait(self, seconds: float) -> None:
        started = time.perf_counter()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.stats.waited += time.perf_counter() - started

    async def _call(
        self, spec: UserSpec, prompt: list[dict[str, Any]], endpoint: endpoints.Endpoint, question: _Question
    ) -> UserMessage:
        """One call; the endpoint's breaker learns how it went.

        Raises:
            CallFailed: nothing usable came of it.
        """
        payer, ticket, answer, billed, unknown = PAYER.get(), None, None, None, False
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
            billed = answer = await complete(spec, prompt, question.tools)
            outcome = endpoint.succeeded
        except (CallFailed, asyncio.CancelledError) as failed:
            unknown = is_bill_unknown(failed)
            if isinstance(failed, CallFailed):
                outcome, billed = endpoint.failed if failed.fault in OUTAGE else endpoint.succeeded, failed.billed
            raise
        finally:
            outcome()
            if billed is None:
                spending.failed(spec.label)
            else:
                cost = self._book(spec, billed, time.perf_counter() - started, question.kind)
            if payer is not None:
                payer.after(ticket, billed, unknown=unknown)
        message = user_message(spec.label, answer, cost, question.tools)
        return message if question.read is None else question.read(message)

    def _book(self, spec: UserSpec, answer: Completion, seconds: float, kind: str) -> float:
        """Book an answer, usable or not, and return its price in US dollars."""
        usage, cost = answer.usage, answer.cost
        if spec.price is not None:
            cost = (usage.prompt_tokens * spec.price.input + usage.completion_tokens * spec.price.output) / 1e6
        self.stats.cost += cost
        self.stats.prompt_tokens += usage.prompt_tokens
        self.stats.completion_tokens += usage.completion_tokens
        if self._strategy != "llm":
            booked = self.stats.kinds.setdefault(kind, {})
            new = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
            for name, value in {"calls": 1, **new, "cost": cost, "seconds": seconds}.items():
                booked[name] = booked.get(name, 0) + value
        spending.answered(spec.label, seconds, usage.prompt_tokens, usage.completion_tokens, cost)
        return cost


@dataclasses.dataclass(frozen=True)
class _Question:
    """What is asked of a model for one message."""

    kind: str
    """draft, verdict or reflection: what its calls are booked under."""
    told: list[dict[str, Any]]
    """What stands after the conversation."""
    order: str = ""
    """What stands at the end of the system prompt."""
    read: Read | None = None
    tools: list[dict[str, Any]] | None = None
    whole: bool = False
    """`told` is all that the model gets: no conversation of its own."""

    def prompt(self, conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.whole:
            return self.told
        if self.order:
            first = conversation[0]
            conversation = [{**first, "content": f"{first['content']}\n\n{self.order}"}, *conversation[1:]]
        return [*conversation, *self.told]


def _with_more_room(spec: UserSpec) -> UserSpec:
    """``spec`` for a message that did not fit: four times the tokens that its arguments allow."""
    name = next((name for name in ("max_tokens", "max_completion_tokens") if name in spec.args), "max_tokens")
    given = spec.args.get(name)
    room = max(LEAST_ROOM, 4 * given if isinstance(given, int) else 0)
    return dataclasses.replace(spec, args={**spec.args, name: room})
