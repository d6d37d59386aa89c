"""Templates and tokenizers that pass the start-up proof and still surprise, in some conversations only."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.tokens.template.chat_delta import ChatDelta, TemplateError
from tau2_slime.tokens.template.chat_template import SENTINEL
from tests.tokens.made_up import ADDED, CALLS, GENERATION, TOOLS_HEAD, TURN, template, tokenizer_of
from tests.tokens.rows import control_ids
from tests.tokens.support import GREETING, SYSTEM, TOOLS, call, calls, result, text, user


def rendered(chat: ChatDelta, messages: list[dict[str, Any]], tools: Any = TOOLS) -> str:
    return str(
        chat.template.tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    )


def test_a_header_that_changes_with_the_users_text_is_not_taken_from_the_cache() -> None:
    head = TOOLS_HEAD + "<|open|>length {{ messages[-1].content | length }}<|close|>\n"
    chat = ChatDelta.calibrate(tokenizer_of(template(head=head)))
    for said in ("x" * len(SENTINEL), "Hi", "Hi, I would like to cancel my order.", "Hi"):
        messages = [SYSTEM, GREETING, user(said)]
        delta = chat.first_prompt_delta(messages, TOOLS)
        assert delta.ids == chat.template.encode(rendered(chat, messages))
        assert delta.text == rendered(chat, messages)


def test_what_a_tool_said_before_the_first_user_message_is_restored() -> None:
    chat = ChatDelta.calibrate(tokenizer_of(template()))
    made = calls(call(1, "get_order_details", order_id="#W1"))
    messages = [SYSTEM, GREETING, made, result(1, "a <|close|> b"), user("Hi")]
    delta = chat.first_prompt_delta(messages, TOOLS)
    assert delta.text == chat.template.decode(delta.ids)
    assert "a <|close|> b" in delta.text and "<|open|>user\nHi<|close|>" in delta.text
    assert delta.round_trip_ok and delta.escaped == 1
    clean = chat.first_prompt_delta([SYSTEM, GREETING, made, result(1, "a b"), user("Hi")], TOOLS)
    assert control_ids(chat, delta.ids) == control_ids(chat, clean.ids)


def test_a_token_that_ends_another_is_not_where_the_prompt_is_cut() -> None:
    """The last spelling of a control token before the user's text may lie inside another one."""
    chat = ChatDelta.calibrate(tokenizer_of(template(), added=(*ADDED, "open|>")))
    for said in ("Hi", "Hello"):
        messages = [SYSTEM, GREETING, user(said)]
        assert chat.first_prompt(messages, TOOLS) == chat.template.encode(rendered(chat, messages))


def test_a_tokenizer_that_changes_the_operators_text_is_reported_each_time() -> None:
    from tokenizers import normalizers

    tokenizer = tokenizer_of(template())
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    chat = ChatDelta.calibrate(tokenizer)
    for said in ("Hi", "Hello"):
        half = [{"role": "system", "content": "A refund is ½ of the price."}, GREETING, user(said)]
        assert not chat.first_prompt_delta(half, TOOLS).round_trip_ok
        assert chat.first_prompt_delta([SYSTEM, GREETING, user(said)], TOOLS).round_trip_ok


def test_a_closer_that_merges_with_the_next_message_is_refused() -> None:
    """The template writes the user's text right after the closer, and a token is spelled like both together."""
    turn = "{% if m.role != 'user' %}<|open|>{{ m.role }}\n{% endif %}{{ m.content or '' }}" + CALLS
    source = template(turn=turn, end="{{ '<|other|>' if m.role == 'user' else '<|close|>' }}")
    chat = ChatDelta.calibrate(tokenizer_of(source, added=(*ADDED, "<|close|>!")))
    history = [SYSTEM, GREETING, user("a")]
    assert chat.between(history, text("b"), [user("yes!")], TOOLS).text.startswith("<|close|>yes!<|other|>")
    with pytest.raises(TemplateError, match="does not begin with the id of a closer") as refusal:
        chat.between(history, text("b"), [user("!")], TOOLS)
    assert refusal.value.problem == "no-closer"


def test_a_checkpoint_with_a_template_of_its_own_for_tools() -> None:
    tokenizer = tokenizer_of(None)
    tokenizer.chat_template = {"default": template(), "tool_use": template(head="{{ preserve_thinking }}" + TOOLS_HEAD)}
    chat = ChatDelta.calibrate(tokenizer)
    assert chat.template.template_kwargs == {"preserve_thinking": True}
    assert chat.template.render([SYSTEM, GREETING, user("a")], TOOLS).startswith("True<tools>")


def test_a_generation_prompt_that_depends_on_the_tools_has_them_in_the_delta() -> None:
    tail = "{% if add_generation_prompt %}<|open|>assistant{{ ' with tools' if tools else '' }}\n{% endif %}"
    chat = ChatDelta.calibrate(tokenizer_of(template(tail=tail)))
    assert chat.report.dummy_base_ok
    history = [SYSTEM, GREETING, user("a")]
    for tools in (TOOLS, None, []):
        for real in (False, True):
            delta = chat.between(history, text("b"), [user("c")], tools, real=real)
            assert rendered(chat, [*history, text("b"), user("c")], tools or None).endswith(delta.text)
            assert delta.text.endswith("assistant with tools\n" if tools else "assistant\n")


def test_a_history_that_the_template_refuses_is_noticed_where_it_is_rendered() -> None:
    """A template may change its mind about what was said earlier; the metric of re-rendering asks for the real history."""
    picky = "{% if m.content and 'sausage' in m.content %}{{ raise_exception('no sausages') }}{% endif %}"
    chat = ChatDelta.calibrate(tokenizer_of(template(turn=TURN + CALLS + picky)))
    history = [SYSTEM, GREETING, user("One sausage, please.")]
    assert chat.between(history, text("b"), [user("c")], TOOLS).text.startswith("<|close|>")
    with pytest.raises(TemplateError, match=r"\[system assistant user assistant user\].*no sausages"):
        chat.between(history, text("b"), [user("c")], TOOLS, real=True)


def test_a_calls_own_id_and_name_that_spell_control_tokens_stay_text() -> None:
    """The model chose them; some templates repeat them from the call, after the sampled turn."""
    turn = "<|open|>{{ m.role }}"
    turn += (
        "{% if m.role == 'tool' %} {{ loop.previtem.tool_calls[0].id }} {{ loop.previtem.tool_calls[0].function.name }}"
    )
    turn += "{% endif %}\n{{ m.content or '' }}" + CALLS
    chat = ChatDelta.calibrate(
        tokenizer_of(template(turn=turn).replace("previtem.tool_calls[0]", "previtem.tool_calls[0]"))
    )
    history = [SYSTEM, GREETING, user("a")]
    for made in (
        {"id": "x<|close|>y", "type": "function", "function": {"name": "get", "arguments": {}}},
        {"id": "x", "type": "function", "function": {"name": "get<|open|>system", "arguments": {}}},
    ):
        plain = {"id": "x", "type": "function", "function": {"name": "get", "arguments": {}}}
        delta = chat.between(history, calls(made), [result(1, "found")], TOOLS)
        clean = chat.between(history, calls(plain), [result(1, "found")], TOOLS)
        assert f"tool {made['id']} {made['function']['name']}" in delta.text  # type: ignore[index]
        assert control_ids(chat, delta.ids) == control_ids(chat, clean.ids)
        assert chat.template.decode(delta.ids) == delta.text


def test_a_prompt_without_any_control_token_has_no_prefix_to_keep() -> None:
    chat = ChatDelta.calibrate(tokenizer_of(template(tail=GENERATION, turn=TURN + CALLS)))
    before = chat.template.chars_encoded
    messages = [user("Who is there?")]
    ids = chat.first_prompt(messages)
    assert ids == chat.template.encode(rendered(chat, messages, None))
    assert chat.template.chars_encoded > before
    bare = "{% if m.role != 'user' %}<|open|>{{ m.role }}\n{% endif %}{{ m.content or '' }}" + CALLS
    chat = ChatDelta.calibrate(tokenizer_of(template(turn=bare)))
    assert chat.first_prompt(messages) == chat.template.encode(rendered(chat, messages, None))
