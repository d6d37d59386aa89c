"""What a checkpoint brings: its tokenizer, a chat template that was proved usable, its tool-call format, its context length.

Built once per process, off the event loop, and shared by every episode.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.examples import domains_in, examples_of, told
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.loops import Once
from tau2_slime.tokens.calls.action_text import ActionFormat, action_format
from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tau2_slime.tokens.calls.types import ToolCallParser
from tau2_slime.tokens.replay import ExpertShape
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tau2_slime.tokens.template.chat_template import TemplateError
from tau2_slime.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class CheckpointProfile:
    """How to talk to one checkpoint in tokens."""

    delta: ChatDelta
    parser: ToolCallParser
    context_length: int | None
    """Tokens, as the checkpoint's config.json says; None if it does not."""
    vocabulary: int | None = None
    """How many token ids the model has, as its config.json says; None if it does not."""

    @property
    def stop_ids(self) -> list[int]:
        """Ids on which the server has to stop, in ascending order."""
        return sorted(self.delta.stop_ids)


_profiles: Once[CheckpointProfile] = Once()


async def profile_for(
    checkpoint: str, config: Tau2Config, tokenizer: Tokenizer | None = None, *, trust_remote_code: bool = False
) -> CheckpointProfile:
    """The `CheckpointProfile` of ``checkpoint`` (loaded unless ``tokenizer`` is given), built once per process.

    ``trust_remote_code``: see `load_tokenizer`.

    Raises:
        ConfigError: no such checkpoint, or its chat template cannot be used token-exactly; the message says why.
    """
    kwargs = json.dumps(config.chat_template_kwargs, sort_keys=True)
    examples = (config.few_shot, config.few_shot_count, config.few_shot_seed)
    key = (checkpoint, kwargs, config.tool_call_parser, config.agent_type == "solo", config.agent_strategy, examples)
    return await _profiles.get(
        key, lambda: build_profile(checkpoint, config, tokenizer, trust_remote_code=trust_remote_code)
    )


def build_profile(
    checkpoint: str, config: Tau2Config, tokenizer: Tokenizer | None = None, *, trust_remote_code: bool = False
) -> CheckpointProfile:
    """The profile of ``checkpoint``, built anew. It takes up to seconds: call it off the event loop.

    ``trust_remote_code``: see `load_tokenizer`.

    Raises:
        ConfigError: see `profile_for`.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(checkpoint, trust_remote_code=trust_remote_code)
    actions = action_format(config.agent_strategy, solo=config.agent_type == "solo")
    calibrate = functools.partial(
        ChatDelta.calibrate,
        tokenizer,
        template_kwargs=config.chat_template_kwargs,
        generation_stop_ids=_generation_stop_ids(checkpoint),
    )
    try:
        delta = calibrate(text_only=actions is not None)
    except TemplateError as error:
        way_out = "" if actions is not None else _way_out(calibrate)
        raise ConfigError(f"the chat template of {checkpoint} cannot be used: {error}{way_out}") from error
    if config.agent_type == "solo":
        try:
            delta.first_prompt([{"role": "system", "content": "You work on a ticket."}])
        except TemplateError as error:
            raise ConfigError(
                f"agent_type=solo: a ticket has no user, and the chat template of {checkpoint} wants one ({error}); take a "
                "checkpoint whose template begins without a user, or agent_type=llm"
            ) from error
    try:
        name = config.tool_call_parser
        if name == "auto" and actions is None:
            name = detect_parser(delta.template.template_source, delta.template.control_tokens)
        parser = actions or get_parser(name)
    except ValueError as error:  # ParserUnavailable, UnknownToolFormat
        way_out = _way_out(calibrate)
        raise ConfigError(f"tool_call_parser={config.tool_call_parser!r} for {checkpoint}: {error}{way_out}") from error
    profile = CheckpointProfile(
        delta, parser, _size(checkpoint, "max_position_embeddings"), _size(checkpoint, "vocab_size")
    )
    if config.few_shot is not None:
        _check_examples(config, profile, actions)
    return profile


def _check_examples(config: Tau2Config, profile: CheckpointProfile, actions: ActionFormat | None) -> None:
    """The examples leave half of the context to the conversation, and their speakers spell no control token.

    Raises:
        ConfigError: naming the domain, and what is too long or in the way.
    """
    template, pattern = profile.delta.template, profile.delta.template.control_pattern
    for domain in domains_in(config.few_shot or ""):
        try:
            examples = examples_of(config, domain, "", "")
        except ConfigError:  # told where this domain is played: a file may have few examples of one that is not
            continue
        for one in examples:
            for message in one.messages:
                if pattern is not None and (found := pattern.search(message.get("content") or "")):
                    raise ConfigError(
                        f"few_shot {config.few_shot}: a message of {domain} task {one.task_id} spells the control token "
                        f"{found[1]!r} of this chat template; leave that example out"
                    )
        tokens = len(template.encode(told(examples, profile.parser.format, actions)))
        if profile.context_length is not None and tokens > profile.context_length // 2:
            raise ConfigError(
                f"few_shot: {len(examples)} examples of {domain} have {tokens} tokens, more than half of the checkpoint's "
                f"context of {profile.context_length}; lower few_shot_count, or export shorter episodes (--max-tokens)"
            )


def _way_out(calibrate: Callable[..., ChatDelta]) -> str:
    """The end of an error's text: what works with this template although its own tool calls do not."""
    try:
        calibrate(text_only=True)
    except TemplateError:
        return ""
    return "; or set agent_strategy: react (or act), which needs no tools in the template"


def load_tokenizer(checkpoint: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """transformers' tokenizer of a checkpoint folder or hub name.

    ``trust_remote_code``: a tokenizer that brings code of its own may run it. Only for a checkpoint that the user named and
    vouches for, never for one that a file names.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return cast(Tokenizer, AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code))
    except Exception as error:  # transformers raises many types for a broken folder
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"the tokenizer of {checkpoint!r} is code that the checkpoint brings along: "
                "give --trust-remote-code if you trust whoever wrote it"
            ) from error
        raise ConfigError(
            f"no tokenizer can be loaded from {checkpoint!r}: {type(error).__name__}: {reason}; "
            "hf_checkpoint must be a Hugging Face folder or hub name"
        ) from error


def _generation_stop_ids(checkpoint: str) -> list[int]:
    eos = _read_json(checkpoint, "generation_config.json").get("eos_token_id")
    return [eos] if isinstance(eos, int) else [i for i in eos or [] if isinstance(i, int)]


def _size(checkpoint: str, name: str) -> int | None:
    """A number of the checkpoint's config.json, or of its ``text_config``."""
    config = _read_json(checkpoint, "config.json")
    value = config.get(name) or (config.get("text_config") or {}).get(name)
    return value if isinstance(value, int) else None


def expert_shape(checkpoint: str) -> ExpertShape | None:
    """How a mixture-of-experts model routes, as its config.json says; None for any other model."""
    config = _read_json(checkpoint, "config.json")
    config = config.get("text_config") or config
    layers, topk = config.get("num_hidden_layers"), config.get("num_experts_per_tok")
    return ExpertShape(layers, topk) if isinstance(layers, int) and isinstance(topk, int) else None


def _read_json(checkpoint: str, name: str) -> dict[str, Any]:
    """A JSON file of a checkpoint folder; empty if there is none (a hub name, a bare tokenizer).

    Raises:
        ConfigError: it does not hold a JSON object.
    """
    path = Path(checkpoint) / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} does not hold a JSON object")
    return value
