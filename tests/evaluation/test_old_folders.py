"""An evaluation's folder that an earlier version wrote: it is read, taken up, compared and inspected.

tests/data/evaluation_folder: `tau2-slime eval --domain mock --tasks 3 --attempts 2 --user-model scripted --gold-rate 0.4
--keep-tokens` of the version before the parsers' names were recorded. Do not write it anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.command import evaluate
from tau2_slime.evaluation.compare import compare
from tau2_slime.evaluation.request import Request
from tau2_slime.evaluation.statistics.summary import read_folder
from tau2_slime.evaluation.store.manifest import open_folder
from tau2_slime.evaluation.store.protocol import tau2_version
from tau2_slime.inspector.sources import read_episodes

OLD = Path(__file__).parents[1] / "data" / "evaluation_folder"


def test_it_is_read() -> None:
    summary = read_folder(OLD)
    assert (summary.end, summary.notes, summary.overall.played) == ("complete", [], 6)
    lines = [json.loads(line) for line in (OLD / "simulations.jsonl").read_text().splitlines()]
    assert sorted(summary.played, key=lambda r: (r["item"], r["attempt"])) == sorted(
        lines, key=lambda r: (r["item"], r["attempt"])
    )
    assert summary.overall.scores.pass_hat[1].value == 0.5
    assert summary.overall.baselines == {"do_nothing": 0.5, "transfer_at_once": 0.5}


def test_it_is_taken_up_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = json.loads((OLD / "manifest.json").read_text())["protocol"]["mock-base-scripted"]
    if protocol["tau2"] != tau2_version():
        pytest.skip(f"the folder was written with {protocol['tau2']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "run"
    shutil.copytree(OLD, folder)
    request = Request(
        folder, domains=["mock"], users=["scripted"], tasks=3, attempts=3, gold_rate=0.4, keep_tokens=True
    )
    assert evaluate(request, Console(quiet=True)) == 0
    old, new = ((f / "simulations.jsonl").read_text().splitlines() for f in (OLD, folder))
    assert new[:6] == old
    assert [json.loads(line)["attempt"] for line in new[6:]] == [2] * 3
    assert json.loads((folder / "manifest.json").read_text())["subject"]["tool_call_parser"] == "hermes"
    found = compare(read_folder(OLD), read_folder(folder))
    assert (len(found.pairs), found.allowed) == (3, [])


def test_it_is_inspected() -> None:
    found = read_episodes(OLD)
    assert (len(found.trajectories), found.unreadable) == (6, [])
    for trajectory in found.trajectories:
        assert len(trajectory.tokens) > trajectory.prompt_length > 0


@pytest.mark.parametrize(
    ("recorded", "now", "same"),
    [
        ("HermesParser", "hermes", True),
        ("QwenXmlParser", "qwen_xml", True),
        ("GlmParser", "glm", True),
        ("SglangParser", "sglang:glm45", True),
        ("SglangParser", "sglang:qwen25", True),
        ("hermes", "hermes", True),
        ("my.module.MyParser", "my.module.MyParser", True),
        ("HermesParser", "glm", False),
        ("HermesParser", "hermes2", False),
        ("HermesParser", "sglang:hermes", False),
        ("SglangParser", "hermes", False),
        ("MyParser", "hermes", False),
        ("sglang:glm45", "sglang:qwen25", False),
    ],
)
def test_the_parser_that_was_recorded_is_recognised(tmp_path: Path, recorded: str, now: str, same: bool) -> None:
    manifest = json.loads((OLD / "manifest.json").read_text())
    manifest["subject"]["tool_call_parser"] = recorded
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    manifest["subject"]["tool_call_parser"] = now
    if same:
        assert open_folder(tmp_path, manifest)["subject"]["tool_call_parser"] == now
    else:
        with pytest.raises(ConfigError, match=r"subject\.tool_call_parser"):
            open_folder(tmp_path, manifest)
