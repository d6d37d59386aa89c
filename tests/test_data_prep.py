"""Prompt data: every row names one τ² task, train and test stay apart, and the manifest tells where it came from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.files import MANIFEST
from tau2_slime.data.plan import plan_files
from tau2_slime.data.request import DataRequest, parse_fractions
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import first_position
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tests.slime_checkout import run_in_slime

SCRIPT = Path(__file__).parents[1] / "data_prep" / "prepare_tau2_data.py"

Prepare = Callable[..., int]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAU2_DOMAIN", "TAU2_TASK_SPLIT", "TAU2_AGENT_TYPE", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """The script's main, writing to ``tmp_path / "out"`` unless told otherwise."""
    spec = importlib.util.spec_from_file_location("prepare_tau2_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *argv, out=tmp_path / "out": module.main(["--output_dir", str(out), *argv])


@pytest.fixture
def toy() -> Iterator[str]:
    """A domain that another package registers: judged tasks, and one task in both train and test."""
    registry = tau2_compat.load().registry
    judged = tau2_compat.load().RewardType.NL_ASSERTION
    tasks = []
    for number, task in enumerate(domains.tasks("mock", "base")[:6]):
        criteria = task.evaluation_criteria
        if number in (1, 4):
            criteria = criteria.model_copy(update={"reward_basis": [judged], "nl_assertions": ["It was polite."]})
        tasks.append(task.model_copy(update={"id": f"toy-{number}", "evaluation_criteria": criteria}))
    ids = [task.id for task in tasks]
    splits = {"train": ids[:4], "test": ids[3:], "clean": ids[:3]}
    registry.register_domain(registry.get_env_constructor("mock"), "toy")
    registry.register_tasks(lambda split=None: tasks, "toy", get_task_splits=lambda: splits)
    yield "toy"
    for table in (registry._domains, registry._tasks, registry._task_splits):
        table.pop("toy")
    for cached in (domains.splits, domains._read_tasks, domains._split_tasks):
        cached.cache_clear()
    domains.loaded.clear()


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids_of(*paths: Path) -> set[tuple[str, str]]:
    return {(r["metadata"]["domain"], r["metadata"]["task_id"]) for path in paths for r in rows_of(path)}


def task_of(prompt: Any, metadata: dict[str, Any]) -> Any:
    """The task that an episode would play for slime's sample of a row."""
    config = Tau2Config.resolve(None, metadata)
    return domains.find_task(
        config.domain,
        config.task_split,
        task_id=metadata.get("task_id"),
        index=first_position(metadata.get("index"), prompt),
    )


# --- rows ---


def test_every_row_of_every_domain_names_its_task_by_id_by_index_and_by_both(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare("--multi-domain-train", "retail", "telecom:full", "mock:base") == 0
    assert prepare("--domains", "airline", "--fractions", "train=0.7,dev=0.3", out=tmp_path / "out" / "parts") == 0
    files = sorted((tmp_path / "out").rglob("*.jsonl"))
    assert {r["metadata"]["domain"] for path in files for r in rows_of(path)} == set(domains.domains())
    for path in files:
        for row in rows_of(path):
            domain, split, task_id = (row["metadata"][key] for key in ("domain", "task_split", "task_id"))
            task = domains.find_task(domain, split, task_id=task_id, index=row["index"])
            assert task is domains.find_task(domain, split, task_id=task_id)
            assert task is domains.find_task(domain, split, index=row["index"])
        for row in rows_of(path)[:10]:  # the same through slime's sample
            metadata = row["metadata"]
            only_split = {"domain": metadata["domain"], "task_split": metadata["task_split"]}
            by_both = task_of(row["index"], metadata)  # --input-key index
            assert by_both.id == metadata["task_id"]
            assert task_of(row["prompt"], metadata) is by_both  # --input-key prompt
            assert task_of(row["index"], only_split) is by_both  # rows of the earlier format


def test_an_index_that_contradicts_the_task_id_is_an_error(prepare: Prepare, tmp_path: Path) -> None:
    prepare("--domains", "retail", "--splits", "train")
    first, second = rows_of(tmp_path / "out" / "retail_train_tasks.jsonl")[:2]
    with pytest.raises(ConfigError, match="disagree"):
        task_of(second["index"], first["metadata"])


def test_files_carry_the_names_that_users_know_and_the_order_of_tau2(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare("--domains", "retail", "telecom", "airline", "--multi-domain-train", "retail", "telecom") == 0
    names = {f"{d}_{s}_tasks.jsonl" for d in ("retail", "telecom", "airline") for s in ("train", "test")}
    assert {p.name for p in (tmp_path / "out").glob("*.jsonl")} == names | {"retail_telecom_train_tasks.jsonl"}
    loader = tau2_compat.load().registry.get_tasks_loader("airline")
    found = [r["metadata"]["task_id"] for r in rows_of(tmp_path / "out" / "airline_test_tasks.jsonl")]
    kept = {t.id for t in loader("test")} & set(found)  # upstream's judged tasks are left out
    assert found == [t.id for t in loader("test") if t.id in kept]


def test_the_multi_domain_file_is_the_train_files_shuffled(prepare: Prepare, tmp_path: Path) -> None:
    state = random.getstate()
    prepare("--domains", "retail", "telecom", "--multi-domain-train", "retail", "telecom")
    assert random.getstate() == state  # slime's own shuffles depend on the global generator
    out = tmp_path / "out"
    both = rows_of(out / "retail_telecom_train_tasks.jsonl")
    apart = rows_of(out / "retail_train_tasks.jsonl") + rows_of(out / "telecom_train_tasks.jsonl")
    assert both != apart
    assert sorted(map(json.dumps, both)) == sorted(map(json.dumps, apart))


def test_the_seed_decides(prepare: Prepare, tmp_path: Path) -> None:
    arguments = ["--domains", "retail", "--multi-domain-train", "retail", "airline", "--fractions", "train=.5,dev=.5"]
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        prepare(*arguments, "--seed", seed, out=tmp_path / out)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert MANIFEST in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("retail_airline_train_tasks.jsonl", "retail_dev_tasks.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


# --- limit and fractions ---


def test_limit_keeps_the_first_tasks(prepare: Prepare, tmp_path: Path) -> None:
    prepare("--domains", "airline", out=tmp_path / "all")
    prepare("--domains", "airline", "--limit", "7", out=tmp_path / "some")
    for name in ("airline_train_tasks.jsonl", "airline_test_tasks.jsonl"):
        assert rows_of(tmp_path / "some" / name) == rows_of(tmp_path / "all" / name)[:7]


@settings(max_examples=60)
@given(
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(),
    limit=st.none() | st.integers(40, 100),
)
def test_fractions_partition_the_split_exactly(weights: list[int], seed: int, limit: int | None) -> None:
    shares = {f"part{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    request = DataRequest(domains=("retail",), splits=("train",), seed=seed, limit=limit)
    (whole,) = plan_files(request).files
    fractions = parse_fractions(",".join(f"{name}={share!r}" for name, share in shares.items()))
    try:
        files = plan_files(DataRequest(**{**request.__dict__, "fractions": fractions})).files
    except ConfigError as error:
        assert min(shares.values()) * len(whole.rows) < 1, error  # only a part without a task is refused
        return
    assert sorted((r for f in files for r in f.rows), key=lambda r: r["index"]) == list(whole.rows)
    for file, share in zip(files, shares.values(), strict=True):
        assert abs(len(file.rows) - share * len(whole.rows)) < 1
        assert [r["index"] for r in file.rows] == sorted(r["index"] for r in file.rows)


def test_blanks_between_the_parts_are_not_in_their_names() -> None:
    assert parse_fractions("train=0.9, dev=0.1") == (("train", 0.9), ("dev", 0.1))


def test_train_dev_and_test_share_no_task(prepare: Prepare, tmp_path: Path) -> None:
    arguments = ["--domains", "retail", "telecom", "--multi-domain-train", "retail", "telecom"]
    assert prepare(*arguments, "--fractions", "train=0.9,dev=0.1") == 0
    out = tmp_path / "out"
    held_out = {kind: ids_of(*out.glob(f"*_{kind}_tasks.jsonl")) for kind in ("dev", "test")}
    train = ids_of(*out.glob("*_train_tasks.jsonl"))
    assert held_out["dev"] and held_out["test"] and train
    assert not train & held_out["dev"] and not train & held_out["test"] and not held_out["dev"] & held_out["test"]
    assert ids_of(out / "retail_telecom_train_tasks.jsonl") == ids_of(
        out / "retail_train_tasks.jsonl", out / "telecom_train_tasks.jsonl"
    )


def test_overlapping_splits_are_not_divided_in_one_run(prepare: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    # telecom's full holds its train: the dev part of one would be in the train part of the other.
    assert prepare("--domains", "telecom", "--splits", "train", "full", "--fractions", "train=0.9,dev=0.1") == 2
    assert "would share" in capsys.readouterr().err


def test_a_folder_never_holds_a_dev_file_and_a_train_file_with_its_tasks(
    prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("--domains", "airline", "--fractions", "train=0.9,dev=0.1") == 0
    assert prepare("--domains", "airline") == 2  # the same file name, now with the three dev tasks
    assert "airline_train_tasks.jsonl and airline_dev_tasks.jsonl would share 3 tasks" in capsys.readouterr().err
    assert prepare("--domains", "airline", "--fractions", "train=0.8,dev=0.2", "--force") == 0


# --- test tasks ---


@pytest.mark.parametrize("split", ["full", "base", "small"])
def test_a_larger_split_becomes_training_data_without_its_test_tasks(
    prepare: Prepare, tmp_path: Path, split: str
) -> None:
    members = domains.splits("telecom")
    assert prepare("--domains", "telecom", "--splits", split, "test") == 0
    overlap = set(members[split]) & set(members["test"])
    name = f"telecom_{split}_train_tasks.jsonl" if overlap else f"telecom_{split}_tasks.jsonl"
    found = {task_id for _, task_id in ids_of(tmp_path / "out" / name)}
    assert found == set(members[split]) - set(members["test"])


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--domains", "retail", "--splits", "base", "--exclude-split"], "40 of 114"),
        (["--domains", "airline", "--splits", "base", "--exclude-split", "train"], "20 of 20"),
        (["--domains", "retail", "--multi-domain-train", "retail", "airline:test"], "20 of 20"),
        (["--domains", "toy"], "1 of 3"),  # its own train split holds a test task; another is judged
    ],
)
def test_test_tasks_in_training_data_are_refused_and_nothing_is_written(
    prepare: Prepare, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], count: str
) -> None:
    judged = ["--allow-llm-judge"] if "toy" not in arguments else []
    assert prepare(*arguments, *judged) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert count in printed.err and "--allow-test-tasks" in printed.err
    assert not (tmp_path / "out").exists()


def test_told_so_it_writes_test_tasks(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare("--domains", "airline", "--splits", "base", "test", "--allow-test-tasks", "--allow-llm-judge") == 0
    found = {task_id for _, task_id in ids_of(tmp_path / "out" / "airline_base_tasks.jsonl")}
    assert found == set(domains.splits("airline")["base"])


# --- tasks that cannot be played or scored ---


def test_judged_tasks_stay_out_unless_asked_for(
    prepare: Prepare, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / "out" / "toy_clean_tasks.jsonl"
    assert prepare("--domains", toy, "--splits", "clean") == 0
    assert [r["metadata"]["task_id"] for r in rows_of(name)] == ["toy-0", "toy-2"]
    assert [r["index"] for r in rows_of(name)] == [0, 2]
    said = capsys.readouterr().out
    assert "1 tasks graded by an LLM judge" in said and "--allow-llm-judge" in said
    assert prepare("--domains", toy, "--splits", "clean", "--allow-llm-judge", "--force") == 0
    assert [r["metadata"]["task_id"] for r in rows_of(name)] == ["toy-0", "toy-1", "toy-2"]


@pytest.mark.parametrize("agent_type", ["solo", "gt"])
def test_only_tasks_that_the_agent_can_play_stay(prepare: Prepare, tmp_path: Path, agent_type: Any) -> None:
    """Judged by building the agent as an episode does."""
    names = ["mock", "airline", "telecom"]
    assert prepare("--domains", *names, "--agent-type", agent_type, "--allow-llm-judge") == 0
    kept = ids_of(*(tmp_path / "out").glob("*.jsonl"))
    solo = agent_type == "solo"
    for domain in names:
        split = "base" if domain == "mock" else "train"
        pool = domains.tasks(domain, split)
        try:
            world = World(domain, split, pool[0], solo=solo)
        except ValueError:
            world = None
        for task in pool:
            try:
                playable = world is not None
                if world is not None:
                    tau2_compat.build_agent(agent_type, world.agent_tools, world.policy, task)
            except ValueError:
                playable = False
            assert ((domain, task.id) in kept) == playable


# --- weights ---


def test_weights_repeat_the_rows_of_a_domain(prepare: Prepare, tmp_path: Path) -> None:
    arguments = ["--domains", "retail", "--multi-domain-train", "retail", "mock:base", "--weights"]
    assert prepare(*arguments, "retail=2", "mock=3") == 0
    rows = rows_of(tmp_path / "out" / "retail_mock-base_train_tasks.jsonl")
    counts = Counter((row["metadata"]["domain"], row["metadata"]["task_id"]) for row in rows)
    assert {domain: {n for (d, _), n in counts.items() if d == domain} for domain in ("retail", "mock")} == {
        "retail": {2},
        "mock": {3},
    }
    assert {task for domain, task in counts if domain == "retail"} == set(domains.splits("retail")["train"])
    # Not block after block: slime trains on the rows in their order unless it is told to shuffle.
    assert [row["metadata"]["domain"] for row in rows[:20]] not in (["retail"] * 20, ["mock"] * 20)
    entry = json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]["retail_mock-base_train_tasks.jsonl"]
    assert entry["rows"] == len(rows) and entry["tasks"] == len(counts)
    assert [part["weight"] for part in entry["selections"]] == [2, 3]
    plain = rows_of(tmp_path / "out" / "retail_train_tasks.jsonl")
    assert len(plain) == len(domains.splits("retail")["train"])  # single files are as they were


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        (["airline=2"], ["airline", "is not a part", "retail:train"]),
        (["retail=0"], ["retail=0", "whole number"]),
        (["retail=1.5"], ["retail=1.5", "3 and 2"]),
        (["retail"], ["retail", "NAME=TIMES"]),
        (["retail=1", "retail=2"], ["twice"]),
        (["telecom=2"], ["more than one part"]),
    ],
)
def test_weights_that_mean_nothing_are_refused(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: list[str], named: list[str]
) -> None:
    parts = ["retail", "telecom:small", "telecom:train"]
    assert prepare("--domains", "retail", "--multi-domain-train", *parts, "--weights", *weights) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in named), said
    assert not (tmp_path / "out").exists()


# --- manifest and files ---


def test_the_manifest_tells_where_the_rows_came_from(prepare: Prepare, tmp_path: Path) -> None:
    prepare("--domains", "retail", "telecom", "--splits", "full", "train", "--seed", "5", "--limit", "50")
    out = tmp_path / "out"
    entries = json.loads((out / MANIFEST).read_text())["files"]
    assert set(entries) == {p.name for p in out.glob("*.jsonl")}
    root = Path(tau2_compat.load().DATA_DIR)
    for name, entry in entries.items():
        assert entry["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert entry["tasks"] == len(rows_of(out / name)) == sum(s["tasks"] for s in entry["selections"])
        assert entry["tau2"] == tau2_compat.version()
        assert entry["seed"] == 5 and entry["arguments"]["limit"] == 50
        domain = entry["selections"][0]["domain"]
        assert set(entry["sources"]) == {f"tau2/domains/{domain}/{f}.json" for f in ("tasks", "split_tasks")}
        for source, sha in entry["sources"].items():
            assert sha == hashlib.sha256((root / source).read_bytes()).hexdigest()
    full = entries["telecom_full_train_tasks.jsonl"]["selections"][0]
    assert full["left_out"] == {"in split test": len(domains.splits("telecom")["test"])}


def test_a_domain_of_another_package_is_hashed_by_its_tasks(prepare: Prepare, toy: str, tmp_path: Path) -> None:
    prepare("--domains", toy, "--splits", "test")
    entry = json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]["toy_test_tasks.jsonl"]
    assert list(entry["sources"]) == ["toy (loaded tasks)"]


def test_running_again_changes_no_byte_and_rewrites_no_file(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--domains", "airline", "mock", "--multi-domain-train", "airline", "mock:base"]
    prepare(*arguments)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert prepare(*arguments) == 0
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()} == before
    assert capsys.readouterr().out.count("(unchanged)") == len(before) - 1


def test_the_manifest_remembers_earlier_runs_as_long_as_their_files_stand(prepare: Prepare, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("--domains", "mock")
    prepare("--domains", "airline")
    assert {"mock_base_tasks.jsonl", "airline_train_tasks.jsonl"} <= set(
        json.loads((out / MANIFEST).read_text())["files"]
    )
    (out / "mock_base_tasks.jsonl").write_text("{}\n")
    (out / "airline_test_tasks.jsonl").unlink()
    prepare("--domains", "airline", "--splits", "train")
    assert set(json.loads((out / MANIFEST).read_text())["files"]) == {"airline_train_tasks.jsonl"}


def test_a_failed_write_leaves_the_old_file_and_no_debris(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare("--domains", "mock")
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    full = OSError(28, "No space left on device")

    def no_space(self: Path, target: Any) -> Path:
        raise full

    monkeypatch.setattr(Path, "replace", no_space)
    assert prepare("--domains", "mock", "--limit", "3", "--force") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--domains", "retial"], "retial"),
        (["--domains", "retail", "--splits", "validation"], "validation"),
        (["--domains", "mock", "--multi-domain-train", "mock"], "mock:<split>"),
        (["--domains", "retail", "--exclude-split", "tset"], "tset"),
        (["--domains", "retail", "--fractions", "train=0.9,dev=0.2"], "1.1"),
        (["--domains", "retail", "--fractions", "train"], "name=share"),
        (["--domains", "retail", "--fractions", "train=0.5,train=0.5"], "twice"),
        (["--domains", "retail", "--fractions", "train=0.999,dev=0.001"], "dev=0.001"),
        (["--domains", "retail", "--fractions", "train=0.5,test=0.5"], "'test'"),
        (["--domains", "retail", "--splits", "test", "--fractions", "train=0.5,dev=0.5"], "training splits"),
        (["--domains", "retail", "--multi-domain-train", "retail", "--fractions", "a=0.5,b=0.5"], "called train"),
        (["--domains", "retail", "--limit", "0"], "--limit"),
        (["--domains", "retail", "--agent-type", "solo"], "nothing to write"),
    ],
)
def test_a_mistake_is_one_line(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert prepare(*arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_one_is_one_line(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    assert prepare("--domains", "mock") == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_text("[]")
    assert prepare("--domains", "mock", out=tmp_path / "other") == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert [p.name for p in (tmp_path / "other").iterdir()] == [MANIFEST]


@pytest.mark.parametrize("lost", ["role", "arguments", "sha256"])
def test_a_damaged_manifest_is_one_line_and_stays(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    prepare("--domains", "mock")
    manifest = tmp_path / "out" / MANIFEST
    content = json.loads(manifest.read_text())
    del content["files"]["mock_base_tasks.jsonl"][lost]
    manifest.write_text(json.dumps(content))
    assert prepare("--domains", "airline", "--splits", "test") == 2
    assert capsys.readouterr().err == f"error: {manifest} is not a manifest of this script: move it away\n"
    assert json.loads(manifest.read_text()) == content
    assert not (tmp_path / "out" / "airline_test_tasks.jsonl").exists()


def test_the_script_runs_from_anywhere_and_says_one_line_per_file(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--domains", "mock", "airline"]
    done = subprocess.run([*command, "--output-dir", "made"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for path in (tmp_path / "made").glob("*.jsonl"):
        assert sum(line.startswith(f"{path.name} ") for line in done.stdout.splitlines()) == 1
    failed = subprocess.run([*command, "--limit", "-1"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "Traceback" not in failed.stderr


# --- slime ---

READ = """
from slime.utils.data import Dataset
stub = Stub("slime.utils.processing_utils")
stub.process_vision_info = lambda prompt, processor: {}
sys.modules["slime.utils.processing_utils"] = stub  # takes images out of a prompt; there are none

def read(key, processor, max_length):
    data = Dataset(given, tokenizer=None, processor=processor, max_length=max_length, prompt_key=key)
    data.shuffle(3)
    return [[sample.prompt, sample.metadata] for sample in data.samples]

answer = {
    "index": read("index", None, None),
    "prompt": read("prompt", None, None),
    "vision checkpoint": read("prompt", object(), None),
    "context limit": read("prompt", None, 1),
}
"""


def test_slime_reads_the_rows_by_either_key(prepare: Prepare, tmp_path: Path) -> None:
    """slime's own Dataset, shuffled; with a processor (VLM checkpoints) and with a prompt length limit."""
    prepare("--domains", "retail", "--multi-domain-train", "retail", "airline")
    path = tmp_path / "out" / "retail_airline_train_tasks.jsonl"
    expected = ids_of(path)
    for mode, samples in run_in_slime(READ, f"{path}@[0:1000]").items():
        assert {(m["domain"], task_of(prompt, m).id) for prompt, m in samples} == expected, mode
        assert len(samples) == len(expected)


def test_other_rows_are_not_replaced_in_silence(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "mock_base_tasks.jsonl"
    assert prepare("--domains", "mock") == 0
    assert prepare("--domains", "mock") == 0  # the same rows
    capsys.readouterr()
    assert prepare("--domains", "mock", "--limit", "2") == 2
    assert "holds other rows (9; 2 are to be written)" in capsys.readouterr().err
    assert len(rows_of(file)) == 9
    assert prepare("--domains", "mock", "--limit", "2", "--force") == 0
    assert len(rows_of(file)) == 2
