"""The ledger never says of a token what is not true of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tau2_slime.tokens.digest import trajectory_digest
from tau2_slime.tokens.ledger import LedgerError, TokenLedger, VersionSpan

ids = st.integers(min_value=0, max_value=200_000)
log_prob = st.floats(min_value=-100, max_value=0, allow_nan=False)
sampled = st.tuples(
    st.just("sampled"), st.lists(st.tuples(ids, log_prob), max_size=6), st.sampled_from([None, "v1", "v2"])
)
context = st.tuples(st.just("context"), st.lists(ids, max_size=6))
operations = st.lists(st.one_of(sampled, context, st.sampled_from([("pop",), ("ask",)])), max_size=20)


def play(prompt: list[int], todo: list[tuple]) -> tuple[TokenLedger, list[tuple[int, float | None]]]:
    """The ledger after the operations, and what it has to hold: (id, log-prob or None for context)."""
    ledger = TokenLedger(prompt)
    model: list[tuple[int, float | None]] = []
    for operation in todo:
        if operation[0] == "sampled":
            _, pairs, version = operation
            ledger.append_sampled([i for i, _ in pairs], [p for _, p in pairs], version)
            model += pairs
        elif operation[0] == "context":
            ledger.append_context(operation[1])
            model += [(i, None) for i in operation[1]]
        elif operation[0] == "ask":  # a request: the server reads the trajectory so far
            assert json.loads(b"[%b]" % ledger.written()) == prompt + [token for token, _ in model]
        elif model and model[-1][1] is not None:
            assert ledger.pop_stop() == model.pop()[0]
        else:
            with pytest.raises(LedgerError):
                ledger.pop_stop()
        ledger.check()
    return ledger, model


@given(st.lists(ids, max_size=5), operations)
@example([], [("sampled", [(12, -0.5)], None), ("ask",), ("pop",), ("ask",)])
def test_whatever_happens_each_token_keeps_its_id_mask_and_log_prob(prompt: list[int], todo: list[tuple]) -> None:
    ledger, model = play(prompt, todo)
    assert ledger.tokens == prompt + [token for token, _ in model]
    assert ledger.loss_mask == [int(value is not None) for _, value in model]
    assert ledger.log_probs == [0.0 if value is None else value for _, value in model]
    assert ledger.prompt_length == len(prompt)
    assert ledger.response_length == len(model)
    assert ledger.sampled_count == sum(value is not None for _, value in model)
    assert ledger.context_count == sum(value is None for _, value in model)
    assert ledger.weight_versions == [op[2] for op in todo if op[0] == "sampled" and op[2] is not None]


@given(st.lists(ids, max_size=5), operations)
def test_segments_cover_the_response_and_name_the_weights(prompt: list[int], todo: list[tuple]) -> None:
    ledger, model = play(prompt, todo)
    covered = [
        (position, segment.kind) for segment in ledger.segments for position in range(segment.start, segment.stop)
    ]
    assert covered == [
        (len(prompt) + offset, "context" if value is None else "sampled") for offset, (_, value) in enumerate(model)
    ]
    assert all(segment.weight_version is None for segment in ledger.segments if segment.kind == "context")
    assert {s.weight_version for s in ledger.segments} <= {None, *ledger.weight_versions}


@given(st.lists(ids, max_size=5), operations)
def test_a_snapshot_survives_json_and_goes_on(prompt: list[int], todo: list[tuple]) -> None:
    ledger, _ = play(prompt, todo)
    again = TokenLedger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    for one in (ledger, again):
        one.append_sampled([7], [-0.25], "v9")
    assert again.to_dict() == ledger.to_dict()
    assert (again.sampled_count, again.context_count) == (ledger.sampled_count, ledger.context_count)
    again.append_context([8])
    assert ledger.tokens[-1] == 7  # the copy shares nothing


@pytest.mark.parametrize("log_probs", [[-0.1], [-0.1, -0.2, -0.3], []])
def test_a_count_that_differs_is_refused_and_leaves_no_trace(log_probs: list[float]) -> None:
    ledger = TokenLedger([1, 2])
    with pytest.raises(LedgerError, match=f"2 sampled ids but {len(log_probs)}"):
        ledger.append_sampled([5, 6], log_probs, "v1")
    assert ledger.to_dict() == TokenLedger([1, 2]).to_dict()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_log_prob_that_is_no_number_is_refused(bad: float) -> None:
    ledger = TokenLedger([1])
    with pytest.raises(LedgerError, match="token 1"):
        ledger.append_sampled([5, 6], [-0.1, bad])
    assert ledger.response_length == 0


@given(st.lists(ids, max_size=5), st.lists(st.tuples(st.sampled_from(["7", "8", None]), st.integers(0, 4)), min_size=1))
def test_weights_that_change_within_a_call_are_kept_token_by_token(
    prompt: list[int], runs: list[tuple[str | None, int]]
) -> None:
    ledger, at, spans = TokenLedger(prompt), 0, []
    for version, length in runs:
        spans.append(VersionSpan(version, at, at + length))
        at += length
    ledger.append_sampled(list(range(at)), [-1.0] * at, "8", spans=spans)
    ledger.check()
    by_token = [segment.weight_version for segment in ledger.segments for _ in range(segment.stop - segment.start)]
    assert by_token == [version for version, length in runs for _ in range(length)]
    assert ledger.weight_versions == [version for version, _ in runs if version is not None]
    before = ledger.to_dict()
    with pytest.raises(LedgerError, match="do not cover"):
        ledger.append_sampled([1, 2], [-1.0, -1.0], spans=[VersionSpan("7", 0, 1)])
    assert ledger.to_dict() == before


def test_a_ledger_shorter_than_its_prompt_says_so() -> None:
    snapshot = TokenLedger([1, 2]).to_dict()
    with pytest.raises(LedgerError, match="1 tokens are fewer than the prompt's 2"):
        TokenLedger.from_dict({**snapshot, "tokens": [1]})


SEGMENTS = [{"kind": "sampled", "start": 2, "stop": 4}, {"kind": "context", "start": 4, "stop": 5}]


@pytest.mark.parametrize(
    "damage",
    [
        {"loss_mask": [1, 1, 1]},
        {"loss_mask": [1, 1]},
        {"log_probs": [-0.5, -0.5]},
        {"segments": []},
        {"segments": [{"kind": "sampled", "start": 2, "stop": 5}]},
        {"segments": [*SEGMENTS, {"kind": "context", "start": 5, "stop": 5}]},
        {"segments": [SEGMENTS[0], {"kind": "sampled", "start": 4, "stop": 4}, SEGMENTS[1]]},
        {"segments": [{**SEGMENTS[0], "stop": 3}, {**SEGMENTS[1], "start": 3}]},
        {"segments": [SEGMENTS[0], {**SEGMENTS[1], "kind": "sampled"}]},
        {"segments": [{**SEGMENTS[0], "masked": True}, SEGMENTS[1]]},
        {"segments": [SEGMENTS[0], {**SEGMENTS[1], "start": 5, "stop": 6}]},
        {"segments": [{**SEGMENTS[0], "colour": "red"}, SEGMENTS[1]]},
        {"log_probs": [-0.5, -0.5, -0.5]},
        {"loss_mask": [1, 0, 0]},
        {"loss_mask": [0, 0, 0]},
        {"tokens": [1]},
        {"tokens": None},
        {"prompt_length": 3},
    ],
)
def test_a_damaged_snapshot_is_refused(damage: dict) -> None:
    ledger = TokenLedger([1, 2])
    ledger.append_sampled([3, 4], [-0.5, -0.5])
    ledger.append_context([5])
    whole = {**ledger.to_dict(), "segments": SEGMENTS}
    assert TokenLedger.from_dict(whole).to_dict() == ledger.to_dict()
    with pytest.raises(LedgerError):
        TokenLedger.from_dict({**whole, **damage})


def test_what_slime_took_out_of_the_loss_stays_out_when_the_trajectory_goes_on() -> None:
    before = TokenLedger([1, 2])
    before.append_sampled([3, 4], [-0.5, -0.25], "old")
    before.append_context([5])
    segments = before.to_dict()["segments"]
    masked = TokenLedger.resume(before.tokens, [0, 0, 0], before.log_probs, before.weight_versions, segments)
    masked.append_sampled([6], [-1.0], "new")
    masked.check()
    assert masked.loss_mask == [0, 0, 0, 1]
    assert [(s.masked, s.weight_version) for s in masked.segments] == [(True, "old"), (False, None), (False, "new")]
    assert (masked.sampled_count, masked.context_count) == (3, 1)
    assert masked.weight_versions == ["old", "new"] and masked.prompt_length == 2
    again = TokenLedger.resume(
        masked.tokens, masked.loss_mask, masked.log_probs, masked.weight_versions, masked.to_dict()["segments"]
    )
    assert again.to_dict() == masked.to_dict()
    with pytest.raises(LedgerError):  # slime masks whole segments
        TokenLedger.resume(before.tokens, [1, 0, 0], before.log_probs, before.weight_versions, segments)


def test_the_digest_tells_numbers_apart_and_nothing_else() -> None:
    digest = trajectory_digest([1, 2], [-0.5, 0.0])
    assert trajectory_digest((1, 2), (-0.5, 0)) == digest
    assert trajectory_digest(np.array([1, 2]), np.array([-0.5, 0.0], np.float32)) == digest
    for unreadable in (([1.5, 2], [0.0]), ([2**63], [0.0]), ([1], ["0"])):
        with pytest.raises(ValueError, match="not token ids"):
            trajectory_digest(*unreadable)
    others = [trajectory_digest(*other) for other in (([1, 3], [-0.5, 0]), ([1, 2], [-0.5, -0.1]), ([1], [2, -0.5, 0]))]
    assert len({digest, *others}) == 4
