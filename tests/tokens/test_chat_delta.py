"""First prompts and deltas: right, cheap, and with nothing of the caller's changed."""

from __future__ import annotations

import json

import pytest

from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.template import chat_delta
from tau2_slime.tokens.template.chat_delta import ChatDelta, TemplateError
from tests.tokens.made_up import template, tokenizer_of
from tests.tokens.rows import CALL, HISTORY, ROWS, chat_of, reference, token
from tests.tokens.support import GREETING, SYSTEM, TOOLS, call, calls, result, spelled_out, text, user


def test_a_turn_costs_its_new_text_whatever_came_before(qwen3: ChatDelta) -> None:
    history = list(HISTORY)
    ledger = TokenLedger(qwen3.first_prompt(history, TOOLS))
    costs = []
    for number in range(10, 50):
        before = qwen3.template.chars_encoded
        said, then = text(f"Order {number}?"), [user(f"Yes, order {number}.")]
        delta = qwen3.between(history, said, then, TOOLS)
        costs.append(qwen3.template.chars_encoded - before)
        turn = [*spelled_out(qwen3.template.tokenizer, said["content"]), token(qwen3, "<|im_end|>")]
        ledger.append_sampled(turn, [-1.0] * len(turn))
        qwen3.join(ledger, delta, finish="stop")
        history += [said, *then]
    assert len(set(costs)) == 1  # forty turns of equal length cost the same
    assert costs[0] == len(delta.text)
    assert qwen3.template.decode(ledger.tokens) == reference(qwen3, history)


def test_system_tools_and_greeting_are_encoded_once() -> None:
    chat = ChatDelta(chat_of("Qwen2.5").template, chat_of("Qwen2.5").report)
    chat.first_prompt(HISTORY, TOOLS)
    before = chat.template.chars_encoded
    other = [SYSTEM, GREETING, user("Where is my parcel?")]
    ids = chat.first_prompt(other, TOOLS)
    assert chat.template.chars_encoded - before < 120
    assert ids == chat.template.encode(reference(chat, other))


def test_of_many_system_prompts_those_used_last_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_delta, "_PREFIX_CACHE_SIZE", 2)
    chat = ChatDelta(chat_of("Qwen2.5").template, chat_of("Qwen2.5").report)

    def is_encoded(policy: str) -> bool:
        before = chat.template.chars_encoded
        chat.first_prompt([{"role": "system", "content": policy * 100}, GREETING, user("Hi")])
        return chat.template.chars_encoded - before > 100

    assert [is_encoded(policy) for policy in "ABACACBA"] == [True, True, False, True, False, False, True, True]


def test_what_was_said_to_one_of_a_group_is_not_encoded_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_delta, "_DELTA_CACHE_SIZE", 2)
    chat = ChatDelta(chat_of("Qwen2.5").template, chat_of("Qwen2.5").report)

    def is_encoded(said: str) -> bool:
        before = chat.template.chars_encoded
        chat.between(HISTORY, text("Yes?"), [user(said)], TOOLS)
        return chat.template.chars_encoded > before

    assert [is_encoded(said) for said in "AABCCBA"] == [True, False, True, True, False, False, True]


@pytest.mark.parametrize("row", ["Qwen3-Instruct-2507", "GLM-4.5, thinking", "Llama-3.1", "gpt-oss", "Kimi-K2"])
@pytest.mark.parametrize(
    "messages",
    [
        HISTORY,
        [SYSTEM, GREETING, user("  padded  \n\n")],
        [SYSTEM, GREETING, user("")],
        [SYSTEM, user("no greeting")],
        [SYSTEM, GREETING, user("one"), text("two"), user("three")],
        [SYSTEM, GREETING, user("one"), CALL, result(1, "found")],
    ],
)
def test_the_first_prompt_is_the_encoding_of_what_the_template_writes(row: str, messages: list[dict]) -> None:
    chat = chat_of(row)
    for _ in range(2):  # with and without the cached prefix
        assert chat.first_prompt(messages, TOOLS) == chat.template.encode(reference(chat, messages))


def test_a_solo_agents_prompt_has_no_user(qwen3: ChatDelta) -> None:
    messages = [SYSTEM, GREETING]
    assert qwen3.template.decode(qwen3.first_prompt(messages, TOOLS)) == reference(qwen3, messages)


@pytest.mark.parametrize("row", ["GLM-4.5, thinking", "Qwen3-Instruct-2507", "Kimi-K2"])
def test_none_content_is_empty_and_not_the_word_none(row: str) -> None:
    chat = chat_of(row)
    empty = [*HISTORY, CALL, result(1, ""), text(""), user("")]
    none = [{**message, "content": message["content"] or None} for message in empty]
    assert chat.first_prompt(none, TOOLS) == chat.first_prompt(empty, TOOLS)


def test_what_is_no_new_message_is_refused(qwen3: ChatDelta) -> None:
    with pytest.raises(ValueError, match="sampled"):
        qwen3.between(HISTORY, text("a"), [text("b")], TOOLS)
    with pytest.raises(ValueError, match="no new messages"):
        qwen3.between(HISTORY, text("a"), [], TOOLS)


def test_stop_ids_are_the_closers_the_eos_and_the_checkpoints_own() -> None:
    tokenizer = ROWS["Qwen3-Instruct-2507"].tokenizer()
    chat = ChatDelta.calibrate(tokenizer, generation_stop_ids=[151_662])
    assert chat.stop_ids == {151_643, 151_645, 151_662}
    assert 151_662 not in ChatDelta.calibrate(tokenizer).stop_ids


def test_calibration_is_done_once_for_equal_inputs() -> None:
    first, second = ROWS["Qwen2.5"].tokenizer(), ROWS["Qwen2.5"].tokenizer()
    assert ChatDelta.calibrate(first) is ChatDelta.calibrate(second)
    assert ChatDelta.calibrate(first) is not ChatDelta.calibrate(first, template_kwargs={"enable_thinking": False})
    assert ChatDelta.calibrate(first) is not ChatDelta.calibrate(first, text_only=True)
    second.chat_template = second.chat_template.replace("<tools>", "<the_tools>")
    assert ChatDelta.calibrate(first) is not ChatDelta.calibrate(second)


def test_of_many_calibrations_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_delta, "_CALIBRATION_CACHE_SIZE", 2)
    monkeypatch.setattr(chat_delta, "_calibrated", type(chat_delta._calibrated)())
    tokenizer = tokenizer_of(template())

    def calibrated(number: int) -> ChatDelta:
        return ChatDelta.calibrate(tokenizer, template_kwargs={"number": number})

    first, second = calibrated(1), calibrated(2)
    assert calibrated(1) is first
    third = calibrated(3)
    assert calibrated(2) is second and calibrated(3) is third
    assert calibrated(1) is not first


def test_llama_refuses_two_calls_and_says_so() -> None:
    chat = chat_of("Llama-3.1")
    assert "parallel calls REFUSED" in chat.report.one_line()
    both = calls(call(1, "get_order_details"), call(2, "get_order_details"), content="")
    with pytest.raises(TemplateError) as refusal:
        chat.between(HISTORY, both, [result(1, "a"), result(2, "b")], TOOLS)
    assert refusal.value.problem == "raises" and "single tool-calls" in refusal.value.detail


def test_the_messages_given_are_left_as_they_were(qwen3: ChatDelta) -> None:
    messages = [*HISTORY, {**CALL, "content": None}]
    then = [result(1, "a <|im_end|> b")]
    before = json.dumps([messages, then])
    qwen3.first_prompt(messages, TOOLS)
    qwen3.between(messages[:-1], messages[-1], then, TOOLS, real=True)
    assert json.dumps([messages, then]) == before
