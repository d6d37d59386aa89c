"""These tests need tinker-cookbook, which `tests/backends/test_doors.py` installs beside the project's environment."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("tinker_cookbook") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the package's own small tokenizer (ChatML, hermes calls): a model name that any process can load."""
    from tau2_slime.local.tokenizer import build_local_checkpoint

    return str(build_local_checkpoint(tmp_path_factory.mktemp("model") / "local"))


@pytest.fixture(scope="session")
def model(checkpoint: str) -> str:
    """The same under a name that the cookbook knows in this process."""
    from tinker_cookbook import tokenizer_utils

    def load() -> object:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(checkpoint)

    tokenizer_utils.register_tokenizer("tau2/local", load)
    return "tau2/local"
