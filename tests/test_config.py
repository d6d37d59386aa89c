"""One precedence rule, one clear error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError


def resolve(
    yaml: Any = None, metadata: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> Tau2Config:
    return Tau2Config.resolve(yaml, metadata, environ or {})


# ---- precedence ------------------------------------------------------------------------------------------------------


def test_metadata_beats_environment_beats_yaml_beats_default() -> None:
    yaml, environ, metadata = {"domain": "telecom"}, {"TAU2_DOMAIN": "airline"}, {"domain": "mock"}
    assert resolve().domain == "retail"
    assert resolve(yaml).domain == "telecom"
    assert resolve(yaml, None, environ).domain == "airline"
    assert resolve(yaml, metadata, environ).domain == "mock"


def test_each_key_is_decided_by_itself() -> None:
    found = resolve({"max_steps": 7, "max_turns": 8}, {"max_turns": 9}, {"TAU2_MAX_ERRORS": "3"})
    assert (found.max_steps, found.max_turns, found.max_errors) == (7, 9, 3)


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU2_TASK_SPLIT", "test")
    assert Tau2Config.resolve().task_split == "test"


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("TAU2_DOMAIN", "airline", "domain", "airline"),
        ("TAU2_TASK_SPLIT", "test", "task_split", "test"),
        ("TAU2_AGENT_TYPE", "solo", "agent_type", "solo"),
        ("TAU2_USER_MODEL", "gpt-4o", "user_model", "gpt-4o"),
        ("TAU2_USER_BASE_URL", "http://h:1/v1", "user_base_url", "http://h:1/v1"),
        ("TAU2_USER_API_KEY_VAR", "MY_KEY", "user_api_key_var", "MY_KEY"),
        ("TAU2_USER_MODEL_ROTATION", "a, b,,c ", "user_model_rotation", ("a", "b", "c")),
        ("TAU2_MAX_TURNS", "5", "max_turns", 5),
        ("TAU2_MAX_STEPS", "6", "max_steps", 6),
        ("TAU2_MAX_ERRORS", "7", "max_errors", 7),
        ("TAU2_USER_ARGS", '{"temperature": 0.5, "seed": 1}', "user_args", {"temperature": 0.5, "seed": 1}),
        ("TAU2_ALLOW_LLM_JUDGE", "true", "allow_llm_judge", True),
    ],
)
def test_names_that_users_know(name: str, value: str, key: str, expected: Any) -> None:
    assert getattr(resolve(environ={name: value}), key) == expected


@pytest.mark.parametrize(
    "where", [{"yaml": {"audit_rate": 0.1}}, {"metadata": {"audit_rate": 0}}, {"environ": {"TAU2_AUDIT_RATE": "0.1"}}]
)
def test_a_key_of_an_earlier_version_is_an_error_that_says_why(where: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"audit_rate was removed: .*delete the key"):
        resolve(**where)


def test_an_empty_variable_is_unset() -> None:
    assert resolve(environ={"TAU2_DOMAIN": "", "TAU2_USER_BASE_URL": ""}) == Tau2Config()


def test_split_in_a_data_row_is_the_task_split_and_none_is_unset() -> None:
    found = resolve({"domain": "mock"}, {"split": "base", "domain": None})
    assert (found.task_split, found.domain) == ("base", "mock")


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"yaml": {"domian": "mock"}}, ["tau2", "domian", "did you mean 'domain'"]),
        ({"yaml": {"nonsense": 1}}, ["nonsense", "allowed:", "task_split"]),
        ({"yaml": ["domain"]}, ["mapping"]),
        ({"environ": {"TAU2_MAX_STEP": "5"}}, ["TAU2_MAX_STEP", "did you mean 'max_steps'"]),
        ({"environ": {"TAU2_MAX_STEPS": "many"}}, ["TAU2_MAX_STEPS", "many"]),
        ({"environ": {"TAU2_MAX_STEPS": "0"}}, ["TAU2_MAX_STEPS", "greater than or equal to 1"]),
        ({"environ": {"TAU2_USER_ARGS": "{temperature: 0}"}}, ["TAU2_USER_ARGS", "JSON"]),
        ({"environ": {"TAU2_USER_ARGS": "[1]"}}, ["TAU2_USER_ARGS"]),
        ({"environ": {"TAU2_SLIME_CG": "keep"}}, ["TAU2_SLIME_CG", "did you mean TAU2_SLIME_GC"]),
        ({"environ": {"TAU2_SLIME_GC": "off"}}, ["TAU2_SLIME_GC", "'off'", "'keep'"]),
        ({"metadata": {"task_splits": "test"}}, ["sample.metadata", "did you mean 'task_split'"]),
        ({"metadata": {"agent_type": "lmm"}}, ["sample.metadata['agent_type']", "lmm", "'llm', 'solo' or 'gt'"]),
        ({"yaml": {"user_model_rotation": 5}}, ["user_model_rotation"]),
        ({"yaml": {"user_api_key_var": "sk-abc123"}}, ["user_api_key_var", "NAME"]),
        ({"environ": {"TAU2_USER_API_KEY_VAR": "sk-proj-0/1"}}, ["TAU2_USER_API_KEY_VAR", "NAME"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_cure(kwargs: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(**kwargs)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "sk-abc123DEF",
        "sk-proj-abc_def",
        "gsk_abc",
        "AIzaSyA",
        "hf_abcdef",
        "a b",
        "x/y==",
        "0123456789abcdef" * 2,
        "d" * 32,
    ],
)
def test_a_key_in_place_of_its_name_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"user_api_key_var": key})
    assert key not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


KEYS = [
    {"user_args": {"api_key": "sk-secret", "temperature": 0}},
    {"user_args": {"extra_headers": {"Authorization": "Bearer sk-secret"}}},
    {"user_args": {"extra_body": {"tools": [{"x-api-key": "sk-secret"}]}}},
    {"user_args": {"aws_secret_access_key": "sk-secret"}},
    {"user_base_url": "https://me:sk-secret@host/v1"},
    {"user_base_url": "https://host/v1?key=sk-secret"},
    {"user_base_url": "https://host/v1?api-version=1&api-key=sk-secret"},
    # by what an argument, a header or a parameter is called, however it is spelled
    {"user_args": {"hf_token": "sk-secret"}},
    {"user_args": {"privateKey": "sk-secret"}},
    {"user_args": {"vertex_credentials": '{"a": "sk-secret"}'}},
    {"user_args": {"authorization": {"value": ["sk-secret"]}}},
    {"user_args": {"extra_headers": {"Ocp-Apim-Subscription-Key": "sk-secret"}}},
    {"user_base_url": "https://host/v1?sig=sk-secret"},
    {"user_base_url": "https://host/v1#sk-secret"},
    {"user_base_url": "me:sk-secret@host/v1"},
    # by what a value looks like, whatever it is called
    {"user_args": {"extra_headers": {"X-Gateway": "Bearer sk-secret"}}},
    {"user_args": {"extra_headers": {"X-Gateway": "sk-secret-0123456789abcdef"}}},
    {"user_args": {"extra_body": {"who": "sk0secret0123456789abcdefghijk"}}},
    {"user_args": {"who": "-----BEGIN PRIVATE KEY----- sk-secret"}},
    {"user_base_url": "https://host/sk-secret-0123456789abcdef/v1"},
    {"user_model": "openai/x?api_key=sk-secret"},
    {"user_model": "openai/sk-secret-0123456789abcdef"},
]


@pytest.mark.parametrize("settings", KEYS)
def test_a_key_among_a_models_settings_is_refused_and_not_repeated(settings: dict[str, Any]) -> None:
    """A simulator's by the user_* keys, one of the pool; both are uploaded and kept with the results."""
    inside = {key.removeprefix("user_"): value for key, value in settings.items()}
    pool = {"user_simulators": [{"name": "one", "model": "openai/x", **inside}]}
    for given, variable in (settings, "user_api_key_var"), (pool, "api_key_var"):
        with pytest.raises(ConfigError, match=f"name the variable that holds .* with {variable}") as caught:
            resolve(given)
        assert "sk-secret" not in str(caught.value)


def test_a_key_in_any_other_setting_is_refused_and_not_repeated() -> None:
    for setting in ({"env_kwargs": {"a": ["sk-secret-0123456789abcdef"]}}, {"user_path": "sk-secret-0123456789abcdef"}):
        with pytest.raises(ConfigError, match="looks like a key") as caught:
            resolve(setting)
        assert "sk-secret" not in str(caught.value)


def test_what_is_no_key_is_left_alone() -> None:
    body = {"stop_token_ids": [1], "key": 1, "prompt_cache_key": "tau2", "truncate_prompt_tokens": 5}
    args = {"max_tokens": 9, "extra_headers": {"X-Title": "run 7", "HTTP-Referer": "https://a.b/c"}, "extra_body": body}
    for model in ("openai/meta-llama/Llama-3.3-70B-Instruct-FP8-dynamic", "Qwen/Qwen3-235B-A22B-Instruct-2507"):
        assert resolve({"user_model": model}).user_model == model
    for url in (
        "https://api.runpod.ai/v2/abcdef12345678/openai/v1",
        "https://gateway.ai.cloudflare.com/v1/" + "0a" * 16,
    ):
        assert resolve({"user_base_url": url}).user_base_url == url
    config = resolve({"user_args": args, "user_base_url": "http://host:1/v1?api-version=1"})
    assert (config.user_args, config.user_base_url) == (args, "http://host:1/v1?api-version=1")


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "my_key", "KEY", "_K1", "AZURE_OPENAI_API_KEY_FOR_THE_USER_SIMULATOR"]
)
def test_a_name_is_a_name(name: str) -> None:
    assert resolve({"user_api_key_var": name}).user_api_key_var == name


def test_variables_of_others_are_left_alone() -> None:
    others = {
        "TAU2_DATA_DIR": "/data",
        "TAU2_LOG_LEVEL": "x",
        "TAU2_WANDB_GROUP": "g",
        "TAU2_X": "1",
        "TAU2_SLIME_GC": "keep",
        "TAU2_SLIME_FULL": "1",
        "DOMAIN": "mock",
        "tau2_domain": "mock",
        "MYTAU2_DOMAIN": "mock",
    }
    assert resolve(environ=others) == Tau2Config()
    assert resolve(environ={"TAU2_SLIME_GC": "rare"}) == Tau2Config()


def test_other_columns_of_a_data_row_are_left_alone() -> None:
    row = {"task_id": "t", "index": 3, "ground_truth": "x", "label": None, "source": "tau2", "difficulty": 2}
    assert resolve(metadata=row) == Tau2Config()


def test_a_configuration_is_never_changed() -> None:
    with pytest.raises(ValueError):
        resolve().domain = "mock"  # type: ignore[misc]


# ---- rotation --------------------------------------------------------------------------------------------------------


def test_eight_samples_share_three_models_evenly() -> None:
    config = resolve(environ={"TAU2_USER_MODEL_ROTATION": "a,b,c", "TAU2_USER_MODEL": "main"})
    played = Counter(config.user_model_for(index, evaluation=False) for index in range(8))
    assert sorted(played.values()) == [2, 3, 3]
    assert config.user_model_for(4, evaluation=False) == config.user_model_for(7, evaluation=False)


def test_evaluation_never_rotates() -> None:
    config = resolve(environ={"TAU2_USER_MODEL_ROTATION": "a,b,c", "TAU2_USER_MODEL": "main"})
    assert {config.user_model_for(index, evaluation=True) for index in range(8)} == {"main"}


def test_a_data_row_may_bring_its_own_rotation() -> None:
    config = resolve({"user_model_rotation": ["a", "b"]}, {"user_model_rotation": ["x"]})
    assert config.user_model_for(1, evaluation=False) == "x"
    assert (
        resolve({"user_model_rotation": ["a"]}, {"user_model_rotation": []}).user_model_for(0, evaluation=False)
        == Tau2Config().user_model
    )


def test_without_an_index_rotation_begins_at_the_first_model() -> None:
    assert resolve({"user_model_rotation": "a,b"}).user_model_for(None, evaluation=False) == "a"


def test_the_same_sources_are_read_once_and_a_change_is_seen() -> None:
    mapping = {"max_turns": 7, "user_args": {"temperature": 0.5}}
    row = {"domain": "mock", "note": "anything"}
    first = Tau2Config.resolve(mapping, row, {"TAU2_MAX_STEPS": "9"})
    assert Tau2Config.resolve(dict(mapping), dict(row), {"TAU2_MAX_STEPS": "9", "HOME": "/"}) is first
    mapping["user_args"]["temperature"] = 0.7  # type: ignore[index]
    assert Tau2Config.resolve(mapping, row, {"TAU2_MAX_STEPS": "9"}).user_args == {"temperature": 0.7}
    assert Tau2Config.resolve(mapping, row, {"TAU2_MAX_STEPS": "8"}).max_steps == 8
    assert Tau2Config.resolve(mapping, {"domain": "retail"}, {}).domain == "retail"
    with pytest.raises(ConfigError, match="max_turn"):
        Tau2Config.resolve(mapping, {**row, "max_turn": 3}, {"TAU2_MAX_STEPS": "8"})
