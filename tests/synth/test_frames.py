"""Sentences and intents: what is written reads back as the same."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.synth.frames import Intent, read, same, write
from tau2_slime.synth.generate import WORDINGS

pytestmark = pytest.mark.fast
FRAMES = {
    "cancel": ("You want to cancel {order} because {why}.", "Please cancel {order}: {why}."),
    "move": ("[You want|It is your wish for] {order} to be [shipped|sent] to {address}.",),
}
WORD = st.text(string.ascii_letters + string.digits + "#", min_size=1, max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["cancel", "move"]), WORD, WORD), min_size=1, max_size=6), st.integers())
def test_a_text_reads_back_as_its_intents(drawn: list[tuple[str, str, str]], seed: int) -> None:
    intents = [Intent(k, {"order": a, ("why" if k == "cancel" else "address"): b}) for k, a, b in drawn]
    understood = read(write(random.Random(seed), intents, FRAMES), FRAMES)
    assert understood is not None
    assert same(understood, intents)


def test_a_missing_or_a_changed_request_is_noticed() -> None:
    one, two = Intent("cancel", {"order": "A", "why": "x"}), Intent("move", {"order": "A", "address": "y"})
    text = write(random.Random(1), [one, two], FRAMES)
    assert not same(read(text, FRAMES) or [], [one])
    assert not same(read(text, FRAMES) or [], [one, Intent("move", {"order": "A", "address": "z"})])
    assert read(text + "\nYou also want a pony.", FRAMES) is None


def test_every_choice_is_written_and_none_of_its_marks() -> None:
    texts = {write(random.Random(n), [Intent("move", {"order": "A", "address": "b"})], FRAMES) for n in range(60)}
    assert texts == {
        f"{one} A to be {two} to b." for one in ("You want", "It is your wish for") for two in ("shipped", "sent")
    }


@pytest.mark.parametrize("frames", WORDINGS.values())
def test_all_wordings_of_a_kind_have_the_same_slots(frames: Mapping[str, tuple[str, ...]]) -> None:
    for kind, wordings in frames.items():
        slots = [{name for _, name, _, _ in string.Formatter().parse(wording) if name} for wording in wordings]
        assert all(found == slots[0] for found in slots), kind
