"""What a provider may answer: a completion, or a failure of the provider. Never an exception of another kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.chat.completion import (
    MAX_CALLS,
    Completion,
    Ending,
    RequestedCall,
    Said,
    Usage,
    message_to_send_back,
    read_completion,
    read_message,
    with_providers_own,
)
from tau2_slime.chat.faults import CallFailed, Fault


def answer(message: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], **more}


def call(**function: Any) -> dict[str, Any]:
    return answer({"content": None, "tool_calls": [{"id": "c", "function": function}]})


def test_an_answer_is_read_whole() -> None:
    data = call(name="look", arguments='{"a": 1}') | {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    assert read_completion(data, cost=0.5) == Completion(
        Said(None, calls=(RequestedCall("c", "look", '{"a": 1}'),)),
        ending=Ending.WHOLE,
        usage=Usage(7, 2),
        raw=data["choices"][0],
        cost=0.5,
    )


def test_what_may_be_missing() -> None:
    read = read_completion({"choices": [{"message": {"content": "hi"}}]})
    assert (read.said, read.ending, read.usage) == (Said("hi"), Ending.WHOLE, Usage())
    assert read_completion(answer({"content": "hi"}, usage="none of your business")).usage == Usage()
    assert read_completion(call(name="look")).said.calls == (RequestedCall("c", "look", "{}"),)
    nameless = answer({"tool_calls": [{"function": {"name": "look", "arguments": ""}}]})
    assert read_completion(nameless).said.calls == (RequestedCall("", "look", "{}"),)


def test_an_answer_that_says_nothing_still_has_a_bill() -> None:
    read = read_completion({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}})
    assert (read.said, read.usage) == (Said(None), Usage(9, 0))


def test_an_answer_that_cannot_be_used_keeps_its_bill() -> None:
    usage = {"prompt_tokens": "9", "completion_tokens": 1}
    for message in ({"content": [{"type": "image_url", "image_url": {}}]}, {"content": "x", "tool_calls": [{"id": 1}]}):
        with pytest.raises(CallFailed) as failed:
            read_completion(answer(message, usage=usage), cost=0.5)
        assert failed.value.billed == Completion(Said(None), usage=Usage(9, 1), cost=0.5)


def test_lone_surrogates_are_mended_everywhere() -> None:
    read = read_completion(json.loads(r'{"choices": [{"message": {"content": "a\ud800"}, "x": "\udc00"}]}'))
    assert read.said.content == "a�" and (read.raw or {})["x"] == "�"


# ---- text, thoughts, calls -----------------------------------------------------------------------------------------------

PARTS: dict[str, tuple[list[Any], Said]] = {
    "two texts": ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}], Said("Hello.")),
    "bare texts": (["Hel", "lo."], Said("Hello.")),
    "without a type": ([{"text": "Hello."}], Said("Hello.")),
    "of the responses API": ([{"type": "output_text", "text": "Hello."}], Said("Hello.")),
    "Anthropic's thoughts": (
        [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "Hello."}],
        Said("Hello.", "hm"),
    ),
    "Mistral's thoughts": (
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hello."}],
        Said("Hello.", "hm"),
    ),
    "none": ([], Said(None)),
}


@pytest.mark.parametrize("name", PARTS)
def test_text_in_parts(name: str) -> None:
    parts, said = PARTS[name]
    assert read_completion(answer({"content": parts})).said == said


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_that_the_server_set_apart(field: str) -> None:
    assert read_message({"content": "Hello.", field: "hm"}) == Said("Hello.", "hm")
    both = read_message({"content": "<think>aloud</think>Hello.", field: "apart"})
    assert (both.content, both.thoughts) == ("Hello.", "apart")


def test_arguments_in_every_form_that_servers_write() -> None:
    for arguments in ('{"id": "7"}', json.dumps('{"id": "7"}'), {"id": "7"}):
        (requested,) = read_completion(call(name="look", arguments=arguments)).said.calls
        assert requested.values() == {"id": "7"}
    older = answer({"content": None, "function_call": {"name": "look", "arguments": "{}"}})
    assert read_completion(older).said.calls == (RequestedCall("", "look", "{}"),)


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", "7", '"text"', '"[1]"', "[" * 5000, '"' + "[" * 500 + '"'])
def test_arguments_that_are_no_object_are_garbage(arguments: str) -> None:
    with pytest.raises(CallFailed) as caught:
        RequestedCall("c", "look", arguments).values()
    assert caught.value.fault is Fault.GARBAGE


def test_a_message_with_far_too_many_calls_is_garbage() -> None:
    calls = [{"id": f"c{i}", "function": {"name": "look"}} for i in range(MAX_CALLS + 1)]
    assert len(read_completion(answer({"tool_calls": calls[1:]})).said.calls) == MAX_CALLS
    with pytest.raises(CallFailed, match="tool calls"):
        read_completion(answer({"tool_calls": calls}))


# ---- endings and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        ("stop", Ending.WHOLE),
        ("tool_calls", Ending.WHOLE),
        (None, Ending.WHOLE),
        ("end_turn", Ending.WHOLE),
        ("length", Ending.CUT),
        ("MAX_TOKENS", Ending.CUT),
        ("content_filter", Ending.FILTERED),
        ("SAFETY", Ending.FILTERED),
        ("error", Ending.FAILED),
        ("insufficient_system_resource", Ending.FAILED),
    ],
)
def test_how_a_message_ended(reason: str | None, ending: Ending) -> None:
    assert read_completion({"choices": [{"message": {"content": "I"}, "finish_reason": reason}]}).ending is ending


ERRORS: dict[str, tuple[Any, Fault, str]] = {
    "no money, by code": ({"error": {"message": "Add more credits", "code": 402}}, Fault.AUTHENTICATION, "credits"),
    "a code in digits": ({"error": {"message": "who are you?", "code": "401"}}, Fault.AUTHENTICATION, "who are"),
    "no money, by words": ({"error": {"message": "insufficient_quota"}}, Fault.AUTHENTICATION, "quota"),
    "a wrong key, by words": ({"error": {"code": "invalid_api_key", "message": "no"}}, Fault.AUTHENTICATION, "no"),
    "too many": ({"error": {"message": "slow down", "code": 429}}, Fault.RATE_LIMIT, "slow down"),
    "too many, by words": ({"error": "Rate limit reached"}, Fault.RATE_LIMIT, "Rate limit"),
    "overloaded": ({"error": {"message": "overloaded", "code": 503}}, Fault.UNAVAILABLE, "overloaded"),
    "too long": ({"error": {"message": "maximum context length is 10", "code": 400}}, Fault.CONTEXT_OVERFLOW, "10"),
    "filtered": ({"error": {"message": "content_filter hit", "code": 400}}, Fault.CONTENT_FILTER, "hit"),
    "beside no choices": ({"error": {"message": "x", "code": 402}, "choices": None}, Fault.AUTHENTICATION, "x"),
    "in the choice": ({"choices": [{"error": {"message": "x", "code": 502}}]}, Fault.UNAVAILABLE, "x"),
    "vLLM's": ({"object": "error", "message": "bad key", "code": 401}, Fault.AUTHENTICATION, "bad key"),
    "FastAPI's": ({"detail": "the worker died"}, Fault.GARBAGE, "the worker died"),
    "MiniMax's": (
        {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None},
        *(Fault.AUTHENTICATION, "insufficient balance"),
    ),
    "of unknown words": ({"error": {"message": "whatever"}}, Fault.GARBAGE, "whatever"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_under_http_200_keeps_its_words_and_its_meaning(name: str) -> None:
    body, fault, words = ERRORS[name]
    with pytest.raises(CallFailed, match=words) as caught:
        read_completion(body)
    assert caught.value.fault is fault


# ---- what goes back ------------------------------------------------------------------------------------------------------


def test_a_providers_own_data_goes_back_unchanged_and_nothing_else_does() -> None:
    signature = {"google": {"thought_signature": "c2ln"}}
    came = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "I look.",
        "refusal": None,
        "annotations": [],
        "tool_calls": [
            {"id": "a", "index": 0, "type": "function", "function": {"name": "look", "arguments": "{ }"}}
            | {"extra_content": signature}
        ],
    }
    ours = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "look"}}]}
    sent = with_providers_own(ours, came)
    assert sent["reasoning_content"] == "I look."
    assert sent["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "look"}, "extra_content": signature}
    ]
    assert set(sent) == {"role", "content", "tool_calls", "reasoning_content"}
    assert message_to_send_back(came) == {
        name: came[name] for name in ("role", "content", "tool_calls", "reasoning_content")
    }


# ---- anything whatever ---------------------------------------------------------------------------------------------------

BROKEN: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a text": "x",
    "choices of text": {"choices": "abc"},
    "a choice that is a number": {"choices": [5]},
    "no message": {"choices": [{"finish_reason": "stop"}]},
    "a message that is null": answer(None),
    "a picture": answer({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
    "a part that is a number": answer({"content": [5]}),
    "a part of no kind": answer({"content": [{}]}),
    "a part whose text is a list": answer({"content": [{"type": "text", "text": ["a"]}]}),
    "content that is a number": answer({"content": 5}),
    "a finish reason that is a number": {"choices": [{"message": {"content": "a"}, "finish_reason": 5}]},
    "calls of text": answer({"content": "a", "tool_calls": "x"}),
    "a call that is a text": answer({"content": "a", "tool_calls": ["x"]}),
    "a call without a function": answer({"content": "a", "tool_calls": [{"id": "1"}]}),
    "a call without a name": call(arguments="{}"),
    "a call whose id is a number": answer({"tool_calls": [{"id": 5, "function": {"name": "a"}}]}),
    "a call whose arguments are a list": call(name="a", arguments=[1]),
    "tokens in words": answer({"content": "a"}, usage={"prompt_tokens": "many"}),
    "tokens that are no number": answer({"content": "a"}, usage={"prompt_tokens": float("nan")}),
    "fewer tokens than none": answer({"content": "a"}, usage={"prompt_tokens": -5}),
    "tokens of 400 digits": answer({"content": "a"}, usage={"prompt_tokens": 10**400}),
    "infinitely many tokens": answer({"content": "a"}, usage={"completion_tokens": float("inf")}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_a_completion_is_garbage(name: str) -> None:
    with pytest.raises(CallFailed) as caught:
        read_completion(BROKEN[name])
    assert caught.value.fault is Fault.GARBAGE and str(caught.value)


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
        assert str(failed)
        return
    assert isinstance(read.said.content, str | None)
    assert all(isinstance(text, str) for c in read.said.calls for text in (c.id, c.name, c.arguments))
    assert all(type(count) is int for count in (read.usage.prompt_tokens, read.usage.completion_tokens))
