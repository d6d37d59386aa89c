"""How a delta is joined to a sampled turn, for every way in which a generate call can end."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.template.chat_delta import ChatDelta, Delta
from tests.tokens.rows import HISTORY, chat_of, reference, token
from tests.tokens.support import TOOLS, spelled_out, text, user


def ended(chat: ChatDelta, *spellings: str) -> TokenLedger:
    """A ledger whose sampled turn is "Yes?" and these tokens."""
    ledger = TokenLedger(chat.first_prompt(HISTORY, TOOLS))
    turn = [*spelled_out(chat.template.tokenizer, "Yes?"), *(token(chat, spelling) for spelling in spellings)]
    ledger.append_sampled(turn, [-0.5] * len(turn), "v1")
    return ledger


def yes(chat: ChatDelta) -> Delta:
    return chat.between(HISTORY, text("Yes?"), [user("No.")], TOOLS)


WHOLE = [*HISTORY, text("Yes?"), user("No.")]


def test_closed_the_sampled_closer_stays_and_is_trained(qwen3: ChatDelta) -> None:
    ledger, delta = ended(qwen3, "<|im_end|>"), yes(qwen3)
    before = len(ledger.tokens)
    junction = qwen3.join(ledger, delta, finish="stop")
    assert (junction.kind, junction.appended) == ("closed", len(delta.ids) - 1)
    assert ledger.loss_mask[before - ledger.prompt_length - 1] == 1
    assert sum(ledger.loss_mask[before - ledger.prompt_length :]) == 0
    assert qwen3.template.decode(ledger.tokens) == reference(qwen3, WHOLE)


def test_replaced_another_stop_token_goes_and_the_templates_closer_is_context(qwen3: ChatDelta) -> None:
    ledger = ended(qwen3, "<|endoftext|>")
    trained = ledger.sampled_count
    junction = qwen3.join(ledger, yes(qwen3), finish="stop")
    assert (junction.kind, junction.popped) == ("replaced", token(qwen3, "<|endoftext|>"))
    assert junction.appended == len(yes(qwen3).ids) == ledger.context_count
    assert ledger.sampled_count == trained - 1
    assert qwen3.template.decode(ledger.tokens) == reference(qwen3, WHOLE)
    ledger.check()


def test_replaced_or_ended_is_the_users_choice(qwen3: ChatDelta) -> None:
    ledger = ended(qwen3, "<|endoftext|>")
    before = ledger.to_dict()
    junction = qwen3.join(ledger, yes(qwen3), finish="stop", stop_mismatch="end")
    assert (junction.kind, junction.appended, junction.popped) == ("ended", 0, None)
    assert ledger.to_dict() == before


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_synthesised_a_turn_without_a_stop_token_gets_its_closer_as_context(qwen3: ChatDelta, finish: Any) -> None:
    ledger, delta = ended(qwen3), yes(qwen3)
    trained = ledger.sampled_count
    junction = qwen3.join(ledger, delta, finish=finish)
    assert (junction.kind, junction.appended, junction.popped) == ("synthesised", len(delta.ids), None)
    assert ledger.sampled_count == trained
    assert qwen3.template.decode(ledger.tokens) == reference(qwen3, WHOLE)


@pytest.mark.parametrize("last", [[], ["<|im_end|>"], ["<|endoftext|>"]])
def test_an_aborted_turn_never_goes_on(qwen3: ChatDelta, last: list[str]) -> None:
    ledger = ended(qwen3, *last)
    before = ledger.to_dict()
    junction = qwen3.join(ledger, yes(qwen3), finish="abort")
    assert (junction.kind, junction.appended) == ("ended", 0)
    assert ledger.to_dict() == before


def test_a_closer_sampled_at_the_very_limit_closes(qwen3: ChatDelta) -> None:
    assert qwen3.join(ended(qwen3, "<|im_end|>"), yes(qwen3), finish="length").kind == "closed"


def test_an_empty_turn_is_closed_by_context_and_takes_nothing_from_the_turn_before(qwen3: ChatDelta) -> None:
    ledger, delta = ended(qwen3, "<|im_end|>"), yes(qwen3)
    ledger.append_context([token(qwen3, "<|im_end|>")])  # context may end in a stop token; nobody sampled this one
    before = list(ledger.tokens)
    assert qwen3.join(ledger, delta, finish="stop").kind == "synthesised"
    assert ledger.tokens == before + delta.ids


def test_glm_the_sampled_role_marker_is_the_first_token_of_what_follows() -> None:
    chat = chat_of("GLM-4.5, thinking")
    right, wrong = ended(chat, "<|user|>"), ended(chat, "<|observation|>")
    assert chat.join(right, yes(chat), finish="stop").kind == "closed"
    assert chat.join(wrong, yes(chat), finish="stop").kind == "replaced"
    assert right.tokens == wrong.tokens
    assert right.sampled_count == wrong.sampled_count + 1


def test_gpt_oss_an_analysis_that_ends_at_the_limit_is_no_finished_turn() -> None:
    chat = chat_of("gpt-oss")
    analysis, delta = ended(chat, "<|end|>"), yes(chat)
    before = list(analysis.tokens)
    assert chat.join(analysis, delta, finish="length").kind == "synthesised"
    assert analysis.tokens == before + delta.ids
    assert chat.join(ended(chat, "<|end|>"), yes(chat), finish="stop").kind == "closed"
    assert chat.join(ended(chat, "<|return|>"), yes(chat), finish="stop").kind == "replaced"
