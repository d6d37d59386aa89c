"""The examples in the docstrings of this room do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tau2_slime.world

MODULES = [found.name for found in pkgutil.walk_packages(tau2_slime.world.__path__, "tau2_slime.world.")]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "tau2_slime.world.types"])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    protocol = importlib.import_module("tau2_slime.world.users.protocol")
    assert doctest.testmod(protocol).attempted >= 2
