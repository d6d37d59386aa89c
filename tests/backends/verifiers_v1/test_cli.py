"""vf-eval, vf-validate and vf-replay, as a user types them, with no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backends.chat_server import ChatServer
from tests.backends.verifiers_v1.conftest import PACKAGE


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(PACKAGE.parents[1]), str(PACKAGE)])
    return subprocess.Popen(
        [str(Path(sys.executable).with_name(name)), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_evaluate_and_validate(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ["--client.base-url", server.url, "--client.api-key-var", "SOME_KEY", "--no-push"]
    taskset = ["--env.taskset.domain", "mock", "--env.taskset.user-llm", "scripted"]
    alone = ["--taskset.domain", "mock", "--runtime.type", "subprocess"]
    evaluation = start(tmp_path, "vf-eval", "tau2-bench", *["-m", "gold", "-n", "2", "-r", "2"], *taskset, *client)
    validation = start(tmp_path, "vf-validate", "tau2-bench", "-n", "2", *alone, "-o", "checks")
    printed, checked = evaluation.communicate()[0], validation.communicate()[0]
    assert evaluation.returncode == 0, printed
    assert "reward 1.00" in printed and "err 0.00" in printed and "blame_agent 1.00" in printed, printed
    (run,) = (tmp_path / "outputs").iterdir()
    traces = saved(run)
    assert [trace["rewards"]["tau2_reward"]["score"] for trace in traces] == [1.0] * 4
    assert {trace["info"]["tau2"]["termination"] for trace in traces} == {"user_stop"}
    assert validation.returncode == 0, checked
    summary = json.loads(next(tmp_path.glob("checks/*/summary.json")).read_text())
    assert summary["outcomes"]["valid"] == summary["total"] == 2

    from verifiers.v1.cli.replay import main

    monkeypatch.setattr(sys, "argv", ["vf-replay"])
    main([str(run), "-o", str(tmp_path / "again"), "--no-rich"])
    again = saved(tmp_path / "again")
    assert [trace["rewards"]["tau2_reward"]["score"] for trace in again] == [1.0] * 4
    assert sorted(t["metrics"]["tau2_steps"] for t in again) == sorted(t["metrics"]["tau2_steps"] for t in traces)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--env.taskset.domain", "nope"], "domain='nope' is unknown"),
        (["--env.taskset.task-split", "nope"], "task_split='nope' is not a split"),
        (["--env.taskset.max-turns", "0"], "max_turns"),
        (["--env.taskset.user-modl", "x"], "user-modl"),
    ],
)
def test_wrong_settings_are_one_message(given: list[str], said: str, capsys: Any, monkeypatch: Any) -> None:
    from verifiers.v1.cli.eval.main import main

    monkeypatch.setattr(sys, "argv", ["vf-eval"])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as left:
        main(["tau2-bench", "-m", "gold", "--no-push", *given])
    printed = capsys.readouterr()
    told = " ".join((printed.out + printed.err + str(left.value)).split())
    assert said in told and "Traceback" not in told and left.value.code != 0


def saved(run: Path) -> list[Any]:
    """The traces of a run's folder."""
    episodes = [json.loads(line) for line in (run / "traces.jsonl").read_text().splitlines()]
    return [trace for episode in episodes for trace in episode["traces"]]
