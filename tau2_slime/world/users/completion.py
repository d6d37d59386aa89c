"""The call itself: one chat completion of one simulator."""

from __future__ import annotations

from typing import Any

from tau2_slime.world.users.spec import UserSpec, known_provider, load_litellm


async def complete(
    spec: UserSpec, prompt: list[dict[str, Any]], tools: list[dict[str, Any]] | None, connection: dict[str, Any]
) -> Any:
    """litellm's ``ModelResponse``, or None (a 422). Raises whatever litellm raises.

    ``connection``: what `UserSpec.connection` gave.
    """
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
