"""What `tau2-slime inspect` does with files that somebody else sent: it shows them, and nothing of them runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tau2_slime.cli.inspect import refuse_unknown_filters
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.conversation import conversation_of
from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.inspector.torch_file import read_torch_file
from tests.test_cli import rows

# ---- .pt files ---------------------------------------------------------------------------------------------------------


class Storage:
    """Stands in for a tensor's data, which torch.save leaves out of the pickle."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.id = ("storage", Global("torch", kind), key, "cpu", count)


class Global:
    """Pickled as the name of something in a module that is not here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickled as the call of something that is not here."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self.function, self.args, self.state = function, args, state


class Writer(pickle._Pickler):  # type: ignore[name-defined]
    def persistent_id(self, value: object) -> object:
        return value.id if isinstance(value, Storage) else None

    def save(self, obj: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, *args, **kwargs)


def write_pt(path: Path, content: object, data: dict[str, bytes] | None = None, *, packed: bool = False) -> Path:
    """As torch.save writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        with archive.open(f"{path.stem}/data.pkl", "w") as file:
            Writer(file, 2).dump(content)
        archive.writestr(f"{path.stem}/byteorder", "little")
        for key, raw in (data or {}).items():
            archive.writestr(f"{path.stem}/data/{key}", raw)
    return path


def tensor(kind: str, key: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Call:
    count = 1000
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"), Storage(kind, key, count), offset, shape, strides, False, {}
    )


class Colour(Enum):
    RED = "red"


def test_slimes_dump_is_read_without_torch(rollout: Path, tmp_path: Path) -> None:
    samples = rows(rollout / "samples.jsonl")
    for sample in samples:
        length = len(sample["tokens"]) - 1
        sample["rollout_routed_experts"] = np.arange(length * 4, dtype=np.int32).reshape(length, 2, 2)
        sample["rollout_top_p_token_ids"] = np.asarray([5, 6], dtype=np.int64)
        sample["rollout_log_probs"] = [np.float64(value) for value in sample["rollout_log_probs"]]
        sample["metadata"] |= {"raw": b"\xff", "set": {1}, "colour": Colour.RED, "mask": np.asarray([True])}
    write_pt(tmp_path / "rollout_data" / "3.pt", {"rollout_id": 3, "samples": samples})
    found = read_episodes(tmp_path)
    assert found.unreadable == []
    assert [one.name for one in found.trajectories] == [f"3:{sample['index']}" for sample in samples]
    for one, sample in zip(found.trajectories, samples, strict=True):
        assert one.tokens == sample["tokens"] and check_trajectory(one) == []
        assert one.sample is not None
        assert one.sample["rollout_routed_experts"] == sample["rollout_routed_experts"].tolist()
        assert one.sample["metadata"]["mask"] == [True]
        json.dumps(one.sample["rollout_log_probs"])


def test_tensors_and_arrays_have_their_values(tmp_path: Path) -> None:
    data = {
        "0": np.arange(6, dtype="<i8").tobytes(),
        "1": np.asarray([1.5, -2.0], dtype="<f4").tobytes()[2::4] + b"",
        "2": b"\x01\x00",
    }
    data["1"] = b"".join(np.asarray([x], dtype="<f4").tobytes()[2:] for x in (1.5, -2.0))
    arrays = [np.asfortranarray([[1, 2], [3, 4]]), np.asarray([1.5], dtype=">f8"), np.asarray(["a"]), np.zeros((0, 3))]
    arrays.append(np.asarray([{"a": 1}], dtype=object))
    content = {
        "t": tensor("LongStorage", "0", (2, 2), (3, 1), offset=1),
        "b": tensor("BFloat16Storage", "1", (2,), (1,)),
        "m": tensor("BoolStorage", "2", (2,), (1,)),
        "arrays": arrays,
        "scalar": np.float32(0.5),
    }
    read = read_torch_file(write_pt(tmp_path / "x.pt", content, data))
    assert isinstance(read, dict)
    assert [read[name].tolist() for name in "tbm"] == [[[1, 2], [4, 5]], [1.5, -2.0], [True, False]]
    assert [one.tolist() for one in read["arrays"]] == [one.tolist() for one in arrays]
    assert read["scalar"] == 0.5


@pytest.mark.parametrize(
    "call",
    [
        Call(Global("os", "system"), "touch MARK"),
        Call(Global("posix", "system"), "touch MARK"),
        Call(Global("builtins", "eval"), "open('MARK', 'w')"),
        Call(Global("builtins", "exec"), "open('MARK', 'w')"),
        Call(Global("builtins", "__import__"), "os"),
        Call(Global("builtins", "getattr"), Global("os", "path"), "join"),
        Call(Global("subprocess", "Popen"), ["touch", "MARK"]),
        Call(Global("numpy", "load"), "MARK"),
        Call(Global("torch", "load"), "MARK"),
        Call(Global("tau2_slime.inspector.sources", "read_episodes"), "MARK"),
        Call(Call(Global("builtins", "getattr"), Global("builtins", "__builtins__"), "open"), "MARK", "w"),
    ],
    ids=lambda call: getattr(call.function, "name", "nested"),
)
def test_what_a_pickle_calls_does_not_run(tmp_path: Path, call: Call) -> None:
    mark = tmp_path / "mark"
    call.args = tuple(
        arg.replace("MARK", str(mark))
        if isinstance(arg, str)
        else ["touch", str(mark)]
        if isinstance(arg, list)
        else arg
        for arg in call.args
    )
    sample = {"tokens": [1, 2], "response_length": 1, "loss_mask": [1], "metadata": {"x": call}}
    file = write_pt(tmp_path / "0.pt", {"samples": [call, sample]})
    found = read_episodes(file)
    assert len(found.trajectories) == 1 and found.unreadable[0].startswith("0.pt[0]")
    assert not mark.exists()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


LAUGH: list[Any] = ["x"]
for _ in range(9):
    LAUGH = [LAUGH] * 10
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("content", "data", "packed"),
    [
        ({"samples": "x"}, {}, False),
        ([1], {}, False),
        ({"samples": [{"tokens": [1]}]}, {}, True),
        ({"samples": tensor("LongStorage", "0", (10**12,), (0,))}, {"0": bytes(8)}, False),
        ({"samples": tensor("LongStorage", "0", (2,), (10**9,))}, {"0": bytes(80)}, False),
        ({"samples": tensor("LongStorage", "0", (1,), (1,), offset=-5)}, {"0": bytes(80)}, False),
        ({"samples": tensor("LongStorage", "0", (1,), (1,))}, {}, False),
        ({"samples": tensor("OddStorage", "0", (1,), (1,))}, {"0": bytes(8)}, False),
    ],
    ids=[
        "no list",
        "no mapping",
        "packed",
        "a view of 8 TB",
        "beyond its end",
        "before its start",
        "no data",
        "odd type",
    ],
)
def test_a_file_that_is_no_dump_is_a_line(
    tmp_path: Path, content: object, data: dict[str, bytes], packed: bool
) -> None:
    with pytest.raises(ConfigError, match="not a file of slime's --save-debug-rollout-data"):
        read_episodes(write_pt(tmp_path / "0.pt", content, data, packed=packed))


def test_a_bare_pickle_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "0.pt").write_bytes(pickle.dumps({"samples": [Evil()]}))
    with pytest.raises(ConfigError, match="not written by torch"):
        read_episodes(tmp_path / "0.pt")


@pytest.mark.parametrize("value", [LAUGH, CIRCLE], ids=["10^10 values", "within itself"])
def test_a_sample_without_end_is_left_out(tmp_path: Path, value: object) -> None:
    good = {"index": 7, "tokens": [1, 2], "response_length": 1, "loss_mask": [1]}
    file = write_pt(tmp_path / "0.pt", {"samples": [{"metadata": {"x": value}}, good]})
    found = read_episodes(file)
    assert [one.name for one in found.trajectories] == ["7"]
    assert found.unreadable[0].startswith("0.pt[0]")


# ---- tokenizers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def evil(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer is code of its own."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(checkpoint, folder)
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast\nclass Evil(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("named", ["by the files", "by the user", "by the user, with the flag"])
def test_code_of_a_checkpoint_runs_for_the_user_and_with_the_flag_only(evil: Path, tmp_path: Path, named: str) -> None:
    found = FoundEpisodes(checkpoint=str(evil) if named == "by the files" else None)
    flag = named != "by the user"  # that the files name it does not help
    code = (
        "import sys; from tau2_slime.inspector.found import FoundEpisodes; "
        "from tau2_slime.inspector.tokenizers import language_of; "
        f"assert language_of(FoundEpisodes(checkpoint={found.checkpoint!r}), "
        f"{None if found.checkpoint else str(evil)!r}, trust_remote_code={flag})"
    )
    environ = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mark").exists() is (named == "by the user, with the flag")


def test_a_tokenizer_that_cannot_do_without_its_code_names_the_flag(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refuse(*_: object, trust_remote_code: bool) -> None:
        assert not trust_remote_code
        raise ValueError("contains custom code. Please pass the argument `trust_remote_code=True`")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ConfigError, match="--trust-remote-code"):
        language_of(FoundEpisodes(), str(checkpoint))


# ---- τ² 1.0's folders --------------------------------------------------------------------------------------------------

INFO = {
    "agent_info": {"implementation": "llm_agent", "llm": "a"},
    "user_info": {"implementation": "user_simulator", "llm": "u"},
    "environment_info": {"domain_name": "airline"},
}
RUN = {
    "id": "s0",
    "task_id": "3",
    "trial": 0,
    "termination_reason": "user_stop",
    "reward_info": {"reward": 1.0},
    "messages": [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Bye ###STOP###"}],
}


@pytest.fixture
def tau2_folder(tmp_path: Path) -> Path:
    (tmp_path / "simulations").mkdir()
    index = [{"id": name, "task_id": "3", "trial": trial} for trial, name in enumerate(("s0", "s1", "gone"))]
    written = {"info": INFO, "tasks": [{"id": "3"}], "simulation_index": index}
    (tmp_path / "results.json").write_text(json.dumps(written))
    (tmp_path / "simulations" / "s0.json").write_text(json.dumps(RUN))
    voice = {**RUN, "id": "s1", "trial": 1, "messages": None, "ticks": [{"tick_id": 0}] * 5}
    (tmp_path / "simulations" / "s1.json").write_text(json.dumps(voice))
    return tmp_path


@pytest.mark.parametrize("at", [".", "results.json"])
def test_a_folder_of_simulations_is_read(tau2_folder: Path, at: str) -> None:
    found = read_episodes(tau2_folder / at)
    text, voice = found.trajectories
    assert (text.name, text.domain, text.task_label, text.reward) == ("3#0", "airline", "airline task 3", 1.0)
    assert len(conversation_of(text)) == 2
    assert "voice run" in voice.detail and "5 ticks" in voice.detail
    assert found.unreadable == ["simulations/gone.json: named by results.json, but missing"]


def test_one_simulation_of_a_folder_is_read(tau2_folder: Path) -> None:
    (one,) = read_episodes(tau2_folder / "simulations" / "s0.json").trajectories
    assert (one.domain, one.user_model) == ("airline", "u")
    shutil.copy(tau2_folder / "simulations" / "s0.json", tau2_folder.parent / "alone.json")
    (one,) = read_episodes(tau2_folder.parent / "alone.json").trajectories
    assert one.task_id == "3"


# ---- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"blame": "foo"}, "--blame foo: .*infrastructure"),
        ({"blame": "agnet"}, "did you mean 'agent'"),
        ({"domain": "retial"}, "--domain retial: .*did you mean 'retail'"),
        ({"task_id": "create_task_9"}, "--task-id create_task_9: .*create_task_1"),
    ],
)
def test_a_filter_that_names_nothing_is_a_mistake(rollout: Path, given: dict[str, str], said: str) -> None:
    filters: dict[str, Any] = {"domain": None, "task_id": None, "blame": None, **given}
    with pytest.raises(ConfigError, match=said):
        refuse_unknown_filters(read_episodes(rollout).trajectories, **filters)


def test_a_filter_that_only_finds_nothing_is_an_answer(rollout: Path) -> None:
    refuse_unknown_filters(read_episodes(rollout).trajectories, domain=None, task_id=None, blame="infrastructure")
