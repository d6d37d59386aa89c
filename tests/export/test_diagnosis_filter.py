"""What `diagnose` says of an episode chooses which episodes leave."""

from __future__ import annotations

import json
from pathlib import Path

from tau2_slime.export.episodes import Filters, filtered, read_runs
from tests.diagnosis.corruptions import labelled, successes
from tests.diagnosis.test_command import as_results


def test_a_diagnosis_chooses(tmp_path: Path) -> None:
    made = [*labelled(1, kinds=iter(["wrong_argument.payment", "premature_stop"])), *successes(1)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(as_results([one for one in made if one[0].domain == "retail"])))
    runs = read_runs([path])
    keep = frozenset({"test-task", "duplicate"})

    def left(**chosen: frozenset[str]) -> list[str]:
        return [one.left_out for one in filtered(runs, Filters(min_reward=0.0, keep=keep, **chosen))]

    assert left() == ["", "", ""]
    assert left(only=frozenset({"wrong_argument"})) == ["", "diagnosis", "diagnosis"]
    assert left(without=frozenset({"user"})) == ["", "diagnosis", ""]
    assert left(only=frozenset({"none", "agent"}), without=frozenset({"wrong_argument"})) == [
        "diagnosis",
        "diagnosis",
        "",
    ]
