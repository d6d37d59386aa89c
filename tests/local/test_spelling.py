"""Other spellings of the same text, and log-probabilities out of a hash."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.local.spelling import Speller, draw, log_prob

SENTENCE = "I would like to modify the pending order and the shipping address of my reservation. "


@given(text=st.text(), share=st.floats(0, 1), key=st.text())
def test_the_text_stays_the_same(tokenizer: Any, text: str, share: float, key: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(Speller(tokenizer).respell(ids, share, key)) == text


def test_about_the_share_of_tokens_is_split(tokenizer: Any) -> None:
    ids = tokenizer.encode(SENTENCE * 40)
    speller = Speller(tokenizer)
    everywhere = len(speller.respell(ids, 1.0, "k")) - len(ids)
    some = len(speller.respell(ids, 0.1, "k")) - len(ids)
    assert everywhere > len(ids) / 2
    assert 0.05 * everywhere < some < 0.2 * everywhere
    assert speller.respell(ids, 0.0, "k") == ids


def test_the_same_key_spells_the_same_way(tokenizer: Any) -> None:
    ids = tokenizer.encode(SENTENCE * 4)
    speller = Speller(tokenizer)
    assert speller.respell(ids, 0.3, "a") == speller.respell(ids, 0.3, "a")
    assert speller.respell(ids, 0.3, "a") != speller.respell(ids, 0.3, "b")


def test_control_tokens_are_never_split(tokenizer: Any) -> None:
    ids = tokenizer.encode("<tool_call></tool_call><|im_end|>")
    assert Speller(tokenizer).respell(ids, 1.0, "k") == ids


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_log_probs_are_log_probs(position: int, token: int) -> None:
    value = log_prob(position, token)
    assert math.isfinite(value)
    assert value < 0
    assert value == log_prob(position, token)


@given(st.lists(st.text(), max_size=3))
def test_draws_are_shares(key: list[str]) -> None:
    assert 0 <= draw(*key) < 1
