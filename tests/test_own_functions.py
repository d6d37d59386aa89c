"""Metrics and reward parts of one's own: found or refused with the settings, safe to call, and shown everywhere."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tau2.data_model.message import AssistantMessage, ToolCall, ToolMessage, UserMessage
from typer.testing import CliRunner

from tau2_slime import errors
from tau2_slime.cli.commands import app
from tau2_slime.config import own_functions as config_own_functions
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode import own_functions
from tau2_slime.episode.own_functions import custom_metrics, reward_parts
from tau2_slime.episode.result import InteractionResult
from tau2_slime.errors import ConfigError
from tau2_slime.inspector import row_formats
from tau2_slime.outcome import Blame, Termination
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample
from tests.test_hooks import evaluate, train

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

OWN = """
import pathlib, sys
seen = []

def turns(result):
    seen.append(result.task_id)
    return {"turns": len(result.messages), "depth/first": 2, "odd name!": True}

def broken(result):
    raise KeyError("my bug")

def leaves(result):
    sys.exit(1)

def no_mapping(result):
    return 7

def odd(result):
    return {"nan": float("nan"), "infinite": float("inf"), "fine": 1}

def text(result):
    return {"words": "many"}

def half(result):
    return 0.5

def everything(result):
    return True

def nothing(result):
    return 0

def not_here(result):
    return None

def too_much(result):
    return 1.5

NUMBER = 3
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of somebody else's, and the folder of the examples, where Python finds them; nothing told or found before."""
    (tmp_path / "own_code.py").write_text(OWN)
    (tmp_path / "bad_code.py").write_text(
        "imported = open(__file__ + '.count', 'a').write('x')\nraise OSError('no disk')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())
    config_own_functions._look_up.cache_clear()
    yield tmp_path
    for name in ("own_code", "bad_code", "custom_metric", "custom_reward"):
        sys.modules.pop(name, None)
    config_own_functions._look_up.cache_clear()


def said(role: str, content: str | None = None, *calls: str) -> Any:
    tools = [ToolCall(id=f"c{i}", name=name, arguments={}) for i, name in enumerate(calls)] or None
    if role == "tool":
        return ToolMessage(id="c0", role="tool", content=content, requestor="assistant")
    kind = AssistantMessage if role == "assistant" else UserMessage
    return kind(role=role, content=content, tool_calls=tools)


def result(*messages: Any, reward: float | None = 0.0, **facts: Any) -> InteractionResult:
    names = ("domain", "task_split", "task_id", "agent_type", "user_model")
    ending = {"termination": Termination.USER_STOP, "blame": Blame.AGENT, "reward": reward}
    return InteractionResult(**{**dict.fromkeys(names, "x"), **ending, **facts}, messages=list(messages))


# ---- found with the settings -----------------------------------------------------------------------------------------


def test_paths_are_settings_like_every_other(own: Path) -> None:
    config = Tau2Config.resolve({"metrics": ["own_code.turns", "own_code.odd"]}, environ={})
    assert config.metrics == ("own_code.turns", "own_code.odd")
    assert Tau2Config.resolve({}, environ={"TAU2_METRICS": "own_code.turns, own_code.odd"}) == config
    assert Tau2Config.resolve({}, {"metrics": ["own_code.turns", "own_code.odd"]}, {}) == config
    assert Tau2Config.resolve({"metrics": None}, environ={}).metrics == ()
    shaping = {"partial_credit": 0.3, "parts": {"own_code.half": 2}}
    found = Tau2Config.resolve({"reward_shaping": shaping}, environ={}).reward_shaping
    assert found is not None and found.parts == {"own_code.half": 2.0}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metrics": ["own_code.trns"]}, ["tau2.metrics", "'own_code.trns'", "did you mean 'turns'"]),
        ({"metrics": ["no_such_code.turns"]}, ["no module 'no_such_code'", "PYTHONPATH"]),
        ({"metrics": ["turns"]}, ["'turns'", "dotted path"]),
        ({"metrics": ["own_code.NUMBER"]}, ["'own_code.NUMBER' is not a function but int"]),
        ({"metrics": ["bad_code.turns"]}, ["bad_code", "no disk"]),
        (
            {"reward_shaping": {"partial_credit": 0.3, "parts": {"own_code.hlf": 1}}},
            ["tau2.reward_shaping", "reward part 'own_code.hlf'", "did you mean 'half'"],
        ),
        (
            {"reward_shaping": {"partial_credit": 0.3, "parts": {"own_code.half": -1}}},
            ["parts", "greater than or equal"],
        ),
        ({"reward_shaping": {"parts": {"own_code.half": 1}}}, ["no effect without partial_credit", "0.3"]),
    ],
)
def test_a_mistake_is_one_clear_error_before_the_first_episode(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Tau2Config.resolve(settings, environ={})
    for word in words:
        assert word in str(caught.value)


def test_a_module_that_cannot_be_imported_is_not_imported_for_every_sample(own: Path) -> None:
    for _ in range(5):
        with pytest.raises(ConfigError, match="no disk"):
            Tau2Config.resolve({"metrics": ["bad_code.turns"]}, environ={})
    assert (own / "bad_code.py.count").read_text() == "x"


def test_the_doctor_refuses_a_path_that_leads_nowhere(own: Path) -> None:
    (own / "tau2.yaml").write_text("tau2: {metrics: [own_code.trns]}\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(own / "tau2.yaml")])
    assert isinstance(done.exception, ConfigError), "which the command prints, and ends with 1"
    assert "did you mean 'turns'" in str(done.exception)


# ---- called ----------------------------------------------------------------------------------------------------------


def test_every_number_of_a_metric_is_kept_and_what_is_none_is_left_out() -> None:
    episode = result(said("assistant", "Hello."), said("user", "Hi."))
    assert custom_metrics(episode, ["own_code.turns", "own_code.odd"]) == {
        "turns": 2.0,
        "depth/first": 2.0,
        "odd name!": 1.0,
        "fine": 1.0,
    }


def test_reward_parts_are_shares_and_one_that_does_not_apply_is_left_out() -> None:
    paths = ["own_code.half", "own_code.everything", "own_code.nothing", "own_code.not_here"]
    assert reward_parts(result(), paths) == {"own_code.half": 0.5, "own_code.everything": 1.0, "own_code.nothing": 0.0}


@pytest.mark.parametrize(
    ("path", "call", "said_of_it"),
    [
        ("own_code.broken", custom_metrics, "my bug"),
        ("own_code.leaves", custom_metrics, "SystemExit"),
        ("own_code.no_mapping", custom_metrics, "must return a mapping"),
        ("own_code.text", custom_metrics, "many"),
        ("own_code.broken", reward_parts, "my bug"),
        ("own_code.too_much", reward_parts, "from 0 to 1"),
        ("own_code.odd", reward_parts, "dict"),
    ],
)
def test_what_a_function_raises_is_told_once_and_costs_only_its_number(
    path: str, call: Any, said_of_it: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = "own_code.turns" if call is custom_metrics else "own_code.half"
    for _ in range(5):
        assert call(result(), [path, good]) == call(result(), [good]), "the other functions are called"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and path in record.getMessage()
    assert said_of_it in caplog.text, "with its traceback"


def test_a_function_that_takes_long_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seconds = itertools.cycle([0.0, 0.9, 10.0, 11.5])  # begin and end of the one and of the other
    monkeypatch.setattr(own_functions, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    for _ in range(3):
        custom_metrics(result(), ["own_code.turns", "own_code.odd"])
    (record,) = caplog.records
    assert "own_code.odd took 1.5 seconds" in record.getMessage()


# ---- shown -----------------------------------------------------------------------------------------------------------


def sample_of(episode: InteractionResult) -> StandaloneSample:
    return fill_sample(StandaloneSample(metadata={"domain": "mock", "task_id": "x"}, group_index=0), episode)


def test_numbers_reach_the_samples_telemetry_the_metrics_and_the_trajectory() -> None:
    episodes = [
        result(said("assistant", "a"), custom_metrics={"depth/odd name!": depth}, reward_parts={"own_code.half": 0.5})
        for depth in (1.0, 4.0)
    ]
    samples = [sample_of(episode) for episode in [*episodes, result(said("assistant", "b"))]]
    kept = samples[0].metadata["tau2"]["telemetry"]
    assert (kept["custom/depth/odd name!"], kept["reward_part/own_code.half"]) == (1.0, 0.5)
    for metrics in (train(samples), evaluate(samples, size=3)):
        assert metrics["custom/depth/odd_name"] == 2.5, (
            "a mean over the episodes that have it, under a name for trackers"
        )
        assert metrics["reward_part/own_code.half"] == 0.5
    shown = row_formats.from_trajectory(episodes[0].to_dict(), "trajectories.jsonl:1")
    assert shown.telemetry["custom/depth/odd name!"] == 1.0
    assert shown.telemetry["cut_turns"] == 0.0, "beside the package's own"


# ---- the examples ----------------------------------------------------------------------------------------------------


def test_the_example_of_a_metric() -> None:
    episode = result(
        said("assistant", "How may I help you?"),
        said("user", "Where is my order?"),
        said("assistant", None, "get_user", "get_order"),
        said("tool", "{}"),
        said("assistant", None, "get_order"),
        said("tool", "{}"),
        said("assistant", "It is on its way."),
    )
    path = "custom_metric.turn_shape"
    assert Tau2Config.resolve({"metrics": [path]}, environ={}).metrics == (path,)
    assert custom_metrics(episode, [path]) == {"parallel_calls": 0.5, "words_per_message": 5.0}
    assert custom_metrics(result(said("user", "Hello?")), [path]) == {}


def test_the_example_of_a_reward_part() -> None:
    look_up = [said("assistant", None, "get_order_details"), said("tool", "{}")]
    asked = [said("assistant", "Shall I cancel it?"), said("user", "Yes."), said("assistant", None, "cancel_order")]
    hasty = [*look_up, said("assistant", None, "cancel_order")]
    path = "custom_reward.asked_before_writing"
    assert reward_parts(result(*look_up, *asked), [path]) == {path: 1.0}
    assert reward_parts(result(*hasty), [path]) == {path: 0.0}
    assert reward_parts(result(*asked, said("tool", "{}"), *hasty), [path]) == {path: 0.5}
    assert reward_parts(result(*look_up), [path]) == {}, "nothing was written: it does not apply"
