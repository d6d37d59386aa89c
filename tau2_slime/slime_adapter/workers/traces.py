"""slime's tracing of calls that a worker made: taken down there, opened as spans in slime's own process.

slime takes its perf/request metrics from these spans.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tau2_slime.slime_adapter.compat import RecordMeta, generation_trace

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeSample


class TracedCall(NamedTuple):
    """A generate call that another process made."""

    start: float
    end: float
    """Seconds of the wall clock."""
    max_new_tokens: int
    meta: dict[str, Any]
    """The numbers and names of its ``meta_info``."""


@contextlib.contextmanager
def taken_down(calls: list[TracedCall], max_new_tokens: int) -> Iterator[RecordMeta]:
    """A `compat.Trace` of one call: it is appended to ``calls`` if it succeeds."""
    start, said = time.time(), dict[str, Any]()
    yield said.update
    meta = {name: value for name, value in said.items() if isinstance(value, int | float | str)}
    calls.append(TracedCall(start, time.time(), max_new_tokens, meta))


def trace_calls(sample: SlimeSample, calls: Iterable[TracedCall]) -> None:
    """Open `generation_trace`'s spans on slime's ``sample`` for calls that are over, at their own times."""
    trace = generation_trace(sample)
    if trace is None:
        return
    for call in calls:
        before = len(_events(sample))
        with trace(call.max_new_tokens) as record:
            record(call.meta)
        opened = _events(sample)[before:]
        late = opened[0]["ts"] - call.start if opened else 0.0
        for event in opened:
            event["ts"] -= late
        if opened:
            opened[-1]["ts"] = call.end


def _events(sample: SlimeSample) -> list[dict[str, Any]]:
    trace = getattr(sample, "trace", None)
    events = trace.get("events") if isinstance(trace, dict) else None
    return events if isinstance(events, list) else []
