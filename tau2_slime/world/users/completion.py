"""The call itself: one chat completion of one simulator.

litellm reaches every provider, and costs 5 to 10 ms of CPU a call. An endpoint of one's own that speaks OpenAI's protocol,
which is what hundreds of episodes at once talk to, is asked directly: the same request, the same answer.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

from tau2_slime.runtime import http_sessions
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.spec import UserSpec, known_provider, load_litellm

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


async def complete(
    spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None, connection: dict[str, Any]
) -> Any:
    """litellm's ``ModelResponse``, or what has the same attributes; None after litellm's 422.

    ``connection``: what `UserSpec.connection` gave. Raises whatever litellm raises, or EndpointError.
    """
    if is_direct(spec):
        return await _ask(spec, prompt, tools, connection)
    return await _ask_litellm(spec, prompt, tools, connection)


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
    """What the endpoint calls ``model``."""
    provider, slash, rest = model.partition("/")
    return rest if slash and provider in ("openai", "hosted_vllm") else model


class EndpointError(Exception):
    """What an endpoint said instead of an answer, in the terms of litellm's errors (`faults.of_exception`)."""

    def __init__(self, status: int, text: str, headers: Any = None) -> None:
        super().__init__(text)
        self.status_code = status
        self.litellm_response_headers = headers


async def _ask(
    spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None, connection: dict[str, Any]
) -> Any:
    import aiohttp

    messages = [{key: value for key, value in message.items() if value is not None} for message in prompt]
    request = {"model": served_name(spec.model), "messages": messages, **spec.args}
    if tools:
        request |= {"tools": tools, "tool_choice": "auto"}
    url = f"{str(spec.base_url).rstrip('/')}/chat/completions"
    try:
        async with http_sessions.outside().post(
            url,
            json=request,
            headers={"Authorization": f"Bearer {connection['api_key']}"},
            timeout=aiohttp.ClientTimeout(total=spec.timeout),
        ) as response:
            body = await response.text(errors="replace")
            status, headers = response.status, response.headers
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise EndpointError(503, f"{url}: {type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise EndpointError(status, f"{url}: HTTP {status}: {body[:300]}", headers)
    return read_answer(body)


def read_answer(body: str) -> Any:
    """A chat completion with the attributes of litellm's ``ModelResponse`` that this package reads.

    Raises:
        ValueError, TypeError, AttributeError, RecursionError: it is none.
    """
    answer = json.loads(body)
    choices = []
    for choice in answer.get("choices") or []:
        said = choice["message"]
        calls = []
        for call in said.get("tool_calls") or []:
            function = call["function"]
            calls.append(
                SimpleNamespace(
                    id=call.get("id"),
                    function=SimpleNamespace(name=function["name"], arguments=function.get("arguments")),
                )
            )
        message = SimpleNamespace(content=_text(said.get("content")), tool_calls=calls or None)
        choices.append(_Choice(message, choice.get("finish_reason"), choice))
    return _Answer(answer.get("model"), choices, answer.get("usage"))


def _text(content: Any) -> str | None:
    if content is not None and not isinstance(content, str):
        raise TypeError(f"a message's content is no text but {type(content).__name__}")
    return content


class _Choice(SimpleNamespace):
    def __init__(self, message: Any, finish_reason: Any, data: dict[str, Any]) -> None:
        super().__init__(message=message, finish_reason=finish_reason)
        self._data = data

    def to_dict(self) -> dict[str, Any]:
        return self._data


class _Answer(SimpleNamespace):
    """Its price is known to nobody: `is_direct` leaves models with a price to litellm."""

    def __init__(self, model: Any, choices: list[Any], usage: Any) -> None:
        counts = usage if isinstance(usage, dict) else {}
        named = {key: int(counts.get(key) or 0) for key in ("prompt_tokens", "completion_tokens")}
        super().__init__(model=model, choices=choices, usage=SimpleNamespace(**named))

    def get(self, key: str, default: Any = None) -> Any:
        """τ² asks for ``usage`` in this way."""
        return getattr(self, key, default)


def cost_of(response: Any) -> float | None:
    """US dollars, as far as litellm knows the price."""
    if isinstance(response, _Answer):
        return 0.0
    cost: float | None = tau2_compat.load().get_response_cost(response)
    return cost


async def _ask_litellm(
    spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None, connection: dict[str, Any]
) -> Any:
    if known_provider(spec.model) is None:
        # A name of an endpoint of one's own, such as Qwen/Qwen3-4B: it speaks OpenAI's protocol.
        connection = {**connection, "custom_llm_provider": "openai"}
    return await load_litellm().acompletion(
        model=spec.model,
        messages=prompt,
        tools=tools,
        tool_choice="auto" if tools else None,
        timeout=spec.timeout,
        num_retries=0,
        max_retries=0,
        caching=False,  # τ² can switch a global response cache on, which would repeat one user for every sample
        **connection,
        **spec.args,
    )
