"""From failures to the mix: what fails is drawn more often, the same every time, and the report shows the shift."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tau2_slime.cli.aimed import read_weights
from tau2_slime.cli.commands import app
from tau2_slime.diagnosis.faults import read_judged
from tau2_slime.errors import ConfigError
from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.synth.aim import FLOOR, KINDS, Failing, weights_for
from tau2_slime.synth.gates.held_out import composition
from tau2_slime.synth.generate import Generator, Plan
from tau2_slime.synth.sampling import telecom
from tau2_slime.synth.verify import Judge
from tau2_slime.world import tau2_compat


def line(task: str, who: str = "agent", what: str = "wrong_argument", **more: Any) -> dict[str, Any]:
    key = {"run": "r", "domain": "retail", "task_id": task, "trial": 0, "reward": 0.0, "turn": 1, "clause": None}
    return {**key, "who": who, "what": what, "evidence": [], "also": [], "sure": 0.9, "by": "rules", **more}


EXCHANGE = {"tool": "exchange_delivered_order_items", "detail": "payment"}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


@pytest.mark.fast
def test_every_kind_names_a_tool_and_rules_of_its_policy() -> None:
    for domain, kinds in KINDS.items():
        kit = tau2_compat.build_environment(domain, solo=False, env_kwargs={}).user_tools
        customers = set(kit.tools) if kit is not None else set()
        for kind in kinds.values():
            assert kind.tool in POLICIES[domain].writes | customers
            assert set(kind.rules.split()) <= set(POLICIES[domain].rules)


@pytest.mark.fast
def test_what_fails_weighs_most_and_nothing_is_forgotten() -> None:
    failing = [Failing((EXCHANGE["tool"],), "payment", "", 3.0), Failing((), "", "A17", 1.0)]
    weights, elsewhere = weights_for("retail", failing)
    assert elsewhere == 1.0  # airline's rule is about nothing that retail draws
    assert max(weights, key=weights.__getitem__) == "exchange"
    assert weights["cancel"] == FLOOR < weights["return"]  # a return has a payment, too
    assert sum(weights.values()) / len(weights) == pytest.approx(1.0, abs=1e-3)
    assert weights_for("retail", failing[::-1]) == (weights, elsewhere)
    assert weights_for("airline", [Failing((), "", "A17", 1.0)])[0]["cancel"] > 1
    assert weights_for("retail", [Failing((), "", "", 2.0)]) == ({}, 2.0)


@pytest.mark.fast
def test_only_the_agents_failures_steer_and_all_forms_agree(tmp_path: Path) -> None:
    lines = written(
        tmp_path / "diagnosis.jsonl",
        line("1", **EXCHANGE),
        line("2", who="user", what="leak", tool="cancel_pending_order"),
        line("3", who="none", what="none"),
    )
    cluster = {"domain": "retail", "who": "agent", "what": "wrong_argument", "tools": [EXCHANGE["tool"]], "count": 1}
    steer = tmp_path / "steer.json"
    steer.write_text(json.dumps({"version": 1, "clusters": [{**cluster, "argument": "payment"}], "repair": []}))
    found = read_weights(lines, ["retail"])
    assert found == read_weights(steer, ["retail"])
    assert found["retail"]["cancel"] == FLOOR


@pytest.mark.fast
def test_the_tool_that_gold_uses_instead_is_at_stake_too(tmp_path: Path) -> None:
    gold = {
        "turn": 1,
        "field": "return_delivered_order_items",
        "here": "{}",
        "gold": "exchange_delivered_order_items({})",
    }
    left = {"turn": None, "field": "cancel_pending_order", "here": "(never made)", "gold": "{}"}
    rule = {"turn": 1, "field": "R12", "here": "the same options"}
    rows = written(
        tmp_path / "d.jsonl",
        line("1", what="wrong_tool", tool="return_delivered_order_items", evidence=[gold]),
        line("2", what="premature_transfer", tool="transfer_to_human_agents", evidence=[left]),
        line("3", what="extra_action", evidence=[rule]),
    )
    found = read_judged(rows)
    assert [one.tools for one in found] == [
        ("return_delivered_order_items", "exchange_delivered_order_items"),
        ("transfer_to_human_agents", "cancel_pending_order"),
        (),
    ]
    assert found[2].rule == "R12"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"exchagne": 4}', "retail has no intent 'exchagne'; it has cancel"),
        ('{"exchange": -1}', "a weight is a number from 0 on"),
        ('{"exchange": NaN}', "a weight is a number from 0 on"),
        (json.dumps(dict.fromkeys(KINDS["retail"], 0)), "every intent of retail has the weight 0"),
        (json.dumps(line("1", who="user", what="leak")), "no failure of the agent in retail; of 1 rows none is one"),
        (json.dumps({**line("1"), "domain": "airline"}), "in retail; it has some in airline"),
        (json.dumps(line("1")) + "\n{", "line 2 is not one of"),
    ],
)
def test_what_cannot_steer_is_one_clear_error(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_weights(path, ["retail"])


def test_the_weights_move_what_is_drawn() -> None:
    judge = Judge("retail", templates=True)

    def drawn(weights: dict[str, float]) -> Counter[str]:
        plan = Plan("retail", "easy", 1, 5, weights=weights)
        return Counter(intent.kind for p in Generator(plan, judge).draws(40) for intent in p.intents)

    weights, _ = weights_for("retail", [Failing((EXCHANGE["tool"],), "", "", 1.0)])
    before, after = drawn({}), drawn(weights)
    assert after["exchange"] / after.total() > 1.5 * before["exchange"] / before.total()
    assert drawn(weights) == after


@pytest.mark.parametrize(
    ("domain", "difficulty", "tool"),
    [
        ("telecom", "medium", "enable_roaming"),
        ("telecom", "medium", "toggle_wifi_calling"),
        ("mock", "easy", "describe"),
    ],
)
def test_the_weights_move_telecom_and_mock_too(domain: str, difficulty: str, tool: str) -> None:
    judge = Judge(domain, templates=True)

    def share(weights: dict[str, float]) -> float:
        plan = Plan(domain, difficulty, 1, 5, weights=weights)
        drawn = list(Generator(plan, judge).draws(60))
        assert len(drawn) == 60
        return sum(tool in (*(c.name for c in p.calls), *(i.kind for i in p.intents)) for p in drawn) / len(drawn)

    weights = weights_for(domain, [Failing((tool,), "", "", 1.0)])[0] if domain == "telecom" else {tool: 4.0}
    assert share(weights) > 1.3 * share({})
    assert share(weights) == share(weights)
    assert share({tool: 0.0}) == 0.0


def test_weights_leave_no_puzzle_out_and_draw_none_twice() -> None:
    every = {json.dumps(one["evaluation_criteria"]["actions"]) for one in telecom.compositions("test")["easy"]}
    deck = telecom.Deck("easy", "test", 5, (("toggle_data", 9.0),))
    drawn = [telecom.propose(random.Random(n), deck, slot=n, first=True) for n in range(3 * len(every))]
    assert len({(composition(p.task("t")), p.task("t").user_scenario.persona) for p in drawn if p}) == len(drawn)


def test_the_report_of_telecom_shows_shares_of_tools(tmp_path: Path) -> None:
    rows = written(tmp_path / "d.jsonl", {**line("1", tool="refuel_data"), "domain": "telecom"})
    folder = tmp_path / "made"
    command = [
        "synth",
        "--domain",
        "telecom",
        "--num-samples",
        "12",
        "--output-dir",
        str(folder),
        "--from-failures",
        str(rows),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    shift = json.loads((folder / "report.json").read_text())[0]["shift"]
    by_name = {one["name"]: one for one in shift["intents"]}
    assert by_name["refuel_data"]["weight"] == 0.5 + 0.5 * len(KINDS["telecom"])
    assert by_name["refuel_data"]["after"] > by_name["refuel_data"]["before"]
    assert "| refuel_data | 8.5 |" in (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    assert "Mix shifted by failures" in page
    assert f"<title>after: {by_name['refuel_data']['after']:.1%}</title>" in page


def test_the_report_shows_the_shift_and_other_weights_are_refused(tmp_path: Path) -> None:
    failures = [line(str(random.Random(i).random()), **EXCHANGE) for i in range(3)]
    rows = written(tmp_path / "d.jsonl", *failures)
    command = ["synth", "--domain", "retail", "--difficulty", "easy", "--num-samples", "3", "--output-dir"]
    folder = tmp_path / "made"
    result = CliRunner().invoke(app, [*command, str(folder), "--from-failures", str(rows)])
    assert result.exit_code == 0, result.output
    assert "retail: 3 failures of the agent; drawn: cancel x0.5" in result.output
    shift = json.loads((folder / "report.json").read_text())[0]["shift"]
    for shares in shift.values():
        assert sum(one["after"] for one in shares) == pytest.approx(1.0, abs=0.01)
    weights = {one["name"]: one["weight"] for one in shift["intents"]}
    assert weights["exchange"] == 2.5  # 0.5 + 0.5 * 7 kinds * 1 / (1 + 3 * 0.25)
    assert "| exchange | 2.5 |" in (folder / "report.md").read_text()
    again = CliRunner().invoke(app, [*command, str(folder)])
    assert "was begun with other weights" in str(again.exception)
