"""The launch script: it says what is missing, and passes slime no argument that slime does not know."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "run_qwen3_4B.sh"


def run(slime: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SLIME_DIR": str(slime), "DRY_RUN": "1"}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=environ, capture_output=True, text=True, timeout=60)


def test_without_slime_it_says_where_it_looked(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert f"SLIME_DIR={tmp_path}" in done.stderr


def test_a_dry_run_prints_one_command_with_everything_in_it(tmp_path: Path) -> None:
    models = tmp_path / "scripts" / "models"
    models.mkdir(parents=True)
    (models / "qwen3-4B-Instruct-2507.sh").write_text("MODEL_ARGS=(--num-layers 36)\n")
    done = run(tmp_path, "--num-rollout", "3")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[words.index("--custom-generate-function-path") + 1] == "tau2_slime.generate_with_tau2.generate"
    assert words[words.index("--eval-config") + 1] == str(ROOT / "eval_config.yaml")
    assert words[-2:] == ["--num-rollout", "3"]
    assert "--num-layers" in words
    assert not any("KEY=" in word or "sk-" in word for word in words)


def test_slime_knows_every_argument() -> None:
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    words = shlex.split(run(Path(folder)).stdout)
    flags = {word for word in words[words.index("--actor-num-nodes") :] if re.fullmatch(r"--[a-z0-9-]+", word)}
    # Megatron's own flags are not in slime's tree; its launch scripts and documentation name the ones that it accepts.
    known = "\n".join(
        path.read_text(errors="replace")
        for pattern in ("slime/**/*.py", "scripts/**/*.sh", "docs/**/*.md", "examples/**/*.sh")
        for path in Path(folder).glob(pattern)
    )
    assert flags
    assert not {flag for flag in flags if not re.search(re.escape(flag) + r"(?![\w-])", known)}
