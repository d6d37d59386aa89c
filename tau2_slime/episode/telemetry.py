"""Why an episode failed, counted: of one episode, and over many."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tau2_slime.outcome import SUCCESS

TRANSFER = "transfer_to_human_agents"
"""The tool of airline and retail that gives the user to somebody else."""
RECITED = 200
"""Different numbers that no answer needs: an agent that says so many may be paid for one that τ² looks for."""

_CHECKS = {
    "actions": ("action_checks", "action_match"),
    "env_assertions": ("env_assertions", "met"),
    "communicate": ("communicate_checks", "met"),
    "nl_assertions": ("nl_assertions", "met"),
}


@dataclass(frozen=True)
class Call:
    """One call of the agent and its answer."""

    name: str
    arguments: str
    """JSON with sorted keys."""
    answer: str
    error: bool


def calls_of(messages: Iterable[Any]) -> list[Call]:
    """The agent's calls in τ²'s messages (objects or plain data), each with its result."""
    plain = [message if isinstance(message, Mapping) else message.__dict__ for message in messages]
    answers: dict[int, Mapping[str, Any]] = {}
    asked: list[tuple[str, str]] = []
    waiting: list[int | None] = []
    for message in plain:
        if message.get("role") == "tool":
            number = waiting.pop(0) if waiting else None
            if number is not None:
                answers[number] = message
            continue
        waiting = []
        for call in message.get("tool_calls") or []:
            data = call if isinstance(call, Mapping) else call.__dict__
            mine = message.get("role") == "assistant"
            waiting.append(len(asked) if mine else None)
            if mine:
                text = json.dumps(data.get("arguments"), sort_keys=True, default=str)
                asked.append((str(data.get("name")), text))
    empty: dict[str, Any] = {}
    return [
        Call(name, arguments, str(answers.get(i, empty).get("content") or ""), bool(answers.get(i, empty).get("error")))
        for i, (name, arguments) in enumerate(asked)
    ]


def telemetry(
    messages: Iterable[Any], reward_info: Mapping[str, Any] | None, generations: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Why an episode failed, counted: the same names in the metrics, the rollout's report and the inspector.

    * ``tool/<name>/calls``, ``tool/<name>/errors``: the agent's calls of a tool, and how many were answered by an error;
    * ``checks/<kind>``: share of τ²'s own checks that were met (``db``, ``actions``, ``env_assertions``, ``communicate``,
      ``nl_assertions``): compliance with the policy, where τ² can tell it;
    * ``gold/done``: share of the gold actions that were called, also where the call failed (τ² compares calls, not effects),
      and ``gold/first_divergence``: position, from 0, of the first that was not called (missing if all were);
    * ``loops``: calls that were made with the same arguments, and answered the same, at least twice before;
    * ``repeated_errors``: errors that the same tool had given in the same words before;
    * ``cut_turns``: turns of the policy that ended at a length limit;
    * ``unearned/nothing``, ``unearned/transfer``, ``unearned/recitation``, of paid episodes only: 1 if the agent called no
      tool, did nothing but transfer the user, or said `RECITED` numbers or more. τ² pays for each in some tasks.
    """
    messages = list(messages)
    calls = calls_of(messages)
    out: dict[str, float] = {}
    for call in calls:
        out[f"tool/{call.name}/calls"] = out.get(f"tool/{call.name}/calls", 0.0) + 1
        if call.error:
            out[f"tool/{call.name}/errors"] = out.get(f"tool/{call.name}/errors", 0.0) + 1
    out["loops"] = float(sum(max(0, times - 2) for times in Counter(calls).values()))
    errors = Counter((call.name, call.answer) for call in calls if call.error)
    out["repeated_errors"] = float(sum(times - 1 for times in errors.values()))
    ends = [meta.get("finish_reason") for meta in generations]
    out["cut_turns"] = float(sum((end.get("type") if isinstance(end, Mapping) else end) == "length" for end in ends))
    out.update(_checks(reward_info or {}))
    if reward_info is not None and (reward_info.get("reward") or 0.0) >= SUCCESS:
        plain = [message if isinstance(message, Mapping) else message.__dict__ for message in messages]
        said = " ".join(str(message.get("content") or "") for message in plain if message.get("role") == "assistant")
        out["unearned/nothing"] = float(not calls)
        out["unearned/transfer"] = float({call.name for call in calls} == {TRANSFER})
        out["unearned/recitation"] = float(len(set(re.findall(r"\d+", said))) >= RECITED)
    return out


def _checks(reward_info: Mapping[str, Any]) -> dict[str, float]:
    out: dict[str, float] = {}
    database = reward_info.get("db_check")
    if isinstance(database, Mapping):
        out["checks/db"] = float(bool(database.get("db_match")))
    for kind, (name, met) in _CHECKS.items():
        found = [bool(check.get(met)) for check in reward_info.get(name) or [] if isinstance(check, Mapping)]
        if found:
            out[f"checks/{kind}"] = sum(found) / len(found)
        if found and kind == "actions":
            out["gold/done"] = sum(found) / len(found)
            if not all(found):
                out["gold/first_divergence"] = float(found.index(False))
    return out


def telemetry_metrics(episodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Over episodes: ``tool/<name>/calls`` (sum) and ``/accuracy`` (share answered without an error), ``gold/diverged``
    (share of the episodes with gold actions that left one out), and the mean of everything else.

    Tools that gave nothing but errors are one, ``tool/never_answered``: a model can invent names without end.
    """
    known = list(episodes)
    sums: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for episode in known:
        for name, value in episode.items():
            sums[name] = sums.get(name, 0.0) + value
            counts[name] += 1
    out = {name: value / counts[name] for name, value in sums.items() if not name.startswith("tool/")}
    useless = 0.0
    for name, calls in sums.items():
        if not (name.startswith("tool/") and name.endswith("/calls")):
            continue
        tool = name.removesuffix("/calls")
        errors = sums.get(f"{tool}/errors", 0.0)
        if errors >= calls:
            useless += calls
            continue
        out[name], out[f"{tool}/accuracy"] = calls, 1 - errors / calls
    if useless:
        out["tool/never_answered/calls"] = useless
    if counts["gold/done"]:
        out["gold/diverged"] = counts["gold/first_divergence"] / counts["gold/done"]
    return dict(sorted(out.items()))
