"""The local checkpoint: a folder that transformers and the calibration of chat templates accept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.local.tokenizer import build_local_checkpoint
from tau2_slime.tokens.calls.registry import detect_parser
from tau2_slime.tokens.template.chat_delta import ChatDelta

TOOL = {"type": "function", "function": {"name": "find_order", "description": "d", "parameters": {"type": "object"}}}


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def render(tokenizer: Any, *messages: dict[str, Any], tools: Any = None, prompt: bool = False) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tools=tools, add_generation_prompt=prompt, tokenize=False))


def test_a_conversation_is_rendered_turn_by_turn(tokenizer: Any) -> None:
    text = render(
        tokenizer,
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Order 7?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [called("find_order", id="7"), called("find_order", id="ü")],
        },
        {"role": "tool", "content": "sent"},
        {"role": "tool", "content": "lost"},
        {"role": "assistant", "content": "One of them is lost."},
        prompt=True,
    )
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n"
        "<|im_start|>user\nOrder 7?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"name": "find_order", "arguments": {"id": "7"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "find_order", "arguments": {"id": "ü"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nsent\n</tool_response>\n<tool_response>\nlost\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nOne of them is lost.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_stand_in_the_system_turn(tokenizer: Any) -> None:
    text = render(tokenizer, {"role": "user", "content": "x"}, tools=[TOOL])
    system, rest = text.split("<|im_end|>\n", 1)
    assert system.startswith("<|im_start|>system\n")
    assert json.dumps(TOOL) in system
    assert rest == "<|im_start|>user\nx<|im_end|>\n"


def test_history_stays_as_it_was_said(tokenizer: Any) -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
    assert "<think>\nhm\n</think>\n\nYes." in render(tokenizer, thought, {"role": "user", "content": "And?"})


def test_control_tokens_are_single_tokens(tokenizer: Any) -> None:
    for text in ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_response>", "</think>"):
        assert len(tokenizer.encode(text)) == 1
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_the_package_can_use_it_token_exactly(tokenizer: Any) -> None:
    delta = ChatDelta.calibrate(tokenizer)
    assert detect_parser(delta.template.template_source, delta.template.control_tokens) == "hermes"
    assert delta.report.parallel_ok
    assert delta.report.dummy_base_ok


@given(text=st.text())
def test_any_text_survives(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_the_config_states_the_context(checkpoint: Path, tokenizer: Any) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"]) == ("qwen3", 32768)
    assert config["vocab_size"] == len(tokenizer)


def test_a_second_build_leaves_the_folder_alone(checkpoint: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in checkpoint.iterdir()}
    assert build_local_checkpoint(checkpoint) == checkpoint
    assert {path.name: path.stat().st_mtime_ns for path in checkpoint.iterdir()} == before


@pytest.mark.parametrize("outdated", [False, True])
def test_two_builds_at_once_give_one_folder_with_the_same_files(
    checkpoint: Path, tmp_path: Path, outdated: bool
) -> None:
    """Also where both find one that an older release built."""
    if outdated:
        shutil.copytree(checkpoint, tmp_path / "new")
        (tmp_path / "new" / "tau2_slime_local.json").write_text('{"fingerprint": "another"}')
        for number in range(200):
            (tmp_path / "new" / f"more_{number}").write_text("")
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(build_local_checkpoint, [tmp_path / "new", tmp_path / "new"]))
    assert built[0] == built[1]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]  # no scratch folder is left
    for path in checkpoint.iterdir():
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_it_does_not_touch_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        build_local_checkpoint(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_loading_it_needs_no_torch(checkpoint: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # an import of torch fails
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(checkpoint)!r})\n"
        "tokenizer.apply_chat_template([{'role': 'user', 'content': 'x'}])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
