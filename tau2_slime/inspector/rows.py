"""One row of each kind of file -> a `Trajectory`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from tau2_slime.episode.telemetry import telemetry
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import Termination, blame_for


def of_sample(row: Mapping[str, Any], where: str, partner: Mapping[str, Any] | None) -> Trajectory:
    """A slime sample; ``partner`` is the same episode's line of trajectories.jsonl."""
    metadata = _mapping(row.get("metadata"))
    tau2 = _mapping(metadata.get("tau2"))
    kept = _mapping(partner if partner is not None else metadata.get("tau2_trajectory"))
    index = row.get("index")
    out = _facts(
        tau2,
        Trajectory(
            name=where if index is None else str(index),
            where=where,
            group=str(row.get("group_index") if row.get("group_index") is not None else ""),
            status=_status(row.get("status")),
            reward=_number(tau2.get("official_reward")),
            excluded=bool(row.get("remove_sample") or tau2.get("excluded")),
            sample={k: v for k, v in row.items() if k != "metadata"} | {"metadata": dict(metadata)},
            partner=dict(partner) if partner is not None else None,
            response=str(row.get("response") or ""),
            ledger=_ledger_of_sample(row, tau2, kept),
        ),
    )
    if not tau2:
        out.reward = _number(row.get("reward"))
    _add_conversation(out, kept)
    out.reward_info = out.reward_info or {"reward_breakdown": tau2.get("reward_breakdown")}
    return out


def _ledger_of_sample(row: Mapping[str, Any], tau2: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The sample's own numbers; only where the tokens came from is taken from beside it."""
    tokens = list(row.get("tokens") or [])
    length = row.get("response_length")
    response = int(length) if isinstance(length, int) else len(row.get("loss_mask") or [])
    segments = _mapping(kept.get("ledger")).get("segments") or tau2.get("segments") or []
    return {
        "prompt_length": max(0, len(tokens) - response),
        "tokens": tokens,
        "loss_mask": list(row.get("loss_mask") or []),
        "log_probs": list(row.get("rollout_log_probs") or []),
        "weight_versions": list(row.get("weight_versions") or []),
        "segments": list(segments),
    }


def of_trajectory(row: Mapping[str, Any], where: str) -> Trajectory:
    """A line of trajectories.jsonl."""
    index = row.get("index")
    out = _facts(row, Trajectory(name=where if index is None else str(index), where=where))
    out.group = str(row.get("group") if row.get("group") is not None else "")
    out.reward = _number(row.get("reward"))
    out.excluded = out.status in ("failed", "aborted")
    out.ledger = dict(row["ledger"]) if row.get("ledger") else None
    _add_conversation(out, row)
    return out


def of_record(row: Mapping[str, Any], where: str) -> Trajectory:
    """A line of an evaluation's simulations.jsonl."""
    out = of_trajectory({k: v for k, v in row.items() if k != "index"}, where)
    out.name = f"{row.get('dataset')}/{row.get('item')}#{row.get('attempt')}"
    out.excluded = bool(row.get("excluded"))
    out.stats = {**out.stats, **{k: v for k, v in _mapping(row.get("clock")).items() if k != "messages"}}
    stamps = _mapping(row.get("clock")).get("messages") or []
    for message, stamp in zip(out.messages, stamps, strict=False):
        if stamp is not None:
            message.setdefault("timestamp", stamp)
    return out


def of_simulation(
    run: Mapping[str, Any], where: str, info: Mapping[str, Any], tasks: Mapping[str, dict[str, Any]]
) -> Trajectory:
    """A `SimulationRun` of τ²'s results."""
    reward_info = _mapping(run.get("reward_info"))
    termination = str(run.get("termination_reason") or "")
    try:
        blame = str(blame_for(Termination(termination)))
    except ValueError:
        blame = ""
    out = Trajectory(
        name=f"{run.get('task_id')}#{run.get('trial') if run.get('trial') is not None else run.get('id')}",
        where=where,
        domain=str(_mapping(info.get("environment_info")).get("domain_name") or ""),
        task_id=str(run.get("task_id") or ""),
        agent_type=str(_mapping(info.get("agent_info")).get("implementation") or ""),
        user_model=str(_mapping(info.get("user_info")).get("llm") or ""),
        termination=termination,
        blame=blame,
        reward=_number(reward_info.get("reward")),
        task=tasks.get(str(run.get("task_id"))),
    )
    _add_conversation(out, {"messages": run.get("messages"), "reward_info": reward_info})
    out.stats = {"total_time": _number(run.get("duration")) or 0.0, "user_cost": _number(run.get("user_cost")) or 0.0}
    return out


def plain(value: Any) -> Any:
    """``value`` without torch's and numpy's types."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        # Token ids and log-probs: no walk over a hundred thousand numbers.
        return list(value) if not value or type(value[0]) in (int, float) else [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else str(value)


def _facts(source: Mapping[str, Any], out: Trajectory) -> Trajectory:
    for name in ("domain", "task_split", "task_id", "agent_type", "user_model", "termination", "blame", "detail"):
        setattr(out, name, str(source.get(name) or ""))
    out.status = out.status or str(source.get("status") or "")
    out.stats = dict(_mapping(source.get("stats")))
    out.telemetry = {str(k): v for k, v in _mapping(source.get("telemetry")).items()}
    return out


def _add_conversation(out: Trajectory, source: Mapping[str, Any]) -> None:
    out.messages = [dict(message) for message in source.get("messages") or []]
    out.rejected = {int(k): list(v) for k, v in _mapping(source.get("rejected_calls")).items()}
    out.generations = [dict(meta) for meta in source.get("generations") or []]
    out.reward_info = dict(_mapping(source.get("reward_info")))
    if out.messages:
        out.telemetry |= telemetry(out.messages, out.reward_info, out.generations)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _status(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value or "").lower()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
