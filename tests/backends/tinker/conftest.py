"""These tests need tinker-cookbook, which `tests/backends/test_doors.py` installs beside the project's environment."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("tinker_cookbook") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> str:
    """A name under which the cookbook finds the package's own small tokenizer (ChatML, hermes calls) in this process."""
    from tinker_cookbook import tokenizer_utils

    def load() -> object:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(checkpoint))

    tokenizer_utils.register_tokenizer("tau2/local", load)
    return "tau2/local"
