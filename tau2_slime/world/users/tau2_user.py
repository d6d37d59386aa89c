"""A user class that was written for τ²: it blocks while it thinks, so each of its turns runs in a thread."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tau2_slime.chat.faults import Fault, of_exception
from tau2_slime.errors import ConfigError, UserSimulatorError
from tau2_slime.world import tau2_compat
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.protocol import UserContext, UserStats
from tau2_slime.world.users.spec import UserSpec
from tau2_slime.world.users.spending import spending

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, Tau2User, UserMessage

MAX_THREADS = 64
"""Turns of τ² users at once in this process. `runtime.loops` has two threads for work that never waits for a model."""


def _new_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="tau2-slime-user")


_threads = _new_threads()


class ThreadedTau2User:
    """Plays a user class of τ² (``get_init_state``, ``generate_next_message``); a `protocol.User`."""

    def __init__(self, name: str, user_class: type[Tau2User], context: UserContext) -> None:
        """``name``: what messages call it.

        Raises:
            ConfigError: it asks the configured model, whose key is not set or was refused.
        """
        self.stats = UserStats()
        self._name, self._spec = name, context.spec
        self._user: Tau2User = user_class(
            tools=context.tools,
            instructions=context.instructions,
            llm=context.spec.model,
            llm_args=_llm_args(user_class, context.spec),
        )
        self._state: object = None

    def start(self, history: list[Message]) -> None:
        self._state = self._user.get_init_state(message_history=list(history))

    async def reply(self, message: Delivered) -> UserMessage:
        spending.check(self._spec.budget)
        self.stats.calls += 1
        started = time.perf_counter()
        try:
            turn = _threads.submit(self._user.generate_next_message, message, self._state)
            reply, self._state = await asyncio.wrap_future(turn)
        except Exception as error:  # τ²'s user raises whatever its client does; what no provider causes is raised again
            spending.failed(self._spec.label)
            raise self._provider_failure(error) or error from None
        finally:
            seconds = time.perf_counter() - started
            self.stats.seconds += seconds
        self._check(reply)
        self._book(reply, seconds)
        return reply

    def _provider_failure(self, error: Exception) -> Exception | None:
        """What to raise if ``error`` is a provider's; None if it is a mistake in the user class."""
        failed = of_exception(error)
        if failed is None:
            return None
        self.stats.faults[failed.fault] = self.stats.faults.get(failed.fault, 0) + 1
        if failed.fault is Fault.AUTHENTICATION:
            return endpoints.refuse_key(self._spec.host, self._spec.key_variable, self._spec.label, str(failed))
        return UserSimulatorError(f"user {self._name}: {failed}")

    def _check(self, reply: object) -> None:
        """The conversation ends at τ²'s stop tokens; a class with another rule would be misunderstood."""
        t = tau2_compat.load()
        if not isinstance(reply, t.UserMessage):
            raise TypeError(f"{self._name}.generate_next_message returned {type(reply).__name__}, not a UserMessage")
        if self._user.is_stop(reply) != t.UserSimulator.is_stop(reply):
            raise ConfigError(
                f"user {self._name}: its is_stop has another rule than τ²'s. End the conversation with a text that holds "
                "###STOP###, and with no other"
            )

    def _book(self, reply: UserMessage, seconds: float) -> None:
        usage, cost = reply.usage or {}, reply.cost or 0.0
        prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        self.stats.cost += cost
        self.stats.prompt_tokens += prompt
        self.stats.completion_tokens += completion
        self.stats.played[self._spec.label] = self.stats.played.get(self._spec.label, 0) + 1
        spending.answered(self._spec.label, seconds, prompt, completion, cost)


def _llm_args(user_class: type[Tau2User], spec: UserSpec) -> dict[str, Any]:
    """τ²'s ``llm_args``; without the model's address and key where the class may not need them and there are none."""
    args: dict[str, Any] = {"timeout": spec.timeout, "num_retries": spec.retries, "caching": False}
    try:
        spec.ready()
        return args | spec.litellm_arguments()
    except ConfigError:
        if issubclass(user_class, tau2_compat.load().UserSimulator):
            raise
        return args | spec.args


def _in_a_forked_child() -> None:
    global _threads
    _threads = _new_threads()  # the parent's threads do not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)
