"""Checkpoint folders of the doors that use tokens: a tokenizer with a model's own chat template, no weights."""

from __future__ import annotations

from pathlib import Path

from tests.tokens.support import qwen_tokenizer, trl_template


def qwen3(folder: Path, template: str = "qwen3_instruct_2507") -> Path:
    """The real Qwen3 vocabulary under one of the family's templates. Skips the test where they were not fetched."""
    qwen_tokenizer(trl_template(template)).save_pretrained(str(folder))
    return folder
