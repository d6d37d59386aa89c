"""The real W&B, offline: every dataset's scores under their own names, the reports as an artifact."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.report import wandb_log
from tau2_slime.evaluation.statistics.summary import read_folder
from tests import command_line
from tests.evaluation.folders import write_folder

LOG = """
import json, sys
from pathlib import Path
import wandb
from tau2_slime.evaluation.statistics.summary import read_folder
from tau2_slime.evaluation.report.wandb_log import log
seen = {}
finish = wandb.sdk.wandb_run.Run.finish
def spy(run, *args, **more):
    seen.update({k: v for k, v in dict(run.summary).items() if k.startswith("eval/")}, config=dict(run.config)["subject"])
    return finish(run, *args, **more)
wandb.sdk.wandb_run.Run.finish = spy
folder = Path(sys.argv[1])
log(read_folder(folder), folder, "tau2-test")
print("SEEN " + json.dumps(seen))
"""


def test_scores_of_every_user_model_and_the_report(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (the extra tau2-slime[wandb])")
    users = {"retail-a": "vendor/a", "retail-b": "vendor/b"}
    folder = write_folder(tmp_path / "run", lambda d, t, i: float(d == "retail-a" or i == 0), datasets=users)
    (folder / "report.html").write_text("<p>report</p>")
    environ = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOG, str(folder)], env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.split("SEEN ")[1])
    # Four attempts a task: all succeed with user a; with user b only the first does.
    assert [seen[f"eval/retail-a/pass^{k}"] for k in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert [seen[f"eval/retail-b/pass@{k}"] for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]
    assert seen["eval/retail-b/pass^2"] == 0
    assert seen["eval/user/vendor/b/pass^1"] == 0.25
    assert seen["eval/overall/pass^1"] == pytest.approx(0.625)
    assert seen["config"]["name"] == "policy of run"
    (data,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    raw = data.read_bytes()
    assert b"report.html" in raw
    assert b"tau2-eval-" in raw


def test_without_wandb_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_wandb(name: str, *args: Any, **more: Any) -> Any:
        if name == "wandb":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", no_wandb)
    with pytest.raises(ConfigError, match=r"tau2-slime\[wandb\]"):
        wandb_log.require()


def test_metric_names(tmp_path: Path) -> None:
    found = wandb_log.metrics(read_folder(write_folder(tmp_path / "run", lambda d, t, i: None if i else 1.0)))
    assert found["eval/one/pass^1"] == 1.0
    assert found["eval/one/excluded"] == 15
    assert "eval/one/pass^2" not in found


def test_without_a_key_it_is_said_before_anything_is_played(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (the extra tau2-slime[wandb])")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    command = ["eval", "--wandb-project", "x", "--domain", "mock", "--tasks", "1", "--attempts", "1", "--output-dir"]
    done = command_line.run(*command, str(tmp_path / "out"), environ=environ)
    assert (done.returncode, "set WANDB_API_KEY" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
