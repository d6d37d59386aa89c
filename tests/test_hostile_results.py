"""Results of others, damaged in every way: a command shows what can be read, or says in one line what is wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tau2_slime.cli.commands import app
from tau2_slime.errors import ConfigError

Results = dict[str, Any]
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "IN", "--html", "OUT/page.html"),
    "check": ("inspect", "--check", "IN"),
    "diagnose": ("diagnose", "IN", "--jsonl", "OUT/d.jsonl", "--steer", "OUT/steer.json", "--html", "OUT/page.html"),
    "view": ("view", "IN", "--html", "OUT/page.html"),
    "openai": ("export", "IN", "--format", "openai", "--min-reward", "0", "-o", "OUT/data"),
    "hf": ("export", "IN", "--format", "hf", "--min-reward", "0", "-o", "OUT/data"),
    "dataframe": ("export", "IN", "--format", "dataframe", "--min-reward", "0", "-o", "OUT/data"),
    "curate": ("curate", "IN", "-o", "OUT/tasks"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """τ²'s results of four real episodes."""
    folder = tmp_path_factory.mktemp("eval") / "run"
    options = ("--domain", "mock", "--tasks", "2", "--attempts", "2", "--gold-rate", "0.5", "--user-model", "scripted")
    done = CliRunner().invoke(app, ["eval", *options, "--no-baselines", "--output-dir", str(folder)])
    assert done.exit_code == 0, done.output
    (file,) = (folder / "results").glob("*.json")
    return dict(json.loads(file.read_text()))


def each(results: Results, **fields: Any) -> Results:
    """``results`` with other values in every simulation."""
    out = copy.deepcopy(results)
    for number, run in enumerate(out["simulations"]):
        run.update({"id": f"s{number}"} | fields)
    return out


def one_file(made: Callable[[Results], object]) -> Callable[[Path, Results], Path]:
    def write(folder: Path, results: Results) -> Path:
        content = made(results)
        path = folder / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def in_a_folder(spoil: Callable[[Path], object]) -> Callable[[Path, Results], Path]:
    """τ² 1.0's form: results.json and a file for each simulation."""

    def write(folder: Path, results: Results) -> Path:
        (folder / "simulations").mkdir()
        index = []
        for number, run in enumerate(results["simulations"]):
            index.append({"id": str(number), "task_id": run["task_id"], "trial": run["trial"]})
            (folder / "simulations" / f"{number}.json").write_text(json.dumps(run))
        (folder / "results.json").write_text(json.dumps({**results, "simulations": [], "simulation_index": index}))
        spoil(folder)
        return folder

    return write


def _directory(folder: Path, results: Results) -> Path:
    (folder / "results.json").mkdir()
    return folder / "results.json"


def _reward(text: str) -> Callable[[Results], str]:
    return lambda results: json.dumps(each(results, reward_info={"reward": "HERE"})).replace('"HERE"', text)


def _voice(results: Results) -> Results:
    return each(results, messages=[], ticks=[{"tick": 0}, None, 7])


INPUTS: dict[str, Callable[[Path, Results], Path]] = {
    "truncated": one_file(lambda r: json.dumps(r)[:4000]),
    "no object": one_file(lambda r: [1, 2]),
    "zero episodes": one_file(lambda r: {**r, "simulations": []}),
    "no tasks": one_file(lambda r: {k: v for k, v in r.items() if k != "tasks"}),
    "no info": one_file(lambda r: {**r, "info": None, "tasks": None}),
    "slashes and lines": one_file(lambda r: each(r, task_id="../a/b\nc\t\x1b[2J")),
    "emoji and halves": one_file(lambda r: each(r, task_id="🦊\ud800", trial="\udfff")),
    "200 characters": one_file(lambda r: each(r, task_id="[task]" * 33, trial="9" * 200)),
    "an id that is a list": one_file(lambda r: each(r, task_id=["a"], trial={})),
    "NaN": one_file(_reward("NaN")),
    "1e400": one_file(_reward("1e400")),
    "a reward of text": one_file(_reward('"1"')),
    "numbers for all": one_file(lambda r: {**r, "simulations": [dict.fromkeys(r["simulations"][0], 5)]}),
    "texts for all": one_file(lambda r: {**r, "simulations": [dict.fromkeys(r["simulations"][0], "x")]}),
    "lists for all": one_file(lambda r: {**r, "simulations": [{key: [None] for key in r["simulations"][0]}]}),
    "duplicate keys": one_file(lambda r: json.dumps(r).replace('"task_id"', '"task_id": "other", "task_id"')),
    "twice": one_file(lambda r: {**r, "simulations": r["simulations"] * 2}),
    "a huge message": one_file(lambda r: each(r, messages=[{"role": "user", "content": "w " * 1_000_000}])),
    "deep": one_file(lambda r: json.dumps(r).replace("{", '{"z": ' + "[" * 5000 + "]" * 5000 + ", ", 1)),
    "a voice run": one_file(_voice),
    "tau-bench v1": one_file(lambda r: [{"task_id": 0, "trial": 0, "reward": 1.0, "info": {}, "traj": []}]),
    "a directory": _directory,
    "an empty folder": lambda folder, results: folder,
    "nothing": lambda folder, results: folder / "results.json",
    "a folder": in_a_folder(lambda folder: None),
    "a folder, one cut": in_a_folder(lambda folder: (folder / "simulations" / "0.json").write_text('{"a')),
    "a folder, one gone": in_a_folder(lambda folder: (folder / "simulations" / "0.json").unlink()),
    "a folder, one list": in_a_folder(lambda folder: (folder / "simulations" / "0.json").write_text("[]")),
    "a folder, no index": in_a_folder(lambda folder: (folder / "results.json").write_text("{")),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_damage_is_a_traceback(command: str, kind: str, results: Results, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = INPUTS[kind](tmp_path / "in", results)
    before = {file: file.read_bytes() for file in (tmp_path / "in").rglob("*.json") if file.is_file()}
    arguments = [word.replace("IN", str(path)).replace("OUT", str(tmp_path / "out")) for word in COMMANDS[command]]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, ConfigError):
        assert len(str(done.exception)) < 1500
        assert re.search(
            rf"{re.escape(str(tmp_path))}|of [1-9]\d* (?:episodes|tasks)|of [1-9]\d*: ", str(done.exception)
        )
    else:
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert before == {file: file.read_bytes() for file in (tmp_path / "in").rglob("*.json") if file.is_file()}


@pytest.mark.parametrize("command", ["inspect", "diagnose", "view"])
def test_what_can_be_read_is_shown_beside_what_cannot(command: str, results: Results, tmp_path: Path) -> None:
    """One of four simulations is damaged: it is named once, and as what it is."""
    (tmp_path / "in").mkdir()
    folder = INPUTS["a folder, one cut"](tmp_path / "in", results)
    page = tmp_path / "page.html"
    arguments = [command, str(folder), *(["--jsonl", str(tmp_path / "d.jsonl")] if command == "diagnose" else [])]
    if command == "view":
        arguments += ["--html", str(page)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = done.output + done.stderr
    assert "3 episodes" in said
    if command != "view":  # the page says it
        assert "0.json" in said
        assert "missing" not in said


def test_a_file_of_v1_is_told_as_one(results: Results, tmp_path: Path) -> None:
    path = INPUTS["tau-bench v1"](tmp_path, results)
    done = CliRunner().invoke(app, ["view", str(path), "--html", str(tmp_path / "page.html")])
    assert "convert-v1" in str(done.exception)
