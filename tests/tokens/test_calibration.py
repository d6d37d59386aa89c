"""Templates that do one thing wrong, each refused with the reason; and ones that are only different."""

from __future__ import annotations

import pickle
from datetime import datetime
from typing import Any

import pytest

from tau2_slime.tokens.template.chat_delta import ChatDelta, TemplateError
from tau2_slime.tokens.template.chat_template import ChatTemplate
from tests.tokens.made_up import CALLS, TOOLS_HEAD, TURN, template, tokenizer_of
from tests.tokens.support import GREETING, SYSTEM, TOOLS, call, calls, result, text, user


def problem_of(tokenizer: Any, **arguments: Any) -> TemplateError:
    with pytest.raises(TemplateError) as refusal:
        ChatDelta.calibrate(tokenizer, **arguments)
    return refusal.value


def test_an_unknown_family_gets_its_closer_from_what_it_renders() -> None:
    chat = ChatDelta.calibrate(tokenizer_of(template()))
    assert list(chat.template.closers) == ["<|close|>"]
    assert chat.report.parallel_ok and chat.report.mid_system_ok and chat.report.dummy_base_ok
    delta = chat.between([SYSTEM, GREETING, user("a")], text("b"), [user("c")], TOOLS)
    assert delta.text == "<|close|>\n<|open|>user\nc<|close|>\n<|open|>assistant\n"


def test_a_checkpoint_without_template() -> None:
    assert problem_of(tokenizer_of(None)).problem == "no-template"


def test_tools_that_are_ignored() -> None:
    error = problem_of(tokenizer_of(template(head="")))
    assert error.problem == "tools-not-rendered" and "find_booking_probe" in error.detail


def test_a_greeting_in_the_users_mouth() -> None:
    source = template(turn="<|open|>{{ 'user' if loop.index0 == 1 else m.role }}\n{{ m.content or '' }}" + CALLS)
    error = problem_of(tokenizer_of(source))
    assert error.problem == "greeting-as-user" and "<|open|>user" in error.detail


def test_a_greeting_in_nobodys_mouth() -> None:
    source = template(turn="{% if loop.index0 != 1 %}<|open|>{{ m.role }}\n{% endif %}{{ m.content or '' }}" + CALLS)
    assert problem_of(tokenizer_of(source)).problem == "greeting-not-assistant"


def test_a_dropped_greeting() -> None:
    error = problem_of(tokenizer_of(template(turn="{% if loop.index0 != 1 %}" + TURN + CALLS + "{% endif %}")))
    assert error.problem == "message-dropped" and "greeting" in error.detail


def test_no_token_that_closes_a_turn() -> None:
    plain = "[{{ m.role }}] {{ m.content or '' }}" + CALLS
    source = template(turn=plain, end="\n", tail="{% if add_generation_prompt %}[assistant] {% endif %}")
    assert problem_of(tokenizer_of(source)).problem == "no-closer"


def test_a_closer_on_which_the_server_does_not_stop() -> None:
    source = template()
    error = problem_of(tokenizer_of(source, eos="<|other|>"))
    assert error.problem == "closer-not-stop" and "<|close|>" in error.detail
    tokenizer = tokenizer_of(source, eos="<|other|>")
    close = tokenizer.convert_tokens_to_ids("<|close|>")
    assert close in ChatDelta.calibrate(tokenizer, generation_stop_ids=[close]).stop_ids


def test_a_tool_call_that_is_not_written() -> None:
    assert problem_of(tokenizer_of(template(turn=TURN))).problem == "tool-call-dropped"


def test_a_tool_call_that_is_written_twice() -> None:
    error = problem_of(tokenizer_of(template(turn=TURN + CALLS + CALLS)))
    assert error.problem == "sentinel" and "the arguments of a tool call 2 times" in error.detail


def test_a_turn_that_is_written_twice() -> None:
    """All but the greeting, which is looked at before: the sentinel must mark one place."""
    twice = "{% if m.role == 'assistant' and loop.index0 != 1 %}{{ m.content or '' }}{% endif %}"
    error = problem_of(tokenizer_of(template(turn=TURN + twice + CALLS)))
    assert error.problem == "sentinel" and "the text of an assistant turn 2 times" in error.detail


def test_a_tool_result_that_is_not_written() -> None:
    dropped = "{% if m.role != 'tool' %}" + TURN + CALLS + "{% endif %}"
    assert problem_of(tokenizer_of(template(turn=dropped))).problem == "message-dropped"


def test_a_template_that_raises_says_what_it_said() -> None:
    strict = "{% if loop.index0 == 1 and m.role == 'assistant' %}{{ raise_exception('Users first!') }}{% endif %}"
    error = problem_of(tokenizer_of(template(turn=strict + TURN + CALLS)))
    assert error.problem == "raises" and error.detail.endswith("TemplateError: Users first!")
    again = pickle.loads(pickle.dumps(error))  # from another process
    assert (str(again), again.problem, again.detail) == (str(error), error.problem, error.detail)
    silent = strict.replace("Users first!", "")
    assert problem_of(tokenizer_of(template(turn=silent + TURN + CALLS))).problem == "raises"


def test_a_tokenizer_that_begins_every_text_with_a_space() -> None:
    from tokenizers import normalizers

    tokenizer = tokenizer_of(template())
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("▁")
    assert problem_of(tokenizer).problem == "not-round-trip"


def test_a_turn_end_that_merges_with_the_turn() -> None:
    """An added token that eats the white space before it: apart from the turn it has nothing to eat."""
    from tokenizers import AddedToken

    tokenizer = tokenizer_of(template())
    tokenizer.add_tokens([AddedToken("<|eater|>", lstrip=True, normalized=False)])
    tokenizer.chat_template = template(end="<|eater|>\n")
    eater = tokenizer.convert_tokens_to_ids("<|eater|>")
    assert problem_of(tokenizer, generation_stop_ids=[eater]).problem == "not-additive"


def test_arguments_as_a_string_where_the_template_wants_them() -> None:
    wants = (
        "{% for c in m.tool_calls or [] %}<call>{{ c.function.name + ' ' + c.function.arguments }}</call>{% endfor %}"
    )
    chat = ChatDelta.calibrate(tokenizer_of(template(turn=TURN + wants)))
    assert chat.report.string_arguments and "arguments as JSON string" in chat.report.one_line()
    history = [SYSTEM, GREETING, user("a"), calls(call(1, "get_order_details", order_id="#W1")), result(1, "b")]
    assert '<call>get_order_details {"order_id": "#W1"}</call>' in chat.template.decode(
        chat.first_prompt(history, TOOLS)
    )


def test_a_dict_is_not_written_as_a_string_that_holds_json() -> None:
    assert not ChatDelta.calibrate(tokenizer_of(template())).report.string_arguments


def test_content_none_where_only_that_keeps_the_call() -> None:
    picky = "{% if m.content is not string %}" + CALLS + "{% endif %}"
    chat = ChatDelta.calibrate(tokenizer_of(template(turn=TURN + picky)))
    assert chat.report.call_content is None and not chat.report.text_with_call_ok


def test_a_delta_that_depends_on_the_history_is_taken_from_the_real_one() -> None:
    numbered = "<|open|>{{ m.role }} {{ loop.index }}\n{{ m.content or '' }}" + CALLS
    chat = ChatDelta.calibrate(tokenizer_of(template(turn=numbered)))
    assert not chat.report.dummy_base_ok and "real history" in chat.report.one_line()
    history = [SYSTEM, GREETING, user("a"), text("b"), user("c")]
    assert "<|open|>user 7\ne<|close|>" in chat.between(history, text("d"), [user("e")], TOOLS).text


@pytest.mark.parametrize("knob", ["clear_thinking", "preserve_thinking", "truncate_history_thinking"])
def test_the_templates_switch_for_earlier_thinking_is_set_unless_the_user_did(knob: str) -> None:
    keeps = knob if knob == "preserve_thinking" else f"not {knob}"
    thoughtful = (
        "<|open|>{{ m.role }}\n{% if KEEP and m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}"
    )
    keep = f"({knob} is defined and {keeps}) or loop.index0 > ns.user"
    head = TOOLS_HEAD + (
        "{% set ns = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.user = loop.index0 %}{% endif %}{% endfor %}"
    )
    source = template(head=head, turn=thoughtful.replace("KEEP", f"({keep})") + "{{ m.content or '' }}" + CALLS)
    value = knob == "preserve_thinking"
    chat = ChatDelta.calibrate(tokenizer_of(source))
    assert chat.template.template_kwargs == {knob: value} and f"{knob}={value}" in chat.report.one_line()
    assert chat.report.rewrites_on_user.reasoning is False
    other = ChatDelta.calibrate(tokenizer_of(source), template_kwargs={knob: not value})
    assert other.template.template_kwargs == {knob: not value} and not other.report.preset_kwargs
    assert other.report.rewrites_on_user.reasoning is True
    assert "rewrites reasoning turns on a user message" in other.report.one_line()


def test_the_date_is_pinned_unless_the_user_gave_one() -> None:
    dated = template(head=TOOLS_HEAD + "{{ date_string if date_string is defined else strftime_now('%H:%M:%S.%f') }}")
    chat = ChatDelta.calibrate(tokenizer_of(dated))
    messages = [SYSTEM, GREETING, user("a")]
    assert chat.template.render(messages, TOOLS) == chat.template.render(messages, TOOLS)
    datetime.strptime(str(chat.template.template_kwargs["date_string"]), "%d %b %Y")  # as Llama's templates write dates
    given = ChatDelta.calibrate(tokenizer_of(dated), template_kwargs={"date_string": "1 Jan 2030"})
    assert "1 Jan 2030" in given.template.render(messages, TOOLS)


def test_a_date_of_the_templates_own_is_kept() -> None:
    own = "{% if date_string is not defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}"
    chat = ChatDelta.calibrate(tokenizer_of(template(head=TOOLS_HEAD + own)))
    assert "26 Jul 2024" in chat.template.render([SYSTEM, GREETING, user("a")], TOOLS)


def test_tools_stay_out_of_the_users_message_unless_the_user_wants_them_there() -> None:
    llama = "{% if tools_in_user_message %}user{% else %}system{% endif %}"
    for given, where in ({}, "system"), ({"tools_in_user_message": True}, "user"):
        chat = ChatDelta.calibrate(tokenizer_of(template(head=llama + TOOLS_HEAD)), template_kwargs=given)
        assert chat.template.render([SYSTEM, GREETING, user("a")], TOOLS).startswith(where)


def test_a_pre_opened_reasoning_is_reported() -> None:
    opened = template(tail="{% if add_generation_prompt %}<|open|>assistant\n<think>\n{% endif %}")
    assert ChatDelta.calibrate(tokenizer_of(opened)).report.reasoning_preopened
    assert not ChatDelta.calibrate(tokenizer_of(template())).report.reasoning_preopened


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        (None, {}),
        ("no json", {"arguments": "no json"}),
        ("[1]", {"arguments": [1]}),
        ([1], {"arguments": [1]}),
    ],
)
def test_arguments_of_any_kind_can_be_rendered(given: Any, written: dict[str, Any]) -> None:
    made = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": given}}]}
    shaped = ChatTemplate(tokenizer_of(template())).shaped(made)
    assert shaped["tool_calls"] == [{"id": "a", "function": {"name": "f", "arguments": written}}]
    assert made["tool_calls"][0]["function"]["arguments"] == given
