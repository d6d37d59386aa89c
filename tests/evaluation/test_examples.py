"""The examples in docstrings say what happens."""

from __future__ import annotations

import doctest

import pytest

from tau2_slime.evaluation import request
from tau2_slime.evaluation.runner import budget


@pytest.mark.parametrize("module", [request, budget])
def test_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert (result.attempted > 0, result.failed) == (True, 0)
