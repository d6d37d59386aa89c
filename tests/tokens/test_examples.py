"""The examples in the docstrings of the tokens room, run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tau2_slime.tokens
from tests.tokens.rows import ROWS

MODULES = [
    "tau2_slime.tokens",
    *sorted(module.name for module in pkgutil.walk_packages(tau2_slime.tokens.__path__, "tau2_slime.tokens.")),
    "tau2_slime.runtime.dotted_path",
    "tau2_slime.runtime.server_errors",
]
WITH_EXAMPLES = {
    "tau2_slime.tokens",
    "tau2_slime.tokens.calls.parsers.tagged",
    "tau2_slime.tokens.calls.schema_types",
    "tau2_slime.tokens.ledger",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    given = {"tokenizer": ROWS["Qwen3-Instruct-2507"].tokenizer()} if name == "tau2_slime.tokens" else {}
    failed, tried = doctest.testmod(module, extraglobs=given)
    assert failed == 0
    assert tried > 0 or name not in WITH_EXAMPLES
