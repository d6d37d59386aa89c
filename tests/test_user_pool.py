"""Which simulator a sample talks to: a function of the sample, in the shares that were asked for."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.simulators import choose
from tau2_slime.episode.users import PlayedBy, check_user, models_of, user_role, user_spec
from tau2_slime.errors import ConfigError


def resolve(**mapping: Any) -> Tau2Config:
    return Tau2Config.resolve(mapping, {}, {})


POOL = [
    {"name": "a", "model": "openai/x", "base_url": "http://127.0.0.1:9/v1", "args": {"temperature": 0.5}},
    {"name": "b", "model": "openai/x", "base_url": "http://127.0.0.1:8/v1", "concurrency": 3},
    {"model": "anthropic/claude-x", "price": {"input": 1, "output": 5}},
]


def played(config: Tau2Config, samples: int, group: int = 8) -> list[str]:
    return [config.user_model_for(i, evaluation=False, group_index=i // group) for i in range(samples)]


def test_eight_samples_over_three_simulators_are_three_three_two() -> None:
    assert sorted(Counter(played(resolve(user_simulators=POOL), 8)).values()) == [2, 3, 3]


def test_across_groups_a_group_shares_its_simulator() -> None:
    names = played(resolve(user_simulators=POOL, user_rotation="across_groups"), 24)
    assert names == ["a"] * 8 + ["b"] * 8 + ["anthropic/claude-x"] * 8


def test_weighted_follows_the_weights() -> None:
    pool = [{**POOL[0], "weight": 6}, {**POOL[1], "weight": 1}, {**POOL[2], "weight": 1}]
    counted = Counter(played(resolve(user_simulators=pool, user_rotation="weighted"), 800))
    assert counted["a"] == pytest.approx(600, abs=8)
    assert counted["b"] == pytest.approx(100, abs=8)


@pytest.mark.parametrize("weights", [[5, 3, 2], [0.61, 0.27, 0.12], [1, 1, 1], [7, 2, 1]])
def test_every_run_of_samples_however_short_is_near_the_weights(weights: list[float]) -> None:
    """Groups and batches are short runs: a rollout must not consist of one simulator by accident."""
    dealt = [choose(weights, "weighted", index, None) for index in range(10_000)]
    for k, weight in enumerate(weights):
        share = weight / sum(weights)
        upto = [0, *itertools.accumulate(name == k for name in dealt)]
        assert upto[-1] == pytest.approx(10_000 * share, abs=3)
        for length in (10, 30, 100):
            runs = (end - begin for begin, end in zip(upto, upto[length:], strict=False))
            assert max(abs(found - length * share) for found in runs) < 3


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    rotation=st.sampled_from(["within_group", "across_groups", "weighted"]),
    index=st.none() | st.integers(0, 2**40),
    group=st.none() | st.integers(0, 2**40),
)
def test_every_sample_has_one_simulator_and_always_the_same(
    weights: list[float], rotation: Any, index: int | None, group: int | None
) -> None:
    chosen = choose(weights, rotation, index, group)
    assert 0 <= chosen < len(weights)
    assert chosen == choose(list(weights), rotation, index, group)


def test_evaluation_names_its_simulator_from_the_pool() -> None:
    config = Tau2Config.resolve({"user_simulators": POOL}, {"user_model": "b"}, {})
    assert {config.user_model_for(i, evaluation=True) for i in range(8)} == {"b"}
    spec = user_spec(config, "b")
    assert (spec.model, spec.base_url, spec.concurrency, spec.label) == ("openai/x", POOL[1]["base_url"], 3, "b")
    assert spec.args == {"temperature": 0.0}, "what an entry leaves out is user_args"
    assert config.stand_ins_for("b", evaluation=True) == []


def test_the_short_form_may_name_the_pool_and_models() -> None:
    config = Tau2Config.resolve({"user_simulators": POOL}, {}, {"TAU2_USER_MODEL_ROTATION": "b, gpt-4o ,b"})
    assert played(config, 3) == ["b", "gpt-4o", "b"]
    assert models_of(config) == ["b", "gpt-4o", "b"]


def test_the_pool_may_come_from_the_environment() -> None:
    config = Tau2Config.resolve({}, {}, {"TAU2_USER_SIMULATORS": json.dumps(POOL)})
    assert played(config, 3) == ["a", "b", "anthropic/claude-x"]


def test_who_plays_on_is_the_rest_of_the_pool_from_the_next_on() -> None:
    config = resolve(user_simulators=POOL, user_failover="next")
    assert config.stand_ins_for("b", evaluation=False) == ["anthropic/claude-x", "a"]
    assert resolve(user_simulators=POOL).stand_ins_for("b", evaluation=False) == []


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"user_simulators": [POOL[0], POOL[0]]}, ["'a'", "twice"]),
        ({"user_simulators": [{**POOL[0], "weight": 2}, POOL[1]]}, ["weighted"]),
        ({"user_simulators": [{**POOL[0], "weight": 0}]}, ["weight"]),
        ({"user_simulators": [{"name": "a"}]}, ["user_simulators", "model"]),
        ({"user_simulators": [{**POOL[0], "modle": "x"}]}, ["modle"]),
        ({"user_simulators": [{**POOL[0], "price": {"input": 1}}]}, ["output"]),
        ({"user_rotation": "random"}, ["user_rotation", "within_group"]),
        ({"user_failover": "die"}, ["user_failover", "wait"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_pool_is_one_clear_error(mapping: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(**mapping)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "entry", [{"api_key_var": "sk-1234-secret-value"}, {"args": {"api_key": "sk-1234-secret-value"}}]
)
def test_a_key_in_the_pool_is_refused_and_not_repeated(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(user_simulators=[{**POOL[0], **entry}])
    assert "sk-1234" not in str(caught.value)


# ---- served by slime itself ------------------------------------------------------------------------------------------

SERVED = [{"name": "house", "model": "openai/user", "base_url": "sglang:user"}]
ROUTERS = {"actor": ("10.0.0.1", 3000), "user": ("10.0.0.2", 3001)}


def test_a_model_of_sglang_config_is_found_by_its_name() -> None:
    spec = user_spec(resolve(user_simulators=SERVED), "house", ROUTERS)
    assert spec.connection() == {"api_base": "http://10.0.0.2:3001/v1", "api_key": "none"}


@pytest.mark.parametrize("routers", [{"actor": ("10.0.0.1", 3000)}, {}])
def test_an_unknown_name_is_never_the_actors_router(routers: Any) -> None:
    with pytest.raises(ConfigError, match=r"'house'.*'user'.*--sglang-config"):
        user_spec(resolve(user_simulators=SERVED), "house", routers)


def test_outside_the_job_nobody_knows_the_address() -> None:
    config = resolve(user_simulators=SERVED)
    with pytest.raises(ConfigError, match="inside the training job"):
        user_spec(config, "house").connection()
    assert "sglang-config" in check_user(config, "house")


def test_the_examples_of_the_page_are_valid() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "user_simulators.md").read_text()
    ours, slimes = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S))
    config = Tau2Config.resolve(ours["tau2"], {}, {})
    names = [simulator.name for simulator in config.user_pool]
    assert set(played(config, 40)) == set(names)
    served = {model["name"]: ("10.0.0.1", 3000) for model in slimes["sglang"]}
    for name in names:
        user_spec(config, name, served)


def test_weights_must_have_an_effect_and_equal_ones_are_no_claim() -> None:
    even = [{"model": "a", "weight": 2.0}, {"model": "b", "weight": 2.0}]
    uneven = [{"model": "a", "weight": 3.0}, {"model": "b", "weight": 1.0}]
    assert len(resolve(user_simulators=even).user_pool) == 2
    assert len(resolve(user_simulators=uneven, user_rotation="weighted").user_pool) == 2
    with pytest.raises(ConfigError, match="only 'weighted' uses them"):
        resolve(user_simulators=uneven, user_rotation="across_groups")


def test_a_sample_without_an_index_is_dealt_like_the_first() -> None:
    weights = [1.0, 1.0, 1.0]
    assert choose(weights, "weighted", None, None) == choose(weights, "weighted", 0, None)
    assert choose(weights, "weighted", 0, None) != choose(weights, "weighted", 1, None)


@pytest.mark.parametrize(("seed", "seeds"), [(7, [7, 8, 9]), (2**31 - 1, [2**31 - 1, 0, 1])])
def test_each_attempt_at_a_task_has_a_seed_of_its_own_that_endpoints_take(seed: int, seeds: list[int]) -> None:
    """The first keeps what was asked for; the largest that fits into 32 bits with a sign is followed by 0."""
    config = resolve(user_args={"seed": seed, "top_p": 0.5})
    specs = [user_spec(config, "gpt-4o", attempt=attempt) for attempt in range(3)]
    assert [spec.args for spec in specs] == [{"seed": one, "top_p": 0.5} for one in seeds]


@pytest.mark.parametrize(
    ("settings", "role"),
    [
        ({"agent_type": "solo", "user_strategy": "react"}, (PlayedBy.NOBODY, "", "llm")),
        ({"user_strategy": "human"}, (PlayedBy.PERSON, "human", "human")),
        ({"user_path": "my.Own"}, (PlayedBy.OWN_CLASS, "my.Own", "llm")),
        ({"user_path": "my.Own", "user_model": "m", "user_strategy": "react"}, (PlayedBy.OWN_CLASS, "my.Own:m", "llm")),
        ({"user_model": "scripted-short", "user_strategy": "react"}, (PlayedBy.SCRIPT, "scripted-short", "llm")),
        ({"user_model": "m", "user_strategy": "react"}, (PlayedBy.MODEL, "m", "react")),
        ({"user_model": "a", "user_simulators": [{"name": "a", "model": "scripted"}]}, (PlayedBy.SCRIPT, "a", "llm")),
        (
            {"user_model": "a", "user_simulators": [{"name": "a", "model": "m", "strategy": "rules"}]},
            (PlayedBy.MODEL, "a", "rules"),
        ),
    ],
)
def test_results_say_who_played_the_user_and_how(settings: dict[str, Any], role: tuple[PlayedBy, str, str]) -> None:
    config = resolve(**settings)
    assert dataclasses.astuple(user_role(config, config.user_model)) == role
