"""Real episodes exported: what slime would train on is what was sampled, and each file is what its readers expect."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.export.command import Exported, ExportRequest, Format, Route, export
from tau2_slime.export.conversation import Chat
from tau2_slime.export.episodes import Filters
from tau2_slime.export.slime_messages import MASK_TYPES, prove, slime_row
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.inspector.torch_file import read_torch_file
from tau2_slime.slime_adapter.compat import mask_generator
from tests.slime_checkout import run_in_slime
from tests.test_cli import rows, tau2_slime

NOTHING = Filters(min_reward=0.0, keep=frozenset({"malformed-call", "duplicate"}))


def exported(run: Path, folder: Path, form: Format = Format.SLIME_SFT, **changes: Any) -> Exported:
    return export(ExportRequest((run,), form, folder, **changes))


def leaving(result: Exported) -> list[str]:
    return [one.name for one in result.episodes if not one.left_out]


@pytest.fixture(scope="session")
def slime_folder() -> Path:
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    return Path(folder)


# ---- the exact route ---------------------------------------------------------------------------------------------------


def test_the_exact_route_holds_the_ledgers_as_they_are(respelt: Path, tmp_path: Path) -> None:
    """Tokens that no tokenizer would write, too: nothing is rendered again."""
    result = exported(respelt, tmp_path, batch=4, epochs=3)
    ledgers = {f"{respelt}:{row['index']}": row for row in rows(respelt / "samples.jsonl")}
    good = {name for name, row in ledgers.items() if row["reward"] == 1.0}
    names = leaving(result)
    assert 2 <= len(names) < len(good)  # some recovered from a malformed call, and some are alike
    steps = [read_torch_file(tmp_path / f"{step}.pt") for step in range(result.card["steps"])]
    assert [step["rollout_id"] for step in steps] == list(range(len(steps)))  # type: ignore[index]
    assert not (tmp_path / f"{len(steps)}.pt").exists()
    seen: dict[str, int] = {}
    for step in steps:
        assert len(step["samples"]) == 4  # type: ignore[index]
        for sample in step["samples"]:  # type: ignore[index]
            name = sample["metadata"]["episode"]
            seen[name] = seen.get(name, 0) + 1
            there = ledgers[name]
            for field in ("tokens", "loss_mask", "response", "response_length", "reward", "status"):
                assert sample[field] == there[field], field
            assert sample["reward"] == 1.0 and any(sample["loss_mask"])
    assert set(seen) == set(names) <= good
    assert len(steps) == -(-len(names) * 3 // 4)
    assert set(seen.values()) <= {3, 4}  # the last step is filled from one more pass


def test_the_order_is_the_seeds(played: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        exported(played, tmp_path / name, batch=2, epochs=2, seed=seed, filters=NOTHING)
    a, b, c = ((tmp_path / name / "0.pt").read_bytes() for name in "abc")
    assert a == b != c


SLIME_READS = """
import torch
from slime.utils.types import Sample
answer = []
for path in given["files"]:
    for row in torch.load(path, weights_only=False)["samples"]:  # as load_debug_rollout_data does it
        s = Sample.from_dict(row)
        assert s.remove_sample is False and s.rollout_log_probs is None and s.status in Sample.Status
        assert len(s.loss_mask) == s.response_length <= len(s.tokens)
        answer.append([s.index, s.tokens, s.loss_mask, s.reward, s.metadata["raw_reward"]])
"""


def test_slime_reads_the_dump(played: Path, tmp_path: Path, slime: str, python: str) -> None:
    exported(played, tmp_path, batch=3, epochs=1)
    files = sorted(map(str, tmp_path.glob("*.pt")), key=lambda name: int(Path(name).stem))
    assert files
    read = run_in_slime(SLIME_READS, {"files": files})
    ours = [sample for file in files for sample in read_torch_file(Path(file))["samples"]]  # type: ignore[index]
    assert [index for index, *_ in read] == list(range(len(ours)))
    assert [row[1:] for row in read] == [[s["tokens"], s["loss_mask"], 1.0, 1.0] for s in ours]


def test_tokens_of_another_checkpoint_are_found_out(played: Path, instruct: Path, tmp_path: Path) -> None:
    other = json.loads((instruct / "summary.json").read_text())["hf_checkpoint"]
    with pytest.raises(ConfigError, match=r"none of 18 episodes is left .*other-tokens"):
        exported(played, tmp_path, hf_checkpoint=other)
    assert not list(tmp_path.glob("*.pt"))


def test_a_run_that_does_not_say_whose_tokens_it_holds_needs_the_checkpoint(played: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("samples.jsonl", "trajectories.jsonl"):
        (bare / name).write_bytes((played / name).read_bytes())
    with pytest.raises(ConfigError, match="--hf-checkpoint"):
        exported(bare, tmp_path / "out")


# ---- messages for slime's sft_rollout ----------------------------------------------------------------------------------


def test_every_row_is_what_slime_would_train_on(instruct: Path, tmp_path: Path, slime_folder: Path) -> None:
    """slime's own generator on the written file, against the ledgers: the same tokens, and one line break a turn more."""
    result = exported(instruct, tmp_path, route=Route.MESSAGES, slime_dir=slime_folder, filters=NOTHING)
    names = leaving(result)
    written = rows(tmp_path / "messages.jsonl")
    assert len(written) == len(names) >= 10
    language = language_of(read_episodes(instruct), None)
    assert language is not None
    generator = mask_generator(language.delta.template.tokenizer, result.card["loss_mask_type"], slime_folder)
    ledgers = {f"{instruct}:{row['index']}": row for row in rows(instruct / "samples.jsonl")}
    line_breaks = 0
    for name, row in zip(names, written, strict=True):
        ids, mask = generator.get_loss_mask(row["messages"], tools=row["tools"])
        sample = ledgers[name]
        start = len(sample["tokens"]) - sample["response_length"]
        trained = [0] * start + sample["loss_mask"]
        stop = max(i for i, one in enumerate(trained) if one) + 1
        assert ids[:stop] == sample["tokens"][:stop]
        wrong = [i for i in range(stop) if mask[i] != trained[i]]
        newline = language.delta.template.encode("\n")
        assert [[ids[i]] for i in wrong] == [newline] * len(wrong) and ids[stop:] == newline
        assert all(mask[i] for i in wrong)
        line_breaks += len(wrong) + 1
    assert result.card["trained_line_breaks"] == line_breaks


def test_what_was_never_said_is_not_trained(instruct: Path, slime_folder: Path) -> None:
    """The greeting, and what a task's history lets the agent say: without `step_loss_mask` slime would train them."""
    found = read_episodes(instruct)
    language = language_of(found, None)
    assert language is not None
    generator = mask_generator(language.delta.template.tokenizer, "qwen3", slime_folder)
    unsaid = set()
    for one in found.trajectories:
        row = slime_row(one, Chat.of(one))
        marked = [message for message in row["messages"] if message.get("step_loss_mask") == 0]
        unsaid |= {(one.task_id, len(marked))}
        if prove(row, one, generator, language.delta).difference:
            continue
        for message in marked:
            del message["step_loss_mask"]
            told = prove(row, one, generator, language.delta).difference
            assert "which the policy did not sample" in told
            message["step_loss_mask"] = 0
    assert {task for task, count in unsaid if count > 1} == {"update_task_with_message_history"}
    assert {count for task, count in unsaid if task != "update_task_with_message_history"} == {1}


def test_a_call_that_cannot_be_read_is_left_out_with_its_place(
    instruct: Path, tmp_path: Path, slime_folder: Path
) -> None:
    exported(instruct, tmp_path, route=Route.MESSAGES, slime_dir=slime_folder, filters=NOTHING)
    broken = {f"{instruct}:{t['index']}" for t in rows(instruct / "trajectories.jsonl") if t["rejected_calls"]}
    assert broken
    told = {one["episode"]: one for one in rows(tmp_path / "left_out.jsonl")}
    assert set(told) == broken  # every other episode is proved
    for one in told.values():
        assert one["reason"] == "not-as-sampled"
        assert "in the policy's own words" in one["why"] and "--route exact" in one["why"]


@pytest.mark.parametrize(("policy", "kwargs"), [("hybrid", {"enable_thinking": False}), ("thinking", {})])
def test_where_a_template_rewrites_thoughts_there_is_the_exact_route_only(
    policy: str, kwargs: dict[str, Any], tmp_path: Path, slime_folder: Path, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(policy)
    same: dict[str, Any] = {"chat_template_kwargs": kwargs}
    with pytest.raises(ConfigError, match=r"(?s)not-as-sampled.*<think>.*--route exact"):
        exported(run, tmp_path / "messages", route=Route.MESSAGES, slime_dir=slime_folder, **same)
    assert exported(run, tmp_path / "exact", **same).card["episodes"]["written"] > 0


def test_the_runs_template_arguments_are_needed(hybrid: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"other-tokens.*chat_template_kwargs"):
        exported(hybrid, tmp_path)


def test_respelt_turns_are_left_out(respelt: Path, tmp_path: Path, slime_folder: Path) -> None:
    with pytest.raises(ConfigError, match="not-as-sampled"):
        exported(respelt, tmp_path, route=Route.MESSAGES, slime_dir=slime_folder)


def test_a_mask_that_differs_is_found(played: Path, slime_folder: Path) -> None:
    found = read_episodes(played)
    language = language_of(found, None)
    assert language is not None
    one = next(t for t in found.trajectories if t.reward == 1.0 and not t.rejected)
    generator = mask_generator(language.delta.template.tokenizer, "qwen3", slime_folder)
    row = slime_row(one, Chat.of(one))
    assert one.ledger is not None
    assert prove(row, one, generator, language.delta).difference == ""
    for position, words in ((0, "did not sample"), (None, "keeps no tokens")):
        mask = list(one.ledger["loss_mask"])
        mask[:] = [0, *mask[1:]] if position == 0 else [0] * len(mask)
        spoilt = dataclasses.replace(one, ledger={**one.ledger, "loss_mask": mask})
        assert words in prove(row, spoilt, generator, language.delta).difference


def test_without_slime_the_messages_cannot_be_proved(played: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = ["--format", "slime-sft", "--route", "messages", "--slime-dir", str(tmp_path), "--output-dir", str(out)]
    done = tau2_slime("export", str(played), *said)
    assert done.returncode == 2
    assert f"mask generator cannot be imported in {tmp_path}" in done.stderr.splitlines()[-1]
    assert not out.exists()


def test_what_the_command_says(played: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tau2_slime("export", str(played), "--format", "slime-sft", "--output-dir", str(out), "--epochs", "2")
    assert done.returncode == 0, done.stderr
    card = json.loads((out / "card.json").read_text())
    for reason, count in card["left_out"].items():
        assert f"{count} left out, {reason}: " in done.stdout
    assert f"{card['episodes']['written']} of 18 episodes" in done.stdout and str(out) in done.stdout
    assert f"{card['steps']} steps of 32 episodes" in done.stdout


def test_the_mask_types_are_slimes(slime_folder: Path) -> None:
    arguments = (slime_folder / "slime" / "utils" / "arguments.py").read_text()
    assert all(f'"{kind}"' in arguments for kind in MASK_TYPES)


# ---- other formats -----------------------------------------------------------------------------------------------------


def test_openais_rows(played: Path, tmp_path: Path) -> None:
    result = exported(played, tmp_path, Format.OPENAI)
    written = rows(tmp_path / "train.jsonl")
    assert len(written) == len(leaving(result)) > 0
    for row in written:
        first, *_, last = row["messages"]
        assert first["role"] == "system" and last["role"] == "assistant" and "weight" not in last
        unsaid = [message["content"] for message in row["messages"] if message.get("weight") == 0]
        assert (
            all(words.startswith(("Hi! How can I help", "I've created a task")) or not words for words in unsaid)
            and unsaid
        )
        names = {tool["function"]["name"] for tool in row["tools"]}
        open_calls: list[str] = []
        for message in row["messages"]:
            for call in message.get("tool_calls", []):
                assert call["function"]["name"] in names
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
                open_calls.append(call["id"])
            if message["role"] == "tool":
                assert message["tool_call_id"] == open_calls.pop(0)
        assert open_calls == []


def test_a_dataset_for_hugging_face(played: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    result = exported(played, tmp_path, Format.HF)
    assert "data/train-*" in (tmp_path / "README.md").read_text()
    table = parquet.read_table(tmp_path / "data" / "train-00000-of-00001.parquet").to_pylist()
    assert [row["episode"] for row in table] == leaving(result)
    for row in table:
        assert json.loads(row["tools"])[0]["type"] == "function"
        assert row["reward"] == 1.0
        assert [m["trained"] for m in row["messages"] if m["role"] != "assistant"].count(True) == 0
        assert row["messages"][-1]["trained"]


def test_a_data_frame_has_every_episode(played: Path, tmp_path: Path) -> None:
    result = exported(played, tmp_path, Format.DATAFRAME)
    with (tmp_path / "episodes.csv").open() as file:
        table = list(csv.DictReader(file))
    samples = {str(row["index"]): row for row in rows(played / "samples.jsonl")}
    assert {row["episode"] for row in table} == set(samples)
    for row in table:
        sample = samples[row["episode"]]
        assert float(row["reward"]) == sample["reward"]
        assert int(row["trained_tokens"]) == sum(sample["loss_mask"])
        assert int(row["tokens"]) == len(sample["tokens"])
    assert sum(not row["left_out"] for row in table) == len(leaving(result)) < len(table)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(tmp_path / "episodes.parquet").num_rows == len(table)


# ---- the card ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(Format))
def test_the_card_counts_and_names_what_is_there(played: Path, tmp_path: Path, form: Format) -> None:
    result = exported(played, tmp_path, form)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card == result.card
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(card["files"]) == files - {"card.json", ".lock"}
    for name, digest in card["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert card["episodes"]["read"] == 18
    assert card["episodes"]["written"] + sum(card["left_out"].values()) == 18
    assert sum(card["tasks"].values()) == card["episodes"]["written"]
    assert card["left_out"] == {
        reason: [one["reason"] for one in rows(tmp_path / "left_out.jsonl")].count(reason)
        for reason in card["left_out"]
    }
    (run,) = card["runs"]
    digest = hashlib.sha256(b"rollout.json\0" + (played / "rollout.json").read_bytes()).hexdigest()
    assert (run["path"], run["fingerprint"]) == (str(played), digest[:16])


def test_a_folder_with_something_in_it_is_left_alone(played: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        exported(played, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_left_is_told_with_the_reasons(played: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 18 episodes is left \(18 reward\); the first: reward"):
        exported(played, tmp_path / "out", filters=Filters(min_reward=2.0))
    assert not (tmp_path / "out").exists()
