"""The first second of a command: it says something, and refuses a typo, before anything large is imported.

Counted by modules, not by a clock, which a busy machine would make lie.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = ("tau2", "litellm", "openai", "transformers", "torch", "numpy", "scipy", "omegaconf", "jinja2", "aiohttp")
SETTINGS = ("yaml",)  # and pydantic, which some releases of typer bring along

WATCHED = """
import atexit, io, json, os, sys
names = json.loads(os.environ["NAMES"])
def here():
    return [name for name in names if name in sys.modules]
class First(io.TextIOWrapper):
    def write(self, text):
        if not hasattr(sys, "first"):
            sys.first = here()
        return super().write(text)
for name in ("stdout", "stderr"):
    setattr(sys, name, First(open(getattr(sys, name).fileno(), "wb", buffering=0, closefd=False), write_through=True))
from tau2_slime.cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sys.first, here()]))
"""


def run(arguments: list[str], **environ: str) -> tuple[int, list[str], list[str]]:
    """Exit status; what was imported when the first letter was printed; what was imported in the end."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith("TAU2_")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        env={**keep, **environ, "NAMES": json.dumps([*LARGE, *SETTINGS])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    status, first, last = json.loads(done.stdout.splitlines()[-1])
    return status, first, last


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["rolout"],
        ["rollout", "--help"],
        ["rollout", "--grops", "3"],
        ["rollout", "--groups", "three"],
        ["eval", "--attempts", "0"],
        ["doctor", "--rooter", "x"],
        ["inspect"],
        ["compare", "x"],
        ["eval", "--gold-rate", "0.5", "--policy-model", "openai/x"],
        ["eval", "--policy-args", "{}"],
    ],
    ids=" ".join,
)
def test_help_and_typos_need_nothing(arguments: list[str]) -> None:
    status, first, last = run(arguments)
    assert status == (0 if "--help" in arguments else 2)
    assert (first, last) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["rollout"], {"TAU2_MAX_TURNS": "abc"}),
        (["rollout"], {"TAU2_USER_MODELL": "x"}),
        (["rollout", "--agent-type", "sollo"], {}),
        (["rollout", "--mistakes", "0.5", "--router", "http://127.0.0.1:9"], {}),
        (["rollout", "--policy-noise", "0.5", "--router", "http://127.0.0.1:9"], {}),
        (["rollout", "--spelling", "0", "--router", "http://127.0.0.1:9"], {}),
        (["export", "RUN", "--format", "csv"], {}),
        (["export", "RUN", "--format", "slime-sft", "--keep", "reward"], {}),
        (["export", "RUN", "--format", "openai", "--route", "exact"], {}),
        (["export", "RUN", "--format", "slime-sft", "--route", "messages", "--seed", "2"], {}),
        (["export", "RUN", "--format", "slime-sft", "--loss-mask-type", "qwen3"], {}),
        (["rollout", "--user-base-url", "http://127.0.0.1:9/v1"], {}),
        (["rollout", "--task-id", "1", "--groups", "2"], {}),
        (["rollout", "--domain", "airlin"], {}),
        (["eval", "--domain", "retial"], {}),
        (["doctor", "--domain", "telecm"], {}),
        (["rollout"], {"TAU2_DOMAIN": "moc"}),
        (["rollout", "--config", "CONFIG"], {}),
        (["doctor", "--config", "CONFIG"], {}),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_settings_need_only_the_settings(tmp_path: Path, arguments: list[str], environ: dict[str, str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("tau2: {max_turn: 3}\n")
    status, first, last = run([str(config) if word == "CONFIG" else word for word in arguments], **environ)
    assert status == 2
    assert first == []
    # What says how a setting is used comes with the world, but neither τ² nor litellm.
    assert not set(last) & {"tau2", "litellm", "openai", "transformers", "torch"}


@pytest.mark.parametrize("arguments", [["inspect", "."], ["compare", "a", "b"], ["convert-v1", "x.json"]], ids=" ".join)
def test_every_command_says_something_first(arguments: list[str]) -> None:
    status, first, _ = run(arguments)
    assert status == 2 and first == []


def test_a_list_of_episodes_needs_neither_tau2_nor_litellm(rollout_folder: Path) -> None:
    status, first, last = run(["inspect", str(rollout_folder)])
    assert status == 0 and first == []
    assert not set(last) & {"tau2", "litellm", "openai", "transformers"}


@pytest.fixture
def rollout_folder(tmp_path: Path) -> Path:
    sample = {"index": 0, "tokens": [1, 2], "response_length": 1, "loss_mask": [1], "rollout_log_probs": [-0.1]}
    (tmp_path / "samples.jsonl").write_text(json.dumps({**sample, "reward": 1.0, "status": "completed"}) + "\n")
    return tmp_path
