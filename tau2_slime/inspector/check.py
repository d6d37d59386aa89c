"""Token truth, tested on a file: does every sample hold what a trainer may learn from, and nothing else?

Each check is one generator of `Violation`s over one trajectory; none stops at the first. What needs the chat template is in
`check_render`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.tokens.ledger import trajectory_digest

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


Found = Iterator[tuple[int | None, str]]


def check(trajectory: Trajectory) -> list[Violation]:
    """Everything that can be checked without a tokenizer."""
    found: list[tuple[int | None, str]] = []
    if trajectory.ledger is not None:
        found += _tokens(trajectory)
    if trajectory.sample is not None:
        found += _sample(trajectory)
    if trajectory.partner is not None:
        found += _partner(trajectory)
    return [Violation(trajectory.name, position, text) for position, text in found]


# ---- tokens, mask, log-probabilities -----------------------------------------------------------------------------------


def _tokens(trajectory: Trajectory) -> Found:
    ledger = trajectory.ledger or {}
    tokens, mask, log_probs = ledger["tokens"], ledger["loss_mask"], ledger["log_probs"]
    start = ledger["prompt_length"]
    length = len(tokens) - start
    if not tokens:
        yield None, "no tokens"
    for at, token in enumerate(tokens):
        if type(token) is not int or token < 0:
            yield at, f"{token!r} is no token id"
            break
    if start < 1 or length < 0:
        yield None, f"{len(tokens)} tokens, of which {start} would be the prompt"
    if len(mask) != length:
        yield None, f"{length} response tokens, but {len(mask)} entries in the loss mask"
    if len(log_probs) != length:
        yield None, f"{length} response tokens, but {len(log_probs)} log-probabilities"
    for at, value in enumerate(mask):
        if type(value) is not int or value not in (0, 1):
            yield start + at, f"loss mask {value!r} is neither 0 nor 1"
            break
    for at, value in enumerate(log_probs):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            yield start + at, f"log-probability {value!r} is no finite number"
        elif value > _ROUNDING:
            yield start + at, f"log-probability {value!r} is above 0"
    yield from _origin(trajectory, start, length)


def _origin(trajectory: Trajectory, start: int, length: int) -> Found:
    """Mask and log-probabilities against where each token came from."""
    ledger = trajectory.ledger or {}
    mask, log_probs, segments = ledger["loss_mask"], ledger["log_probs"], ledger.get("segments") or []
    stands_in = bool(trajectory.sample) and not segments and length == 1 and not any(mask)
    resumed = int(trajectory.stats.get("resumes") or 0) > 0
    # slime masks a sample of an earlier rollout as a whole when it was complete and only its group was not.
    all_old = trajectory.sample is not None and length > 1 and not any(mask)
    removed = trajectory.sample is not None and trajectory.excluded and trajectory.status != "aborted"
    if removed:
        for at, value in enumerate(mask):
            if value:
                yield start + at, "the sample is removed from training, but this token is in the loss"
                break
        for at, value in enumerate(log_probs):
            if value:
                yield start + at, "the sample is removed from training, but this token has a log-probability"
                break
    if not segments:
        if trajectory.sample is not None and trajectory.ledger and not stands_in and not resumed:
            yield from _zero_on_context(mask, log_probs, start)
        return
    position = start
    for segment in segments:
        kind, first, stop = segment.get("kind"), segment.get("start"), segment.get("stop")
        if kind not in ("sampled", "context") or type(first) is not int or type(stop) is not int:
            yield None, f"segment {segment} is none"
            return
        if first != position or stop <= first:
            yield first, f"segment {first} to {stop} does not go on where the tokens before it end ({position})"
            return
        position = stop
        if removed:
            continue
        part = mask[first - start : stop - start]
        if kind == "sampled" and part and not any(part) and (resumed or all_old or segment.get("masked")):
            continue  # slime took tokens of older weights out of the loss
        wanted = 1 if kind == "sampled" else 0
        for at, value in enumerate(part):
            if value != wanted:
                what = "sampled, but not in the loss" if wanted else "context, but in the loss"
                yield first + at, f"this token was {what}"
                break
        if kind == "context":
            yield from _zero_on_context([0] * len(part), log_probs[first - start : stop - start], first)
    end = start + length
    if position != end and not (position == end - 1 and not removed and mask[-1:] == [0] and position == start):
        yield position, f"where the tokens came from is known up to {position}, but there are {end}"


def _zero_on_context(mask: Sequence[int], log_probs: Sequence[float], start: int) -> Found:
    for at, (masked, value) in enumerate(zip(mask, log_probs, strict=False)):
        if not masked and value != 0:
            yield start + at, f"a context token has the log-probability {value!r}"
            break


# ---- the sample's own fields -------------------------------------------------------------------------------------------


def _sample(trajectory: Trajectory) -> Found:
    sample = trajectory.sample or {}
    tau2 = sample["metadata"].get("tau2")
    length = sample.get("response_length")
    if type(length) is not int or length < 1:
        yield None, f"response_length {length!r}: the trainer needs at least 1"
    reward = sample.get("reward")
    if not isinstance(reward, (int, float)) or isinstance(reward, bool) or not math.isfinite(reward):
        yield None, f"reward {reward!r} is no number"
    if sample.get("rollout_log_probs") is None:
        yield None, "no rollout_log_probs"
    offsets, kept = sample.get("rollout_top_p_token_offsets"), sample.get("rollout_top_p_token_ids")
    if offsets is not None and kept is not None:
        yield from _kept_sets(list(offsets), list(kept), trajectory)
    if not isinstance(tau2, Mapping):
        return  # another data source of a mixed batch
    if tau2.get("fingerprint") not in (None, _print_of(sample)):
        yield None, "tokens or log-probabilities are not those that the episode wrote (their fingerprint differs)"
    counts = tau2.get("tokens")
    if isinstance(counts, Mapping) and trajectory.ledger and trajectory.ledger["segments"]:
        segments = trajectory.ledger["segments"]
        for kind in ("sampled", "context"):
            there = sum(s["stop"] - s["start"] for s in segments if s["kind"] == kind)
            if counts.get(kind) != there:
                yield None, f"{counts.get(kind)} {kind} tokens were counted, {there} are there"
        if counts.get("prompt") != trajectory.prompt_length:
            yield None, f"the prompt had {counts.get('prompt')} tokens, and has {trajectory.prompt_length}"
    if bool(tau2.get("excluded")) != bool(sample.get("remove_sample")):
        yield None, f"remove_sample is {sample.get('remove_sample')}, excluded is {tau2.get('excluded')}"
    yield from _status(trajectory, tau2)


def _print_of(sample: Mapping[str, Any]) -> str:
    try:
        return trajectory_digest(sample["tokens"], sample["rollout_log_probs"])
    except (TypeError, ValueError, KeyError):
        return "unreadable"


def _status(trajectory: Trajectory, tau2: Mapping[str, Any]) -> Found:
    sample, status = trajectory.sample or {}, trajectory.status
    excluded, official = bool(tau2.get("excluded")), tau2.get("official_reward")
    if status not in (("failed", "aborted") if excluded else ("completed", "truncated")):
        yield None, f"status {status!r} of an episode that is {'excluded' if excluded else 'trained'}"
    by_blame = {"limit": "truncated", "agent": "completed"}.get(trajectory.blame)
    if not excluded and by_blame != status:
        yield None, f"status {status!r}, but the end was blamed on {trajectory.blame!r}"
    raw = sample["metadata"].get("raw_reward")
    wanted = 0.0 if excluded or official is None else official
    if raw != wanted:
        yield None, f"raw_reward {raw!r}, but τ² paid {official!r}"
    if excluded and sample.get("reward") != 0:
        yield None, f"reward {sample.get('reward')!r} of an excluded episode"


def _kept_sets(offsets: list[int], kept: list[int], trajectory: Trajectory) -> Found:
    length = len(trajectory.tokens) - trajectory.prompt_length
    if len(offsets) != length + 1:
        yield None, f"{len(offsets)} top-p offsets for {length} response tokens (one more is wanted)"
    elif offsets[0] != 0 or any(a > b for a, b in pairwise(offsets)) or offsets[-1] != len(kept):
        yield None, "the top-p offsets do not run from 0 to the number of kept ids"


# ---- the same episode in two files -------------------------------------------------------------------------------------


def _partner(trajectory: Trajectory) -> Found:
    partner, sample = trajectory.partner or {}, trajectory.sample or {}
    ledger = partner.get("ledger")
    tau2 = sample["metadata"].get("tau2") or {}
    for name in ("domain", "task_split", "task_id", "agent_type", "user_model", "termination", "blame", "detail"):
        if tau2.get(name) != partner.get(name):
            yield None, f"{name} is {tau2.get(name)!r} here and {partner.get(name)!r} in trajectories.jsonl"
    for mine, theirs, name in (
        (tau2.get("official_reward"), partner.get("reward"), "τ²'s reward"),
        (sample.get("group_index"), partner.get("group"), "the group"),
        (trajectory.status, partner.get("status"), "the status"),
    ):
        if mine != theirs:
            yield None, f"{name} is {mine!r} here and {theirs!r} in trajectories.jsonl"
    if not ledger:
        return
    if ledger.get("prompt_length") != trajectory.prompt_length:
        yield None, f"a prompt of {trajectory.prompt_length} tokens here, {ledger.get('prompt_length')} in trajectories"
    removed = trajectory.excluded and trajectory.status != "aborted"
    pairs = [("tokens", "tokens", 0)]
    if not removed:
        pairs += [("loss_mask", "loss_mask", trajectory.prompt_length)]
        pairs += [("rollout_log_probs", "log_probs", trajectory.prompt_length)]
    for mine_name, their_name, start in pairs:
        mine, theirs = list(sample.get(mine_name) or []), list(ledger.get(their_name) or [])
        if removed or not ledger.get("loss_mask"):
            mine = mine[: len(theirs)]
        at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        if at is not None:
            yield start + at, f"{mine_name} is {mine[at]!r} here and {theirs[at]!r} in trajectories.jsonl"
        elif len(mine) != len(theirs):
            yield None, f"{len(mine)} entries of {mine_name} here and {len(theirs)} in trajectories.jsonl"
