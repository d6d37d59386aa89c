"""Evaluation files and prompt rows mean the same to `tau2-slime eval`, to `tau2-slime doctor` and to slime.

Each case is one evaluation file over the data files of `DATA`. The few lines of `SLIME` say what slime reads; they are
compared with slime's own code where SLIME_DIR names a checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.cli import preflight
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import load_plan
from tau2_slime.runtime.text import first_position
from tau2_slime.slime_adapter import GENERATE
from tau2_slime.world import domains, scoring
from tests import command_line
from tests.slime_checkout import run_in_slime

IDS = {0: "create_task_1", 1: "create_task_1_with_env_assertions", 3: "update_task_1"}  # of mock/base


def row(index: Any = 0, **changes: Any) -> dict[str, Any]:
    metadata = {"domain": "mock", "task_split": "base", "task_id": IDS[0]}
    return {"index": index, "prompt": [{"role": "user", "content": "x"}], "metadata": metadata, **changes}


def by_index(index: Any) -> dict[str, Any]:
    return {"index": index, "metadata": {"domain": "mock", "task_split": "base"}}


def lines(*rows: object, end: str = "\n") -> bytes:
    return b"".join((json.dumps(row, ensure_ascii=False) + end).encode() for row in rows)


DATA: dict[str, bytes] = {
    "good.jsonl": lines(*(by_index(i) | {"metadata": row()["metadata"] | {"task_id": IDS[i]}} for i in IDS)),
    "blank.jsonl": b"\n" + lines(row()) + b"  \t\n" + lines(by_index(1)) + b"\n\n",
    "index.jsonl": lines(by_index(3), by_index("1"), by_index(" 0 "), by_index(3.0)),
    "half.jsonl": lines(by_index(0.5)),
    "nothing.jsonl": lines({"metadata": {"domain": "mock", "task_split": "base"}}),
    "separators.jsonl": lines(row(prompt="one\u2028two\u2029three\x85four\x0cfive"), row()),
    "crlf.jsonl": lines(row(), by_index(1), end="\r\n"),
    "unfinished.jsonl": lines(row(), by_index(1)).rstrip(),
    "bad.jsonl": lines(row()) + b"{half\n" + lines(by_index(1)),
    "bom.jsonl": b"\xef\xbb\xbf" + lines(row(), by_index(1)),
    "latin.jsonl": lines(row()) + b'{"prompt": "\xe9"}\n',
    "list.jsonl": lines(row(), [1]),
    "empty.jsonl": b"\n",
    "text.jsonl": lines(row(metadata=json.dumps(row()["metadata"]))),
    "null.jsonl": lines({"index": 1, "metadata": None}, {"index": 3}),
    "id.jsonl": lines({"index": 9, "metadata": {"task_id": IDS[3]}}),
    "disagree.jsonl": lines(row(index=1)),
    "misspelt.jsonl": lines(row(metadata={**row()["metadata"], "task_id": "create_tsk_1"})),
    "named.jsonl": lines({"question": "1", "extra": {"domain": "mock", "task_split": "base"}, "answer": ""}),
    "garbage.parquet": b"garbage",
    "notes.txt": lines(row()),
}

MOCK = "metadata_overrides: {domain: mock, task_split: base}"
PLAYS, REFUSED, STRICTER = "plays", "refused", "slime goes on, with something else than the file says"


def dataset(path: str, *further: str, name: str = "a") -> str:
    inner = "".join(f"      {line}\n" for line in further)
    return f"    - name: {name}\n      path: {path}\n{inner}"


def config(*datasets: str, defaults: str = "{}") -> str:
    return f"eval:\n  defaults: {defaults}\n  datasets:\n{''.join(datasets)}"


CASES: dict[str, tuple[str, str]] = {
    # the rows of a file
    "good": (config(dataset("DIR/good.jsonl")), PLAYS),
    "blank lines": (config(dataset("DIR/blank.jsonl", "input_key: index")), PLAYS),
    "positions of every kind": (config(dataset("DIR/index.jsonl", "input_key: index")), PLAYS),
    "half a position": (config(dataset("DIR/half.jsonl", "input_key: index")), REFUSED),
    "no task": (config(dataset("DIR/nothing.jsonl", "input_key: index")), REFUSED),
    "separators inside a text": (config(dataset("DIR/separators.jsonl")), PLAYS),
    "CRLF": (config(dataset("DIR/crlf.jsonl", "input_key: index")), PLAYS),
    "no line end at the end": (config(dataset("DIR/unfinished.jsonl", "input_key: index")), PLAYS),
    "a line that is not JSON": (config(dataset("DIR/bad.jsonl", "input_key: index")), STRICTER),
    "a byte order mark": (config(dataset("DIR/bom.jsonl", "input_key: index")), STRICTER),
    "not UTF-8": (config(dataset("DIR/latin.jsonl")), REFUSED),
    "a row that is a list": (config(dataset("DIR/list.jsonl")), REFUSED),
    "no rows": (config(dataset("DIR/empty.jsonl")), STRICTER),
    "metadata as a text": (config(dataset("DIR/text.jsonl", "input_key: index", MOCK)), STRICTER),
    "no metadata": (config(dataset("DIR/null.jsonl", "input_key: index", MOCK)), PLAYS),
    "an index that another key is read for": (config(dataset("DIR/id.jsonl", "input_key: prompt", MOCK)), PLAYS),
    "an index that contradicts the id": (config(dataset("DIR/disagree.jsonl", "input_key: index")), REFUSED),
    "an id that there is not": (config(dataset("DIR/misspelt.jsonl")), REFUSED),
    "a parquet file that is none": (config(dataset("DIR/garbage.parquet")), REFUSED),
    "another format": (config(dataset("DIR/notes.txt")), REFUSED),
    "no file": (config(dataset("DIR/none.jsonl")), REFUSED),
    "other keys": (
        config(dataset("DIR/named.jsonl", "input_key: question", "metadata_key: extra", "label_key: answer")),
        PLAYS,
    ),
    "metadata that no row has": (config(dataset("DIR/good.jsonl", "metadata_key: extra")), REFUSED),
    "a label that a row lacks": (config(dataset("DIR/good.jsonl", "label_key: answer")), REFUSED),
    # slices
    "a slice": (config(dataset("DIR/good.jsonl@[1:]")), PLAYS),
    "a negative slice": (config(dataset("DIR/good.jsonl@[-2:-1]")), PLAYS),
    "a slice counts no blank lines": (config(dataset("DIR/blank.jsonl@[1:2]", "input_key: index")), PLAYS),
    "an empty slice": (config(dataset("DIR/good.jsonl@[5:]")), STRICTER),
    "a slice with a step": (config(dataset("DIR/good.jsonl@[0:3:2]")), REFUSED),
    "a slice of a minus sign": (config(dataset("DIR/good.jsonl@[-:]")), REFUSED),
    # the YAML
    "scientific notation": (config(dataset("DIR/good.jsonl", "temperature: 1e-6", "top_p: 1e0")), PLAYS),
    "a reference": (config(dataset("DIR/good.jsonl"), dataset("${eval.datasets[0].path}@[0:1]", name="b")), PLAYS),
    "a relative reference": (config(dataset("DIR/${.name}.jsonl", name="good")), PLAYS),
    "a variable": (config(dataset("${oc.env:ROWS}/good.jsonl")), PLAYS),
    "a variable with a default": (config(dataset("${oc.env:NO_SUCH_NAME,DIR}/good.jsonl")), PLAYS),
    "a variable within a variable": (config(dataset("${oc.env:NO_SUCH_NAME,${oc.env:ROWS}}/good.jsonl")), PLAYS),
    "a decoded variable": (
        config(dataset("DIR/good.jsonl"), defaults="{n_samples_per_eval_prompt: '${oc.decode:${oc.env:ATTEMPTS}}'}"),
        PLAYS,
    ),
    "a variable that is not set": (config(dataset("${oc.env:NO_SUCH_NAME}/good.jsonl")), REFUSED),
    "a reference to nothing": (config(dataset("${eval.rows}/good.jsonl")), REFUSED),
    "a reference to itself": (config(dataset("${eval.datasets[0].path}")), REFUSED),
    "an unknown resolver": (config(dataset("${oc.environ:ROWS}/good.jsonl")), REFUSED),
    "an interpolation that is not closed": (config(dataset("'${oc.env:ROWS/good.jsonl'")), REFUSED),
    "a key of one's own to refer to": ("rows: DIR\n" + config(dataset("${rows}/good.jsonl")), PLAYS),
    "the same beside the datasets": (
        config(dataset("${eval.rows}/good.jsonl")).replace("eval:\n", "eval:\n  rows: DIR\n"),
        PLAYS,
    ),
    "an anchor": (config("    - &one\n      name: a\n      path: DIR/good.jsonl\n    - {<<: *one, name: b}\n"), PLAYS),
    "a key twice": (config(dataset("DIR/good.jsonl", "top_k: 1", "top_k: 2")), REFUSED),
    "a mapping of datasets": ("datasets: {a: {path: DIR/good.jsonl}, b: {name: c, path: DIR/good.jsonl}}", PLAYS),
    "a number for a name": (config(dataset("DIR/good.jsonl", name="2026")), PLAYS),
    "no name": (config(dataset("DIR/good.jsonl").replace("name", "nane")), REFUSED),
    "no path": (config("    - name: a\n"), REFUSED),
    "no datasets": ("eval:\n  defaults: {}\n", REFUSED),
    "an empty file": ("", REFUSED),
    "a list": ("- 1\n", REFUSED),
    "a number": ("3\n", REFUSED),
    "not YAML": ("eval: [\n", REFUSED),
    "an unknown key of a dataset": (config(dataset("DIR/good.jsonl", "temprature: 1")), REFUSED),
    "an unknown default": (config(dataset("DIR/good.jsonl"), defaults="{temprature: 1}"), REFUSED),
    "defaults misspelt": (config(dataset("DIR/good.jsonl")).replace("defaults", "default"), STRICTER),
    "two datasets of one name": (config(dataset("DIR/good.jsonl"), dataset("DIR/good.jsonl")), STRICTER),
    "another generate function": (config(dataset("DIR/good.jsonl", "custom_generate_function_path: a.b")), STRICTER),
    "this generate function": (
        config(dataset("DIR/good.jsonl", f"custom_generate_function_path: {GENERATE}")),
        PLAYS,
    ),
    "overrides that are a list": (config(dataset("DIR/good.jsonl", "metadata_overrides: [1]")), REFUSED),
    "an override of the task": (
        config(dataset("DIR/good.jsonl@[0:1]", f"metadata_overrides: {{task_id: {IDS[3]}}}")),
        PLAYS,
    ),
    "an unknown setting": (config(dataset("DIR/good.jsonl", "metadata_overrides: {user_modle: x}")), REFUSED),
}

UP_TO_V0_3_1 = {"a negative slice": "an error", "an unknown default": "ignored"}
"""What these releases of slime make of a case, other than the later ones."""

Played = dict[str, tuple[int, list[str]]]
"""Dataset -> attempts, tasks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for name, content in DATA.items():
        (folder / name).write_bytes(content)
    for number, (text, _) in enumerate(CASES.values()):
        (folder / f"{number}.yaml").write_text(text.replace("DIR", str(folder)))
    return folder


@pytest.fixture(autouse=True)
def _environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAU2_") or name == "NO_SUCH_NAME"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROWS", str(folder))
    monkeypatch.setenv("ATTEMPTS", "3")


SLIME = '''
def read_as_slime(path):
    """What slime makes of an evaluation file: [name, attempts, [[prompt, metadata], ...]] for each dataset."""
    import itertools, json, os, re
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(content, dict)
    content = content.get("eval", content)
    defaults, datasets = dict(content.get("defaults") or {}), content.get("datasets")
    if isinstance(datasets, dict):
        datasets = [{"name": name, **(value or {})} for name, value in datasets.items()]
    assert datasets
    known = {"name", "path", "rm_type", "custom_rm_path", "input_key", "label_key", "tool_key", "metadata_key",
             "n_samples_per_eval_prompt", "temperature", "top_p", "top_k", "max_response_len", "stop", "stop_token_ids",
             "min_new_tokens", "custom_generate_function_path", "metadata_overrides"}
    answer = []
    for entry in datasets:
        entry = {**defaults, **entry}
        assert set(entry) <= known and {"name", "path"} <= set(entry)
        overrides = entry.get("metadata_overrides") or {}
        assert isinstance(overrides, dict)
        found = []
        for row in read_rows_as_slime(entry["path"]):
            metadata = row.get(entry.get("metadata_key", "metadata")) or {}
            assert not entry.get("label_key") or entry["label_key"] in row
            metadata = {**(metadata if isinstance(metadata, dict) else {}), **overrides}
            found.append([row.get(entry.get("input_key", "input")), metadata])
        answer.append([entry["name"], entry.get("n_samples_per_eval_prompt", 1), found])
    return answer

def read_rows_as_slime(spec):
    import json, os, re
    match = re.match(r"^(.*)@\\[(-?\\d*):(-?\\d*)\\]$", spec)
    path, bounds = (match[1], [int(b) if b else None for b in (match[2], match[3])]) if match else (spec, [None, None])
    assert path.endswith(".jsonl") and os.path.exists(path)
    rows = []
    for line in open(path, encoding="utf-8"):
        if line.strip():
            try:
                rows.append(json.loads(line.strip()))
            except json.JSONDecodeError:
                pass  # slime prints it
    return rows[slice(*bounds)]
'''

SLIMES_OWN = """
from types import SimpleNamespace
from omegaconf import OmegaConf
from slime.utils.data import Dataset
from slime.utils.eval_config import build_eval_dataset_configs, ensure_dataset_list

answer = {}
for path in given:
    args = SimpleNamespace(input_key="input", metadata_key="metadata", n_samples_per_eval_prompt=1)
    try:  # slime.utils.arguments._resolve_eval_datasets, whose module wants a GPU machine
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        if not isinstance(content, dict) or not isinstance(content.get("eval", content), dict):
            raise ValueError("not a mapping")
        content = content.get("eval", content)
        datasets = ensure_dataset_list(content.get("datasets"))
        if not datasets:
            raise ValueError("no datasets")
        answer[path] = [
            [
                d.name,
                d.n_samples_per_eval_prompt,
                [
                    [sample.prompt, d.inject_metadata(sample.metadata)]
                    for sample in Dataset(
                        d.path, None, None, None, prompt_key=d.input_key, label_key=d.label_key,
                        metadata_key=d.metadata_key, tool_key=d.tool_key,
                    ).samples
                ],
            ]
            for d in build_eval_dataset_configs(args, datasets, dict(content.get("defaults") or {}))
        ]
    except Exception as error:
        answer[path] = f"{type(error).__name__}: {error}"
"""


def as_generate_plays(answer: list[Any]) -> Played:
    """The tasks that `generate` would play for slime's samples.

    Raises:
        ConfigError: one of them would become a failed sample.
    """
    found: Played = {}
    for name, attempts, samples in answer:
        tasks = []
        for prompt, metadata in samples:
            settings = Tau2Config.resolve(None, metadata)
            settings.require_named_task()
            index = first_position(metadata.get("index"), prompt)
            task = domains.find_task(settings.domain, settings.task_split, task_id=metadata.get("task_id"), index=index)
            scoring.check_scorable(task, allow_judge=settings.allow_llm_judge)
            tasks.append(task.id)
        found[str(name)] = (attempts, tasks)
    return found


def by_eval(path: Path) -> Played | None:
    try:
        plan = load_plan(path)
    except ConfigError:
        return None
    return {d.name: (d.attempts, [item.task_id for item in d.items]) for d in plan.datasets}


def by_slime(path: Path) -> Played | None:
    names: dict[str, Any] = {}
    exec(SLIME, names)
    try:
        answer = names["read_as_slime"](str(path))
    except Exception:
        return None
    try:
        return as_generate_plays(answer)
    except ConfigError:
        return None


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(CASES))
def test_eval_doctor_and_slime_agree(folder: Path, number: int) -> None:
    path = folder / f"{number}.yaml"
    verdict = list(CASES.values())[number][1]
    ours, slimes = by_eval(path), by_slime(path)
    assert (ours is not None) == (verdict == PLAYS)
    assert (slimes is not None) == (verdict != REFUSED)
    if ours is not None:
        assert ours == slimes
        episodes = sum(attempts * len(tasks) for attempts, tasks in ours.values())
        told = preflight.eval_config(path, {}).text
        assert f"{len(ours)} datasets, {episodes} episodes" in told
        assert f"{sum(len(tasks) for _, tasks in ours.values())} mock/base" in told
    else:
        with pytest.raises(ConfigError, match=path.name):
            preflight.eval_config(path, {})


def test_separators_inside_a_text_and_scientific_notation_are_played(folder: Path, tmp_path: Path) -> None:
    """The whole command: what `str.splitlines` cuts in two and what YAML 1.1 takes for a text."""
    path, out = tmp_path / "eval.yaml", tmp_path / "out"
    user = "metadata_overrides: {user_model: scripted}"
    path.write_text(config(dataset("${oc.env:DATA_DIR}/separators.jsonl@[0:1]", "temperature: 1e-6", user)))
    done = command_line.run(
        *("eval", "--config", str(path), "--data-dir", str(folder), "--output-dir", str(out), "--no-baselines"),
        environ=os.environ,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "simulations.jsonl").read_text(encoding="utf-8"))
    assert (record["dataset"], record["task_id"], record["reward"]) == ("a", IDS[0], 1.0)
    assert json.loads((out / "manifest.json").read_text())["protocol"]["a"]["sampling"]["temperature"] == 1e-6


def test_slimes_own_code_agrees(folder: Path) -> None:
    paths = {str(folder / f"{number}.yaml"): name for number, name in enumerate(CASES)}
    differs = {}
    for path, answer in run_in_slime(SLIMES_OWN, list(paths)).items():
        try:
            theirs = None if isinstance(answer, str) else as_generate_plays(answer)
        except ConfigError:
            theirs = None
        if theirs != by_slime(Path(path)):
            differs[paths[path]] = answer
    assert set(differs) in (set(), set(UP_TO_V0_3_1)), differs
