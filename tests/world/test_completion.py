"""What a provider may answer: a completion, or a failure of the provider. Never an exception of another kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.world.users.completion import Completion, RequestedCall, Usage, read_completion
from tau2_slime.world.users.faults import CallFailed, Fault


def answer(message: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], **more}


def call(**function: Any) -> dict[str, Any]:
    return answer({"content": None, "tool_calls": [{"id": "c", "function": function}]})


def test_an_answer_is_read_whole() -> None:
    data = call(name="look", arguments='{"a": 1}') | {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    read = read_completion(data, cost=0.5)
    assert read == Completion(
        content=None,
        calls=(RequestedCall("c", "look", '{"a": 1}'),),
        finish_reason="stop",
        usage=Usage(7, 2),
        raw=data["choices"][0],
        cost=0.5,
    )


def test_what_may_be_missing() -> None:
    read = read_completion({"choices": [{"message": {"content": "hi"}}]})
    assert (read.content, read.calls, read.finish_reason, read.usage) == ("hi", (), None, Usage())
    assert read_completion(answer({"content": "hi"}, usage="none of your business")).usage == Usage()
    assert read_completion(call(name="look")).calls == (RequestedCall("c", "look", "{}"),)
    nameless = answer({"tool_calls": [{"function": {"name": "look", "arguments": ""}}]})
    assert read_completion(nameless).calls == (RequestedCall("", "look", "{}"),)


def test_an_answer_that_says_nothing_still_has_a_bill() -> None:
    read = read_completion({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}})
    assert (read.content, read.calls, read.usage) == (None, (), Usage(9, 0))


def test_lone_surrogates_are_mended_everywhere() -> None:
    read = read_completion(json.loads(r'{"choices": [{"message": {"content": "a\ud800"}, "x": "\udc00"}]}'))
    assert read.content == "a�" and read.raw["x"] == "�"


BROKEN: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a text": "x",
    "choices of text": {"choices": "abc"},
    "a choice that is a number": {"choices": [5]},
    "no message": {"choices": [{"finish_reason": "stop"}]},
    "a message that is null": answer(None),
    "content in parts": answer({"content": [{"type": "text", "text": "a"}]}),
    "content that is a number": answer({"content": 5}),
    "a finish reason that is a number": {"choices": [{"message": {"content": "a"}, "finish_reason": 5}]},
    "calls of text": answer({"content": "a", "tool_calls": "x"}),
    "a call that is a text": answer({"content": "a", "tool_calls": ["x"]}),
    "a call without a function": answer({"content": "a", "tool_calls": [{"id": "1"}]}),
    "a call without a name": call(arguments="{}"),
    "a call whose id is a number": answer({"tool_calls": [{"id": 5, "function": {"name": "a"}}]}),
    "a call whose arguments are parsed": call(name="a", arguments={"b": 1}),
    "tokens in words": answer({"content": "a"}, usage={"prompt_tokens": "many"}),
    "tokens that are no number": answer({"content": "a"}, usage={"prompt_tokens": float("nan")}),
    "infinitely many tokens": answer({"content": "a"}, usage={"completion_tokens": float("inf")}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_a_completion_is_garbage(name: str) -> None:
    with pytest.raises(CallFailed) as caught:
        read_completion(BROKEN[name])
    assert caught.value.fault is Fault.GARBAGE and str(caught.value)


def test_an_error_that_came_with_status_200_is_quoted() -> None:
    with pytest.raises(CallFailed, match="overloaded") as caught:
        read_completion({"error": {"message": "overloaded", "code": 500}})
    assert caught.value.fault is Fault.GARBAGE


def test_an_answer_that_is_nested_too_deeply_is_garbage() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(CallFailed, match="too deeply"):
        read_completion(answer({"content": "a", "extra": deep}))


NAMES = ["choices", "message", "content", "tool_calls", "function", "name", "arguments", "id", "usage", "error"]
NAMES += ["prompt_tokens", "completion_tokens", "finish_reason"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.builds(
    lambda message, usage, calls: answer({"content": message, "tool_calls": calls}, usage=usage),
    ANY_JSON,
    ANY_JSON,
    st.none() | st.lists(st.builds(lambda function: {"function": function}, ANY_JSON) | ANY_JSON, max_size=2),
)


@given(ANY_JSON | NEARLY)
def test_any_json_is_a_completion_or_garbage(data: Any) -> None:
    try:
        read = read_completion(data)
    except CallFailed as failed:
        assert failed.fault is Fault.GARBAGE
        return
    assert isinstance(read.content, str | None)
    assert all(isinstance(text, str) for c in read.calls for text in (c.id, c.name, c.arguments))
    assert all(type(count) is int for count in (read.usage.prompt_tokens, read.usage.completion_tokens))


@pytest.mark.parametrize(
    ("secret", "text"), [("sk-12345", "key *** is wrong"), ("none", "key none is wrong"), ("", "key  is wrong")]
)
def test_a_failure_never_repeats_the_key(secret: str, text: str) -> None:
    failed = CallFailed(Fault.REJECTED, f"key {secret} is wrong", 3.0).without(secret)
    assert (str(failed), failed.fault, failed.retry_after) == (text, Fault.REJECTED, 3.0)
