"""Files of a real torch.save, written by whatever Python here has torch, are read without it: the values are torch's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.torch_file import Array, Stranger, read_torch_file

ROOT = Path(__file__).resolve().parents[2]
WRITE = """
import json, sys
import numpy as np
import torch

folder, samples = sys.argv[1], json.load(open(sys.argv[2]))
numbers = torch.arange(12).reshape(3, 4)
floats = torch.tensor([1.5, -2.25, 3e38])
tensors = {
    **{str(kind): numbers.to(kind) for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)},
    **{str(kind): numbers.to(kind) for kind in (torch.uint16, torch.uint32, torch.uint64)},
    **{str(kind): floats.to(kind) for kind in (torch.float64, torch.float32, torch.bfloat16)},
    "float16": torch.tensor([1.5, -2.25]).half(),
    "turned": numbers.t(),
    "part": numbers[1:, ::2],
    "shared": numbers[0],
    "empty": torch.zeros(0, 3),
    "one number": torch.tensor(3.0),
    "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
}
arrays = {
    "int32": np.arange(6, dtype=np.int32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "text": np.array(["a", "bc"]),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "steps": np.arange(10)[::2],
}
scalars = {"f4": np.float32(0.5), "f8": np.float64(-0.25), "i8": np.int64(3), "bool": np.bool_(True), "str": np.str_("x")}
strange = {"float8": floats.to(torch.float8_e4m3fn), "sparse": torch.eye(2).to_sparse(), "negative": floats._neg_view()}
strange |= {"device": torch.device("cpu"), "time": np.datetime64("2026-01-01")}
said = {
    "tensors": {name: value.tolist() for name, value in tensors.items()},
    "arrays": {name: value.tolist() for name, value in arrays.items()},
    "scalars": {name: value.item() for name, value in scalars.items()},
}
json.dump(said, open(folder + "/said.json", "w"))
for protocol in (2, 4, 5):
    content = {"tensors": tensors, "arrays": arrays, "scalars": scalars, "strange": strange}
    torch.save(content, f"{folder}/{protocol}.pt", pickle_protocol=protocol)
for sample in samples:
    length = len(sample["tokens"]) - 1
    sample["rollout_routed_experts"] = np.arange(length * 4, dtype=np.int32).reshape(length, 2, 2)
    sample["rollout_top_p_token_ids"] = torch.tensor([5, 6])
    sample["rollout_log_probs"] = [np.float32(value) for value in sample["rollout_log_probs"]]
    sample["tokens"] = torch.tensor(sample["tokens"])
    sample["loss_mask"] = np.array(sample["loss_mask"])
    sample["metadata"]["strange"] = strange
torch.save({"rollout_id": 3, "samples": samples}, folder + "/dump.pt")
"""


@pytest.fixture(scope="module")
def torch_python() -> str:
    for name in (sys.executable, os.environ.get("SLIME_PYTHON"), str(ROOT / ".venv-engine" / "bin" / "python")):
        if name and (name == sys.executable or Path(name).exists()):
            found = subprocess.run([name, "-c", "import torch, numpy"], capture_output=True)
            if found.returncode == 0:
                return name
    pytest.skip("no torch: neither here, nor in SLIME_PYTHON or .venv-engine (python tests/engine/setup_env.py)")


@pytest.fixture(scope="module")
def written(torch_python: str, rollout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    rows = [json.loads(line) for line in (rollout / "samples.jsonl").read_text().splitlines()]
    (folder / "rows.json").write_text(json.dumps(rows))
    command = [torch_python, "-W", "ignore", "-c", WRITE, str(folder), str(folder / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Array) else value


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_value_is_torchs_own(written: Path, protocol: int) -> None:
    read: Any = read_torch_file(written / f"{protocol}.pt")
    said = json.loads((written / "said.json").read_text())
    assert {part: {name: _plain(value) for name, value in read[part].items()} for part in said} == said


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_not_read_is_named_and_never_a_wrong_value(written: Path, protocol: int) -> None:
    read: Any = read_torch_file(written / f"{protocol}.pt")
    shown = {name: str(value) for name, value in read["strange"].items()}
    assert all(isinstance(value, Stranger | str) for value in read["strange"].values())
    assert shown["float8"] == "<torch tensor of torch.float8_e4m3fn>"
    assert shown["time"] == "<numpy values of the type <M8>"
    assert "sparse" in shown["sparse"] and "device" in shown["device"] and "torch tensor" in shown["negative"]


def test_a_dump_of_slime_passes_the_check_of_its_tokens(written: Path, rollout: Path) -> None:
    found = read_episodes(written / "dump.pt")
    assert found.unreadable == []
    rows = [json.loads(line) for line in (rollout / "samples.jsonl").read_text().splitlines()]
    for one, row in zip(found.trajectories, rows, strict=True):
        assert one.tokens == row["tokens"] and one.sample is not None
        assert one.sample["rollout_top_p_token_ids"] == [5, 6]
        assert [violation for violation in check_trajectory(one) if "fingerprint" not in str(violation)] == []
