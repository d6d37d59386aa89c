"""The call itself: one chat completion of one simulator.

litellm reaches every provider, and costs 5 to 10 ms of CPU a call. An endpoint of one's own that speaks OpenAI's protocol,
with which hundreds of episodes talk at once, is asked directly: the same request, the same answer.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlparse

from tau2_slime.runtime import loops
from tau2_slime.runtime.text import well_formed_value
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.faults import CallFailed, Fault, of_exception, of_status
from tau2_slime.world.users.spec import UserSpec, known_provider, load_litellm

T = TypeVar("T")

PLAIN_ARGS = frozenset(
    [
        "chat_template_kwargs",
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    ]
)
"""Arguments that go into the request as they are. litellm has a meaning of its own for many others."""


@dataclass(frozen=True)
class Usage:
    """What the endpoint counted; zeros if it names nothing."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class RequestedCall:
    """A tool call as the model wrote it."""

    id: str
    name: str
    arguments: str
    """JSON, if the model got it right."""


@dataclass(frozen=True)
class Completion:
    """One answer of a model, its text fit for UTF-8."""

    content: str | None
    calls: tuple[RequestedCall, ...]
    finish_reason: str | None
    usage: Usage
    raw: dict[str, Any]
    """The answer's one choice, as it came."""
    cost: float = 0.0
    """US dollars, as far as litellm knows the price."""


async def complete(spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Completion:
    """The answer of ``spec``'s model to ``prompt``, in OpenAI's messages; ``tools`` in OpenAI's function schemas.

    Raises:
        CallFailed: the provider, its client or its answer is at fault.
        TimeoutError: no answer within ``spec.timeout`` seconds.
        ConfigError: the key's variable is not set.
    """
    ask = _ask_directly if is_direct(spec) else _ask_litellm
    try:
        return await ask(spec, prompt, tools)
    except CallFailed as failed:
        raise failed.without(spec.connection().get("api_key", "")) from None


def is_direct(spec: UserSpec) -> bool:
    """True if litellm would send the request as it is, to an endpoint of one's own, and knows no price for the answer."""
    if spec.base_url is None or urlparse(spec.base_url).scheme not in ("http", "https"):
        return False
    if known_provider(spec.model) not in (None, "openai", "hosted_vllm") or set(spec.args) - PLAIN_ARGS:
        return False
    litellm = load_litellm()
    name = served_name(spec.model)
    if spec.model in litellm.model_cost or name in litellm.model_cost or name.rpartition("/")[2] in litellm.model_cost:
        return False  # a model whose requests litellm rewrites, or whose answers have a price
    watched = (litellm.callbacks, litellm.success_callback, litellm.failure_callback, litellm.input_callback)
    return litellm.ssl_verify is True and not any(watched)


def served_name(model: str) -> str:
    """What the endpoint calls ``model``.

    >>> served_name("openai/Qwen/Qwen3-4B"), served_name("Qwen/Qwen3-4B")
    ('Qwen/Qwen3-4B', 'Qwen/Qwen3-4B')
    """
    provider, slash, rest = model.partition("/")
    return rest if slash and provider in ("openai", "hosted_vllm") else model


async def _ask_directly(spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Completion:
    import aiohttp

    messages = [{key: value for key, value in message.items() if value is not None} for message in prompt]
    request = {"model": served_name(spec.model), "messages": messages, **spec.args}
    if tools:
        request |= {"tools": tools, "tool_choice": "auto"}
    url = f"{str(spec.base_url).rstrip('/')}/chat/completions"
    key = spec.connection()["api_key"]
    try:
        async with loops.outside().post(
            url,
            json=request,
            headers={"Authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(total=spec.timeout),
        ) as response:
            body = (await response.read()).decode("utf-8", "replace")
            status, headers = response.status, response.headers
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise CallFailed(Fault.UNAVAILABLE, f"{url}: {type(error).__name__}: {error}"[:400]) from error
    if not 200 <= status < 300:
        raise of_status(status, f"{url}: HTTP {status}: {body}", headers)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallFailed(Fault.GARBAGE, f"{url}: an answer that is not JSON: {body[:200]!r}") from error
    return read_completion(answer)


async def _ask_litellm(spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Completion:
    litellm, t = load_litellm(), tau2_compat.load()
    request = {
        "model": spec.model,
        "messages": prompt,
        "tools": tools,
        "tool_choice": "auto" if tools else None,
        "timeout": spec.timeout,
        "num_retries": 0,
        "max_retries": 0,
        "caching": False,  # τ² can switch a global response cache on, which would repeat one user for every sample
        **spec.litellm_arguments(),
    }
    try:
        response = await litellm.acompletion(**request)
    except Exception as error:  # clients' errors have no common base; what is not one of them is raised again
        failed = of_exception(error)
        if failed is None:
            raise
        raise failed from error
    if response is None:  # what litellm makes of a 422 while it may drop parameters, as τ² tells it to
        raise CallFailed(Fault.REJECTED, "the endpoint cannot process the request (HTTP 422)")
    cost = t.get_response_cost(response) if response.model else 0.0
    return read_completion(response.model_dump(), cost=cost)


def read_completion(answer: object, *, cost: float = 0.0) -> Completion:
    """The first choice of a chat completion in OpenAI's form, parsed from JSON.

    Raises:
        CallFailed: it is not one (`Fault.GARBAGE`).
    """
    whole = _expect(answer, dict, "the answer")
    try:
        whole = well_formed_value(whole)
    except RecursionError as error:
        raise CallFailed(Fault.GARBAGE, "an answer that is nested too deeply") from error
    if "error" in whole and not whole.get("choices"):
        raise CallFailed(Fault.GARBAGE, f"an error instead of an answer: {str(whole['error'])[:200]}")
    usage = _read_usage(whole.get("usage"))
    choices = _expect(whole.get("choices") or [], list, "choices")
    if not choices:  # an answer, with its bill, that says nothing
        return Completion(None, (), None, usage, {}, cost)
    choice = _expect(choices[0], dict, "a choice")
    message = _expect(choice.get("message"), dict, "a message")
    return Completion(
        content=_expect(message.get("content"), (str, type(None)), "a message's content"),
        calls=tuple(_read_call(call) for call in _expect(message.get("tool_calls") or [], list, "tool_calls")),
        finish_reason=_expect(choice.get("finish_reason"), (str, type(None)), "finish_reason"),
        usage=usage,
        raw=choice,
        cost=cost,
    )


def _read_call(call: object) -> RequestedCall:
    whole = _expect(call, dict, "a tool call")
    function = _expect(whole.get("function"), dict, "a tool call's function")
    return RequestedCall(
        id=_expect(whole.get("id") or "", str, "a tool call's id"),
        name=_expect(function.get("name"), str, "a tool's name"),
        arguments=_expect(function.get("arguments") or "{}", str, "a tool call's arguments"),
    )


def _read_usage(usage: object) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    return Usage(*(_read_count(counts.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")))


def _read_count(count: object) -> int:
    number = _expect(count, (int, float), "a number of tokens")
    if not math.isfinite(number):
        raise CallFailed(Fault.GARBAGE, f"a number of tokens is {number}")
    return int(number)


def _expect(value: object, kind: type[T] | tuple[type[T], ...], what: str) -> T:
    """``value``, if it is of ``kind``; `CallFailed` otherwise."""
    if isinstance(value, kind):
        return value
    raise CallFailed(Fault.GARBAGE, f"{what} is {type(value).__name__}: {str(value)[:100]}")
