"""`read_reply`: a reply is either true to its request, or garbage (worth a retry), or a lie (worth none)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.errors import EngineUnavailable, TokenTruthError
from tau2_slime.tokens.engine import Completion, read_reply

PROMPT = [11, 12, 13]


def reply(
    ids: list[int], log_probs: list[float] | None = None, finish: dict[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    """A reply as sglang writes it, to a request of `PROMPT`."""
    values = [-0.5] * len(ids) if log_probs is None else log_probs
    return {
        "text": "",
        "output_ids": list(ids),
        "meta_info": {
            "finish_reason": finish or {"type": "stop", "matched": ids[-1]},
            "prompt_tokens": len(PROMPT),
            "completion_tokens": len(ids),
            "output_token_logprobs": [[value, token, None] for value, token in zip(values, ids, strict=True)],
            "weight_version": "3",
            **meta,
        },
    }


def read(body: dict[str, Any]) -> Completion:
    return read_reply(json.loads(json.dumps(body)), PROMPT)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 200_000), st.floats(max_value=0, min_value=-1e6, allow_nan=False, allow_infinity=False)
        ),
        min_size=1,
    )
)
def test_ids_and_log_probs_come_back_as_they_are(pairs: list[tuple[int, float]]) -> None:
    ids, log_probs = [i for i, _ in pairs], [p for _, p in pairs]
    completion = read(reply(ids, log_probs))
    assert completion.ids == ids
    assert completion.log_probs == log_probs
    assert completion.finish == "stop"
    assert completion.matched == ids[-1]
    assert completion.weight_version == "3"


@pytest.mark.parametrize(
    "spans",
    [
        [{"version": "7", "start": 0, "end": 1}],
        [{"version": "7", "start": 1, "end": 2}],
        [{"version": "7", "start": 0, "end": 2}, {"version": "8", "start": 1, "end": 2}],
        [{"version": "7", "start": 0, "end": 3}],
        [{"version": "7", "start": 0}],
        [3],
        [{"version": "7", "start": 0, "end": "2"}],
    ],
)
def test_spans_of_weights_that_do_not_cover_the_turn_are_a_lie(spans: list[Any]) -> None:
    with pytest.raises(TokenTruthError, match="weight_versions"):
        read(reply([4, 5], weight_versions=spans))


def test_more_tokens_than_were_asked_for_and_ids_of_no_vocabulary_are_a_lie() -> None:
    assert read_reply(reply([4, 5]), PROMPT, most=2, vocabulary=6).ids == [4, 5]
    versions = [{"version": "7", "start": 0, "end": 1}, {"version": "8", "start": 1, "end": 3}]
    cut = read_reply(reply([4, 5, 6], [-1.0, -2.0, -3.0], weight_versions=versions), PROMPT, most=2)
    assert (cut.ids, cut.log_probs, cut.finish, cut.matched) == ([4, 5], [-1.0, -2.0], "length", None)
    assert cut.spans == [("7", 0, 1), ("8", 1, 2)]
    with pytest.raises(TokenTruthError, match="from 4 to 5; the vocabulary has 5"):
        read_reply(reply([4, 5]), PROMPT, vocabulary=5)
    with pytest.raises(TokenTruthError, match="from 1099511627776"):
        read_reply(reply([2**40]), PROMPT)


def test_a_length_and_an_abort() -> None:
    assert read(reply([4, 5], finish={"type": "length", "length": 2})).finish == "length"
    cut = read(reply([4, 5], finish={"type": "abort", "message": "Aborted", "status_code": None}))
    assert (cut.finish, cut.ids) == ("abort", [4, 5])


def test_an_abort_from_the_queue_has_no_counts() -> None:
    body = {"text": "", "output_ids": [], "meta_info": {"finish_reason": {"type": "abort", "message": "in queue"}}}
    completion = read_reply(body, PROMPT)
    assert (completion.finish, completion.ids, completion.log_probs) == ("abort", [], [])
    assert completion.weight_version is None


def test_an_abort_whose_log_probs_were_not_sent_keeps_nothing() -> None:
    """Ids without log-probs cannot be trained on; the turn begins again."""
    body = reply([4, 5], finish={"type": "abort", "message": "Aborted"})
    del body["meta_info"]["output_token_logprobs"]
    assert read(body).ids == []
    body["meta_info"]["weight_versions"] = [{"version": "1", "start": 0, "end": 2}]
    assert (read(body).ids, read(body).spans) == ([], [])


def test_a_stop_string_matches_no_id() -> None:
    assert read(reply([4, 5], finish={"type": "stop", "matched": "</done>"})).matched == "</done>"


def test_a_weight_version_that_is_a_number_becomes_text() -> None:
    assert read(reply([4], weight_version=12)).weight_version == "12"


def test_output_ids_may_be_left_out() -> None:
    body = reply([4, 5])
    del body["output_ids"]
    assert read(body).ids == [4, 5]


GARBAGE: list[Any] = [
    None,
    [],
    {},
    "text",
    7,
    {"error": {"message": "no"}},
    {"meta_info": None},
    {"meta_info": [1]},
    {"meta_info": {}},
    {"meta_info": {"finish_reason": None}},
    {"meta_info": {"finish_reason": "stop"}},
    {"meta_info": {"finish_reason": {"type": "tired"}}},
]


@pytest.mark.parametrize("body", GARBAGE, ids=repr)
def test_garbage_is_worth_a_retry(body: Any) -> None:
    with pytest.raises(EngineUnavailable):
        read_reply(body, PROMPT)


LIES: dict[str, dict[str, Any]] = {
    "no log-probs": {"output_token_logprobs": None},
    "log-probs a number": {"output_token_logprobs": 5},
    "log-probs a text": {"output_token_logprobs": "ab"},
    "log-probs a mapping": {"output_token_logprobs": {"a": 1}},
    "a log-prob too few": {"output_token_logprobs": [[-0.5, 4, None]]},
    "a log-prob too many": {"output_token_logprobs": [[-0.5, 4], [-0.5, 5], [-0.5, 6]]},
    "an empty entry": {"output_token_logprobs": [[], []]},
    "null log-prob": {"output_token_logprobs": [[None, 4], [-0.5, 5]]},
    "NaN": {"output_token_logprobs": [[float("nan"), 4], [-0.5, 5]]},
    "minus infinity": {"output_token_logprobs": [[float("-inf"), 4], [-0.5, 5]]},
    "plus infinity": {"output_token_logprobs": [[float("inf"), 4], [-0.5, 5]]},
    "above zero": {"output_token_logprobs": [[0.1, 4], [-0.5, 5]]},
    "null id": {"output_token_logprobs": [[-0.5, None], [-0.5, 5]]},
    "infinite id": {"output_token_logprobs": [[-0.5, float("inf")], [-0.5, 5]]},
    "another id": {"output_token_logprobs": [[-0.5, 9], [-0.5, 5]]},
    "prompt_tokens too few": {"prompt_tokens": 2},
    "prompt_tokens a text": {"prompt_tokens": "3 or so"},
    "prompt_tokens a list": {"prompt_tokens": [3]},
    "completion_tokens too many": {"completion_tokens": 3},
    "stopped elsewhere": {"finish_reason": {"type": "stop", "matched": 4}},
    "logits were NaN": {"finish_reason": {"type": "stop", "matched": "NaN happened"}},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told(lie: str) -> None:
    body = reply([4, 5])
    body["meta_info"].update(copy.deepcopy(LIES[lie]))
    with pytest.raises(TokenTruthError):
        read_reply(body, PROMPT)


@pytest.mark.parametrize("output_ids", [3, "45", {"4": 5}, [4], [4, 5, 6], [5, 4], [[4, 5]]], ids=repr)
def test_output_ids_that_disagree(output_ids: Any) -> None:
    with pytest.raises(TokenTruthError, match="disagree"):
        read_reply({**reply([4, 5]), "output_ids": output_ids}, PROMPT)


def test_a_negative_id() -> None:
    with pytest.raises(TokenTruthError):
        read(reply([-4, 5]))


def test_a_stop_without_a_token() -> None:
    with pytest.raises(TokenTruthError, match="no token"):
        read(reply([], finish={"type": "stop", "matched": 5}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "meta_info",
                        "finish_reason",
                        "type",
                        "output_ids",
                        "output_token_logprobs",
                        "prompt_tokens",
                        "matched",
                        "completion_tokens",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["stop", "length", "abort"]),
)
def test_nothing_but_the_two_errors_comes_out(value: Any, kind: str) -> None:
    """Whatever the server sends, alone or as any part of a reply."""
    whole = reply([4, 5])
    bodies = [value, {**whole, "output_ids": value}]
    for name in whole["meta_info"]:
        part = {"type": kind, "matched": value} if name == "finish_reason" else value
        bodies.append({**whole, "meta_info": {**whole["meta_info"], name: part}})
    for body in bodies:
        try:
            completion = read_reply(body, PROMPT)
        except (EngineUnavailable, TokenTruthError):
            continue
        assert len(completion.ids) == len(completion.log_probs)
