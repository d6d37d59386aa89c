"""One row for each family of models: its template, a vocabulary, and what its template is known to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tau2_slime.tokens.template.chat_delta import ChatDelta
from tests.tokens.support import (
    GREETING,
    SYSTEM,
    TOOLS,
    call,
    calls,
    llama_cpp_template,
    qwen_tokenizer,
    stand_in_tokenizer,
    trl_template,
    user,
)

GLM_TOKENS = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
)
LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
KIMI_TOKENS = (
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
DEEPSEEK_TOKENS = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁sep｜>",
)
MINIMAX_TOKENS = ("]~!b[", "]~b]", "[e~[", "<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>")
GPT_OSS_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
MISTRAL_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]")


@dataclass(frozen=True)
class Row:
    """A template, with what a user of the family has to be able to rely on."""

    tokenizer: Callable[[], Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """What the user gives."""
    preset_kwargs: dict[str, Any] = field(default_factory=dict)
    """What has to be set for the user."""
    problem: str | None = None
    """The template has to be refused with this code."""
    text_end: str = "<|im_end|>"
    """What the model samples last after a text."""
    call_end: str = "<|im_end|>"
    """What the model samples last after a call."""
    reasoning: bool = False
    """The model thinks before every answer."""
    parallel: bool = True
    append_only: bool = True
    """The template writes earlier turns as they were sampled, whatever follows."""
    text_beside_call: bool = True
    """The template writes text beside a call (gpt-oss has only reasoning there)."""
    replaced_texts: bool = False
    """History closes a text turn with another token than the one that is sampled."""


def qwen(name: str, **row: Any) -> Row:
    return Row(lambda: qwen_tokenizer(trl_template(name)), **row)


def thinking_2507() -> Any:
    """Qwen3-Thinking-2507: the hybrid's template, whose generation prompt opens the reasoning."""
    hybrid = trl_template("qwen3")
    start = hybrid.index("{%- if add_generation_prompt %}")
    generation = "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}"
    return qwen_tokenizer(hybrid[:start] + generation)


def glm(template: Callable[[str], str], name: str, **row: Any) -> Row:
    return Row(
        lambda: stand_in_tokenizer(template(name), GLM_TOKENS, eos="<|endoftext|>"),
        text_end="<|user|>",
        call_end="<|observation|>",
        **row,
    )


def llama(template: Callable[[str], str], name: str, **row: Any) -> Row:
    return Row(
        lambda: stand_in_tokenizer(template(name), LLAMA_TOKENS, eos="<|eot_id|>", bos="<|begin_of_text|>"),
        text_end="<|eot_id|>",
        call_end="<|eot_id|>",
        parallel=False,
        **row,
    )


def kimi(name: str, **row: Any) -> Row:
    return Row(lambda: stand_in_tokenizer(llama_cpp_template(name), KIMI_TOKENS, eos="[EOS]", bos="[BOS]"), **row)


def deepseek(template: Callable[[str], str], name: str, **row: Any) -> Row:
    end, begin = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"
    return Row(
        lambda: stand_in_tokenizer(template(name), DEEPSEEK_TOKENS, eos=end, bos=begin),
        text_end=end,
        call_end=end,
        **row,
    )


def gpt_oss(template: Callable[[str], str], name: str, **row: Any) -> Row:
    return Row(
        lambda: stand_in_tokenizer(template(name), GPT_OSS_TOKENS, eos="<|return|>"),
        text_end="<|return|>",
        call_end="<|call|>",
        parallel=False,
        reasoning=True,
        append_only=False,
        text_beside_call=False,
        replaced_texts=True,
        **row,
    )


ROWS: dict[str, Row] = {
    "Qwen3-Instruct-2507": qwen("qwen3_instruct_2507"),
    "Qwen3 hybrid, thinking": qwen("qwen3", reasoning=True, append_only=False),
    "Qwen3 hybrid, turns without reasoning": qwen("qwen3", append_only=False),
    "Qwen3 hybrid, enable_thinking=False": qwen("qwen3", kwargs={"enable_thinking": False}, append_only=False),
    "Qwen3-Thinking-2507": Row(thinking_2507, reasoning=True, append_only=False),
    "Qwen2.5": qwen("qwen2_5"),
    "Qwen3-Coder": Row(lambda: qwen_tokenizer(llama_cpp_template("Qwen3-Coder"))),
    "Qwen3.5, thinking": qwen("qwen3_5_think", reasoning=True, append_only=False),
    "Qwen3.5, no thinking": qwen("qwen3_5_nothink", append_only=False),
    "Qwen3.5-4B of llama.cpp": Row(
        lambda: qwen_tokenizer(llama_cpp_template("Qwen3.5-4B")), reasoning=True, append_only=False
    ),
    "Qwen3.6": qwen("qwen3_6", reasoning=True, preset_kwargs={"preserve_thinking": True}),
    "GLM-4.5, thinking": glm(trl_template, "glm4moe", reasoning=True, append_only=False),
    "GLM-4.5, enable_thinking=False": glm(trl_template, "glm4moe", kwargs={"enable_thinking": False}),
    "GLM-4.6": glm(llama_cpp_template, "GLM-4.6", reasoning=True, append_only=False),
    "GLM-4.7, thinking kept": glm(
        llama_cpp_template, "GLM-4.7-Flash", reasoning=True, preset_kwargs={"clear_thinking": False}
    ),
    "GLM-4.7, clear_thinking=True": glm(
        llama_cpp_template, "GLM-4.7-Flash", reasoning=True, kwargs={"clear_thinking": True}, append_only=False
    ),
    "Llama-3.1": llama(
        trl_template, "llama3_1", preset_kwargs={"tools_in_user_message": False, "date_string": "26 Jul 2024"}
    ),
    "Llama-3.1, tools_in_user_message=True": llama(
        trl_template, "llama3_1", kwargs={"tools_in_user_message": True}, problem="greeting-as-user"
    ),
    "Llama-3.1 of llama.cpp": llama(
        llama_cpp_template,
        "meta-llama-Llama-3.1-8B-Instruct",
        preset_kwargs={"tools_in_user_message": False, "date_string": "26 Jul 2024"},
    ),
    "Kimi-K2": kimi("moonshotai-Kimi-K2"),
    "Kimi-K2-Instruct, new": kimi("Kimi-K2-Instruct", problem="raises"),
    "Kimi-K2-Thinking": kimi("Kimi-K2-Thinking", problem="raises"),
    "DeepSeek-V3.1": deepseek(llama_cpp_template, "deepseek-ai-DeepSeek-V3.1", problem="tools-not-rendered"),
    "DeepSeek-V3.2": deepseek(llama_cpp_template, "deepseek-ai-DeepSeek-V3.2", problem="greeting-not-assistant"),
    "DeepSeek-V3": deepseek(trl_template, "deepseekv3", problem="tools-not-rendered"),
    "MiniMax-M2": Row(
        lambda: stand_in_tokenizer(llama_cpp_template("MiniMax-M2"), MINIMAX_TOKENS, eos="[e~["),
        text_end="[e~[",
        call_end="[e~[",
        reasoning=True,
        append_only=False,
    ),
    "gpt-oss": gpt_oss(trl_template, "gptoss"),
    "gpt-oss of llama.cpp": gpt_oss(llama_cpp_template, "openai-gpt-oss-120b"),
    "Nemotron-3-Nano": qwen("nemotron_3_nano", reasoning=True, preset_kwargs={"truncate_history_thinking": False}),
    "Mistral-Nemo": Row(
        lambda: stand_in_tokenizer(
            llama_cpp_template("mistralai-Mistral-Nemo-Instruct-2407"), MISTRAL_TOKENS, eos="</s>", bos="<s>"
        ),
        problem="raises",
    ),
}


HISTORY = [SYSTEM, GREETING, user("Hi, cancel #W1.")]
CALL = calls(call(1, "get_order_details", order_id="#W1"), content="")


@cache
def chat_of(row: str) -> ChatDelta:
    return ChatDelta.calibrate(ROWS[row].tokenizer(), template_kwargs=ROWS[row].kwargs)


def token(chat: ChatDelta, spelling: str) -> int:
    return chat.template.tokenizer.convert_tokens_to_ids(spelling)


def control_ids(chat: ChatDelta, ids: list[int]) -> list[int]:
    return [i for i in ids if i in chat.template.control_tokens.values()]


def reference(chat: ChatDelta, messages: list[dict[str, Any]]) -> str:
    return chat.template.tokenizer.apply_chat_template(
        messages, tools=TOOLS, add_generation_prompt=True, tokenize=False, **chat.template.template_kwargs
    )
