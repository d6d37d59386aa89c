"""Kept sets and routed experts stay with the tokens that they belong to, whatever is appended, dropped or interrupted."""

from __future__ import annotations

import base64
import json
from array import array
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.errors import ReplayUnavailable, TokenTruthError
from tau2_slime.tokens.engine import read_reply
from tau2_slime.tokens.ledger import LedgerError, TokenLedger
from tau2_slime.tokens.replay import CallReplay, ExpertShape, Replay, ReplayRequest, ReplaySpec
from tau2_slime.tokens.replay_reply import read_call_replay

SHAPE = ExpertShape(layers=2, topk=2, experts=8)
BOTH = ReplaySpec(top_p=True, experts=SHAPE)
TOP_P, EXPERTS = ReplaySpec(top_p=True), ReplaySpec(experts=SHAPE)


def b64(numbers: Any) -> str:
    return base64.b64encode(np.asarray(numbers, dtype="<i4").tobytes()).decode()


class Server:
    """Says of each token's position and id what cannot be mistaken for another's; serves all rows or those asked for."""

    def __init__(self, *, knows_start: bool) -> None:
        self.knows_start = knows_start

    @staticmethod
    def row(position: int, token: int) -> list[int]:
        return [position, token, position + 1, token + 1]

    @staticmethod
    def kept(token: int) -> list[int]:
        return list(range(token, token + 1 + token % 3))

    def meta(self, given: list[int], sampled: list[int], request: ReplayRequest) -> dict[str, Any]:
        out: dict[str, Any] = {}
        everything = given + sampled
        if request.spec.top_p and sampled:
            sets = [self.kept(token) for token in sampled]
            out["top_p_token_ids"] = b64([token for kept in sets for token in kept])
            out["top_p_token_offsets"] = b64(np.cumsum([0, *map(len, sets)]))
        if request.spec.experts is not None:
            asked = request.payload()
            assert asked["return_routed_experts"] is True
            start = asked["routed_experts_start_len"] if self.knows_start else 0
            assert start <= len(given), "sglang refuses a start beyond the input"
            rows = [self.row(i, everything[i]) for i in range(start, len(everything) - 1)]
            out["routed_experts"] = b64(rows)
        return out


ids = st.integers(0, 1000)
operation = st.one_of(
    st.tuples(st.just("sample"), st.lists(ids, min_size=1, max_size=6)),
    st.tuples(st.just("context"), st.lists(ids, max_size=6)),
    st.tuples(st.just("pop"), st.just([])),
    st.tuples(st.just("saved"), st.just([])),
)


@given(
    st.lists(ids, min_size=1, max_size=5),
    st.lists(operation, max_size=20),
    st.sampled_from([BOTH, TOP_P, EXPERTS]),
    st.booleans(),
)
def test_every_token_keeps_what_the_server_said_of_it(
    prompt: list[int], todo: list[tuple[str, list[int]]], spec: ReplaySpec, knows_start: bool
) -> None:
    server = Server(knows_start=knows_start)
    ledger = TokenLedger(prompt, spec)
    for what, tokens in todo:
        assert ledger.replay is not None
        if what == "sample":
            request = ledger.replay.request
            meta = server.meta(list(ledger.tokens), tokens, request)
            part = read_call_replay(
                json.loads(json.dumps(meta)), request, given=len(ledger.tokens), sampled=len(tokens)
            )
            ledger.append_sampled(tokens, [-0.5] * len(tokens), None, part)
        elif what == "context":
            ledger.append_context(tokens)
        elif what == "saved":
            ledger = TokenLedger.from_dict(json.loads(json.dumps(ledger.to_dict())))
        elif ledger.last_is_sampled:
            ledger.pop_stop()
        ledger.check()

    assert ledger.replay is not None
    if spec.top_p:
        kept, offsets = ledger.replay.kept_sets(ledger.response_length)
        assert kept.dtype == offsets.dtype == np.int32
        spans = [kept[a:b].tolist() for a, b in pairwise(offsets)]
        response = ledger.tokens[ledger.prompt_length :]
        assert spans == [server.kept(t) if m else [] for t, m in zip(response, ledger.loss_mask, strict=True)]
    if spec.experts is not None:
        rows = ledger.replay.expert_rows(len(ledger.tokens))
        assert rows.dtype == np.int32
        assert rows.shape == (len(ledger.tokens) - 1, SHAPE.layers, SHAPE.topk)
        sampled = [s.stop for s in ledger.segments if s.kind == "sampled"]
        for position in range(sampled[-1] - 1 if sampled else 0):
            assert rows[position].reshape(-1).tolist() == server.row(position, ledger.tokens[position])
        # What nobody read: real experts all the same, none of them twice in one layer, and not all zero.
        tail = rows[max(ledger.replay.rows, 0) :]
        assert ((tail >= 0) & (tail < (SHAPE.experts or 0))).all()
        assert all(len(set(layer)) == SHAPE.topk for row in tail.tolist() for layer in row)


def test_a_dropped_stop_token_takes_no_experts_of_other_tokens_with_it() -> None:
    ledger = TokenLedger([1, 2, 3], EXPERTS)
    assert ledger.replay is not None
    request = ledger.replay.request
    meta = Server(knows_start=True).meta([1, 2, 3], [7, 8], request)
    ledger.append_sampled([7, 8], [-1, -1], None, read_call_replay(meta, request, given=3, sampled=2))
    ledger.pop_stop()
    ledger.append_context([9])
    assert ledger.replay.request.payload()["routed_experts_start_len"] == 4
    for position, token in enumerate([1, 2, 3, 7]):
        assert ledger.replay.expert_rows(5)[position].reshape(-1).tolist() == Server.row(position, token)


def test_experts_are_transferred_once_if_the_server_can() -> None:
    ledger = TokenLedger([1, 2, 3], EXPERTS)
    asked = []
    for _ in range(3):
        assert ledger.replay is not None
        request = ledger.replay.request
        asked.append(request.payload()["routed_experts_start_len"])
        meta = Server(knows_start=True).meta(list(ledger.tokens), [7, 8], request)
        ledger.append_sampled(
            [7, 8], [-1, -1], None, read_call_replay(meta, request, given=len(ledger.tokens), sampled=2)
        )
        ledger.append_context([9])
    assert asked == [0, 4, 7]  # all but the last token of what the calls before had seen


def test_a_trajectory_from_slimes_buffer_goes_on() -> None:
    server, ledger = Server(knows_start=True), TokenLedger([1, 2], BOTH)
    assert ledger.replay is not None
    first = ledger.replay.request
    part = read_call_replay(server.meta([1, 2], [30, 40], first), first, given=2, sampled=2)
    ledger.append_sampled([30, 40], [-1, -1], None, part)
    ledger.append_context([5, 6])
    kept, offsets = ledger.replay.kept_sets(4)
    rows = ledger.replay.expert_rows(6)

    for form in (lambda a: a, lambda a: a.tolist()):
        back = Replay.restored(BOTH, kept_ids=form(kept), kept_offsets=form(offsets), experts=form(rows))
        assert np.array_equal(back.expert_rows(6), rows)
        request = back.request
        assert request.start == 0, "the rows of the tail were made up: only the server can tell the real ones"
        tokens = list(ledger.tokens)
        back.append_sampled(read_call_replay(server.meta(tokens, [50], request), request, given=6, sampled=1), 1, 7)
        assert back.expert_rows(7).reshape(6, -1).tolist() == [server.row(i, t) for i, t in enumerate(tokens)]
        assert back.kept_sets(5)[1].tolist() == [0, 1, 3, 3, 3, 6]

    for missing in ({"kept_ids": kept, "kept_offsets": offsets}, {"experts": rows}):
        with pytest.raises(ValueError, match="saved trajectory"):
            Replay.restored(BOTH, **missing)
    with pytest.raises(ValueError, match="do not belong"):
        Replay.restored(TOP_P, kept_ids=[1], kept_offsets=[0, 2])


@pytest.mark.parametrize("spec, field", [(TOP_P, "top_p_token_ids"), (EXPERTS, "routed_experts")])
def test_a_reply_without_what_was_asked_for_names_router_and_engine(spec: ReplaySpec, field: str) -> None:
    with pytest.raises(ReplayUnavailable, match=f"{field}.*stock sglang-router drops.*slime"):
        read_call_replay({}, ReplayRequest(spec), given=3, sampled=2)
    assert read_call_replay({}, ReplayRequest(spec), given=3, sampled=0) == CallReplay()


@pytest.mark.parametrize(
    "meta",
    [
        {"top_p_token_ids": b64([1, 2]), "top_p_token_offsets": b64([0, 2])},  # one token, two were sampled
        {"top_p_token_ids": b64([1, 2]), "top_p_token_offsets": b64([0, 1, 3])},
        {"top_p_token_ids": b64([1, 2]), "top_p_token_offsets": b64([0, 3, 2])},
        {"top_p_token_ids": b64([1, 2]), "top_p_token_offsets": b64([1, 1, 2])},
        {"top_p_token_ids": "no base64!", "top_p_token_offsets": b64([0, 1, 2])},
        {"top_p_token_ids": [1, "x"], "top_p_token_offsets": [0, 1, 2]},
    ],
)
def test_kept_sets_that_contradict_the_tokens_are_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(TokenTruthError):
        read_call_replay(meta, ReplayRequest(TOP_P), given=3, sampled=2)


def test_experts_of_another_model_are_refused() -> None:
    with pytest.raises(TokenTruthError, match="--num-layers and --moe-router-topk"):
        read_call_replay({"routed_experts": b64(range(4 * 3))}, ReplayRequest(EXPERTS), given=3, sampled=2)


def test_a_ledger_takes_no_sampled_token_without_its_replay_data() -> None:
    ledger = TokenLedger([1, 2], BOTH)
    kept_only = CallReplay(kept_ids=array("i", [5]), kept_offsets=[0, 1])
    for part in (None, CallReplay(), kept_only):
        with pytest.raises(LedgerError):
            ledger.append_sampled([5], [-1.0], None, part)
        ledger.check()
        assert ledger.tokens == [1, 2]
    for spec in (None, ReplaySpec()):
        plain = TokenLedger([1, 2], spec)
        plain.append_sampled([5], [-1.0])
        assert plain.replay is None and "replay" not in plain.to_dict()


def test_a_restored_trajectory_must_have_its_replay_data() -> None:
    """Snapshots and trajectories from slime's buffer: what is missing is found before the trainer reads past it."""
    server, ledger = Server(knows_start=True), TokenLedger([1, 2], BOTH)
    for token in (30, 40):
        assert ledger.replay is not None
        request = ledger.replay.request
        meta = server.meta(list(ledger.tokens), [token], request)
        ledger.append_sampled(
            [token], [-1.0], None, read_call_replay(meta, request, given=len(ledger.tokens), sampled=1)
        )
        ledger.append_context([5])
    assert ledger.replay is not None
    short = Replay.from_dict(ledger.replay.to_dict())
    del short.experts[2 * SHAPE.row :]  # as far as the first sampled token, not the last
    snapshot = {**ledger.to_dict(), "replay": short.to_dict()}
    parts = (ledger.tokens, ledger.loss_mask, ledger.log_probs, ledger.weight_versions, snapshot["segments"])
    with pytest.raises(LedgerError, match="known for 2 positions, token 4 was sampled"):
        TokenLedger.from_dict(snapshot)
    with pytest.raises(LedgerError, match="known for 2 positions, token 4 was sampled"):
        TokenLedger.resume(*parts, replay=short)
    other = Replay.from_dict(ledger.replay.to_dict())
    other.kept_offsets.append(other.kept_offsets[-1])
    with pytest.raises(LedgerError, match="do not belong"):
        TokenLedger.resume(*parts, replay=other)
    resumed = TokenLedger.resume(*parts, replay=Replay.from_dict(ledger.replay.to_dict()))
    assert resumed.to_dict() == ledger.to_dict()


def _abort(output: list[int], **meta: Any) -> dict[str, Any]:
    return {
        "output_ids": output,
        "meta_info": {
            "finish_reason": {"type": "abort", "message": "Aborted"},
            "output_token_logprobs": [[-1.0, token, None] for token in output],
            **meta,
        },
    }


def test_an_aborted_reply_counts_only_with_its_replay_data() -> None:
    request = ReplayRequest(TOP_P)
    bare = read_reply(_abort([8, 9]), [1, 2], request)
    assert (bare.finish, bare.ids, bare.log_probs) == ("abort", [], [])
    full = read_reply(_abort([8, 9], top_p_token_ids=b64([8, 9]), top_p_token_offsets=b64([0, 1, 2])), [1, 2], request)
    assert full.ids == [8, 9]
    assert full.replay == CallReplay(kept_ids=array("i", [8, 9]), kept_offsets=array("i", [0, 1, 2]))
    assert not {"top_p_token_ids", "top_p_token_offsets"} & set(full.meta), "nobody else shall keep megabytes"
