"""One reader of prompt rows: lines, slices and positions as slime has them, and messages that say where and what."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tau2_slime.data.rows import Row, metadata_of, read_jsonl, read_rows, row_task
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import first_position
from tau2_slime.world import scoring

MOCK = {"domain": "mock", "task_split": "base"}


def row(content: dict[str, Any]) -> Row:
    return Row(content, "d.jsonl, line 1")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\u2029\x85\x0b\x0c\x1c\x1e\t \n\r"))


@given(
    values=st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none()), max_size=5),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n \n"]),
)
def test_what_json_writes_as_lines_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], ascii_only: bool, end: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "d.jsonl"
    path.write_bytes("".join(json.dumps(v, ensure_ascii=ascii_only) + end for v in values).encode())
    assert [found.content for found in read_jsonl(path)] == values


@given(bounds=st.tuples(*[st.none() | st.integers(-6, 6)] * 2))
def test_a_slice_is_pythons(tmp_path_factory: pytest.TempPathFactory, bounds: tuple[int | None, int | None]) -> None:
    path = tmp_path_factory.mktemp("slices") / "d.jsonl"
    path.write_text("".join(f'{{"index": {i}}}\n' for i in range(4)))
    start, stop = ("" if bound is None else str(bound) for bound in bounds)
    expected = list(range(4))[slice(*bounds)]
    try:
        found = [found.content["index"] for found in read_rows(f"{path}@[{start}:{stop}]")]
    except ConfigError as error:
        assert not expected and "holds no rows (4 in the file)" in str(error)
    else:
        assert found == expected


def test_a_row_says_on_which_line_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('\n{"a": "one\u2028two"}\r\n\r\n{"a": 2}', encoding="utf-8")
    assert [(found.where, found.content["a"]) for found in read_rows(str(path))] == [
        (f"{path}, line 2", "one\u2028two"),
        (f"{path}, line 4", 2),
    ]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"a": 1}\n{half\n', ["line 2 is not JSON", "slime would skip this line"]),
        (b"\xef\xbb\xbf{}\n", ["line 1 is not JSON", "BOM"]),
        (b'{"a": 1}\n[1]\n', ["line 2 is not a JSON object", "list"]),
        (b"[" * 100_000, ["line 1 is not JSON", "recursion"]),
        (b'{"a": "\xff"}\n', ["is not UTF-8"]),
        (b"\n \n", ["holds no rows (0 in the file)"]),
    ],
)
def test_a_file_that_slime_reads_otherwise_is_refused(tmp_path: Path, content: bytes, named: list[str]) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_rows(str(path))
    assert all(words in str(refused.value) for words in [str(path), *named]), refused.value


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("d.jsonl@[0-3]", ["'{}/d.jsonl@[0-3]'", "@[start:stop]"]),
        ("d.jsonl@[-:]", ["@[start:stop]"]),
        ("d.jsonl@[:-]", ["@[start:stop]"]),
        ("none.jsonl", ["{}/none.jsonl is missing", "--output_dir {}"]),
        ("none.jsonl@[0:1]", ["{}/none.jsonl is missing"]),
        ("d.json", ["{}/d.json", ".jsonl or .parquet"]),
        ("jsonl", ["{}/jsonl", ".jsonl or .parquet"]),
        ("parquet", ["{}/parquet", ".jsonl or .parquet"]),
        ("folder.jsonl", ["{}/folder.jsonl is missing"]),
    ],
)
def test_a_path_that_names_no_rows_is_refused(tmp_path: Path, spec: str, named: list[str]) -> None:
    for name in ("d.jsonl", "d.json", "jsonl", "parquet"):
        (tmp_path / name).write_text('{"index": 0}\n')
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError) as refused:
        read_rows(f"{tmp_path}/{spec}")
    assert all(words.format(tmp_path) in str(refused.value) for words in named), refused.value


def test_brackets_in_a_folders_name_are_not_a_slice(tmp_path: Path) -> None:
    folder = tmp_path / "a@[1]"
    folder.mkdir()
    (folder / "d.jsonl").write_text('{"index": 0}\n')
    assert len(read_rows(f"{folder}/d.jsonl")) == 1


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("{}\n")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"d\.jsonl: Permission denied"):
        read_rows(str(path))


# --- positions ---


@given(st.integers(0, 10**12))
def test_a_position_is_one_however_it_is_written(position: int) -> None:
    for value in (position, str(position), f" {position}\n", np.int64(position), Fraction(position)):
        assert first_position(value) == position
        assert first_position(None, "x", value, position + 1) == position
    if position < 2**53:
        assert first_position(float(position)) == first_position(np.float64(position)) == position


@given(
    st.none()
    | st.booleans()
    | st.floats().filter(lambda f: not f.is_integer())
    | st.text().filter(lambda t: not t.strip().isdecimal())
    | st.lists(st.integers())
)
def test_what_is_not_a_position_is_none(value: Any) -> None:
    assert first_position(value) is None


def test_odd_numbers_are_no_crash() -> None:
    assert first_position("\u00b2") is None  # a digit for str.isdigit, but not for int
    assert first_position("9" * 5000) is None
    assert first_position(10**400) == 10**400
    assert first_position(np.True_) is None
    assert first_position("-1") is None
    assert first_position(-1) == -1  # outside of every split, and said so where it is looked up


# --- what a row plays ---


@pytest.mark.parametrize("empty", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": ""}])
def test_no_metadata_is_empty_metadata(empty: dict[str, Any]) -> None:
    assert metadata_of(row(empty)) == {}


@pytest.mark.parametrize("value", ['{"domain": "mock"}', [1], 3, True])
def test_metadata_that_slime_would_not_understand_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"line 1: 'extra' is of type \w+, not a metadata object"):
        metadata_of(row({"extra": value}), "extra")


def test_metadata_is_a_copy() -> None:
    given_row = row({"metadata": dict(MOCK)})
    metadata_of(given_row)["domain"] = "retail"
    assert given_row.content["metadata"] == MOCK


def played(content: dict[str, Any], **how: Any) -> str:
    return str(row_task(row(content), **how).task.id)


def test_the_task_is_the_one_that_generate_would_choose() -> None:
    assert played({"metadata": {**MOCK, "task_id": "update_task_1"}}) == "update_task_1"
    assert played({"metadata": {**MOCK, "index": 3}, "prompt": "0"}, input_key="prompt") == "update_task_1"
    assert played({"metadata": MOCK, "prompt": "3", "index": 0}, input_key="prompt") == "update_task_1"
    found = row_task(row({"metadata": MOCK, "index": 3}))
    assert found.metadata == {**MOCK, "task_id": "update_task_1"}
    assert (found.config.domain, found.config.task_split) == ("mock", "base")


@pytest.mark.parametrize("key", ["index", "prompt", "input"])
def test_without_an_input_key_the_usual_ones_are_looked_at(key: str) -> None:
    assert played({"metadata": MOCK, key: 3}) == "update_task_1"
    assert played({"metadata": MOCK, "input": 0, "prompt": "0", "index": 3}) == "update_task_1"


def test_a_position_and_an_id_must_agree() -> None:
    both = {"metadata": {**MOCK, "task_id": "update_task_1"}, "index": 0}
    with pytest.raises(ConfigError, match=r"line 1: .*disagree"):
        row_task(row(both))
    with pytest.raises(ConfigError, match="disagree"):
        row_task(row(both), input_key="index", overrides={"max_turns": 5})
    # Nobody reads this index, and an override may have moved the row to a split where it means another task.
    assert played(both, input_key="prompt") == "update_task_1"
    assert played(both, overrides={"task_split": "base"}) == "update_task_1"
    assert played({"metadata": {}, "index": 3}, overrides=MOCK) == "update_task_1"


def test_overrides_beat_the_row_which_beats_the_jobs_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAU2_DOMAIN", "TAU2_TASK_SPLIT", "TAU2_MAX_TURNS"):
        monkeypatch.delenv(name, raising=False)
    content = {"metadata": {"task_id": "update_task_1", "max_turns": 7}}
    job = {**MOCK, "max_turns": 5, "max_errors": 4}
    config = row_task(row(content), tau2=job).config
    assert (config.domain, config.max_turns, config.max_errors) == ("mock", 7, 4)
    assert row_task(row(content), tau2=job, overrides={"max_turns": 9}).config.max_turns == 9


def test_a_row_without_a_task_or_with_a_wrong_setting_is_named() -> None:
    for content, named in (
        ({"metadata": MOCK}, "names no task"),
        ({"metadata": {**MOCK, "task_id": "x"}}, "no task 'x' in mock/base"),
        ({"metadata": {**MOCK, "max_turn": 1}, "index": 0}, "max_turn"),
    ):
        with pytest.raises(ConfigError, match=f"^d.jsonl, line 1: .*{named}"):
            row_task(row(content))


def test_a_task_that_only_a_judge_can_grade_needs_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "needs_judge", lambda task: True)
    with pytest.raises(ConfigError, match=r"line 1: .*allow_llm_judge"):
        played({"metadata": MOCK, "index": 0})
    assert played({"metadata": {**MOCK, "allow_llm_judge": True}, "index": 0}) == "create_task_1"


# --- parquet ---


def test_without_pyarrow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"d\.parquet: .*pip install pyarrow"):
        read_rows(str(tmp_path / "d.parquet"))


def test_parquet_is_read_in_batches_and_rows_count_from_0(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"index": i} for i in range(3)]), path, row_group_size=2)
    found = read_rows(f"{path}@[1:]")
    assert [(r.content["index"], r.where) for r in found] == [(1, f"{path}, row 1"), (2, f"{path}, row 2")]


def test_a_parquet_rows_task_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    content = [
        {"index": 0.0, "metadata": {**MOCK, "task_id": "create_task_1"}},
        {"index": 3, "metadata": {**MOCK, "task_id": None}},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(content), path)
    assert [row_task(found, input_key="index").task.id for found in read_rows(str(path))] == [
        "create_task_1",
        "update_task_1",
    ]
    path.write_bytes(b"garbage")
    with pytest.raises(ConfigError, match=r"d\.parquet is not a parquet file"):
        read_rows(str(path))


@pytest.mark.parametrize(("metadata", "missing"), [({}, "domain and task_split"), ({"domain": "retail"}, "task_split")])
def test_the_defaults_choose_no_rows_task(metadata: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 1: nothing names the row's {missing}:"):
        played({"metadata": metadata, "index": 3})
    assert played({"metadata": {}, "index": 3}, tau2={"domain": "mock", "task_split": "base"}) == "update_task_1"
