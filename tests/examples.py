"""Runs the examples in docstrings, so that what a reader copies works."""

from __future__ import annotations

import doctest
from types import ModuleType


def assert_examples_run(*modules: ModuleType) -> None:
    """Every ``>>>`` in the modules' docstrings runs and gives what stands below it; there is at least one in each."""
    for module in modules:
        outcome = doctest.testmod(module)
        assert outcome.attempted, f"{module.__name__} has no example"
        assert not outcome.failed, f"{outcome.failed} examples of {module.__name__} failed, see the output"
