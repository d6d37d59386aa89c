"""What a reader copies from a docstring works: the examples of every module run and give what stands below them."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import tau2_slime
from tests.tokens.rows import ROWS

PACKAGE = Path(tau2_slime.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
WITH_EXTRAS = "tau2_slime.backends."
"""What these import is not installed here; `tests/backends` runs their examples."""


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if not name.startswith(WITH_EXTRAS)])
def test_the_examples_of_a_module(name: str) -> None:
    module = importlib.import_module(name)
    given = {"tokenizer": ROWS["Qwen3-Instruct-2507"].tokenizer()} if name == "tau2_slime.tokens" else {}
    to_run = [
        example
        for test in doctest.DocTestFinder().find(module)
        for example in test.examples
        if not example.options.get(doctest.SKIP)
    ]
    outcome = doctest.testmod(module, extraglobs=given)
    assert (outcome.failed, outcome.attempted) == (0, len(to_run))
