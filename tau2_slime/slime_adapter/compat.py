"""How slime's versions and miles, its fork, differ, found by looking at what is there, never by a version number.

Everything else in the package speaks to slime through this module or by what all supported versions (v0.2.2 and later)
share: the arguments of `generate`, and the meaning of tokens, response_length, loss_mask, rollout_log_probs and reward.
Only `describe`, `rollout_code` and `mask_generator` import slime: when slime calls, its modules are loaded already.
What is said of slime holds for miles too (`miles` has what only miles does).
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from tau2_slime.errors import ConfigError, first_time
from tau2_slime.slime_adapter.miles import in_miles, state_of_this_episode

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import DynamicFilterOutput, MaskGenerator, SlimeArgs, SlimeSample
    from tau2_slime.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

T = TypeVar("T")

RecordMeta = Callable[[Mapping[str, Any]], None]
"""Takes the ``meta_info`` of a finished call."""
Trace = Callable[[int], AbstractContextManager[RecordMeta]]
"""Opens the trace of one generate call that may sample that many tokens."""

_REQUIRED_FIELDS = (
    "tokens",
    "response_length",
    "loss_mask",
    "rollout_log_probs",
    "reward",
    "status",
    "metadata",
    "remove_sample",
)
"""Fields of ``Sample`` without which the trainer cannot be given what is true: a slime without one of them is refused."""
_LATER_FIELDS = {
    "session_id": "it came with v0.2.3; the requests of an interrupted episode may reach another server when it goes on",
    "rollout_top_p_token_ids": "it came with v0.3.1; the trainer takes no account of top-p",
    "rollout_top_p_token_offsets": "it came with v0.3.1; the trainer takes no account of top-p",
}
"""Fields that some supported releases lack, and what follows from it."""
_TRACING = ("observability.trace_utils", "utils.trace_utils")


def loaded(*names: str, having: str | None = None) -> ModuleType | None:
    """The first of these modules of slime or miles (``utils.types``) that is loaded here, and that has ``having``."""
    for name in (f"{package}.{name}" for name in names for package in ("slime", "miles")):
        module = sys.modules.get(name)
        if module is not None and (having is None or hasattr(module, having)):
            return module
    return None


# ---- is this slime new enough? -------------------------------------------------------------------------------------------


def refuse_too_old() -> None:
    """Nothing, unless slime is loaded in this process and too old.

    Called when the door is imported, which slime does at its first sample: the job ends before it has trained on anything.

    Raises:
        ConfigError: naming what this slime lacks.
    """
    types = loaded("utils.types")
    if types is not None and dataclasses.is_dataclass(getattr(types, "Sample", None)):
        _check(types.Sample)


def installed() -> str | None:
    """``slime`` or ``miles``, whichever this Python would import; slime if both are there."""
    return next(
        (name for name in ("slime", "miles") if _findable(f"{name}.utils") and _findable(f"{name}.rollout")), None
    )


def describe(package: str = "slime") -> str:
    """One line for the doctor about the `installed` slime or miles.

    Raises:
        ConfigError: it is too old; the message names what it lacks.
    """
    fields = _check(importlib.import_module(f"{package}.utils.types").Sample)
    has = {
        "session_id": bool({"session_id", "routing_key"} & fields),
        "tracing": any(_findable(f"{package}.{name}") for name in _TRACING),
        "fully-async": _findable(f"{package}.rollout.fully_async_rollout"),
    }
    told = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    return f"{package} version {_version(package)}; {told}"


def _check(sample: type[SlimeSample]) -> set[str]:
    """The names of ``Sample``'s fields."""
    fields = {f.name for f in dataclasses.fields(sample)}  # type: ignore[arg-type]  # slime's class is a dataclass
    missing = [f"Sample.{name}" for name in _REQUIRED_FIELDS if name not in fields]
    if not hasattr(getattr(sample, "Status", None), "FAILED"):
        missing.append("Sample.Status.FAILED")
    if missing:
        raise _too_old(missing)
    return fields


def _too_old(missing: Iterable[str]) -> ConfigError:
    return ConfigError(f"this slime is too old for tau2_slime: it lacks {', '.join(missing)}; use v0.2.2 or later")


def _findable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _version(package: str) -> str:
    """What the installed distribution says; a source tree on PYTHONPATH says nothing."""
    try:
        return importlib.metadata.version("miles-rl" if package == "miles" else package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown (a source tree)"


# ---- its arguments and its state -----------------------------------------------------------------------------------------


def argument(args: SlimeArgs, name: str, default: T) -> T | Any:
    """The argument ``name`` of slime's command line; ``default`` if slime has no such argument at all.

    An argument that was not given is there, as None or as slime's own default. One that does not exist has been renamed
    or removed by this slime (or is misspelt here), so the log names it once. Callers other than slime hand over only the
    arguments that matter to them: then nothing is logged.
    """
    value = getattr(args, name, _MISSING)
    if value is not _MISSING:
        return value
    if loaded("utils.types") is not None and isinstance(args, argparse.Namespace) and first_time(f"no argument {name}"):
        logger.warning(
            "slime's arguments hold no %r (this release may have renamed it): tau2_slime goes on as if it were %r",
            name,
            default,
        )
    return default


_MISSING = object()


def mask_generator(tokenizer: Tokenizer, kind: str, folder: Path | None = None) -> MaskGenerator:
    """slime's own ``MultiTurnLossMaskGenerator``, with which its SFT tokenises and masks conversations.

    Args:
        kind: slime's ``--loss-mask-type``.
        folder: a checkout to take it from; None: the installed slime.

    Raises:
        ConfigError: slime cannot be imported.
        ValueError: its ``kind`` does not fit this tokenizer's chat template.
    """
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        from slime.utils.mask_utils import MultiTurnLossMaskGenerator
    except ImportError as error:
        where = f"in {folder}" if folder is not None else "here: name a checkout with --slime-dir"
        raise ConfigError(f"slime's mask generator cannot be imported {where} ({error})") from error
    try:
        made: MaskGenerator = MultiTurnLossMaskGenerator(tokenizer, tokenizer_type=kind)
        return made
    except Exception as error:  # what its probe of the template comes to
        raise ValueError(f"slime's --loss-mask-type {kind} does not fit this chat template: {error!r}") from error


def rollout_code() -> ModuleType:
    """slime's own rollout module, ``slime.rollout.sglang_rollout``; miles' in a process of miles."""
    return importlib.import_module(f"{'miles' if in_miles() else 'slime'}.rollout.sglang_rollout")


def episode_limit(args: SlimeArgs) -> int:
    """How many episodes slime plays at the same time: its concurrency per engine times its engines."""
    engines = getattr(rollout_code(), "get_rollout_num_engines", None)  # v0.3.1 and later: engines may run elsewhere
    if engines is not None:
        return max(1, args.sglang_server_concurrency * int(engines(args)))
    return max(1, args.sglang_server_concurrency * args.rollout_num_gpus // args.rollout_num_gpus_per_engine)


def rollout_state(args: SlimeArgs) -> tuple[Tokenizer | None, Callable[[], bool]]:
    """slime's tokenizer and abort flag; ``(None, never)`` if another program than slime calls.

    Fully-async rollouts never set the flag. Another program may hand its own flag over as ``args.tau2_aborted``.
    """
    given = state_of_this_episode.get()
    if given is not None:
        return given.tokenizer, lambda: bool(given.aborted)
    module = sys.modules.get("slime.rollout.sglang_rollout")
    if module is None:
        return None, getattr(args, "tau2_aborted", None) or (lambda: False)
    state = module.GenerateState(args)
    return state.tokenizer, lambda: bool(state.aborted)


# ---- the sample --------------------------------------------------------------------------------------------------------


def set_fields(sample: SlimeSample, **values: object) -> None:
    """Set fields of ``sample``. If this slime's ``Sample`` lacks one, its value is dropped, and the log says so once.

    Raises:
        ConfigError: the trainer needs the field, so this slime cannot be served.
    """
    known = getattr(sample, "__dataclass_fields__", values)
    for name, value in values.items():
        if name in known:
            setattr(sample, name, value)
        elif name in _REQUIRED_FIELDS:
            raise _too_old([f"Sample.{name}"])
        elif name in _LATER_FIELDS:
            if first_time(f"no field {name}"):
                logger.info("this slime's Sample has no %s: %s", name, _LATER_FIELDS[name])
        elif first_time(f"no field {name}"):
            logger.warning(
                "this slime's Sample has no %s (it may have been renamed): slime is not told its value", name
            )


def has_field(sample: SlimeSample, name: str) -> bool:
    """True if ``sample`` can hold ``name``: a dataclass by its fields, any other object always."""
    return name in getattr(sample, "__dataclass_fields__", (name,))


def session_key(sample: SlimeSample) -> str:
    """The routing key of the sample's session. Where slime gives none (evaluation, before v0.2.3), a new one is kept."""
    field = "routing_key" if "routing_key" in getattr(sample, "__dataclass_fields__", ()) else "session_id"
    key: str = getattr(sample, field, None) or uuid.uuid4().hex
    set_fields(sample, **{field: key})
    return key


def count_calls(sample: SlimeSample, metas: Iterable[Mapping[str, Any]]) -> None:
    """Add each call's ``meta_info`` to the sample's prefix-cache and speculative-decoding counts, where it has them."""
    for meta in metas:
        known = {key: value for key, value in meta.items() if value is not None}  # slime adds up what is named
        for name in ("prefix_cache_info", "spec_info"):
            info = getattr(sample, name, None)
            if info is not None:
                info.add(known)


# ---- tracing -----------------------------------------------------------------------------------------------------------


def generation_trace(sample: SlimeSample) -> Trace | None:
    """Opens ``sglang_generate`` spans of slime's tracing on ``sample``; None if this slime has no tracing (before v0.2.4).

    slime takes its perf/request metrics from the spans of that name.
    """
    own: Trace | None = getattr(sample, "own_trace", None)
    if own is not None:  # a worker's: slime's process opens the spans later (`workers.traces`)
        return own
    module = loaded(*_TRACING, having="trace_span")
    trace_span = getattr(module, "trace_span", None)
    attributes = getattr(module, "build_sglang_meta_trace_attrs", None)
    if trace_span is None or attributes is None:
        return None

    @contextlib.contextmanager
    def span(max_new_tokens: int) -> Iterator[RecordMeta]:
        with trace_span(sample, "sglang_generate", attrs={"max_new_tokens": max_new_tokens}) as opened:

            def record(meta: Mapping[str, Any]) -> None:
                if opened is sample:  # what slime yields when it cannot trace
                    return
                try:
                    opened.update(attributes(dict(meta)))
                except Exception as error:  # slime's code: whatever is wrong with a trace, the episode is whole
                    if first_time("slime's tracing", repr(error)):
                        logger.warning("slime's tracing refused a call: %r", error)

            yield record

    return span


# ---- what hooks answer -------------------------------------------------------------------------------------------------


def filter_output(keep: bool, reason: str) -> bool | DynamicFilterOutput:
    """The answer of a dynamic filter: slime's own type, which counts ``reason``; a bare bool if slime is not loaded."""
    module = loaded("rollout.filter_hub.base_types")
    if module is None:
        return keep
    answer: DynamicFilterOutput = module.DynamicFilterOutput(keep=keep, reason=None if keep else reason)
    return answer
