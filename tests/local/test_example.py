"""What a reader copies from the package's documentation works."""

from __future__ import annotations

from tau2_slime import local
from tau2_slime.local import gold
from tests.examples import assert_examples_run


def test_the_examples_run() -> None:
    assert_examples_run(local, gold)
