"""A small checkpoint folder of our own: a tokenizer, a chat template and a config, built when needed, without weights.

transformers' `AutoTokenizer` reads it, and so does everything that reads a chat template. It has a byte-level BPE vocabulary
trained on the installed τ²'s policies and tool schemas, ChatML control tokens, and tool calls as JSON between tags. Nothing
is downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 4096
"""Tokens that are learnt; the control and tag tokens come on top."""
CONTEXT_LENGTH = 32768
"""Tokens."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAG_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
PAD_TOKEN, EOS_TOKEN = "<|endoftext|>", "<|im_end|>"

_DOMAINS = ("airline", "retail", "telecom", "mock")
_TASK_DOMAINS = ("airline", "retail")
"""Domains whose tasks are read too, for the words of users. telecom's take a second to load and add few words."""
_MARKER = "tau2_slime_local.json"
"""The file that makes a folder one of ours; it is written last."""

CHAT_TEMPLATE = """\
{%- macro turn(role) -%}
{{ '<|im_start|>' + role + '\\n' }}
{%- endmacro -%}
{%- set ns = namespace(system='', first=0) -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set ns.system = messages[0].content -%}
{%- set ns.first = 1 -%}
{%- endif -%}
{%- if ns.system or tools -%}
{{- turn('system') }}
{{- ns.system }}
{%- if tools -%}
{{- '\\n\\n' if ns.system else '' }}
{{- '## Tools\\n\\nThese tools are at your service, one JSON schema a line:\\n' }}
{%- for tool in tools -%}
{{- tool | tojson + '\\n' }}
{%- endfor -%}
{{- '\\nTo use one, write a JSON object with its name and its arguments between tags:\\n' }}
{{- '<tool_call>\\n{"name": "...", "arguments": {...}}\\n</tool_call>' }}
{%- endif -%}
{{- '<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages[ns.first:] -%}
{%- if message.role == 'assistant' -%}
{{- turn('assistant') }}
{%- set text = message.content or '' -%}
{{- text }}
{%- for call in message.tool_calls or [] -%}
{%- set wanted = call.function or call -%}
{{- '\\n' if text or not loop.first else '' }}
{{- '<tool_call>\\n{"name": ' + wanted.name | tojson + ', "arguments": ' }}
{{- wanted.arguments if wanted.arguments is string else wanted.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor -%}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' -%}
{{- '<|im_start|>user' }}
{%- endif -%}
{{- '\\n<tool_response>\\n' + (message.content or '') + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' -%}
{{- '<|im_end|>\\n' }}
{%- endif -%}
{%- else -%}
{{- turn(message.role) + (message.content or '') + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- turn('assistant') }}
{%- endif -%}
"""


def build_local_checkpoint(directory: str | os.PathLike[str]) -> Path:
    """Make ``directory`` a checkpoint folder, if it is not one of ours already, and return it.

    The same installed τ² gives the same files. Two processes may build at once: each writes its own folder, and the first
    rename wins.

    Raises:
        FileExistsError: ``directory`` holds something else.
    """
    target = Path(directory)
    if _is_complete(target):
        return target
    if target.exists() and any(target.iterdir()) and not (target / _MARKER).exists():
        raise FileExistsError(f"{target} is not empty and was not built by tau2-slime; name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch, outdated = (Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)) for _ in range(2))
    try:
        _write(scratch)
        scratch.chmod(0o755)
        if target.exists() and not _is_complete(target):
            # It is empty, or an older release of this package built it. Only one process can move it away.
            with contextlib.suppress(FileNotFoundError):
                target.rename(outdated)
        try:
            scratch.rename(target)
        except OSError:
            if not _is_complete(target):  # the reason is not that another process was first
                raise
    finally:
        for folder in (scratch, outdated):
            shutil.rmtree(folder, ignore_errors=True)
    return target


def _recipe_hash() -> str:
    """Changes with everything in the folder that is not learnt from τ²."""
    recipe = (CHAT_TEMPLATE, VOCABULARY, CONTEXT_LENGTH, SPECIAL_TOKENS, TAG_TOKENS)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def _is_complete(directory: Path) -> bool:
    try:
        written = json.loads((directory / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and written.get("fingerprint") == _recipe_hash()


def _write(directory: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # As in the ChatML families, letters, single digits, punctuation and line breaks never share a token.
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TAG_TOKENS])
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {text: tokenizer.token_to_id(text) for text in (*SPECIAL_TOKENS, *TAG_TOKENS)}
    _dump(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHAT_TEMPLATE,
            "eos_token": EOS_TOKEN,
            "pad_token": PAD_TOKEN,
            "model_max_length": CONTEXT_LENGTH,
            "clean_up_tokenization_spaces": False,
        },
    )
    token_ids = {"eos_token_id": ids[EOS_TOKEN], "pad_token_id": ids[PAD_TOKEN]}
    _dump(
        directory / "config.json",
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "max_position_embeddings": CONTEXT_LENGTH,
            "vocab_size": tokenizer.get_vocab_size(),
            **token_ids,
        },
    )
    _dump(directory / "generation_config.json", {**token_ids, "eos_token_id": [ids[EOS_TOKEN], ids[PAD_TOKEN]]})
    _dump(directory / _MARKER, {"fingerprint": _recipe_hash()})


def _dump(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _corpus() -> Iterator[str]:
    """What the policy will read: the installed τ²'s policies, tool schemas and a few tasks, in a fixed order."""
    from tau2_slime.world import tau2_compat
    from tau2_slime.world.domains import domains, splits, tasks

    for domain in _DOMAINS:
        if domain not in domains():
            continue
        environment = tau2_compat.build_environment(domain, solo=False, env_kwargs={})
        yield environment.get_policy()
        tools = environment.get_tools() + (environment.get_user_tools() if environment.user_tools else [])
        for tool in tools:
            yield json.dumps(tool.openai_schema)
        if domain in _TASK_DOMAINS:
            for task in tasks(domain, next(iter(splits(domain))))[:40]:
                yield task.user_scenario.model_dump_json(exclude_none=True)


def local_checkpoint() -> Path:
    """The embedded policy's checkpoint folder, built on first use in the user's cache folder (``XDG_CACHE_HOME``)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return build_local_checkpoint(root / "tau2_slime" / "local-checkpoint")
