"""The call itself: one chat completion of one model, a simulator's, a policy's or the judge's.

litellm reaches every provider, and costs 5 to 10 ms of CPU a call. An endpoint of one's own that speaks OpenAI's protocol,
with which hundreds of episodes talk at once, is asked directly: the same request, the same answer.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import Any

from tau2_slime.chat.completion import Completion, read_completion
from tau2_slime.chat.faults import CallFailed, Fault, of_exception, of_status
from tau2_slime.runtime import http, sessions, tracebacks
from tau2_slime.world import tau2_compat
from tau2_slime.world.litellm_client import load_litellm
from tau2_slime.world.users.bounded_client import answers, bounded_client
from tau2_slime.world.users.spec import ModelSpec, known_provider, provider_of
from tau2_slime.world.users.spending import listed_price

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


class KeptMessage(dict[str, Any]):
    """A message that many requests of one conversation hold; nobody changes it. Its JSON is written once."""

    @cached_property
    def json(self) -> bytes:
        return http.write_json({key: value for key, value in self.items() if value is not None})


async def complete(spec: ModelSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Completion:
    """The answer of ``spec``'s model to ``prompt``, in OpenAI's messages; ``tools`` in OpenAI's function schemas.

    Of a `KeptMessage` the JSON is kept: then a turn costs no more than a copy of what the conversation held before it.

    Raises:
        CallFailed: the provider, its client or its answer is at fault, or none came within ``spec.timeout`` seconds.
        ConfigError: the key's variable is not set.
    """
    try:
        if is_direct(spec):
            return await _ask_directly(spec, prompt, tools)
        async with asyncio.timeout(spec.timeout):  # which not every client of litellm's keeps
            return await _ask_litellm(spec, prompt, tools)
    except TimeoutError:
        raise CallFailed(Fault.TIMEOUT, f"no answer within {spec.timeout:g} s") from None


def is_direct(spec: ModelSpec) -> bool:
    """True if litellm would send the request as it is, to an endpoint of one's own, and knows no price for the answer."""
    if spec.base_url is None or not spec.base_url.lower().startswith(("http://", "https://")):
        return False
    if known_provider(spec.model) not in (None, "openai", "hosted_vllm") or set(spec.args) - PLAIN_ARGS:
        return False
    litellm = load_litellm()
    name = served_name(spec.model)
    if spec.model in litellm.model_cost or name in litellm.model_cost or name.rpartition("/")[2] in litellm.model_cost:
        return False  # a model whose requests litellm rewrites, or whose answers have a price
    watched = (litellm.callbacks, litellm.success_callback, litellm.failure_callback, litellm.input_callback)
    watchers = [one for many in watched for one in many]
    if getattr(litellm, "cache", None) is None:
        watchers = [one for one in watchers if one != "cache"]  # its Gemini client leaves this behind
    return litellm.ssl_verify is True and not watchers


def served_name(model: str) -> str:
    """What the endpoint calls ``model``.

    >>> served_name("openai/Qwen/Qwen3-4B"), served_name("Qwen/Qwen3-4B")
    ('Qwen/Qwen3-4B', 'Qwen/Qwen3-4B')
    """
    provider, slash, rest = model.partition("/")
    return rest if slash and provider in ("openai", "hosted_vllm") else model


async def _ask_directly(
    spec: ModelSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> Completion:
    import aiohttp

    rest = {**spec.args, **({"tools": tools, "tool_choice": "auto"} if tools else {})}
    begin = http.write_json({"model": served_name(spec.model), "messages": []}).removesuffix(b"]}")
    messages = [(one if isinstance(one, KeptMessage) else KeptMessage(one)).json for one in prompt]
    end = b"]," + http.write_json(rest)[1:] if rest else b"]}"
    request = b"".join((begin, b",".join(messages), end))
    url = f"{str(spec.base_url).rstrip('/')}/chat/completions"
    key = spec.connection()["api_key"]
    try:
        answer = await http.post(
            sessions.outside(),
            url,
            request,
            headers={"Authorization": f"Bearer {key}"},
            within=aiohttp.ClientTimeout(total=spec.timeout),
        )
    except http.Redirected as error:
        raise CallFailed(Fault.REJECTED, f"{url}: {error}") from None
    except http.AnswerRefused as error:
        raise CallFailed(Fault.GARBAGE, f"{url}: {error}") from None
    except http.NoAnswer as error:
        raise CallFailed(Fault.UNAVAILABLE, f"{url}: {error}") from None
    if not 200 <= answer.status < 300:
        raise of_status(answer.status, answer.text, answer.headers, where=f"{url}: HTTP {answer.status}: ")
    return _read(answer.body, url)


def _is_plain(litellm: ModuleType) -> bool:
    """True if nobody has given litellm a client or certificates of their own."""
    return litellm.ssl_verify is True and litellm.aclient_session is None and litellm.ssl_certificate is None


async def _ask_litellm(spec: ModelSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Completion:
    litellm, t = load_litellm(), tau2_compat.load()
    request = {
        "model": spec.model,
        "messages": [copy.deepcopy(dict(one)) for one in prompt],  # litellm rewrites them for some providers
        "tools": tools,
        "tool_choice": "auto" if tools else None,
        "timeout": spec.timeout,
        "num_retries": 0,
        "max_retries": 0,
        "caching": False,  # τ² can switch a global response cache on, which would repeat one user for every sample
        **spec.litellm_arguments(),
    }
    if provider_of(spec.model) == "openai" and "api_base" in request and _is_plain(litellm):
        request["client"] = bounded_client(str(request["api_base"]), str(request["api_key"]))
    came: list[str] = []
    token = answers.set(came)
    try:
        response = await litellm.acompletion(**request)
    except Exception as error:  # clients' errors have no common base; what is not one of them is raised again
        failed = None if came else of_exception(error)
        if failed is None and not came:
            raise
        tracebacks.forget(error)
        if failed is None:  # it is litellm that cannot read the answer
            read, price = _read(came[-1], "the answer"), listed_price(spec.model)
            if price is None:
                return read
            dollars = read.usage.prompt_tokens * price.input + read.usage.completion_tokens * price.output
            return replace(read, cost=dollars / 1e6)
        try:
            raise failed from None
        finally:
            del failed  # its traceback holds this frame
    finally:
        answers.reset(token)
    if response is None:  # what litellm makes of a 422 while it may drop parameters, as τ² tells it to
        raise CallFailed(Fault.REJECTED, "the endpoint cannot process the request (HTTP 422)")
    cost = t.get_response_cost(response) if response.model else 0.0
    return _read(came[-1], "the answer", cost) if came else read_completion(response.model_dump(), cost=cost)


def _read(answer: str | bytes, where: str, cost: float = 0.0) -> Completion:
    try:
        body = http.read_json(answer)
    except ValueError as error:
        text = answer if isinstance(answer, str) else answer.decode("utf-8", "replace")
        raise CallFailed(Fault.GARBAGE, f"{where}: an answer that is not JSON ({error}): {text[:10_000]!r}") from None
    return read_completion(body, cost=cost)
