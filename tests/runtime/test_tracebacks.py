"""A traceback holds what an endpoint said: it is logged and shown without keys, and says where the failure was."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from tau2_slime.runtime import secrets, tracebacks

KEY = "sk-live/0123456789+abcdefghijklmnopqrstuv"


def _fail() -> None:
    try:
        raise ValueError(f"401: Incorrect API key provided: {KEY}")
    except ValueError as error:
        raise KeyError(f"no answer: {error}") from error


def test_it_is_logged_whole_and_without_the_key(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_remembered", {KEY})
    with pytest.raises(KeyError) as raised:
        _fail()
    tracebacks.log(logging.getLogger("tau2_slime.somewhere"), f"100% wrong: {KEY}", raised.value)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tau2_slime.somewhere", "ERROR")
    assert (record.pathname, record.funcName) == (__file__, "test_it_is_logged_whole_and_without_the_key")
    assert "100% wrong: ***" in caplog.text
    assert "ValueError: 401: Incorrect API key provided: ***" in caplog.text
    assert "direct cause" in caplog.text and "in _fail" in caplog.text
    assert KEY[:8] not in caplog.text
    assert record.exc_info is None, "a handler of the host must not write it again, as it is"


def test_a_mistake_of_the_package_itself_shows_no_key_in_the_terminal() -> None:
    program = f"""
import sys
from tau2_slime.cli import commands, main
def broken(**_):
    raise ValueError("refused: {KEY} \\x1b[2J")
commands.app = broken
main.main()
"""
    environ = {**os.environ, "MY_API_KEY": KEY}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ValueError: refused: *** \\x1b[2J" in done.stderr
    assert KEY[:8] not in done.stderr.split("ValueError: ")[-1]
