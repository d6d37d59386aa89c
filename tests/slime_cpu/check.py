"""Is what slime got back true? Each sample against the server's journal, each batch against what slime's trainer assumes.

The proof of token truth: every run of tokens with loss mask 1 is cut, from its beginning, into outputs of calls whose
``input_ids`` were exactly the tokens before them, with that call's log-probs at the same positions and its weight version.
A call serves one sample only.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


def digest(tokens: Sequence[int]) -> str:
    return hashlib.blake2b(array("q", tokens).tobytes(), digest_size=12).hexdigest()


def kept_set(token: int) -> list[int]:
    """The nucleus that the server says it sampled ``token`` from."""
    return [token, token + 1]


def experts(token: int) -> list[int]:
    """Where the server says it sent ``token``: two experts in each of two layers."""
    return [1 + token % 5, 7, 2 + token % 3, 6]


@dataclass
class Snapshot:
    """A sample that slime took back unfinished."""

    tokens: list[int]
    loss_mask: list[int]
    """1 on what was sampled, whatever slime masked since."""
    log_probs: list[float]
    weight_versions: list[str]
    unfinished: bool = True
    """False for a finished sample of a group that had to wait for its siblings."""

    @classmethod
    def of(cls, sample: Any, earlier: Snapshot | None = None) -> Snapshot:
        """``earlier``: how it was when slime took it back before."""
        goes_on = earlier is not None and earlier.sampled and sample.tokens[: len(earlier.tokens)] == earlier.tokens
        known = earlier.loss_mask if earlier is not None and goes_on else []
        return cls(
            list(sample.tokens),
            [*known, *list(sample.loss_mask or [])[len(known) :]],
            list(sample.rollout_log_probs or []),
            list(sample.weight_versions),
            sample.status.name == "ABORTED",
        )

    @property
    def sampled(self) -> int:
        return sum(self.loss_mask)


@dataclass
class Journal:
    """The server's calls that no returned sample accounts for yet."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    _by_context: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _by_key: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, calls: Iterable[dict[str, Any]]) -> None:
        for call in calls:
            self._by_context.setdefault(call["context"], []).append(call)
            self._by_key.setdefault(call["key"], []).append(call)

    def find(
        self, tokens: Sequence[int], log_probs: Sequence[float], at: int, stop: int, key: str | None
    ) -> tuple[dict[str, Any], int] | None:
        """The call that sampled ``tokens[at:stop]`` or its beginning, and how many tokens of it stand there.

        ``log_probs``: of ``tokens[at:stop]``. Two sessions may have been told the same: they decide whose it is.
        """
        best: tuple[tuple[bool, int], dict[str, Any]] | None = None
        for call in self._by_context.get(digest(tokens[:at]), []):
            ids = call["ids"]
            count = min(len(ids), stop - at)
            # A stop token that is not the template's closer is replaced by it: the last sampled id may be missing.
            fits = bool(ids) and count >= len(ids) - 1 and ids[:count] == list(tokens[at : at + count])
            if fits and count and call["answered"] and (key is None or call["key"] == key):
                rank = (call["log_probs"][:count] == list(log_probs[:count]), count)
                if best is None or rank > best[0]:
                    best = rank, call
        return None if best is None else (best[1], best[0][1])

    def settle(self, key: str) -> list[dict[str, Any]]:
        """Take the session's calls out: its episode is over."""
        calls = self._by_key.pop(key, [])
        for call in calls:
            self.drop(call)
        return calls

    def drop(self, call: dict[str, Any]) -> None:
        for index, name in ((self._by_context, call["context"]), (self._by_key, call["key"])):
            left = [other for other in index.get(name, []) if other is not call]
            if left:
                index[name] = left
            else:
                index.pop(name, None)


@dataclass
class Verdict:
    """What is wrong with a sample, and what its episode took."""

    problems: list[str] = field(default_factory=list)
    calls: int = 0
    """Calls whose output is in the sample."""
    cut: int = 0
    """Of these, how many the server had cut short."""
    spanned: int = 0
    """Of these, how many went on with other weights after a pause."""
    unused: int = 0
    """Calls of its session that were answered with tokens which are not in it: of an episode that was played again, or
    an aborted call's, on which a busy machine did not wait any longer."""
    traced: int = 0
    """Finished ``sglang_generate`` spans in slime's trace of the sample."""
    proven: int = 0
    """Tokens that the server sampled, by the proof."""


def check_sample(
    sample: Any,
    journal: Journal,
    *,
    before: Snapshot | None = None,
    mask_offpolicy: bool = False,
    params: Sequence[Any] | None = None,
) -> Verdict:
    """``before``: what slime took back of it in an earlier rollout. ``params``: temperature, top_p and top_k to expect."""
    verdict = Verdict(problems=shape_problems(sample))
    if verdict.problems or not sample.tokens:
        return verdict
    tokens, length = sample.tokens, sample.response_length
    prompt = len(tokens) - length
    mask = list(sample.loss_mask) if sample.loss_mask is not None else [1] * length
    failed = sample.status.name == "FAILED"
    if before is not None and not failed:
        verdict.problems += resume_problems(sample, before, mask_offpolicy=mask_offpolicy)
        if mask_offpolicy and before.sampled:  # slime masked the older part: it was sampled all the same
            mask[: len(before.loss_mask)] = before.loss_mask
    if not any(mask) and not sample.remove_sample:
        verdict.problems.append("nothing in it can be trained on")
    key = getattr(sample, "session_id", None)
    used: list[dict[str, Any]] = []
    at = 0
    while at < length:
        if not mask[at]:
            at += 1
            continue
        end = next((i for i in range(at, length) if not mask[i]), length)
        found = journal.find(tokens, sample.rollout_log_probs[at:end], prompt + at, prompt + end, key)
        if found is None:
            verdict.problems.append(
                f"tokens {at}..{end} of the response were not sampled after exactly those before them"
            )
            break
        call, count = found
        if [float(v) for v in sample.rollout_log_probs[at : at + count]] != call["log_probs"][:count]:
            verdict.problems.append(f"tokens {at}..{at + count}: the log-probs are not the server's")
        if params is not None and list(params) != call["sampling"]:
            verdict.problems.append(f"sampled with {call['sampling']} instead of {list(params)}")
        journal.drop(call)
        used.append(call)
        at += count
    versions = [version for call in used for version in call["versions"]]
    if not failed and not verdict.problems and sample.weight_versions != versions:
        verdict.problems.append(f"weight versions {sample.weight_versions}: {versions} sampled it")
    if len({call["key"] for call in used}) > 1 and key is not None:
        verdict.problems.append("calls of one episode had several routing keys")
    verdict.calls, verdict.cut = len(used), sum(call["finish"] == "abort" for call in used)
    verdict.spanned = sum(len(call["versions"]) > 1 for call in used)
    verdict.proven = sum(len(call["ids"]) for call in used)
    events = (getattr(sample, "trace", None) or {}).get("events", [])
    verdict.traced = sum(e["type"] == "span_end" and "prompt_tokens" in e.get("attrs", {}) for e in events)
    if key is not None and sample.status.name != "ABORTED":
        left = [call for call in journal.settle(key) if call["answered"]]
        verdict.unused = 0 if failed else sum(bool(call["ids"]) for call in left)
        for call in left:
            if not failed and digest(tokens[: call["length"]]) != call["context"] and not verdict.unused:
                verdict.problems.append("a call was asked with ids that are not the trajectory")
    return verdict


def shape_problems(sample: Any) -> list[str]:
    """What slime's trainer, metrics, filters or dumps would trip over."""
    status = getattr(type(sample), "Status", None)
    if status is None or not isinstance(sample.status, status):
        return [f"status {sample.status!r} is no member of Sample.Status"]
    length, tokens = sample.response_length, sample.tokens
    found = []
    if not tokens or any(type(token) is not int or token < 0 for token in tokens):
        return ["tokens must be ids"]
    if type(length) is not int or not 1 <= length < len(tokens):
        return [f"response_length {length!r} of {len(tokens)} tokens"]
    mask, log_probs = sample.loss_mask, sample.rollout_log_probs
    if mask is None or len(mask) != length or set(mask) - {0, 1}:
        return ["the loss mask must be 0/1 for each token of the response"]
    if log_probs is None or len(log_probs) != length:
        return ["log-probs must be there for each token of the response"]
    if any(not math.isfinite(value) or value > 0 for value in log_probs):
        found.append("log-probs must be finite and not above 0")
    if sample.status is status.PENDING:
        found.append("came back PENDING")
    if type(sample.reward) not in (int, float) or not math.isfinite(sample.reward):
        found.append(f"reward {sample.reward!r}")
    if type(sample.response) is not str:
        found.append("response is no str")
    if sample.remove_sample is not (sample.status in (status.FAILED, status.ABORTED)):
        found.append(f"remove_sample {sample.remove_sample} with {sample.status}")
    if sample.status is status.FAILED and any(mask):
        found.append("a failed sample has trainable tokens")
    if sample.status in (status.COMPLETED, status.TRUNCATED) and "tau2_resume" in sample.metadata:
        found.append("a finished sample still carries its resume state")
    try:
        if pickle.loads(pickle.dumps(sample.metadata)) != sample.metadata:
            found.append("metadata is not the same after pickling")
    except Exception as error:
        found.append(f"metadata cannot be pickled: {error!r}")
    if hasattr(sample, "to_dict"):
        again = type(sample).from_dict(sample.to_dict())
        if again.to_dict() != sample.to_dict():
            found.append("to_dict and from_dict do not give the same sample")
    return found


def replay_problems(sample: Any, *, top_p: bool, routed: bool) -> list[str]:
    """What slime's trainer would replay wrongly: kept sets and experts must be those of just these tokens."""
    found = []
    response = sample.tokens[-sample.response_length :]
    if top_p:
        ids, offsets = sample.rollout_top_p_token_ids, sample.rollout_top_p_token_offsets
        if ids is None or offsets is None or len(offsets) != len(response) + 1 or offsets[-1] != len(ids):
            return ["the kept sets do not cover the response"]
        for i, (token, mask) in enumerate(zip(response, sample.loss_mask, strict=True)):
            kept = [int(value) for value in ids[offsets[i] : offsets[i + 1]]]
            if kept != kept_set(token) and (mask or kept):
                found.append(f"the kept set of response token {i} is {kept}")
    if routed:
        rows = sample.rollout_routed_experts
        if rows is None or tuple(rows.shape) != (len(sample.tokens) - 1, 2, 2):
            return [*found, "the routed experts do not cover the tokens"]
        last = max((i for i, mask in enumerate(sample.loss_mask) if mask), default=-len(sample.tokens))
        for i in range(len(sample.tokens) - sample.response_length + last):
            if rows[i].reshape(-1).tolist() != experts(sample.tokens[i]):
                found.append(f"the routed experts of token {i} are another token's")
    return found


def resume_problems(sample: Any, before: Snapshot, *, mask_offpolicy: bool = False) -> list[str]:
    """What a resumed sample lost of what had been sampled: nothing may be sampled twice, nothing may change."""
    size = len(before.tokens)
    kept = len(before.loss_mask)
    if not before.sampled:  # nothing was sampled: it may begin again
        return []
    if sample.tokens[:size] != before.tokens or len(sample.tokens) - sample.response_length != size - kept:
        return ["an aborted episode was played again instead of resumed"]
    found = []
    if list(sample.loss_mask[:kept]) != ([0] * kept if mask_offpolicy else before.loss_mask):
        found.append("the loss mask of the resumed part changed")
    if list(sample.rollout_log_probs[:kept]) != before.log_probs:
        found.append("the log-probs of the resumed part changed")
    if sample.weight_versions[: len(before.weight_versions)] != before.weight_versions:
        found.append("the weight versions of the resumed part changed")
    return found


def batch_problems(groups: Sequence[Sequence[Any]], group_size: int, seen: set[int]) -> list[str]:
    """Properties that slime reads off a whole batch. ``seen``: indices of earlier batches, extended by this one's."""
    found = []
    for group in groups:
        if len(group) != group_size:
            found.append(f"a group of {len(group)} samples instead of {group_size}")
        if len({sample.group_index for sample in group}) != 1:
            found.append("one group, several group_index")
    flat = [sample for group in groups for sample in group]
    for sample in flat:
        if sample.index in seen:
            found.append(f"sample {sample.index} was returned twice")
        seen.add(sample.index)
        if sample.status.name == "ABORTED":
            found.append(f"sample {sample.index} reached the batch ABORTED")
    for name in ("raw_reward", "round_number"):  # decided for the batch by its first sample
        if len({name in sample.metadata for sample in flat}) > 1:
            found.append(f"metadata[{name!r}] is on some samples only")
    return found
