"""What an episode should have been, beside what it was: the scenario, gold's calls beside the agent's, the cause."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from tau2_slime.diagnosis.decide import diagnose
from tau2_slime.diagnosis.findings import Diagnosis
from tau2_slime.diagnosis.story import Made, read_story
from tau2_slime.inspector.database_diff import DatabaseDiff, compare_with_gold, task_of
from tau2_slime.inspector.episode_view import View, episode_view
from tau2_slime.inspector.rows import EpisodeRow
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import SUCCESS

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile
    from tau2_slime.world.types import Task


def whole_view(
    trajectory: Trajectory,
    language: CheckpointProfile | None = None,
    *,
    replay: bool = True,
    known: Diagnosis | None = None,
) -> View:
    """All that the page shows of an episode: `inspector.episode_view`, and beside it

    ``diagnosis`` (a line of ``diagnosis.jsonl``, None without one), ``scenario`` (pairs of name and text), ``gold`` (rows of
    ``gold`` and ``call``, each a call or None, with ``same`` and ``first``: whether the episode leaves gold there).

    ``replay``: replay the tool calls in τ². ``known``: its diagnosis, where the caller has it.
    """
    database = compare_with_gold(trajectory) if replay else DatabaseDiff(note="not compared: without a replay")
    view = episode_view(trajectory, database, language)
    found = known or (diagnose(trajectory) if replay and trajectory.messages else None)
    task = _task(trajectory) if replay else None
    return {
        **view,
        "diagnosis": found.to_dict() if found is not None and found.failed else None,
        "scenario": scenario_of(task) if task is not None else [],
        "gold": beside_gold(trajectory, task, found) if task is not None and trajectory.messages else [],
    }


def mark(row: EpisodeRow, view: View) -> None:
    """Write the diagnosis of an episode into its row, unless the run has done so."""
    found = view["diagnosis"]
    if found is not None:
        row.who, row.what = found["who"], found["what"]
    elif row.reward is not None and row.reward >= SUCCESS:
        row.who, row.what = "none", "none"


def _task(trajectory: Trajectory) -> Task | None:
    try:
        return task_of(trajectory)[0]
    except Exception:  # no τ², another release, a task of nobody: the conversation is shown all the same
        return None


def scenario_of(task: Task) -> list[tuple[str, str]]:
    """What the task tells the customer, and what it wants said and done, as names and texts."""
    instructions = task.user_scenario.instructions
    out: list[tuple[str, object]] = []
    if isinstance(instructions, str):
        out.append(("instructions", instructions))
    else:
        for name in ("reason_for_call", "known_info", "unknown_info", "task_instructions"):
            out.append((name.replace("_", " "), getattr(instructions, name, None)))
    out.append(("persona", task.user_scenario.persona))
    out.append(("ticket", getattr(task, "ticket", None)))
    criteria = task.evaluation_criteria
    if criteria is not None:
        out.append(("must be told", "; ".join(map(str, criteria.communicate_info or []))))
        out.append(("rewarded for", ", ".join(str(kind.value) for kind in criteria.reward_basis or [])))
        assertions = [f"{one.func_name}({json.dumps(one.arguments)})" for one in criteria.env_assertions or []]
        out.append(("must hold", "\n".join(assertions)))
        out.append(("is judged by", "\n".join(map(str, criteria.nl_assertions or []))))
    return [(name, str(text)) for name, text in out if text]


def beside_gold(trajectory: Trajectory, task: Task, found: Diagnosis | None) -> list[dict[str, Any]]:
    """Gold's actions beside the calls that were made, in the order of both; equal ones stand in one row."""
    criteria = task.evaluation_criteria
    gold = [(str(a.requestor), str(a.name), dict(a.arguments)) for a in (criteria.actions if criteria else None) or []]
    made = read_story(trajectory).calls
    rows: list[dict[str, Any]] = []
    keys = ([_key(*one) for one in gold], [_key(one.requestor, one.name, one.arguments) for one in made])
    for kind, g0, g1, m0, m1 in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        pairs: list[tuple[int | None, int | None]]
        if kind == "equal":
            pairs = list(zip(range(g0, g1), range(m0, m1), strict=True))
        else:
            pairs = _paired([(g, gold[g][1]) for g in range(g0, g1)], [(m, made[m].name) for m in range(m0, m1)])
        for g, m in pairs:
            rows.append(
                {
                    "gold": _shown(gold[g]) if g is not None else None,
                    "call": _made(made[m]) if m is not None else None,
                    "same": kind == "equal",
                    "first": False,
                }
            )
    turn = found.finding.turn if found is not None and found.failed else None
    for row in rows:
        wrong = row["gold"] is not None and not row["same"]
        if wrong or (row["call"] is not None and not row["same"] and row["call"]["turn"] == turn):
            row["first"] = found is None or found.failed
            break
    return rows


def _key(requestor: str, name: str, arguments: Mapping[str, object]) -> str:
    return f"{requestor} {name} {json.dumps(arguments, sort_keys=True, default=str)}"


def _paired(gold: Sequence[tuple[int, str]], made: Sequence[tuple[int, str]]) -> list[tuple[int | None, int | None]]:
    """Gold's calls and those that were made, in order; two of the same tool side by side. All are ``(position, tool)``."""
    out: list[tuple[int | None, int | None]] = []
    rest = list(made)
    for position, name in gold:
        at = next((i for i, (_, other) in enumerate(rest) if other == name), None)
        if at is None:
            out.append((position, None))
            continue
        out += [(None, m) for m, _ in rest[:at]]
        out.append((position, rest[at][0]))
        rest = rest[at + 1 :]
    return out + [(None, m) for m, _ in rest]


def _shown(action: tuple[str, str, dict[str, Any]]) -> dict[str, object]:
    requestor, name, arguments = action
    return {"by": requestor, "name": name, "arguments": json.dumps(arguments, ensure_ascii=False, default=str)}


def _made(call: Made) -> dict[str, object]:
    shown = _shown((call.requestor, call.name, call.arguments))
    return {**shown, "turn": call.turn, "error": call.error, "reached": call.reached}
