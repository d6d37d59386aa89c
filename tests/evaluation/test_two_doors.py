"""One file, two doors: what `tau2-slime eval` plays from an evaluation file is what slime plays from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tau2_slime.data.files import write_files
from tau2_slime.data.plan import plan_files
from tau2_slime.data.request import DataRequest
from tau2_slime.evaluation.command import Request, evaluate
from tau2_slime.evaluation.statistics.summary import read_folder
from tests.slime_cpu.modes import MODES, play

FILE = """
eval:
  defaults:
    n_samples_per_eval_prompt: 3
    temperature: 1.0
    top_p: 0.95
    max_response_len: 512
  datasets:
    - name: mock-plain
      path: ${oc.env:DATA_DIR}/mock_base_tasks.jsonl@[0:2]
      input_key: prompt
      metadata_key: metadata
      custom_generate_function_path: tau2_slime.generate_with_tau2.generate
      metadata_overrides: {domain: mock, task_split: base, user_model: scripted}
    - name: mock-terse
      path: ${oc.env:DATA_DIR}/mock_base_tasks.jsonl@[1:4]
      input_key: prompt
      metadata_key: metadata
      temperature: ${eval.defaults.temperature}
      custom_generate_function_path: tau2_slime.generate_with_tau2.generate
      metadata_overrides: {domain: mock, task_split: base, user_model: scripted-terse}
"""


def test_the_same_file_plays_the_same(slime: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    write_files(plan_files(DataRequest(domains=("mock",), splits=("base",))), tmp_path)
    config = tmp_path / "eval.yaml"
    config.write_text(FILE)
    report = play(python, {"slime": slime, **MODES["eval"], "server": {}, "eval_config": str(config)}, 500)
    assert report["problems"] == []
    theirs = {entry["dataset"]: (entry["episodes"], entry["status"]) for entry in report["evaluations"]}
    request = Request(tmp_path / "run", config=config, with_baselines=False)
    assert evaluate(request, Console(quiet=True)) == 0
    summary = read_folder(tmp_path / "run")
    ours = {group.name: group.played for group in summary.groups if group.kind == "dataset"}
    assert ours == {"mock-plain": 6, "mock-terse": 9}
    assert theirs == {name: (count, {"COMPLETED": count}) for name, count in ours.items()}
    for record in summary.played:
        assert record["reward"] == 1.0
