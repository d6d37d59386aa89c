"""Every family of the list, end to end on its own template: right to the character, or refused with the reason.

The policy samples what the template itself would write for its turn, spelled character by character, so that no
tokenizer would produce its ids. The reference is the tokenizer's own `apply_chat_template` over the whole conversation.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.template.chat_delta import ChatDelta, TemplateError
from tests.tokens.rows import ROWS, Row
from tests.tokens.support import GREETING, SYSTEM, TOOLS, call, calls, result, spelled_out, text, user

WORKING = {name: row for name, row in ROWS.items() if row.problem is None}
REFUSED = {name: row for name, row in ROWS.items() if row.problem is not None}

Message = dict[str, Any]


def script(row: Row, text_with_call: bool) -> list[tuple[Message, list[Message]]]:
    """(assistant turn, what the environment adds) of a conversation as τ² plays it."""
    find, cancel = call(1, "get_order_details", order_id="#W1"), call(2, "cancel_pending_order", order_id="#W1")
    both = [call(3, "get_order_details", order_id="#W2"), call(4, "get_order_details", order_id='#W"3"')]
    turns: list[tuple[Message, list[Message]]] = [
        (calls(find, content=""), [result(1, '{"order_id": "#W1", "status": "pending"}')]),
        (text("It is pending. Cancel it?"), [user("Yes, please!\n\nAnd tell me about #W2 and “#W3” — 谢谢 🙂")]),
        (calls(cancel, content=""), [result(2, "Error: not now", name="cancel_pending_order")]),
    ]
    if row.parallel:
        turns.append((calls(*both, content=""), [result(3, "first\nof two"), result(4, "second of two")]))
    if text_with_call and row.text_beside_call:
        turns.append((calls(call(5, "get_order_details", order_id="#W4"), content="One more."), [result(5, "found")]))
    turns.append((text("That is all I found."), [user("Thanks. Bye!")]))
    turns.append((text("Goodbye!"), [user("###STOP###")]))
    if row.reasoning:
        turns = [({**said, "reasoning_content": f"Thought {i}."}, then) for i, (said, then) in enumerate(turns)]
    return turns


class Reference:
    """The template's own word on a conversation."""

    def __init__(self, tokenizer: Any, row: Row, pinned: dict[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.kwargs = {**row.kwargs, **row.preset_kwargs, **pinned}

    def render(self, messages: list[Message], generation: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tools=TOOLS, add_generation_prompt=generation, tokenize=False, **self.kwargs
        )

    def body(self, said: Message, end: str) -> str:
        """What the model samples for `said`, without the token that ends it."""
        history = [SYSTEM, GREETING, user("Hi")]
        prompt, whole = self.render(history, True), self.render([*history, said], False)
        assert whole.startswith(prompt), "the template does not write the turn after its own generation prompt"
        return whole[len(prompt) :].split(end)[0]

    def generation_prompt(self, messages: list[Message]) -> str:
        return self.render(messages, True).removeprefix(self.render(messages, False))


@pytest.mark.parametrize("name", WORKING)
def test_a_conversation_is_what_the_template_writes(name: str) -> None:
    row = WORKING[name]
    tokenizer = row.tokenizer()
    chat = ChatDelta.calibrate(tokenizer, template_kwargs=row.kwargs)
    assert chat.report.parallel_ok is row.parallel
    assert chat.template.template_kwargs == {**row.kwargs, **row.preset_kwargs}
    reference = Reference(tokenizer, row, {})

    history: list[Message] = [SYSTEM, GREETING, user("Hi, I want to cancel #W1.")]
    ledger = TokenLedger(chat.first_prompt(history, TOOLS))
    assert chat.template.decode(ledger.tokens) == reference.render(history, True)

    sampled_ids: list[int] = []
    context_texts: list[str] = []
    for said, then in script(row, chat.report.text_with_call_ok):
        end = row.call_end if said.get("tool_calls") else row.text_end
        turn = [*spelled_out(tokenizer, reference.body(said, end)), tokenizer.convert_tokens_to_ids(end)]
        ledger.append_sampled(turn, [-0.5] * len(turn))
        delta = chat.between(history, said, then, TOOLS)
        assert delta.round_trip_ok and delta.escaped == 0
        assert delta == chat.between(history, said, then, TOOLS, real=True)

        history += [said, *then]
        whole = reference.render(history, True)
        assert whole.endswith(delta.text)
        for message in then:
            assert_written(message["content"], delta.text)

        junction = chat.join(ledger, delta, finish="stop")
        replaced = row.replaced_texts and not said.get("tool_calls")
        assert junction.kind == ("replaced" if replaced else "closed")
        sampled_ids += turn[:-1] if replaced else turn
        segment = ledger.segments[-1]
        appended = chat.template.decode(ledger.tokens[segment.start : segment.stop])
        assert whole.endswith(appended if replaced else end + appended)
        context_texts.append(appended)

    ledger.check()
    response = zip(ledger.tokens[ledger.prompt_length :], ledger.loss_mask, strict=True)
    assert [token for token, mask in response if mask] == sampled_ids

    whole = reference.render(history, True)
    generation_prompt = reference.generation_prompt(history)
    if row.append_only:
        assert chat.template.decode(ledger.tokens) == whole
    position = 0
    for context in context_texts:  # earlier turns may be rewritten, what the environment said may not
        said_by_environment = context.removesuffix(generation_prompt)
        position = whole.index(said_by_environment, position) + len(said_by_environment)


def assert_written(content: str, rendered: str) -> None:
    """The content is in the text, as it stands or as a JSON string."""
    assert content in rendered or json.dumps(content, ensure_ascii=False)[1:-1] in rendered


def test_the_rebuilt_qwen3_vocabulary_has_qwen3s_ids() -> None:
    tokenizer = ROWS["Qwen3-Instruct-2507"].tokenizer()
    assert tokenizer.encode("Hello world") == [9707, 1879]
    assert tokenizer.encode("<|im_end|></think>") == [151645, 151668]


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_be_right_is_refused_with_the_reason(name: str) -> None:
    row = REFUSED[name]
    with pytest.raises(TemplateError) as refusal:
        ChatDelta.calibrate(row.tokenizer(), template_kwargs=row.kwargs)
    assert refusal.value.problem == row.problem
    assert refusal.value.detail


@pytest.mark.parametrize("name", WORKING)
def test_the_report_says_whether_earlier_turns_are_rewritten(name: str) -> None:
    row = WORKING[name]
    report = ChatDelta.calibrate(row.tokenizer(), template_kwargs=row.kwargs).report
    flags = [
        getattr(rewrites, "reasoning" if row.reasoning else "plain")
        for rewrites in (report.rewrites_on_user, report.rewrites_on_tool)
    ]
    assert any(flags) is not row.append_only
