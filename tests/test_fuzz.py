"""Hostile input, at random: whatever a model or an endpoint sends, a reader answers, or refuses with its own error.

2,000 inputs in an ordinary run, 50,000 in `make test-nightly`. A failure prints the seed of its input.
"""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

import pytest

from tau2_slime.chat.completion import read_completion
from tau2_slime.chat.faults import CallFailed
from tau2_slime.errors import EngineError
from tau2_slime.tokens.calls.parsers.tagged import MAX_CALLS
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.schema_types import coerce
from tau2_slime.tokens.calls.types import CallStatus
from tau2_slime.tokens.engine import read_reply
from tests.tokens.tools import TOOLS

INPUTS = 50_000 if os.environ.get("TAU2_SLIME_NIGHTLY") else 2_000
PIECES = (
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>", "<function=get_order>", "</function>"),
    *("<parameter=order_id>", "</parameter>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "get_order"),
    *('{"name": "get_order", "arguments": {"order_id": "#W1"}}', '{"name"', '"arguments": {', "}", "[", "]", "\n", '"'),
    *(
        "\\ud800",
        "\ud800",
        "\x00",
        "\u2028",
        "9" * 400,
        "1e999",
        "NaN",
        "-0",
        "[" * 90,
        '{"a":' * 90,
        "\\",
        "é",
        "👩‍👩‍👧",
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**40, 10**400, 1.5, float("nan"), float("inf"), "", "x" * 5000, "\ud800", "stop", "length"),
    *(
        [],
        [[]],
        {},
        {"type": "text", "text": "hi"},
        [{"type": "text", "text": 3}],
        {"a": {"a": {"a": []}}},
        "{}",
        '"{}"',
    ),
)
REPLY = {
    "text": "x",
    "output_ids": [5, 6],
    "meta_info": {
        "finish_reason": {"type": "stop", "matched": 6},
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "output_token_logprobs": [[-0.5, 5, None], [-0.1, 6, None]],
        "weight_version": "1",
        "weight_versions": [{"version": "1", "start": 0, "end": 2}],
    },
}
CALL = {"id": "c", "type": "function", "function": {"name": "get_order", "arguments": '{"order_id": "#W1"}'}}
ANSWER = {
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi", "tool_calls": [CALL]}}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    "error": None,
}


def dice_of(number: int) -> random.Random:
    return random.Random(f"fuzz {number}")


def mutated(value: Any, dice: random.Random) -> Any:
    """A copy of a JSON value in which up to three members are gone, or are something else."""
    whole = [copy.deepcopy(value)]
    for _ in range(dice.randint(1, 3)):
        parent: Any = whole
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = dice.choice(keys)
            if isinstance(parent[key], (dict, list)) and parent[key] and dice.random() < 0.8:
                parent = parent[key]
                continue
            if dice.random() < 0.2 and parent is not whole:
                del parent[key]
            else:
                parent[key] = copy.deepcopy(dice.choice(VALUES))
            break
    return whole[0]


@pytest.mark.parametrize("name", ["hermes", "qwen_xml", "glm"])
def test_parsers_read_whatever_a_model_writes(name: str) -> None:
    parser = get_parser(name)
    for number in range(INPUTS // 3):
        dice = dice_of(number)
        text = "".join(dice.choices(PIECES, k=dice.randint(0, 30))) * dice.choice([1, 1, 1, 200])
        turn = parser.parse(text, TOOLS, reasoning_open=dice.random() < 0.3)
        assert len(turn.calls) <= MAX_CALLS + 2, number
        for call in turn.calls:
            assert (call.error is None) == (call.status is CallStatus.OK), number
            json.dumps(call.arguments)


def test_arguments_of_any_kind_fit_or_do_not() -> None:
    schema = TOOLS[0]["function"]["parameters"]
    for number in range(INPUTS):
        dice = dice_of(number)
        arguments = {dice.choice(["order_id", "amount", "x", ""]): dice.choice(VALUES) for _ in range(3)}
        typed, problems = coerce(arguments, schema, by_schema=dice.random() < 0.5)
        assert isinstance(typed, dict) and all(isinstance(problem, str) for problem in problems), number


def test_a_routers_reply_is_true_or_refused() -> None:
    for number in range(INPUTS):
        reply = mutated(REPLY, dice_of(number))
        try:
            completion = read_reply(reply, [1, 2], most=2, vocabulary=100)
        except EngineError:
            continue
        assert len(completion.ids) == len(completion.log_probs) <= 2, number
        assert all(0 <= token < 100 for token in completion.ids), number


def test_an_endpoints_answer_is_read_or_refused() -> None:
    for number in range(INPUTS):
        answer = mutated(ANSWER, dice_of(number))
        try:
            said = read_completion(answer).said
        except CallFailed:
            continue
        for words in (said.content, said.thoughts, *(call.arguments for call in said.calls)):
            assert words is None or isinstance(words, (str, dict)), number
            json.dumps(words, ensure_ascii=False).encode()  # it can be sent and kept
