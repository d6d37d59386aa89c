"""A ``.env`` of the folder where a command happens to run, or of one above, chooses neither keys nor endpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.world.users.spec import UserSpec

SOURCE = """
import os
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.spec import load_litellm
{first}; {second}
print([name for name in os.environ if "dotenv.invalid" in os.environ[name]])
import dotenv, pathlib
print(dotenv.load_dotenv(pathlib.Path(".env")), os.environ.get("HTTPS_PROXY"))
"""
LOADS = "tau2_compat.load()", "load_litellm()"


@pytest.mark.parametrize(("first", "second"), [LOADS, LOADS[::-1]])
def test_nothing_is_taken_from_a_dotenv_file(tmp_path: Path, first: str, second: str) -> None:
    lines = [f"{name}=http://dotenv.invalid" for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTPS_PROXY")]
    (tmp_path / ".env").write_text("\n".join(lines))
    clean = {
        name: value for name, value in os.environ.items() if name.lower() != "https_proxy" and "OPENAI" not in name
    }
    done = subprocess.run(
        [sys.executable, "-c", SOURCE.format(first=first, second=second)],
        **{"cwd": tmp_path, "env": clean, "capture_output": True, "text": True, "check": True},
    )
    nothing, later = done.stdout.splitlines()[-2:]
    assert nothing == "[]"
    assert later == "True http://dotenv.invalid", "whoever asks for a file of its own afterwards gets it"


def test_a_key_that_stands_in_a_dotenv_file_only_is_missed_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MY_KEY", raising=False)
    spec = UserSpec("openai/x", api_key_var="MY_KEY")
    with pytest.raises(ConfigError) as without:
        spec.connection()
    assert ".env" not in str(without.value)
    Path(".env").write_text("MY_KEY=x")
    with pytest.raises(ConfigError, match=r"\.env is not read"):
        spec.connection()
