"""A known key is taken out by its value, whole, cut or encoded, and words of a conversation stay."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tau2_slime.chat.faults import CallFailed, Fault
from tau2_slime.runtime import secrets

KEY = "sk-live/0123456789+abcdefghijklmnopqrstuv"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())
    secrets.remember(KEY)


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY[:20],
        json.dumps(KEY).replace("/", "\\/"),
        quote(KEY, safe=""),
        base64.b64encode(KEY.encode()).decode(),
    ],
    ids=["whole", "cut", "JSON", "URL", "base64"],
)
def test_a_key_is_taken_out_however_it_comes_back(spelled: str) -> None:
    assert secrets.redact(f"refused: {spelled} (401)").count("***") == 1
    assert KEY[:8] not in secrets.redact(f"refused: {spelled} (401)")


@pytest.mark.parametrize("pad", [*range(0, 30), *range(380, 410)])
def test_a_failure_shows_no_part_of_a_key_wherever_it_is_cut(pad: int) -> None:
    failed = CallFailed(Fault.REJECTED, "x" * pad + f" key {KEY} is wrong", 3.0)
    assert KEY[:4] not in str(failed) and len(str(failed)) <= 401


def test_variables_named_as_keys_are_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOME_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, f"{name}-and-its-value")
        assert secrets.redact(f"a {name}-and-its-value b") == "a *** b"
    monkeypatch.setenv("HOME_TOWN", "value-of-a-town")
    assert secrets.redact("value-of-a-town") == "value-of-a-town"


@pytest.mark.parametrize("placeholder", ["", "none", "EMPTY", "password"])
def test_a_placeholder_is_a_word_in_a_conversation(placeholder: str) -> None:
    secrets.remember(placeholder)
    assert secrets.redact_words("My EMPTY none password.") == "My EMPTY none password."


def test_a_model_that_says_the_key_is_not_heard() -> None:
    assert secrets.redact_words(f"It is {KEY}.") == "It is ***."


def test_short_keys_are_taken_out_of_errors() -> None:
    secrets.remember("sk-12345")
    assert secrets.redact("key sk-12345 is wrong") == "key *** is wrong"
