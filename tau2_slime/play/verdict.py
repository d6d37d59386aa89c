"""What an episode earned, and why, in lines for the person who played it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.database_diff import compare_with_gold
from tau2_slime.inspector.row_formats import from_trajectory
from tau2_slime.outcome import SUCCESS

if TYPE_CHECKING:
    from tau2_slime.episode.result import InteractionResult

MOST_CHANGES = 12
"""Fields of the database that are printed."""


def verdict(result: InteractionResult) -> Iterator[tuple[str, str]]:
    """(line, one of rich's styles) for each. τ²'s official reward first, then each of its checks that was not met."""
    if result.reward is None:
        yield f"no reward ({result.termination}): {result.detail or 'it could not be scored'}", "bold red"
        return
    good = result.reward >= SUCCESS
    yield f"reward {result.reward:g} ({result.termination})", "bold green" if good else "bold red"
    if result.detail:
        yield result.detail, ""
    info = result.reward_info or {}
    breakdown = info.get("reward_breakdown") or {}
    if breakdown:
        yield "it is the product of: " + ", ".join(f"{name} {value:g}" for name, value in breakdown.items()), ""
    elif not good:
        yield f"τ²: {(info.get('info') or {}).get('note') or 'an episode that ends so earns nothing'}", ""
    yield from ((line, "red") for line in _unmet(info))
    if (info.get("db_check") or {}).get("db_match") is False:
        yield from _database(result)


def _unmet(info: Mapping[str, Any]) -> Iterator[str]:
    """τ²'s checks that were not met."""
    paid = {str(one).rpartition(".")[2] for one in info.get("reward_basis") or ()}
    for check in info.get("action_checks") or []:
        action = check["action"]
        if not check["action_match"]:
            by = "" if action.get("requestor") == "assistant" else " (by the user)"
            free = "" if "ACTION" in paid else "; calls alone are not paid here"
            yield f"never called{by}: {action['name']}({json.dumps(action.get('arguments') or {})}){free}"
    for check in info.get("communicate_checks") or []:
        if not check["met"]:
            yield f"never said by the agent: {check['info']}"
    for check in info.get("env_assertions") or []:
        if not check["met"]:
            asserted = check["env_assertion"]
            yield f"not so at the end: {asserted['func_name']}({json.dumps(asserted.get('arguments') or {})})"
    for check in info.get("nl_assertions") or []:
        if not check["met"]:
            yield f"not met, says the judge: {check['nl_assertion']}"


def _database(result: InteractionResult) -> Iterator[tuple[str, str]]:
    diff = compare_with_gold(from_trajectory({"index": 0, **result.to_dict()}, "this episode"))
    wrong = [change for change in diff.changes if not change.same]
    yield f"the database is not as the task's gold actions leave it{f': {diff.note}' if diff.note else ''}", "red"
    for change in wrong[:MOST_CHANGES]:
        yield f"  {change.path}: here {change.here}, gold {change.gold}, before {change.before}", "red"
    if len(wrong) > MOST_CHANGES:
        yield f"  ... and {len(wrong) - MOST_CHANGES} more", "red"
