"""The evaluation file through the stand-alone door: the shipped one works; a wrong one says which line, what is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.data.files import write_files
from tau2_slime.data.plan import plan_files
from tau2_slime.data.request import DataRequest
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import default_plan, load_plan
from tau2_slime.evaluation.plan.keys import DATASET_KEYS, KEYS, checked
from tau2_slime.evaluation.plan.yaml_source import YamlSource, read_yaml
from tau2_slime.slime_adapter import GENERATE

SOURCE = YamlSource(Path("x.yaml"), None, "")
SHIPPED = Path(__file__).parents[2] / "eval_config.yaml"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_files(plan_files(DataRequest(domains=("retail", "airline", "telecom"), splits=("test",))), folder)
    return folder


def test_the_shipped_file_is_three_domains_by_three_users(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    plan = load_plan(SHIPPED)
    assert plan.episodes == 3 * 3 * 10 * 4
    assert {(d.config.domain, d.config.task_split) for d in plan.datasets} == {
        (domain, "test") for domain in ("retail", "airline", "telecom")
    }
    assert len({d.config.user_model for d in plan.datasets}) == 3
    for dataset in plan.datasets:
        assert (dataset.attempts, len(dataset.items)) == (4, 10)
        assert (dataset.sampling["temperature"], dataset.sampling["top_p"]) == (1.0, 0.95)
        assert dataset.sampling["max_new_tokens"] == 8192


def test_overrides_win_and_attempts_can_be_changed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    plan = load_plan(SHIPPED, overrides={"user_model": "scripted"}, attempts=1)
    assert {d.config.user_model for d in plan.datasets} == {"scripted"}
    assert plan.episodes == 90


SMALL = """
eval:
  defaults:
    n_samples_per_eval_prompt: 2
    temperature: 0.7
  datasets:
    - name: a
      path: {path}
      input_key: prompt
      metadata_key: metadata
      custom_generate_function_path: tau2_slime.generate_with_tau2.generate
      metadata_overrides:
        user_model: scripted
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_files(plan_files(DataRequest(domains=("mock",), splits=("base",))), folder)
    return next(folder.glob("*.jsonl"))


def small(tmp_path: Path, rows: Path, old: str = "", new: str = "") -> Path:
    text = SMALL.format(path=rows)
    assert old in text
    path = tmp_path / "eval.yaml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("temperature: 0.7", "temperature: -1", 5, ["eval.defaults.temperature", "a number >= 0"]),
        ("temperature: 0.7", "temperature: true", 5, ["eval.defaults.temperature", "a number >= 0"]),
        ("temperature: 0.7", "temprature: 1", 5, ["temprature", "did you mean 'temperature'", "allowed:", "top_k"]),
        ("temperature: 0.7", "top_p: 1.5", 5, ["eval.defaults.top_p", "<= 1"]),
        ("temperature: 0.7", "top_k: 0", 5, ["eval.defaults.top_k", "-1 or a whole number >= 1"]),
        ("prompt: 2", "prompt: four", 4, ["n_samples_per_eval_prompt", "'four'", "a whole number >= 1"]),
        ("user_model: scripted", "user_modle: x", 13, ["metadata_overrides.user_modle", "did you mean 'user_model'"]),
        ("user_model: scripted", "domain: mok", 13, ["metadata_overrides.domain", "'mok'", "mock", "retail"]),
        ("user_model: scripted", "task_split: tst", 13, ["metadata_overrides.task_split", "'tst'", "it has: base"]),
        ("user_model: scripted", "max_turns: 0", 13, ["metadata_overrides.max_turns", "greater than or equal to 1"]),
        ("tau2_slime.generate_with_tau2.generate", "my.generate", 11, ["custom_generate_function_path", GENERATE]),
        (".jsonl", ".jsonl@[0-3]", 8, ["datasets[0].path", "@[start:stop]"]),
        (".jsonl", ".jsonl@[-:]", 8, ["datasets[0].path", "@[start:stop]"]),
        (".jsonl", ".jsonl@[50:]", 8, ["datasets[0].path", "holds no rows"]),
        (".jsonl", ".json", 8, ["datasets[0].path", "is missing", "prepare_tau2_data.py"]),
        ("path: /", "path: ${oc.env:NOWHERE}/", 8, ["datasets[0].path", "'${oc.env:NOWHERE}/", "NOWHERE is not set"]),
        ("path: /", "path: ${oc.crate:x}/", 8, ["datasets[0].path", "${oc.crate:x}", "Unsupported interpolation"]),
        ("0.7", "${eval.nothing}", 5, ["eval.defaults.temperature", "'${eval.nothing}'", "'eval.nothing' not found"]),
        ("0.7", "${eval.defaults.temperature}", 5, ["eval.defaults.temperature", "Recursive interpolation"]),
        ("0.7", "0.7\n    temperature: 1", 6, ["duplicate key temperature", "a mapping, line 4"]),
        ("- name: a\n      path", "- path", 7, ["datasets[0]", "no 'name'"]),
        ("input_key: prompt", "label_key: answer", 9, ["datasets[0].label_key", "line 1", "no key 'answer'"]),
        ("  defaults:", "  default:", 3, ["eval.default", "did you mean 'defaults'"]),
        ("metadata_overrides:\n        user_model: scripted", "metadata_overrides: x", 12, ["a mapping"]),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, rows: Path, old: str, new: str, line: int, said: list[str]
) -> None:
    path = small(tmp_path, rows, old, new)
    with pytest.raises(ConfigError) as error:
        load_plan(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    for words in said:
        assert words in str(error.value)


@pytest.mark.parametrize("text", ["eval:\n  datasets: []\n", "", "- 1\n", "eval: 3\n", "a: [1\n", "datasets: {}\n"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_plan(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_plan(tmp_path / "none.yaml")


def test_datasets_may_be_a_mapping_and_stand_at_the_root(tmp_path: Path, rows: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        f"defaults: {{n_samples_per_eval_prompt: 3, input_key: prompt}}\n"
        f"datasets:\n  first: {{path: '{rows}@[0:2]'}}\n  second: {{path: '{rows}@[-3:]', temperature: 0.5}}\n"
    )
    plan = load_plan(path)
    assert [(d.name, len(d.items), d.attempts) for d in plan.datasets] == [("first", 2, 3), ("second", 3, 3)]
    assert [d.sampling["temperature"] for d in plan.datasets] == [1.0, 0.5]


def test_two_rows_of_one_task_are_two_items(tmp_path: Path, rows: Path) -> None:
    twice = tmp_path / "twice.jsonl"
    first = rows.read_text().splitlines()[0]
    twice.write_text(f"{first}\n{first}\n")
    names = [item.name for item in load_plan(small(tmp_path, twice)).datasets[0].items]
    assert len(set(names)) == 2


def test_a_line_that_is_not_json_is_refused_where_slime_would_shift_the_slice(tmp_path: Path, rows: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(rows.read_text().replace("\n", "\n{half\n", 1))
    with pytest.raises(ConfigError, match=r"broken\.jsonl, line 2 is not JSON"):
        load_plan(small(tmp_path, broken))


VALUES: list[tuple[str, dict[str, str], Any]] = [
    ("${oc.env:A}", {"A": "x"}, "x"),
    ("pre-${oc.env:A}-post", {"A": "x"}, "pre-x-post"),
    ("${oc.env:A,5}", {}, "5"),
    ("${oc.env:A,null}", {}, None),
    ("${oc.env:A,a b}", {}, "a b"),
    ("${other}", {}, 0.25),
    ("${nested.list[1]}", {}, "two"),
    ("${.sibling}", {}, 7),
    ("${oc.env:${which}}", {"B": "found"}, "found"),
]


@pytest.mark.parametrize(("text", "environ", "expected"), VALUES)
def test_interpolation(
    tmp_path: Path, text: str, environ: dict[str, str], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "x.yaml"
    path.write_text(f"value: '{text}'\nsibling: 7\nother: 0.25\nwhich: B\nnested: {{list: [one, two]}}\n")
    data = read_yaml(path).data
    assert isinstance(data, dict) and data["value"] == expected


ACCEPTED: list[tuple[str, list[object]]] = [
    ("temperature", [0, 0.0, 1e-6, 2, None]),
    ("top_p", [1e-6, 1, 0.5]),
    ("repetition_penalty", [0.1, 2]),
    ("top_k", [-1, 1, 50]),
    ("n_samples_per_eval_prompt", [1, 8]),
    ("max_response_len", [1]),
    ("min_new_tokens", [0, 3]),
    ("stop", ["END", ["END", "STOP"], []]),
    ("stop_token_ids", [[1, 2], []]),
    ("no_stop_trim", [True, False]),
    ("input_key", ["prompt"]),
    ("metadata_overrides", [{}, {"user_model": "scripted"}, None]),
    ("rm_type", ["anything"]),
]
REFUSED: list[tuple[str, list[object]]] = [
    ("temperature", [-1e-6, True, "1", [1]]),
    ("top_p", [0, 1.01, True]),
    ("repetition_penalty", [0, 2.1]),
    ("top_k", [0, -2, -1.0, 1.5, True]),
    ("n_samples_per_eval_prompt", [0, 1.5, True, "4"]),
    ("min_new_tokens", [-1, True]),
    ("stop", [1, [1], ["END", 2]]),
    ("stop_token_ids", [["1"], 1]),
    ("no_stop_trim", ["yes", 1, 0]),
    ("skip_special_tokens", ["no"]),
    ("input_key", ["", 1]),
    ("path", ["", 1]),
    ("name", ["", [1]]),
    ("metadata_overrides", ["x", [1]]),
]


@pytest.mark.parametrize(("key", "values"), ACCEPTED)
def test_values_that_are_allowed(key: str, values: list[object]) -> None:
    for value in values:
        assert checked(SOURCE, "", {key: value}, KEYS) == {key: value}


@pytest.mark.parametrize(("key", "values"), REFUSED)
def test_values_that_are_not_allowed(key: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"{key}: .* is not allowed; give"):
            checked(SOURCE, "", {key: value}, {**DATASET_KEYS, **KEYS})


def written(tmp_path: Path, rows: Path, *datasets: dict[str, object], defaults: object = None) -> Path:
    entries = [{"name": f"d{i}", "path": str(rows), "input_key": "prompt", **d} for i, d in enumerate(datasets)]
    path = tmp_path / "eval.yaml"
    path.write_text(json.dumps({"eval": {"defaults": defaults, "datasets": entries}}))
    return path


def test_a_dataset_beats_the_defaults_and_its_sampling_is_sglangs(tmp_path: Path, rows: Path) -> None:
    own = {
        **{"temperature": 0.2, "top_k": 5, "max_response_len": 77, "min_new_tokens": 2, "repetition_penalty": 1.1},
        **{"stop": ["END"], "stop_token_ids": [3], "skip_special_tokens": True, "no_stop_trim": False},
    }
    path = written(tmp_path, rows, own, {}, defaults={"temperature": 0.7, "top_p": 0.9})
    first, second = load_plan(path).datasets
    assert first.sampling == {
        **{"temperature": 0.2, "top_p": 0.9, "top_k": 5, "max_new_tokens": 77, "min_new_tokens": 2},
        **{"repetition_penalty": 1.1, "stop": ["END"], "stop_token_ids": [3], "skip_special_tokens": True},
        **{"no_stop_trim": False, "spaces_between_special_tokens": False},
    }
    assert second.sampling == {
        **{"temperature": 0.7, "top_p": 0.9, "top_k": -1, "max_new_tokens": 8192},
        **{"stop": None, "stop_token_ids": None, "skip_special_tokens": False},
        **{"no_stop_trim": True, "spaces_between_special_tokens": False},
    }
    assert load_plan(path).source == str(path)


def test_empty_defaults_are_none_at_all(tmp_path: Path, rows: Path) -> None:
    assert load_plan(written(tmp_path, rows, {}, defaults=None)).datasets[0].sampling["temperature"] == 1.0


@pytest.mark.parametrize("key", ["name", "path"])
def test_a_dataset_without_a_value_for_its_name_or_path(tmp_path: Path, rows: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"datasets\[0\]: the dataset has no '{key}'"):
        load_plan(written(tmp_path, rows, {key: None}))


def test_the_mapping_of_a_job_counts_where_neither_row_nor_dataset_says_otherwise(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TAU2_MAX_TURNS", "TAU2_MAX_ERRORS"):
        monkeypatch.delenv(name, raising=False)
    path = written(tmp_path, rows, {"metadata_overrides": {"max_turns": 9}})
    config = load_plan(path, tau2={"max_turns": 5, "max_errors": 4}).datasets[0].config
    assert (config.max_turns, config.max_errors) == (9, 4)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"a: \xff\n", "is not UTF-8 text"),
        (b"a: \x01\n", "control characters|unacceptable character"),
        (b"3\n", "this YAML cannot be read"),
        (b"- 1\n", "line 1: the file: must be a mapping"),
    ],
)
def test_a_file_that_cannot_be_read_as_yaml(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"x\.yaml.*({named})"):
        load_plan(path)


def test_a_key_is_found_by_its_whole_name(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("\na: 1\nab: 2\nm:\n  x: 1\n  x.y:\n    z: 3\n  l:\n  - 4\n  - k: 5\n")
    source = read_yaml(path)
    for key, line in (("a", 2), ("ab", 3), ("m.x", 5), ("m.x.y", 6), ("m.x.y.z", 7), ("m.l[1].k", 10)):
        assert str(source.error(key, "bad")) == f"{path}, line {line}: {key}: bad"
    assert "line 2: abx" in str(source.error("abx", "bad"))
    assert "line 8: m.l[7]" in str(source.error("m.l[7]", "bad"))  # the nearest key above
    assert "line 6: m.x.y.none" in str(source.error("m.x.y.none", "bad"))


def test_without_a_file() -> None:
    plan = default_plan(["mock", "telecom"], ["scripted", "scripted-terse"], tasks=3, attempts=2)
    assert plan.episodes == 2 * 2 * 3 * 2
    assert [d.name for d in plan.datasets][:2] == ["mock-base-scripted", "mock-base-scripted-terse"]
    assert {d.config.task_split for d in plan.datasets} == {"base", "test"}
    with pytest.raises(ConfigError, match="mok"):
        default_plan(["mok"], ["scripted"])
    other = default_plan(["mock"], ["scripted"], tasks=1, overrides={"user_model": "x", "max_turns": 7}).datasets[0]
    assert (other.config.user_model, other.config.max_turns) == ("scripted", 7)
