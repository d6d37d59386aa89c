"""One local checkpoint for the whole session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tau2_slime.local.tokenizer import build_local_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_local_checkpoint(tmp_path_factory.mktemp("local") / "checkpoint")


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(checkpoint))
