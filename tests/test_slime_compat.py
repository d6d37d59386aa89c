"""slime's versions, played by small stand-ins: what is there is used, what is not is done without, too old is refused."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import subprocess
import sys
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import errors
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.slime_adapter import compat, request

ROOT = Path(__file__).resolve().parents[1]


class Counts:
    def __init__(self) -> None:
        self.cached = 0

    def add(self, meta: dict[str, Any]) -> None:
        self.cached += meta.get("cached_tokens", 0)


def sample_class(*without: str, failed: bool = True) -> Any:
    """slime's ``Sample`` as an older or newer version has it."""
    fields: dict[str, Any] = {
        **{"tokens": None, "response_length": 0, "loss_mask": None, "rollout_log_probs": None, "reward": None},
        **{"status": None, "metadata": None, "remove_sample": False, "session_id": None},
    }
    cls = dataclasses.make_dataclass(
        "Sample",
        [(name, Any, dataclasses.field(default=value)) for name, value in fields.items() if name not in without],
    )
    names = ["PENDING", "COMPLETED", "TRUNCATED", "ABORTED", *(["FAILED"] if failed else [])]
    cls.Status = Enum("Status", {name: name.lower() for name in names})
    return cls


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module of slime in its place, as if slime had imported it."""

    def install(name: str, **content: Any) -> None:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
        for key, value in content.items():
            setattr(sys.modules[name], key, value)

    return install


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log from now on, as if nothing had been told before."""
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    ("old", "lacks"),
    [(sample_class(failed=False), "Sample.Status.FAILED"), (sample_class("remove_sample"), "Sample.remove_sample")],
)
def test_a_slime_that_is_too_old_is_refused_by_name(installed: Any, old: Any, lacks: str) -> None:
    installed("slime.utils.types", Sample=old)
    for look in (compat.refuse_too_old, compat.describe):
        with pytest.raises(ConfigError, match=rf"too old.*{lacks}.*use v0\.2\.2 or later"):
            look()


def test_an_old_slime_gets_that_error_when_it_loads_the_door() -> None:
    code = """
import dataclasses, enum, sys, types
@dataclasses.dataclass
class Sample:
    tokens: list = None
    class Status(enum.Enum):
        PENDING = "pending"
for name in ("slime", "slime.utils", "slime.utils.types"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["slime.utils.types"].Sample = Sample
import tau2_slime.generate_with_tau2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "ConfigError: this slime is too old" in done.stderr.splitlines()[-1]


def test_a_supported_slime_and_no_slime_at_all_are_let_in(installed: Any) -> None:
    compat.refuse_too_old()
    installed("slime.utils.types", Sample=sample_class("session_id"))
    compat.refuse_too_old()
    assert "session_id no" in compat.describe()


def test_a_session_keeps_the_name_that_slime_gave_it() -> None:
    sample = sample_class()()
    sample.session_id = "given"
    assert compat.session_key(sample) == "given"


def test_a_session_without_a_name_gets_one_that_stays() -> None:
    sample = sample_class()()
    key = compat.session_key(sample)
    assert key
    assert compat.session_key(sample) == sample.session_id == key


def test_miles_names_its_sessions_otherwise() -> None:
    cls = dataclasses.make_dataclass("Sample", [("routing_key", Any, dataclasses.field(default=None))])
    sample = cls()
    key = compat.session_key(sample)
    assert key and sample.routing_key == key == compat.session_key(sample)
    assert not hasattr(sample, "session_id")


def test_a_sample_without_sessions_gets_no_new_field() -> None:
    sample = sample_class("session_id")()
    assert compat.session_key(sample)
    assert not hasattr(sample, "session_id")


# ---- what a release lacks ----------------------------------------------------------------------------------------------


def test_an_argument_that_slime_does_not_have_is_named_once(installed: Any, log: pytest.LogCaptureFixture) -> None:
    installed("slime.utils.types")
    args = argparse.Namespace(rollout_max_context_len=None, log_passrate=True)
    assert compat.argument(args, "rollout_max_context_len", 7) is None, "not given is not the same as not there"
    assert compat.argument(args, "log_passrate", False) is True
    assert not log.records
    for _ in range(5):
        assert compat.argument(args, "rollout_max_content_len", 7) == 7
    (told,) = log.records
    assert told.levelname == "WARNING"
    assert "'rollout_max_content_len'" in told.getMessage() and "as if it were 7" in told.getMessage()


def test_only_slimes_own_arguments_must_be_complete(installed: Any, log: pytest.LogCaptureFixture) -> None:
    """A stand-alone command hands over a namespace with what it needs; slime's contract test does the same."""
    assert compat.argument(argparse.Namespace(), "reward_key", None) is None, "slime is not loaded"
    installed("slime.utils.types")
    assert compat.argument(types.SimpleNamespace(), "reward_key", None) is None
    assert not log.records


def test_a_field_that_came_later_is_done_without(log: pytest.LogCaptureFixture) -> None:
    sample = sample_class("session_id")()
    for _ in range(5):
        compat.set_fields(sample, session_id="x")
    assert not hasattr(sample, "session_id")
    assert [(r.levelname, "v0.2.3" in r.getMessage()) for r in log.records] == [("INFO", True)]


def test_a_field_that_every_release_has_is_missed_aloud(log: pytest.LogCaptureFixture) -> None:
    sample = sample_class()()
    for _ in range(5):
        compat.set_fields(sample, weight_versions=["1"])
    assert not hasattr(sample, "weight_versions")
    assert [(r.levelname, "weight_versions" in r.getMessage()) for r in log.records] == [("WARNING", True)]


def test_a_sample_that_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"it lacks Sample\.loss_mask"):
        compat.set_fields(sample_class("loss_mask")(), loss_mask=[1])


def test_a_sample_of_ones_own_takes_every_field(log: pytest.LogCaptureFixture) -> None:
    sample = types.SimpleNamespace()
    compat.set_fields(sample, weight_versions=["1"])
    assert sample.weight_versions == ["1"] and not log.records


def test_calls_are_counted_where_the_sample_counts_them() -> None:
    sample = types.SimpleNamespace(prefix_cache_info=Counts())
    compat.count_calls(sample, [{"cached_tokens": 3}, {"cached_tokens": None}, {"cached_tokens": 4}])
    assert sample.prefix_cache_info.cached == 7


def test_the_abort_flag_is_slimes_own(installed: Any) -> None:
    state = types.SimpleNamespace(tokenizer="its tokenizer", aborted=False)
    installed("slime.rollout.sglang_rollout", GenerateState=lambda args: state)
    tokenizer, aborted = compat.rollout_state(types.SimpleNamespace())
    assert (tokenizer, aborted()) == ("its tokenizer", False)
    state.aborted = True
    assert aborted()


def test_without_slime_nothing_is_ever_aborted_unless_the_caller_says_so() -> None:
    assert compat.rollout_state(types.SimpleNamespace())[1]() is False
    assert compat.rollout_state(types.SimpleNamespace(tau2_aborted=lambda: True))[1]() is True


@pytest.mark.parametrize("place", ["slime.observability.trace_utils", "slime.utils.trace_utils"])
def test_a_call_is_traced_under_the_name_that_slime_counts(installed: Any, place: str) -> None:
    spans: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def trace_span(target: Any, name: str, *, attrs: dict[str, Any]) -> Iterator[Any]:
        span = {"target": target, "name": name, **attrs}
        spans.append(span)
        yield types.SimpleNamespace(update=span.update)

    installed(
        place, trace_span=trace_span, build_sglang_meta_trace_attrs=lambda meta: {"cached": meta["cached_tokens"]}
    )
    sample = sample_class()()
    trace = compat.generation_trace(sample)
    assert trace is not None
    with trace(512) as tell:
        tell({"cached_tokens": 3})
    assert spans == [{"target": sample, "name": "sglang_generate", "max_new_tokens": 512, "cached": 3}]


def test_a_trace_that_breaks_costs_no_episode(installed: Any) -> None:
    def broken(meta: Any) -> Any:
        raise KeyError("a bug of slime's")

    span = types.SimpleNamespace(update=lambda attrs: None)
    installed(
        "slime.utils.trace_utils",
        trace_span=lambda *_, **__: contextlib.nullcontext(span),
        build_sglang_meta_trace_attrs=broken,
    )
    trace = compat.generation_trace(sample_class()())
    assert trace is not None
    with trace(512) as tell:
        tell({})


def test_what_slime_cannot_trace_is_not_touched(installed: Any) -> None:
    sample = sample_class()()
    installed(
        "slime.utils.trace_utils",
        trace_span=lambda target, *_, **__: contextlib.nullcontext(target),  # what slime does on an error of its own
        build_sglang_meta_trace_attrs=lambda meta: meta,
    )
    trace = compat.generation_trace(sample)
    assert trace is not None
    with trace(512) as tell:
        tell({"cached_tokens": 3})


def test_a_slime_without_tracing_is_not_traced() -> None:
    assert compat.generation_trace(sample_class()()) is None


async def test_what_this_package_alone_puts_into_the_arguments_is_not_missed_in_slimes(
    installed: Any, log: pytest.LogCaptureFixture, tokenizer: Any
) -> None:
    installed("slime.utils.types", Sample=sample_class())
    args = argparse.Namespace(hf_checkpoint="local")
    await request.profile_from_slime(args, Tau2Config(), tokenizer)
    assert not [record.getMessage() for record in log.records if "arguments hold no" in record.getMessage()]
