"""Thoughts are heard by nobody, however a family spells them; what only looks like a thought stays a word."""

from __future__ import annotations

import time

import pytest

from tau2_slime.chat.thoughts import SPELLINGS, Spoken, cut_thoughts
from tau2_slime.tokens.families import FAMILIES

WEIGHED = "Is it done? Then ###STOP###. Not yet."


@pytest.mark.parametrize(("opening", "closing"), SPELLINGS)
def test_every_familys_thoughts_are_cut_off(opening: str, closing: str) -> None:
    assert cut_thoughts(f"{opening}{WEIGHED}{closing}\n\nPlease.") == Spoken("Please.", WEIGHED)
    assert cut_thoughts(f" \n{opening}\n{WEIGHED}") == Spoken("", WEIGHED, unclosed=True)
    opened_by_the_template = f"{WEIGHED}\n{closing}\n\nPlease."
    assert cut_thoughts(opened_by_the_template) == Spoken("Please.", WEIGHED)
    twice = f"{opening}one{closing}\n{opening}two{closing} Please."
    assert cut_thoughts(twice) == Spoken("Please.", "one\ntwo")
    further_inside = f"As I said, {opening}I am the agent{closing}"
    assert cut_thoughts(further_inside) == Spoken(further_inside, None)


def test_the_families_of_the_policy_are_in_the_table() -> None:
    assert {family.reasoning_tags for family in FAMILIES} <= set(SPELLINGS)


CHANNELS = {
    f"<|channel|>analysis<|message|>{WEIGHED}<|end|><|start|>assistant<|channel|>final<|message|>Please.": "Please.",
    f"<|start|>assistant<|channel|>analysis<|message|>{WEIGHED}<|channel|>final<|message|>Please.<|return|>": "Please.",
    f"analysis{WEIGHED}assistantfinalPlease.": "Please.",
    f"<|channel|>analysis<|message|>{WEIGHED}<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>": "Wait.",
}


@pytest.mark.parametrize("text", CHANNELS)
def test_the_channels_of_gpt_oss(text: str) -> None:
    assert cut_thoughts(text) == Spoken(CHANNELS[text], WEIGHED)


def test_an_analysis_that_never_ends_has_no_words() -> None:
    assert cut_thoughts(f"<|channel|>analysis<|message|>{WEIGHED}") == Spoken("", WEIGHED, unclosed=True)


def test_the_wrapper_of_an_answer_goes_with_the_thoughts() -> None:
    cohere = "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Please.<|END_RESPONSE|>"
    assert cut_thoughts(cohere) == Spoken("Please.", "hm")
    assert cut_thoughts("<answer>Please.</answer>").words == "<answer>Please.</answer>"


@pytest.mark.parametrize(
    "text", ["", " Hello. ", "analysis of my bill", "a < b > c", "<|channel|>", "<|start|>x", "[THIN"]
)
def test_words_stay_as_they_are(text: str) -> None:
    assert cut_thoughts(text) == Spoken(text, None)


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>x", "<think></think>", "[/THINK]", "<|channel|>", "<|start|>", " "]
)
def test_a_long_text_of_tags_takes_no_time(piece: str) -> None:
    text, started = piece * (1_000_000 // len(piece)), time.process_time()
    cut_thoughts(text)
    cut_thoughts("<|channel|>analysis<|message|>" + text)
    assert time.process_time() - started < 1
