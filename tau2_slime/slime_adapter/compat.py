"""How slime's versions differ, found by looking at what is there, never by a version number.

Everything else in the package speaks to slime through this module or by what all supported versions (v0.2.2 and later)
share: the arguments of `generate`, and the meaning of tokens, response_length, loss_mask, rollout_log_probs and reward.
Nothing here imports slime, `describe` and `rollout_code` excepted: when slime calls, its modules are loaded already.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tau2_slime.errors import ConfigError, first_time

logger = logging.getLogger(__name__)

Tell = Callable[[Mapping[str, Any]], None]
"""Takes the ``meta_info`` of a finished call."""
Trace = Callable[[int], AbstractContextManager[Tell]]
"""Opens the trace of one generate call that may sample that many tokens."""

_NEEDED = (
    "tokens",
    "response_length",
    "loss_mask",
    "rollout_log_probs",
    "reward",
    "status",
    "metadata",
    "remove_sample",
)
_TRACING = ("slime.observability.trace_utils", "slime.utils.trace_utils")


# ---- is this slime new enough? -------------------------------------------------------------------------------------------


def refuse_too_old() -> None:
    """Nothing, unless slime is loaded in this process and too old.

    Called when the door is imported, which slime does at its first sample: the job ends before it has trained on anything.

    Raises:
        ConfigError: naming what this slime lacks.
    """
    types = sys.modules.get("slime.utils.types")
    if types is not None and dataclasses.is_dataclass(getattr(types, "Sample", None)):
        _check(types.Sample)


def describe() -> str:
    """One line for the doctor.

    Raises:
        ConfigError: this slime is too old; the message names what it lacks.
    """
    sample = importlib.import_module("slime.utils.types").Sample
    fields = _check(sample)
    has = {
        "session_id": "session_id" in fields,
        "tracing": any(_findable(name) for name in _TRACING),
        "fully-async": _findable("slime.rollout.fully_async_rollout"),
    }
    return f"version {_version()}; " + ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())


def _check(sample: Any) -> set[str]:
    """The names of ``Sample``'s fields."""
    fields = {f.name for f in dataclasses.fields(sample)}
    missing = [f"Sample.{name}" for name in _NEEDED if name not in fields]
    if not hasattr(sample.Status, "FAILED"):
        missing.append("Sample.Status.FAILED")
    if missing:
        raise ConfigError(f"this slime is too old for tau2_slime: it lacks {', '.join(missing)}; use v0.2.2 or later")
    return fields


def _findable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _version() -> str:
    """What the installed distribution says; a source tree on PYTHONPATH says nothing."""
    try:
        return importlib.metadata.version("slime")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (a source tree)"


# ---- its state ---------------------------------------------------------------------------------------------------------


def rollout_code() -> Any:
    """slime's own rollout module, ``slime.rollout.sglang_rollout``."""
    from slime.rollout import sglang_rollout

    return sglang_rollout


def rollout_state(args: Any) -> tuple[Any | None, Callable[[], bool]]:
    """slime's tokenizer and abort flag; ``(None, never)`` when slime is not what calls.

    Fully-async rollouts never set the flag. ``args.tau2_aborted`` is the flag of whoever else calls.
    """
    module = sys.modules.get("slime.rollout.sglang_rollout")
    if module is None:
        return None, getattr(args, "tau2_aborted", None) or (lambda: False)
    state = module.GenerateState(args)
    return state.tokenizer, lambda: bool(state.aborted)


# ---- the sample --------------------------------------------------------------------------------------------------------


def set_field(sample: Any, name: str, value: Any) -> None:
    """Set a field that this slime's ``Sample`` has; older ones lack some (``session_id`` before v0.2.3)."""
    if has_field(sample, name):
        setattr(sample, name, value)


def has_field(sample: Any, name: str) -> bool:
    return not dataclasses.is_dataclass(sample) or name in {f.name for f in dataclasses.fields(sample)}


def status_member(sample: Any, name: str) -> Any:
    """The member of the sample's own ``Status``: slime compares by identity, and a string is never equal."""
    return getattr(type(sample).Status, name)


def session_key(sample: Any) -> str:
    """The routing key of the sample's session, made up and kept where slime gives none (evaluation, before v0.2.3)."""
    key = getattr(sample, "session_id", None) or uuid.uuid4().hex
    set_field(sample, "session_id", key)
    return key


def count_calls(sample: Any, metas: Iterable[Mapping[str, Any]]) -> None:
    """Add each call's ``meta_info`` to the sample's prefix-cache and speculative-decoding counts, where it has them."""
    for meta in metas:
        known = {key: value for key, value in meta.items() if value is not None}  # slime adds up what is named
        for name in ("prefix_cache_info", "spec_info"):
            info = getattr(sample, name, None)
            if info is not None:
                info.add(known)


# ---- tracing -----------------------------------------------------------------------------------------------------------


def generation_trace(sample: Any) -> Trace | None:
    """What opens a ``sglang_generate`` span of slime's tracing on ``sample``; None where there is none (before v0.2.4).

    slime's perf/request metrics are taken from the spans of that name.
    """
    module = next((sys.modules[name] for name in _TRACING if name in sys.modules), None)
    trace_span = getattr(module, "trace_span", None)
    attributes = getattr(module, "build_sglang_meta_trace_attrs", None)
    if trace_span is None or attributes is None:
        return None

    @contextlib.contextmanager
    def span(max_new_tokens: int) -> Iterator[Tell]:
        with trace_span(sample, "sglang_generate", attrs={"max_new_tokens": max_new_tokens}) as opened:

            def tell(meta: Mapping[str, Any]) -> None:
                if opened is not sample:  # what slime yields when it cannot trace
                    opened.update(attributes(dict(meta)))

            yield _guarded(tell)

    return span


def _guarded(tell: Tell) -> Tell:
    """A trace is never worth an episode."""

    def told(meta: Mapping[str, Any]) -> None:
        try:
            tell(meta)
        except Exception as error:
            if first_time("slime's tracing", repr(error)):
                logger.warning("slime's tracing refused a call: %r", error)

    return told


# ---- what hooks answer and where metrics go ----------------------------------------------------------------------------


def filter_output(keep: bool, reason: str) -> Any:
    """What a dynamic filter answers: slime's own type, which counts ``reason``; a bare bool when slime is not loaded."""
    module = sys.modules.get("slime.rollout.filter_hub.base_types")
    return keep if module is None else module.DynamicFilterOutput(keep=keep, reason=None if keep else reason)


def log_scalars(args: Any, metrics: Mapping[str, float], rollout_id: int, axis: str) -> bool:
    """Hand ``metrics`` to slime's trackers at the step where slime itself logs ``axis`` (rollout or eval).

    False if slime's logging is not loaded.
    """
    steps, logging_utils = _loaded("metric_utils"), _loaded("logging_utils")
    if steps is None or logging_utils is None:
        return False
    step = f"{axis}/step"
    logging_utils.log(args, {**metrics, step: steps.compute_rollout_step(args, rollout_id)}, step_key=step)
    return True


def _loaded(name: str) -> Any | None:
    """slime's module of that name, in the package where this slime has it (``utils`` up to v0.3.1)."""
    found = (sys.modules.get(f"slime.{package}.{name}") for package in ("observability", "utils"))
    return next((module for module in found if module is not None), None)
