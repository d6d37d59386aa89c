"""Token truth, tested on a file: does every sample hold what a trainer may learn from, and nothing else?

Each check yields what it finds in one trajectory, with the token's position; none stops at the first violation. What needs
the chat template is in `drift_check`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

from tau2_slime.inspector.trajectory import Trajectory, common_length
from tau2_slime.tokens.digest import DIGEST_FORMAT, trajectory_digest

_ROUNDING = 1e-6
"""A log-probability this little above 0 is a rounding of 0."""


@dataclass(frozen=True)
class Violation:
    """Something in a file that cannot be true."""

    name: str
    """The sample."""
    position: int | None
    """Token, counted from the start of the prompt; None if it is about the whole sample."""
    text: str

    def __str__(self) -> str:
        at = "" if self.position is None else f", token {self.position}"
        return f"sample {self.name}{at}: {self.text}"


Findings = Iterator[tuple[int | None, str]]
"""Position (or None) and text of each violation."""


def check_trajectory(trajectory: Trajectory) -> list[Violation]:
    """Every violation that can be found without a tokenizer."""
    found: list[tuple[int | None, str]] = []
    if trajectory.ledger is not None:
        found += _check_numbers(trajectory, trajectory.ledger)
        found += _check_origin(trajectory, trajectory.ledger)
    if trajectory.sample is not None:
        found += _check_fields(trajectory, trajectory.sample)
    if trajectory.sample is not None and trajectory.counterpart is not None:
        found += _check_counterpart(trajectory, trajectory.sample, trajectory.counterpart)
    return [Violation(trajectory.name, position, text) for position, text in found]


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, int):
        return not isinstance(value, bool)  # and finite, however long
    return isinstance(value, float) and math.isfinite(value)


# ---- tokens, mask, log-probabilities -----------------------------------------------------------------------------------


def _check_numbers(trajectory: Trajectory, ledger: Mapping[str, Any]) -> Findings:
    """Lengths and values of tokens, mask and log-probabilities."""
    tokens, mask, log_probs = ledger["tokens"], ledger["loss_mask"], ledger["log_probs"]
    start = ledger["prompt_length"]
    length = len(tokens) - start
    if not tokens:
        yield None, "no tokens"
    for at, token in enumerate(tokens):
        if type(token) is not int or token < 0:
            yield at, f"{token!r} is not a token id"
            break
    if start < 1 or length < 0:
        yield None, f"{len(tokens)} tokens, of which {start} would be the prompt"
    if len(mask) != length:
        yield None, f"{length} response tokens, but {len(mask)} entries in the loss mask"
    if len(log_probs) != length:
        yield None, f"{length} response tokens, but {len(log_probs)} log-probabilities"
    for at, value in enumerate(mask, start):
        if type(value) is not int or value not in (0, 1):
            yield at, f"loss mask {value!r} is neither 0 nor 1"
            break
    for at, value in enumerate(log_probs, start):
        if type(value) is float and -math.inf < value <= 0:
            continue
        if not _is_number(value):
            yield at, f"log-probability {value!r} is not a finite number"
        elif value > _ROUNDING:
            yield at, f"log-probability {value!r} is above 0"


def _check_origin(trajectory: Trajectory, ledger: Mapping[str, Any]) -> Findings:
    """Mask and log-probabilities against exclusion, and against where each token came from."""
    mask, log_probs, segments = ledger["loss_mask"], ledger["log_probs"], ledger.get("segments") or []
    start = ledger["prompt_length"]
    length = len(ledger["tokens"]) - start
    is_sample = trajectory.sample is not None
    removed = is_sample and trajectory.excluded and trajectory.status != "aborted"
    resumed = int(trajectory.stats.get("resumes") or 0) > 0
    if removed:
        for values, what in ((mask, "is in the loss"), (log_probs, "has a log-probability")):
            at = next((at for at, value in enumerate(values, start) if value), None)
            if at is not None:
                yield at, f"the sample is removed from training, but this token {what}"
    if not segments:
        placeholder = length == 1 and not any(mask)  # slime needs a response even where there was none
        if is_sample and not placeholder and not resumed:
            yield from _check_context_log_probs(mask, log_probs, start)
        return
    # slime masks a sample of an earlier rollout as a whole when it was complete and only its group was not.
    all_masked = is_sample and length > 1 and not any(mask)
    position = start
    for segment in segments:
        kind, first, stop = segment.get("kind"), segment.get("start"), segment.get("stop")
        if kind not in ("sampled", "context") or type(first) is not int or type(stop) is not int:
            yield None, f"segment {segment} is malformed"
            return
        if first != position or stop <= first:
            yield first, f"segment {first} to {stop} does not begin where the tokens before it end ({position})"
            return
        position = stop
        part = mask[first - start : stop - start]
        if removed:
            continue
        if kind == "sampled" and part and not any(part) and (resumed or all_masked or segment.get("masked")):
            continue  # slime took tokens of older weights out of the loss
        at = next((at for at, value in enumerate(part, first) if value != (kind == "sampled")), None)
        if at is not None:
            problem = "sampled, but not in the loss" if kind == "sampled" else "context, but in the loss"
            yield at, f"this token was {problem}"
        if kind == "context":
            yield from _check_context_log_probs([0] * len(part), log_probs[first - start : stop - start], first)
    end = start + length
    only_a_placeholder = position == start == end - 1 and mask[-1:] == [0] and not removed
    if position != end and not only_a_placeholder:
        yield position, f"where the tokens came from is known up to {position}, but there are {end}"


def _check_context_log_probs(mask: Sequence[int], log_probs: Sequence[float], start: int) -> Findings:
    for at, (masked, value) in enumerate(zip(mask, log_probs, strict=False), start):
        if not masked and value != 0:
            yield at, f"a context token has the log-probability {value!r}"
            break


# ---- the sample's own fields -------------------------------------------------------------------------------------------


def _check_fields(trajectory: Trajectory, sample: Mapping[str, Any]) -> Findings:
    tau2 = sample["metadata"].get("tau2")
    length, reward = sample.get("response_length"), sample.get("reward")
    if type(length) is not int or length < 1:
        yield None, f"response_length {length!r}: the trainer needs at least 1"
    if not _is_number(reward):
        yield None, f"reward {reward!r} is not a number"
    if sample.get("rollout_log_probs") is None:
        yield None, "no rollout_log_probs"
    offsets, kept = sample.get("rollout_top_p_token_offsets"), sample.get("rollout_top_p_token_ids")
    if offsets is not None and kept is not None:
        yield from _check_top_p(list(offsets), list(kept), len(trajectory.tokens) - trajectory.prompt_length)
    if not isinstance(tau2, Mapping):
        return  # another data source of a mixed batch
    known = tau2.get("fingerprint")
    if known is not None and known != _fingerprint_of(sample, str(known)):
        yield None, "tokens or log-probabilities are not those that the episode wrote (their fingerprint differs)"
    counts, segments = tau2.get("tokens"), (trajectory.ledger or {}).get("segments")
    if isinstance(counts, Mapping) and segments:
        for kind in ("sampled", "context"):
            there = sum(s["stop"] - s["start"] for s in segments if s["kind"] == kind)
            if counts.get(kind) != there:
                yield None, f"{counts.get(kind)} {kind} tokens were counted, {there} are there"
        if counts.get("prompt") != trajectory.prompt_length:
            yield None, f"the prompt had {counts.get('prompt')} tokens, and has {trajectory.prompt_length}"
    if bool(tau2.get("excluded")) != bool(sample.get("remove_sample")):
        yield None, f"remove_sample is {sample.get('remove_sample')}, excluded is {tau2.get('excluded')}"
    yield from _check_status(trajectory, sample, tau2)


def _fingerprint_of(sample: Mapping[str, Any], like: str) -> str:
    """In the format of ``like``."""
    try:
        tokens, log_probs = sample["tokens"], sample["rollout_log_probs"]
        if like.startswith(DIGEST_FORMAT):
            return trajectory_digest(tokens, log_probs)
        text = json.dumps([list(map(int, tokens)), list(map(float, log_probs))])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    except (TypeError, ValueError, KeyError, OverflowError):
        return "unreadable"


def _check_status(trajectory: Trajectory, sample: Mapping[str, Any], tau2: Mapping[str, Any]) -> Findings:
    """Status, blame and reward against each other."""
    excluded, official, status = bool(tau2.get("excluded")), tau2.get("official_reward"), trajectory.status
    if status not in (("failed", "aborted") if excluded else ("completed", "truncated")):
        yield None, f"status {status!r} of an episode that is {'excluded' if excluded else 'trained'}"
    by_blame = {"limit": "truncated", "agent": "completed"}.get(trajectory.blame)
    if not excluded and by_blame != status:
        yield None, f"status {status!r}, but the end was blamed on {trajectory.blame!r}"
    raw = sample["metadata"].get("raw_reward")
    if raw != (0.0 if excluded or official is None else official):
        yield None, f"raw_reward {raw!r}, but τ² paid {official!r}"
    if excluded and sample.get("reward") != 0:
        yield None, f"reward {sample.get('reward')!r} of an excluded episode"


def _check_top_p(offsets: list[int], kept: list[int], length: int) -> Findings:
    """``offsets`` (R + 1,) into ``kept``, the ids that top-p kept for each of the ``length`` = R response tokens."""
    if len(offsets) != length + 1:
        yield None, f"{len(offsets)} top-p offsets for {length} response tokens (one more is wanted)"
    elif offsets[0] != 0 or any(a > b for a, b in pairwise(offsets)) or offsets[-1] != len(kept):
        yield None, "the top-p offsets do not run from 0 to the number of kept ids"


# ---- the same episode in two files -------------------------------------------------------------------------------------


def _check_counterpart(trajectory: Trajectory, sample: Mapping[str, Any], other: Mapping[str, Any]) -> Findings:
    """The sample against the same episode's line of trajectories.jsonl."""
    tau2, ledger = sample["metadata"].get("tau2") or {}, other.get("ledger")
    same_names = ("domain", "task_split", "task_id", "agent_type", "user_model", "termination", "blame", "detail")
    for name, mine, theirs in (
        *((name, tau2.get(name), other.get(name)) for name in same_names),
        ("τ²'s reward", tau2.get("official_reward"), other.get("reward")),
        ("the group", sample.get("group_index"), other.get("group")),
        ("the status", trajectory.status, other.get("status")),
    ):
        if mine != theirs:
            yield None, f"{name} is {mine!r} here and {theirs!r} in trajectories.jsonl"
    if not ledger:
        return
    start = trajectory.prompt_length
    if ledger.get("prompt_length") != start:
        yield None, f"a prompt of {start} tokens here, {ledger.get('prompt_length')} in trajectories"
    removed = trajectory.excluded and trajectory.status != "aborted"
    pairs = [("tokens", "tokens", 0)]
    if not removed:
        pairs += [("loss_mask", "loss_mask", start), ("rollout_log_probs", "log_probs", start)]
    for my_name, their_name, first in pairs:
        mine, theirs = list(sample.get(my_name) or []), list(ledger.get(their_name) or [])
        if removed or not ledger.get("loss_mask"):
            mine = mine[: len(theirs)]
        at = common_length(mine, theirs)
        if at < min(len(mine), len(theirs)):
            yield first + at, f"{my_name} is {mine[at]!r} here and {theirs[at]!r} in trajectories.jsonl"
        elif len(mine) != len(theirs):
            yield None, f"{len(mine)} entries of {my_name} here and {len(theirs)} in trajectories.jsonl"
