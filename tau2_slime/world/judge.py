"""The LLM judge of the tasks that τ² grades by natural-language assertions: τ²'s question, asked by this package.

τ² asks one fixed model, without retries, and takes an answer without verdicts for a success. Here the model is a setting,
the call is awaited, bounded and paid for like every other one, and the reward waits for a verdict on every assertion.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from tau2_slime.chat.completion import Completion, Ending
from tau2_slime.chat.faults import RETRIED, CallFailed, Fault
from tau2_slime.errors import Tau2SlimeError
from tau2_slime.runtime.http import read_json
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.world import tau2_compat
from tau2_slime.world.billing import PAYER, is_bill_unknown
from tau2_slime.world.users import endpoints
from tau2_slime.world.users.completion import complete
from tau2_slime.world.users.spec import ModelSpec
from tau2_slime.world.users.spending import spending

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, Task

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds before the second try, and the most before a later one."""
_MODULE = "tau2.evaluator.evaluator_nl_assertions"


class JudgeUnavailable(Tau2SlimeError):
    """No try gave a verdict on every assertion. Nobody who speaks in the episode is to blame."""

    def __init__(self, problem: str, fault: Fault = Fault.GARBAGE) -> None:
        super().__init__(problem)
        self.fault = fault
        """Of the last try."""


@dataclass(frozen=True)
class JudgeSpec(ModelSpec):
    """Which model judges; an empty name is τ²'s own choice, and so are its arguments."""

    ROLE = "judge model"
    KEY_OPTION = "judge_api_key_var"

    model: str = ""
    concurrency: int = 32
    """Calls in flight per event loop."""
    budget: float | None = None
    """Dollars that simulators and judge of this process may cost; None: no limit."""

    def resolved(self) -> JudgeSpec:
        """The same with τ²'s model and arguments where none are given."""
        return replace(self, model=self.model or tau2s_model(), args=self.args or tau2s_arguments())


@dataclass(frozen=True)
class Verdict:
    """On one assertion."""

    assertion: str
    met: bool
    reasoning: str


@dataclass(frozen=True)
class Judgement:
    """Verdicts on all assertions of a task, in their order, and where they came from."""

    verdicts: tuple[Verdict, ...]
    model: str
    base_url: str | None
    tries: int
    cost: float
    """US dollars, as far as the price is known."""

    def record(self) -> dict[str, Any]:
        """For the episode's record, beside the verdicts, which τ²'s reward has."""
        return {"model": self.model, "base_url": self.base_url, "tries": self.tries, "cost": self.cost}


def tau2s_model() -> str:
    """The model that τ² has for its judge."""
    return str(importlib.import_module("tau2.config").DEFAULT_LLM_NL_ASSERTIONS)


def tau2s_arguments() -> dict[str, Any]:
    return dict(importlib.import_module("tau2.config").DEFAULT_LLM_NL_ASSERTIONS_ARGS)


_limits: PerLoop[dict[str, asyncio.Semaphore]] = PerLoop(dict)


T = TypeVar("T")


async def ask(spec: JudgeSpec, task: Task, messages: Sequence[Message]) -> Judgement:
    """A verdict on every assertion of ``task`` about a finished conversation.

    Raises:
        JudgeUnavailable: no try gave one.
        BudgetSpent, EpisodeAborted: the call must not be paid for.
        ConfigError: the judge's key is not set.
    """
    spec = spec.resolved()
    assertions = list(task.evaluation_criteria.nl_assertions)
    prompt = _question(messages, assertions)
    verdicts, tries, cost = await answered(spec, prompt, lambda answer: read_verdicts(answer, assertions))
    return Judgement(verdicts, spec.model, spec.base_url, tries, cost)


async def answered(
    spec: JudgeSpec, prompt: list[dict[str, Any]], read: Callable[[Completion], T]
) -> tuple[T, int, float]:
    """What ``read`` makes of the model's answer, how many tries it took, and what they cost in dollars.

    ``read`` raises CallFailed for an answer that it cannot use.

    Raises:
        JudgeUnavailable: no try gave a usable answer; its ``fault`` says why.
        BudgetSpent, EpisodeAborted: the call must not be paid for.
        ConfigError: the judge's key is not set.
    """
    limit = _limits.get().setdefault(
        f"{spec.host}|{spec.model}", asyncio.Semaphore(endpoints.part_of(spec.concurrency))
    )
    problem, pause, cost, fault = "", 0.0, 0.0, Fault.GARBAGE
    for attempt in range(spec.retries + 1):
        if attempt:
            backoff = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random())
            await asyncio.sleep(max(backoff, pause))
        async with limit:
            try:
                answer = await _call(spec, prompt)
                cost += answer.cost
                return read(answer), attempt + 1, cost
            except CallFailed as failed:
                problem, pause, fault = str(failed), failed.retry_after or 0.0, failed.fault
                cost += failed.billed.cost if failed.billed is not None else 0.0
                if fault not in RETRIED:
                    break
    raise JudgeUnavailable(f"{spec.ROLE} {spec.model}: {problem} ({attempt + 1} tries)", fault)


async def _call(spec: JudgeSpec, prompt: list[dict[str, Any]]) -> Completion:
    """One call, on the bill of whoever pays for this episode. Raises CallFailed."""
    spending.check(spec.budget)
    payer, ticket, billed, unknown = PAYER.get(), None, None, False
    if payer is not None:
        ticket = payer.before("judge", spec.model, prompt, spec.args, own=spec.base_url is not None)
    label, started = f"judge {spec.model}", asyncio.get_running_loop().time()
    try:
        billed = await complete(spec, prompt, None)
        return billed
    except (CallFailed, asyncio.CancelledError) as failed:
        unknown = is_bill_unknown(failed)
        billed = failed.billed if isinstance(failed, CallFailed) else None
        raise
    finally:
        if billed is None:
            spending.failed(label)
        else:
            seconds, usage = asyncio.get_running_loop().time() - started, billed.usage
            spending.answered(label, seconds, usage.prompt_tokens, usage.completion_tokens, billed.cost)
        if payer is not None:
            payer.after(ticket, billed, unknown=unknown)


def read_answer(answer: Completion) -> Any:
    """The JSON of an answer, in a fence or without. Raises CallFailed: it is cut or is not JSON."""
    if answer.ending is not Ending.WHOLE:
        raise CallFailed(Fault.GARBAGE, f"the judge's answer was {answer.ending}")
    text = answer.said.content or ""
    fenced = _FENCE.match(text)
    try:
        return read_json(fenced.group(1) if fenced else text)
    except ValueError as error:
        raise CallFailed(Fault.GARBAGE, f"the judge's answer is not JSON ({error}): {text}") from None


_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


def read_verdicts(answer: Completion, assertions: Sequence[str]) -> tuple[Verdict, ...]:
    """The verdicts of an answer, one for each assertion, in their order.

    Raises:
        CallFailed: the answer is cut or is not JSON, or an assertion has no verdict, or more than one.
    """
    value, text = read_answer(answer), answer.said.content or ""
    results = value.get("results") if isinstance(value, Mapping) else None
    if not isinstance(results, list) or len(results) != len(assertions):
        count = len(results) if isinstance(results, list) else "no"
        raise CallFailed(Fault.GARBAGE, f"{count} verdicts on {len(assertions)} assertions: {text}")
    read = [_read_verdict(result) for result in results]
    by_words = {_plain(verdict.assertion): verdict for verdict in read}
    if {_plain(assertion) for assertion in assertions} <= set(by_words):
        found = [by_words[_plain(assertion)] for assertion in assertions]
    else:  # said in other words: they stand in the order of the question
        found = read
    return tuple(replace(verdict, assertion=assertion) for assertion, verdict in zip(assertions, found, strict=True))


def _read_verdict(result: object) -> Verdict:
    if not isinstance(result, Mapping) or not isinstance(result.get("metExpectation"), bool):
        raise CallFailed(Fault.GARBAGE, f"a verdict without metExpectation true or false: {result}")
    return Verdict(
        str(result.get("expectedOutcome") or ""), result["metExpectation"], str(result.get("reasoning") or "")
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("\"'.").lower()


# ---- τ²'s own evaluator --------------------------------------------------------------------------------------------------


class _AskedError(Exception):
    def __init__(self, messages: list[Any]) -> None:
        super().__init__()
        self.messages = messages


def _question(messages: Sequence[Message], assertions: list[str]) -> list[dict[str, Any]]:
    """What τ² would ask its judge, in OpenAI's messages: its own code, stopped where it would make the call."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise _AskedError(kwargs["messages"] if "messages" in kwargs else args[1])

    evaluator = importlib.import_module(_MODULE).NLAssertionsEvaluator
    own = getattr(evaluator.evaluate_nl_assertions, _OWN, evaluator.evaluate_nl_assertions.__func__)
    stopped = FunctionType(own.__code__, {**own.__globals__, "generate": stop}, argdefs=own.__defaults__)
    try:
        stopped(evaluator, list(messages), assertions)
    except _AskedError as asked:
        prompt: list[dict[str, Any]] = tau2_compat.load().to_litellm_messages(asked.messages)
        return prompt
    raise AssertionError("τ²'s evaluator asked nothing")


_OWN = "tau2s_own"
_given = threading.local()


@contextmanager
def given(verdicts: Sequence[Verdict]) -> Iterator[None]:
    """While it is open, τ²'s evaluator takes ``verdicts`` in this thread and asks no judge."""
    _let_verdicts_be_given()
    _given.verdicts = verdicts
    try:
        yield
    finally:
        del _given.verdicts


@cache
def _let_verdicts_be_given() -> None:
    module = importlib.import_module(_MODULE)
    evaluator, check = module.NLAssertionsEvaluator, module.NLAssertionCheck
    own = evaluator.evaluate_nl_assertions.__func__

    def evaluate(cls: type, *args: Any, **kwargs: Any) -> object:
        verdicts: Sequence[Verdict] | None = getattr(_given, "verdicts", None)
        if verdicts is None:
            return own(cls, *args, **kwargs)
        return [check(nl_assertion=v.assertion, met=v.met, justification=v.reasoning) for v in verdicts]

    setattr(evaluate, _OWN, own)
    evaluator.evaluate_nl_assertions = classmethod(evaluate)
