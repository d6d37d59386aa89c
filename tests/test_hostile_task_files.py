"""Task files that are damaged, hostile or odd, through every command: one clear line, nothing lost, no traceback."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tau2_slime.cli.commands import app
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains

FILE = "m.jsonl"
HUGE = 50_000_000 if os.environ.get("TAU2_SLIME_FULL") else 2_000_000
"""Bytes of a row."""
ODD = ("a/b/../c", "two\nlines", "😀 #1", "-rf", " blank ", "x" * 300, "\x1b[31mred")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("TAU2_DOMAIN", "TAU2_TASK_SPLIT", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tau2_slime.local.terminal.require_terminal", lambda _: None)
    domains._files.clear()
    yield
    domains._files.clear()


def tasks(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    base = next(t for t in domains.tasks("mock", "base") if t.id == "create_task_1").model_dump(mode="json")
    return [{**base, "id": f"task_{number}", **change} for number, change in enumerate(changes)]


def lines(*changes: dict[str, Any]) -> bytes:
    return "".join(json.dumps(task) + "\n" for task in tasks(*changes)).encode()


def gold(name: str) -> dict[str, Any]:
    action = {"action_id": "x", "requestor": "assistant", "name": name, "arguments": {}}
    return {"evaluation_criteria": {"actions": [action], "reward_basis": ["DB"]}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"env_type": "assistant", "func_name": name, "arguments": arguments}


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "is missing"),
    "a folder": (lambda path: path.mkdir(), "is not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
    "empty": (lambda path: path.write_bytes(b""), "holds no task"),
    "cut gzip": (lambda path: path.write_bytes(gzip.compress(lines({}))[:-9]), "damaged or cut short"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
    "no JSON": (lambda path: path.write_bytes(lines({}) + b"{oops\n"), "line 2: it is not JSON"),
    "deep": (lambda path: path.write_bytes(lines({}) + b"[" * 99_999 + b"\n"), "line 2: .*nested too deeply"),
    "twice": (lambda path: path.write_bytes(lines({"id": "a"}, {"id": "a"})), r"line 2 \(task a\): a second task"),
    "a Python method": (lambda path: path.write_bytes(lines(gold("update_db"))), "'update_db' is not a tool"),
    "private": (
        lambda path: path.write_bytes(lines({"initial_state": {"initialization_actions": [call("__init__")]}})),
        "'__init__' is not a function",
    ),
    "outside": (lambda path: path.write_bytes(lines({"db_path": "../../etc/passwd"})), "leads out of the folder"),
    "huge": (
        lambda path: path.write_bytes(lines({}) + b'{"id": "' + b"x" * HUGE + b'"}\n'),
        "line 2 .*user_scenario: Field required",
    ),
}
SPLIT = f"file:{FILE}"
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("tasks", "list", "--domain", "mock", "--split", SPLIT),
    "show": ("tasks", "show", "task_0", "--domain", "mock", "--split", SPLIT),
    "rollout": ("rollout", "-d", "mock", "--split", SPLIT, "-o", "out"),
    "rollout without a domain": ("rollout", "--split", SPLIT, "-o", "out"),
    "eval": ("eval", "-d", "mock", "--split", SPLIT, "--user-model", "scripted", "-o", "out"),
    "eval --dry-run": ("eval", "-d", "mock", "--split", SPLIT, "--user-model", "scripted", "--dry-run", "-o", "out"),
    "data": ("data", "--domains", "mock", "--splits", SPLIT, "--output-dir", "out"),
    "play": ("play", "-d", "mock", "--split", SPLIT, "-o", "out"),
}  # fmt: skip
DOCTOR = ("doctor", "--domain", "mock", "--config", "c.yaml", "--no-user-calls")
VERIFY = ("synth", "verify", "--domain", "mock", "--tasks", FILE, "--report", "report.jsonl")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), standalone_mode=False)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_played_is_one_line_before_anything_happens(kind: str, command: str) -> None:
    make, says = REFUSED[kind]
    make(Path(FILE))
    result = run(*COMMANDS[command])
    if command == "data":  # it has a command line of its own, and has told already
        assert result.exception is None and 2 in (result.return_value, result.exit_code), result.output
        said = result.output.splitlines()[-1]
    else:
        assert isinstance(result.exception, ConfigError), (result.exception, result.output)
        said = str(result.exception)
    # Tasks of mock do not name their domain: without one, it is the first thing to say.
    without = "|.*give --domain" if command == "rollout without a domain" else ""
    assert re.search(f"{FILE}(?:.*{says}{without})", said), said
    assert "\n" not in said and len(said) < 1000 and not Path("out").exists()


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "missing"])
def test_check_says_it_for_every_row(kind: str) -> None:
    make, says = REFUSED[kind]
    make(Path(FILE))
    result = run("tasks", "check", FILE, "--domain", "mock")
    if isinstance(result.exception, ConfigError):
        said = str(result.exception)
        assert "\n" not in said
    else:
        assert result.exception is None, result.exception
        assert result.return_value == 1 or result.exit_code == 1
        (said,) = [line for line in result.stdout.splitlines() if line.startswith("bad")]
    assert len(said) < 500
    with pytest.raises(ConfigError, match=says.replace("line 2 .*", "line 2.*")):
        raise ConfigError(said)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_doctor_says_it_in_one_line(kind: str) -> None:
    make, says = REFUSED[kind]
    make(Path(FILE))
    Path("c.yaml").write_text(f"tau2: {{domain: mock, task_split: '{SPLIT}'}}")
    result = run(*DOCTOR)
    assert result.exception is None and 1 in (result.return_value, result.exit_code), result.output
    (said,) = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert re.search(f"{FILE}.*{says}", said) and len(said) < 1000, said


WHOLE = {"missing", "a folder", "a device", "empty", "cut gzip"}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_gates_refuse_the_file_or_its_row_in_one_line(kind: str) -> None:
    """Here a row that is not a task is judged like any other, and the report has a line for it."""
    make, says = REFUSED[kind]
    make(Path(FILE))
    result = run(*VERIFY)
    if kind in WHOLE:
        assert isinstance(result.exception, ConfigError), result.output
        assert re.search(f"{FILE}.*{says}", str(result.exception)) and "\n" not in str(result.exception)
        assert not Path("report.jsonl").exists()
        return
    assert result.exception is None and 1 in (result.return_value, result.exit_code), result.output
    rows = [json.loads(line) for line in Path("report.jsonl").read_text().splitlines()]
    assert rows[-1]["verdict"] == "reject" and rows[-1]["reasons"], rows
    assert len(Path("report.jsonl").read_text()) < 2000 * len(rows), "a report does not repeat a row"


def test_a_huge_task_goes_through_everything() -> None:
    """It is valid: somebody's scenario is that long. It is copied nowhere, and printed nowhere."""
    scenario = tasks({})[0]["user_scenario"]
    Path(FILE).write_bytes(lines({}, {"user_scenario": {**scenario, "persona": "x" * HUGE}}))
    Path("c.yaml").write_text(f"tau2: {{domain: mock, task_split: '{SPLIT}'}}")
    for words in (
        DOCTOR,
        COMMANDS["list"],
        ("tasks", "check", FILE, "--domain", "mock"),
        (*COMMANDS["data"][:-1], "data"),
        (*COMMANDS["rollout"], "--attempts", "1"),
    ):
        result = run(*words)
        assert result.exception is None, (words, result.exception)
        assert len(result.output) < 20_000, words
    rows = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
    assert {row["task_id"]: row["reward"] for row in rows} == {"task_0": 1.0, "task_1": 1.0}
    assert (
        Path("out/samples.jsonl").stat().st_size < 1_000_000 and Path("data/mock_m_tasks.jsonl").stat().st_size < 9_999
    )


def test_odd_ids_go_through_everything(tmp_path: Path) -> None:
    """Slashes, line breaks, emoji, what looks like an option, a colour: played, listed, kept, taken up, made pages of."""
    Path(FILE).write_bytes(lines(*({"id": name} for name in ODD)))
    count = len(ODD)
    assert run("tasks", "check", FILE, "--domain", "mock").exit_code == 0
    listed = run(*COMMANDS["list"], "--json")
    assert [json.loads(line)["task_id"] for line in listed.stdout.splitlines()] == list(ODD)
    plain = run(*COMMANDS["list"]).stdout
    assert "\x1b[31m" not in plain
    for name in ODD:
        assert run("tasks", "show", "--domain", "mock", "--split", SPLIT, "--", name).exit_code == 0, name
    for words in (
        (*COMMANDS["rollout"], "--groups", str(count), "--attempts", "2", "--mistakes", "0.5"),
        (*COMMANDS["eval"][:-1], "evaluated", "--tasks", str(count), "--attempts", "2", "--no-baselines"),
    ):
        for _ in range(2):  # the second time everything is there already
            result = run(*words)
            assert result.exception is None, result.output
            assert "\x1b[31mred" not in result.output
    rows = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
    assert sorted(row["task_id"] for row in rows) == sorted([*ODD, *ODD])
    assert run(*COMMANDS["data"][:-1], "data").exit_code == 0
    data = [json.loads(line) for line in Path("data/mock_m_tasks.jsonl").read_text().splitlines()]
    assert [row["metadata"]["task_id"] for row in data] == list(ODD)
    for run_folder in ("out", "evaluated"):
        for words in (
            ("inspect", run_folder),
            ("inspect", run_folder, "--html", "page.html"),
            ("diagnose", run_folder),
            ("view", run_folder, "--html", "view.html"),
            ("export", run_folder, "--format", "openai", "--output-dir", f"{run_folder}-openai"),
            ("curate", run_folder, "--output-dir", f"{run_folder}-curated", "--below", "2", "--min-attempts", "1"),
        ):
            result = run(*words)
            assert result.exception is None, (words, result.exception, result.output)
            assert "\x1b[31mred" not in result.output, words
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in (FILE, "runs")) == sorted(
        ["out", "evaluated", "data", "page.html", "view.html"]
        + [f"{one}-{what}" for one in ("out", "evaluated") for what in ("openai", "curated")]
    ), "no id has become a path"


RAISING = [call("update_task_status", task_id="no", status="x")]


@pytest.mark.parametrize("command", ["rollout", "eval", "play", "check", "list", "show"])
def test_a_beginning_that_fails_is_one_line_and_the_other_tasks_are_played(command: str) -> None:
    Path(FILE).write_bytes(lines({"initial_state": {"initialization_actions": RAISING}}, {}))
    words = ("tasks", "check", FILE, "--domain", "mock") if command == "check" else COMMANDS[command]
    result = run(*words)
    assert result.exception is None or isinstance(result.exception, ConfigError), result.exception
    said = result.output + str(result.exception or "")
    assert "Traceback" not in said
    if command in ("rollout", "eval", "check"):
        assert "task task_0 has no playable initial state" in " ".join(said.split()), said
        assert result.exception is not None or result.return_value in (1, 3) or result.exit_code in (1, 3)
    if command == "rollout":
        rows = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text().splitlines()]
        assert {row["task_id"]: row["reward"] for row in rows} == {"task_0": None, "task_1": 1.0}


@pytest.mark.parametrize("kind", ["missing", "no JSON", "twice", "huge"])
def test_what_was_played_from_a_file_that_was_spoiled_since_is_told(kind: str) -> None:
    Path(FILE).write_bytes(lines({}, {}))
    assert run(*COMMANDS["rollout"]).exception is None
    before = Path("out/trajectories.jsonl").read_bytes()
    Path(FILE).unlink()
    REFUSED[kind][0](Path(FILE))
    for words in (
        COMMANDS["rollout"],
        ("inspect", "out", "--html", "p.html"),
        ("inspect", "out", "--check"),
        ("inspect", "out"),
        ("diagnose", "out"),
        ("view", "out", "--html", "v.html"),
        ("export", "out", "--format", "openai", "--output-dir", "o"),
        ("export", "out", "--format", "examples", "--output-dir", "e"),
        ("curate", "out", "--output-dir", "c", "--below", "2", "--min-attempts", "1"),
    ):
        domains._files.clear()
        result = run(*words)
        assert result.exception is None or isinstance(result.exception, ConfigError), (words, result.exception)
        if result.exception is not None:
            assert "\n" not in str(result.exception) and len(str(result.exception)) < 1000, words
    assert Path("out/trajectories.jsonl").read_bytes() == before, "nothing is lost"
