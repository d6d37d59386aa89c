"""Every server's way to say that a conversation is too long."""

from __future__ import annotations

import pytest

from tau2_slime.runtime.server_errors import speaks_of_length


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens.",  # OpenAI, vLLM
        '{"error": {"code": "context_length_exceeded"}}',
        "The input (9000 tokens) is longer than the model's context (8192 tokens).",  # sglang
        "Input length (9000 tokens) exceeds the maximum allowed length (8192 tokens).",  # sglang
        "prompt is too long: 210000 tokens > 200000 maximum",  # Anthropic
        "Your input exceeds the context window of this model.",
        "input exceeds context_window",
        "The request exceeds the context limit.",
        "the number of tokens exceeds the context size",
        "Requested token count exceeds the model's maximum context.",
        "PROMPT LONGER THAN ALLOWED",
    ],
)
def test_a_conversation_that_is_too_long_is_recognised(said: str) -> None:
    assert speaks_of_length(said)
    assert speaks_of_length(said.upper())


@pytest.mark.parametrize(
    "said",
    [
        "temperature must be at least 0",
        "unknown model",
        "no context was given",
        "invalid tool schema: 'length' is a number",
        "the maximum number of tools is 128",
        "ValueError: zip() argument 2 is longer than argument 1",  # a server's own bug
        "stop string too long",
        "the tool's name is longer than 64 characters",
    ],
)
def test_another_refusal_is_not_about_length(said: str) -> None:
    assert not speaks_of_length(said)
