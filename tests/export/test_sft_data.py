"""What the doctor says of SFT data before a job trains on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.cli.preflight import sft_data
from tau2_slime.errors import ConfigError
from tau2_slime.export.command import ExportRequest, Format, export
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tests.test_cli import tau2_slime


def template_of(run: Path) -> Any:
    language = language_of(read_episodes(run), None)
    assert language is not None
    return language.delta.template


@pytest.fixture
def data(played: Path, tmp_path: Path) -> Path:
    export(ExportRequest((played,), Format.SLIME_SFT, tmp_path / "data", batch=2))
    return tmp_path / "data"


def test_data_of_this_checkpoint_is_fine(played: Path, data: Path) -> None:
    card = json.loads((data / "card.json").read_text())
    told = sft_data(data, template_of(played), {})
    assert f"{card['episodes']['written']} episodes" in told and f"{card['steps']} steps of 2" in told


def test_data_of_another_checkpoint_is_refused(instruct: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="vocabulary is not this checkpoint's"):
        sft_data(data, template_of(instruct), {})


def test_other_template_arguments_are_refused(played: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"enable_thinking.*THINKING"):
        sft_data(data, template_of(played), {"enable_thinking": False})


def take_a_step_away(folder: Path) -> None:
    (folder / "0.pt").unlink()


def change_a_step(folder: Path) -> None:
    (folder / "0.pt").write_bytes((folder / "0.pt").read_bytes() + b"x")


def take_the_card_away(folder: Path) -> None:
    (folder / "card.json").unlink()


def break_the_card(folder: Path) -> None:
    (folder / "card.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (take_a_step_away, r"0\.pt missing or changed"),
        (change_a_step, r"0\.pt missing or changed"),
        (take_the_card_away, "tau2-slime export --format slime-sft"),
        (break_the_card, "export again"),
    ],
)
def test_damaged_data_is_refused(played: Path, data: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(data)
    with pytest.raises(ConfigError, match=said):
        sft_data(data, template_of(played), {})


def test_another_format_is_refused(played: Path, tmp_path: Path) -> None:
    export(ExportRequest((played,), Format.OPENAI, tmp_path / "data"))
    with pytest.raises(ConfigError, match="holds openai"):
        sft_data(tmp_path / "data", template_of(played), {})


def test_the_doctor_calls_no_user_model_for_sft(played: Path, data: Path, tmp_path: Path) -> None:
    """Nor does it need a key: nobody plays. The start may be an earlier stage's checkpoints."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("39\n")
    checkpoint = json.loads((played / "summary.json").read_text())["hf_checkpoint"]
    options = ["--sft-data", str(data), "--torch-dist", str(tmp_path / "checkpoints"), "--domain", "mock"]
    done = tau2_slime("doctor", "--hf-checkpoint", checkpoint, *options, TAU2_USER_MODEL="openai/gpt-x")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok   sft data") for line in lines)
    assert any(line.startswith("ok   torch_dist") and "iteration 39" in line for line in lines)
    assert not any("gpt-x" in line for line in lines)
