"""One row of each kind of file as a `Trajectory`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from tau2_slime.episode.telemetry import telemetry
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import Termination, blame_for


def from_sample(row: Mapping[str, Any], where: str, counterpart: Mapping[str, Any] | None) -> Trajectory:
    """A slime sample; ``counterpart`` is the same episode's line of trajectories.jsonl."""
    metadata = _mapping(row.get("metadata"))
    tau2 = _mapping(metadata.get("tau2"))
    conversation = _mapping(counterpart if counterpart is not None else metadata.get("tau2_trajectory"))
    out = _with_common_fields(Trajectory(name=_text(row.get("index"), where), where=where), tau2)
    out.group = _text(row.get("group_index"))
    out.status = _status(row.get("status")) or out.status
    out.reward = _number(tau2.get("official_reward") if tau2 else row.get("reward"))
    out.excluded = bool(row.get("remove_sample") or tau2.get("excluded"))
    out.sample = {**row, "metadata": dict(metadata)}
    out.counterpart = dict(counterpart) if counterpart is not None else None
    out.response = str(row.get("response") or "")
    out.ledger = _ledger_of_sample(row, tau2, conversation)
    _add_conversation(out, conversation)
    out.reward_info = out.reward_info or {"reward_breakdown": tau2.get("reward_breakdown")}
    return _formed(out)


def _ledger_of_sample(
    row: Mapping[str, Any], tau2: Mapping[str, Any], conversation: Mapping[str, Any]
) -> dict[str, Any]:
    """The sample's own numbers; only where the tokens came from is taken from its metadata or its counterpart."""
    tokens = list(row.get("tokens") or [])
    length = row.get("response_length")
    response = int(length) if isinstance(length, int) else len(row.get("loss_mask") or [])
    segments = _mapping(conversation.get("ledger")).get("segments") or tau2.get("segments") or []
    return {
        "prompt_length": max(0, len(tokens) - response),
        "tokens": tokens,
        "loss_mask": list(row.get("loss_mask") or []),
        "log_probs": list(row.get("rollout_log_probs") or []),
        "weight_versions": list(row.get("weight_versions") or []),
        "segments": list(segments),
    }


def from_trajectory(row: Mapping[str, Any], where: str) -> Trajectory:
    """A line of trajectories.jsonl."""
    out = _with_common_fields(Trajectory(name=_text(row.get("index"), where), where=where), row)
    out.group = _text(row.get("group"))
    out.reward = _number(row.get("reward"))
    out.excluded = out.status in ("failed", "aborted")
    out.ledger = dict(row["ledger"]) if row.get("ledger") else None
    _add_conversation(out, row)
    return _formed(out)


def name_in_evaluation(row: Mapping[str, Any]) -> str:
    """What an episode of an evaluation is called: dataset, task and attempt."""
    return f"{row.get('dataset')}/{row.get('item')}#{row.get('attempt')}"


def from_evaluation(row: Mapping[str, Any], where: str) -> Trajectory:
    """A line of an evaluation's simulations.jsonl."""
    out = from_trajectory(row, where)
    out.name, out.dataset = name_in_evaluation(row), _text(row.get("dataset"))
    out.excluded = bool(row.get("excluded"))
    times = dict(_mapping(row.get("clock")))
    for message, stamp in zip(out.messages, times.pop("messages", None) or [], strict=False):
        if stamp is not None:
            message.setdefault("timestamp", stamp)
    out.stats |= times
    return _formed(out)


def from_log(row: Mapping[str, Any], where: str) -> Trajectory:
    """A line of the hooks' episodes.jsonl (`observe.episode_log`): what happened, without the conversation."""
    step, kind = row["step"], _text(row.get("kind"))
    _demand(_is_count(step), f"step is {step!r}")
    name = _text(row.get("index"), where)
    out = _with_common_fields(
        Trajectory(name=f"{step}:{name}" if kind == "train" else f"{kind} {step}:{name}", where=where), row
    )
    out.step, out.kind, out.group = step, kind, _text(row.get("group"))
    out.reward, out.excluded = _number(row.get("reward")), bool(row.get("excluded"))
    versions = _mapping(row.get("sampled"))
    _demand(all(map(_is_count, versions.values())), "sampled is not a mapping of counts")
    out.sampled_by_version = {str(version): count for version, count in versions.items()}
    return _formed(out)


def from_simulation(
    run: Mapping[str, Any], where: str, info: Mapping[str, Any], tasks: Mapping[str, dict[str, Any]]
) -> Trajectory:
    """A `SimulationRun` of τ²'s results; ``tasks``: the file's tasks by id."""
    task_id, termination = _text(run.get("task_id")), _text(run.get("termination_reason"))
    known = termination in set(Termination)
    user, agent, environment = (_mapping(info.get(f"{name}_info")) for name in ("user", "agent", "environment"))
    out = Trajectory(
        name=f"{task_id}#{_text(run.get('trial'), _text(run.get('id')))}",
        where=where,
        domain=_text(environment.get("domain_name")),
        task_id=task_id,
        agent_type=_text(agent.get("implementation")),
        user_model=_text(user.get("llm")),
        termination=termination,
        blame=str(blame_for(Termination(termination))) if known else "",
        task=tasks.get(task_id),
    )
    _add_conversation(out, run)
    out.reward = _number(out.reward_info.get("reward"))
    ticks = run.get("ticks")
    if isinstance(ticks, list) and ticks:
        said = "" if out.messages else ", and this file keeps no messages beside it"
        out.detail = f"a voice run: its audio ({len(ticks)} ticks) is not shown{said}"
    out.stats = {"total_time": _number(run.get("duration")) or 0.0, "user_cost": _number(run.get("user_cost")) or 0.0}
    return _formed(out)


MOST_VALUES = 5_000_000
"""Containers and single values of one sample: a pickle can name one list a million times."""


def without_arrays(fields: Mapping[str, object]) -> dict[str, Any]:
    """``fields`` as JSON would have them: without torch's and numpy's types, tuples, and enumerations.

    Raises:
        ValueError: they never end.
    """
    seen = 0

    def plain(value: object) -> object:
        nonlocal seen
        seen += 1
        if seen > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values in one sample")
        if value is None or type(value) in (str, int, float, bool):
            return value
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            # Token ids and log-probs: no walk over a hundred thousand numbers.
            return list(value) if not value or type(value[0]) in (int, float) else [plain(item) for item in value]
        if isinstance(value, Enum):
            return value.value
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        to_list = getattr(value, "tolist", None)
        return to_list() if callable(to_list) else str(value)

    return {str(name): plain(value) for name, value in fields.items()}


def _with_common_fields(out: Trajectory, source: Mapping[str, Any]) -> Trajectory:
    """``out`` with what the package writes under the same names in every file."""
    for name in (
        *("domain", "task_split", "task_id", "agent_type", "user_model"),
        *("status", "termination", "blame", "detail", "retrieval_variant"),
    ):
        setattr(out, name, _text(source.get(name)))
    out.agent_strategy = _text(source.get("agent_strategy"), "native")
    out.examples = _text(source.get("examples"))
    out.stats = dict(_mapping(source.get("stats")))
    out.telemetry = {str(k): v for k, v in _mapping(source.get("telemetry")).items()}
    return out


def _add_conversation(out: Trajectory, source: Mapping[str, Any]) -> None:
    out.messages = [dict(message) for message in source.get("messages") or []]
    out.rejected = {int(k): list(v) for k, v in _mapping(source.get("rejected_calls")).items()}
    out.generations = [dict(call) for call in source.get("generations") or []]
    out.reward_info = dict(_mapping(source.get("reward_info")))
    if out.messages:
        out.telemetry |= telemetry(out.messages, out.reward_info, out.generations)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object, default: str = "") -> str:
    return default if value is None else str(value)


def _status(value: object) -> str:
    return str(value.value if isinstance(value, Enum) else value or "").lower()


def _number(value: object) -> float | None:
    """``value`` if it is a number that a float can be; None for others, NaN and infinity among them."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MOST_NUMBER:
        return None
    return float(value)


MOST_NUMBER = 1e300
LARGEST = 1 << 53
"""A count or position beyond this is none."""


def _formed(out: Trajectory) -> Trajectory:
    """``out``, if the readers of a trajectory can rely on its form; what its values are worth is for `check` to say.

    Raises:
        ValueError: it was not written by anything that this package reads.
    """
    for name in ("agent_turns", "agent_errors", "user_errors", "resumes"):
        value = out.stats.get(name)
        _demand(value is None or _is_count(value), f"stats.{name} is {value!r}")
    for value in (*out.telemetry.values(), *out.stats.values()):
        _demand(not isinstance(value, (int, float)) or abs(value) <= LARGEST, f"{value!r} is not a measurement")
    _demand(all(isinstance(value, (int, float)) for value in out.telemetry.values()), "telemetry that is not a number")
    breakdown = out.reward_info.get("reward_breakdown")
    _demand(breakdown is None or isinstance(breakdown, Mapping), "reward_breakdown is not a mapping")
    for call in out.generations:
        call["e2e_latency"] = _number(call.get("e2e_latency")) or 0.0
    for message in out.messages:
        calls = message.get("tool_calls")
        formed = isinstance(calls, list) and all(isinstance(call, Mapping) for call in calls)
        _demand(calls is None or formed, "tool_calls is not a list of calls")
    for name in ("rollout_top_p_token_offsets", "rollout_top_p_token_ids"):
        value = (out.sample or {}).get(name)
        _demand(
            value is None or (isinstance(value, list) and all(map(_is_count, value))), f"{name} is not a list of counts"
        )
    for rows in ((out.sample or {}).get("metadata"), out.counterpart):
        ours = rows.get("tau2") if isinstance(rows, Mapping) else None
        _demand(ours is None or isinstance(ours, Mapping), "metadata.tau2 is not a mapping")
    for ledger in (out.ledger, (out.counterpart or {}).get("ledger")):
        if ledger is not None:
            _demand(isinstance(ledger, dict), "ledger is not a mapping")
            _check_ledger(ledger)
    return out


def _check_ledger(ledger: dict[str, Any]) -> None:
    for name in ("tokens", "loss_mask", "log_probs", "segments", "weight_versions"):
        if ledger.get(name) is None:
            ledger[name] = []
        _demand(isinstance(ledger[name], list), f"{name} is not a list")
    _demand(_is_count(ledger.get("prompt_length")), f"prompt_length is {ledger.get('prompt_length')!r}")
    for segment in ledger["segments"]:
        ends = isinstance(segment, dict) and _is_count(segment.get("start")) and _is_count(segment.get("stop"))
        _demand(ends and isinstance(segment.get("kind"), str), f"segment {segment!r} is malformed")
        if segment.get("weight_version") is not None:
            segment["weight_version"] = str(segment["weight_version"])


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _demand(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise[:200])
