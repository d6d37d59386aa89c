"""The short ways round transformers' wrappers give what the long ways give, and are left where they might not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from tau2_slime.tokens.template import direct
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tau2_slime.tokens.template.chat_template import ChatTemplate
from tests.tokens.made_up import template, tokenizer_of
from tests.tokens.support import GREETING, SYSTEM, TOOLS, call, calls, result, text, user

CHAT = [SYSTEM, GREETING, user("Hi <b>there</b>, \ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16"))]


@given(ids=st.lists(st.integers(0, 1_000_000)), data=st.data())
def test_ids_decode_as_the_tokenizer_decodes_them(qwen3: ChatDelta, ids: list[int], data: st.DataObject) -> None:
    tokenizer = qwen3.template.tokenizer
    decode = direct.decoder(tokenizer)
    assert decode is not None
    # also ids that spell half a character, and ids that the vocabulary does not have
    ids = [one % (len(tokenizer) + 3) for one in ids]
    assert decode(ids) == direct.slow_decode(tokenizer, ids)


@given(text=st.text())
def test_texts_encode_as_the_tokenizer_encodes_them(qwen3: ChatDelta, text: str) -> None:
    tokenizer = qwen3.template.tokenizer
    encode = direct.encoder(tokenizer)
    text = text.encode("utf-8", "replace").decode()
    assert encode is not None
    assert encode(text) == tokenizer.encode(text, add_special_tokens=False)


def test_whoever_shares_the_tokenizer_may_have_truncated(qwen3: ChatDelta) -> None:
    tokenizer: Any = copy.deepcopy(qwen3.template.tokenizer)
    encode, text = direct.encoder(tokenizer), "How many tokens are there in this sentence? " * 4
    assert encode is not None
    whole = encode(text)
    tokenizer(text, truncation=True, max_length=5)
    assert encode(text) == whole
    assert len(whole) > 5


def test_a_tokenizer_with_a_way_of_its_own_is_asked_itself(qwen3: ChatDelta) -> None:
    tokenizer: Any = copy.deepcopy(qwen3.template.tokenizer)

    class Own(type(tokenizer)):  # type: ignore[misc]
        def encode(self, text: str, **options: Any) -> list[int]:
            return [1, *super().encode(text, **options)]

        def decode(self, token_ids: Sequence[int], **options: Any) -> str:
            return super().decode(token_ids, **options).upper()

        def apply_chat_template(self, *args: Any, **options: Any) -> Any:
            return super().apply_chat_template(*args, **options) + "!"

    tokenizer.__class__ = Own
    first = "<|endoftext|>"  # of every text that is not part of a conversation
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.convert_tokens_to_ids(first))]
    )
    assert direct.encoder(tokenizer) is None
    assert direct.decoder(tokenizer) is None
    renderer = direct.Renderer(tokenizer, qwen3.template.template_source, {})
    assert renderer.render(CHAT, TOOLS, True, lambda: "the long way") == "the long way"
    own = ChatTemplate(tokenizer)
    assert own.encode("a word") == [1, *qwen3.template.encode("a word")]
    assert own.decode(qwen3.template.encode("a word")) == "A WORD"


def test_a_conversation_goes_the_short_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(template())
    chat = ChatDelta.calibrate(tokenizer, template_kwargs={"a": 1})
    for _ in range(direct._COMPARED):
        chat.template.render(CHAT, TOOLS)
    for long_way in ("encode", "decode", "apply_chat_template"):
        monkeypatch.setattr(type(tokenizer), long_way, lambda *_, **__: pytest.fail("a long way"))
    prompt = chat.first_prompt(CHAT, TOOLS)
    delta = chat.between(CHAT, text("Yes?"), [user("No.")], TOOLS)
    assert chat.template.decode([*prompt, *delta.ids]).endswith(
        "<|close|>\n<|open|>user\nNo.<|close|>\n<|open|>assistant\n"
    )


@pytest.mark.parametrize(
    "chat", [CHAT, [*CHAT, calls(call(1, "get_order_details", order_id="#W1")), result(1, "{}")]], ids=["text", "calls"]
)
@pytest.mark.parametrize("tools", [TOOLS, None])
def test_a_template_writes_what_transformers_writes(qwen3: ChatDelta, chat: list[Any], tools: Any) -> None:
    template, long_ways = qwen3.template, []
    shaped = [template.shaped(message) for message in chat]

    def the_long_way() -> str:
        long_ways.append(1)
        return str(
            template.tokenizer.apply_chat_template(shaped, tools=tools, add_generation_prompt=True, tokenize=False)
        )

    renderer = direct.Renderer(template.tokenizer, template.template_source, {})
    texts = {renderer.render(shaped, tools, True, the_long_way) for _ in range(direct._COMPARED + 8)}
    assert texts == {the_long_way()}
    assert len(long_ways) == direct._COMPARED + 1


def test_a_release_that_renders_otherwise_is_believed(qwen3: ChatDelta) -> None:
    renderer = direct.Renderer(qwen3.template.tokenizer, qwen3.template.template_source, {})
    shaped = [qwen3.template.shaped(message) for message in CHAT]
    assert [renderer.render(shaped, TOOLS, True, lambda: "otherwise") for _ in range(99)] == ["otherwise"] * 99


def test_what_a_template_refuses_is_said_by_transformers(qwen3: ChatDelta) -> None:
    renderer = direct.Renderer(qwen3.template.tokenizer, "{{ raise_exception('no') }}", {})

    def refused() -> str:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        renderer.render([{"role": "user", "content": "Hi"}], TOOLS, True, refused)
