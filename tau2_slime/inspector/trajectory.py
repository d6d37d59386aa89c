"""What the episodes of every kind of file are turned into before anybody looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """At how many places from the first on the two are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class TokenSpan:
    """Tokens that came from one place; positions are counted from the start of the prompt."""

    kind: str
    """`prompt`, `sampled` or `context`."""
    start: int
    stop: int
    weight_version: str | None = None


@dataclass
class Trajectory:
    """One episode as its file tells it. Nothing here is checked: `check` does that."""

    name: str
    """What the user calls it: ``12``, or ``bench/airline/3#0``. Unique in its file."""
    where: str
    """File and line (or position) that it was read from."""
    dataset: str = ""
    """Of an evaluation: its name there."""
    domain: str = ""
    task_split: str = ""
    task_id: str = ""
    agent_type: str = ""
    agent_strategy: str = "native"
    """How the agent acted; files of earlier versions do not say it."""
    examples: str = ""
    """What the system prompt ends with, where examples were shown (``few_shot``)."""
    user_model: str = ""
    retrieval_variant: str = ""
    """How the agent read the documents, in a domain that has any."""
    status: str = ""
    termination: str = ""
    blame: str = ""
    excluded: bool = False
    reward: float | None = None
    """τ²'s official reward; None if there is none."""
    detail: str = ""
    group: str = ""
    reward_info: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    """τ²'s messages as plain data; empty if the source does not keep them."""
    rejected: dict[int, list[int]] = field(default_factory=dict)
    """Message index -> positions of its tool calls that never reached the environment."""
    generations: list[dict[str, Any]] = field(default_factory=list)
    """What the server said of every call."""
    stats: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] | None = None
    """`TokenLedger.to_dict`; None if the source has no tokens."""
    sample: dict[str, Any] | None = None
    """slime's fields, where the source is a file of samples."""
    counterpart: dict[str, Any] | None = None
    """The same episode in the rollout's other file, to be compared."""
    response: str = ""
    telemetry: dict[str, float] = field(default_factory=dict)
    task: dict[str, Any] | None = None
    """τ²'s task, where the file brings it along."""
    step: int | None = None
    """slime's rollout, where the file says it."""
    kind: str = ""
    """What was played at that step: ``train``, ``eval``, or the name of an evaluation's dataset."""
    sampled_by_version: dict[str, int] = field(default_factory=dict)
    """Weight version -> tokens that it sampled, where the file keeps no ledger; `versions` reads both."""

    @property
    def environment(self) -> dict[str, Any]:
        """What τ²'s environment was told beside the task, as far as the file says it."""
        return {"retrieval_variant": self.retrieval_variant} if self.retrieval_variant else {}

    @property
    def task_key(self) -> str:
        """Equal for all attempts of one task."""
        return "/".join((self.domain, self.task_split, self.task_id, self.agent_type))

    @property
    def task_label(self) -> str:
        return f"{self.domain} task {self.task_id}"

    @property
    def counted_reward(self) -> float | None:
        """τ²'s reward; None if there is none, or the episode is excluded."""
        return None if self.excluded else self.reward

    @property
    def reward_text(self) -> str:
        return "-" if self.counted_reward is None else f"{self.counted_reward:.3g}"

    @property
    def tokens(self) -> Sequence[int]:
        """Prompt and response; empty if the source has no tokens."""
        return (self.ledger or {}).get("tokens") or []

    @property
    def prompt_length(self) -> int:
        return int((self.ledger or {}).get("prompt_length") or 0)

    def spans(self) -> list[TokenSpan]:
        """The prompt and the segments after it; from the mask, where the source keeps no segments."""
        if self.ledger is None:
            return []
        start = self.prompt_length
        out = [TokenSpan("prompt", 0, start)] if start else []
        segments = self.ledger.get("segments")
        if segments:
            return out + [
                TokenSpan(str(s["kind"]), int(s["start"]), int(s["stop"]), s.get("weight_version")) for s in segments
            ]
        for value, run in groupby(self.ledger.get("loss_mask") or []):
            stop = start + len(list(run))
            out.append(TokenSpan("sampled" if value else "context", start, stop))
            start = stop
        return out

    def runs(self) -> list[list[TokenSpan]]:
        """Neighbouring spans of one kind together: a turn that was cut for a weight update has several."""
        return [list(run) for _, run in groupby(self.spans(), key=lambda span: span.kind)]

    def turns(self) -> list[list[TokenSpan]]:
        """The sampled runs, one per turn of the policy."""
        return [run for run in self.runs() if run[0].kind == "sampled"]

    def versions(self) -> dict[str, int]:
        """Weight version -> tokens that it sampled; those of unnamed weights are left out."""
        out = dict(self.sampled_by_version)
        for span in self.spans():
            if span.kind == "sampled" and span.weight_version:
                out[span.weight_version] = out.get(span.weight_version, 0) + span.stop - span.start
        return out

    def sampled_count(self) -> int:
        """Tokens that the policy sampled."""
        if self.ledger is None:
            return sum(self.sampled_by_version.values())
        return sum(span.stop - span.start for turn in self.turns() for span in turn)

    def sampled_messages(self) -> list[int]:
        """Indices of the messages that the policy sampled, in the order of `turns`.

        The greeting and a task's message history are the agent's messages too, but the policy did not sample them: the
        sampled ones are the last ``agent_turns`` of the agent's messages.
        """
        spoken = [i for i, m in enumerate(self.messages) if m.get("role") == "assistant"]
        turns = self.stats.get("agent_turns")
        if turns is None:
            return [i for i in spoken if self.messages[i].get("usage") or self.messages[i].get("tool_calls")]
        return spoken[len(spoken) - int(turns) :] if int(turns) <= len(spoken) else spoken

    def tool_errors(self) -> int:
        """Tool calls that were answered by an error."""
        known = sum(int(self.stats.get(k) or 0) for k in ("agent_errors", "user_errors"))
        return known or sum(bool(m.get("error")) for m in self.messages if m.get("role") == "tool")
