"""What a launch would run, captured, and slime's verdict on it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "run_qwen3_4B.sh"
PARSER = Path(__file__).with_name("parse_with_slime.py")

# Of a Qwen3-4B; the two generations differ in rope_theta.
QWEN3_4B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "max_position_embeddings": 262144,
}


_QWEN3_5 = {
    "head_dim": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 10000000, "rope_type": "default", "partial_rotary_factor": 0.25},
    "vocab_size": 248320,
}
_MOE = {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "intermediate_size": 6144}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3-8B.sh": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
    },
    "qwen3-30B-A3B.sh": {
        **_MOE,
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "rope_theta": 10000000,  # of 2507; slime's file has the earlier one's
        "tie_word_embeddings": False,
    },
    "qwen3.5-4B.sh": {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": {**_QWEN3_5, "hidden_size": 2560, "intermediate_size": 9216, "tie_word_embeddings": True},
    },
    "qwen3.5-9B.sh": {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": {**_QWEN3_5, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
        "tie_word_embeddings": False,
    },
    "glm4.7-30B-A3B.sh": {
        "model_type": "glm4_moe_lite",
        "architectures": ["Glm4MoeLiteForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 10240,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "n_routed_experts": 64,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "vocab_size": 154880,
    },
}
"""slime's model file -> what is different in that model's config.json."""


def sft_data(folder: Path, **changes: Any) -> Path:
    """As much of an export as the launcher looks at."""
    folder.mkdir(parents=True)
    card = {"route": "exact", "steps": 40, "global_batch_size": 32, "tokens": {"longest": 9000}, **changes}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@dataclass(frozen=True)
class JobLine:
    """``ray job submit ... -- python3 train.py ...``, taken apart."""

    script: str
    argv: list[str]
    environ: dict[str, str]
    """What the job's processes see."""

    @classmethod
    def of(cls, printed: str) -> JobLine:
        words = shlex.split(printed.replace("\\\n", " "))
        separator = words.index("--")
        runtime = json.loads(words[words.index("--runtime-env-json") + 1])
        assert words[separator + 1] == "python3"
        return cls(words[separator + 2], words[separator + 3 :], runtime["env_vars"])

    def value(self, flag: str) -> str:
        """What slime reads: argparse lets the last one win."""
        return self.argv[len(self.argv) - 1 - self.argv[::-1].index(flag) + 1]


def fake_slime(folder: Path, *, fully_async: bool = True) -> Path:
    """As much of a slime checkout as the launcher looks at."""
    models = folder / "scripts" / "models"
    models.mkdir(parents=True)
    for name, theta in (("qwen3-4B-Instruct-2507.sh", 5000000), ("qwen3-4B.sh", 1000000)):
        sizes = "--hidden-size 2560 --ffn-hidden-size 9728 --num-attention-heads 32 --num-query-groups 8 --vocab-size 151936"
        args = f'--num-layers 36 {sizes} --kv-channels 128 --rotary-base "{theta}" --normalization "RMSNorm"'
        (models / name).write_text(f"MODEL_ARGS=({args})\n")
    for script in ("train.py", "train_async.py"):
        (folder / script).write_text("import sys\nprint(sys.argv[1:])\n")
    (folder / "slime" / "rollout").mkdir(parents=True)
    (folder / "slime" / "__init__.py").write_text("")
    if fully_async:
        (folder / "slime" / "rollout" / "fully_async_rollout.py").write_text("")
    return folder


def checkpoint(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**QWEN3_4B, **changes}))
    return folder


def launch(
    *arguments: str, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script; nothing of this process's own settings reaches it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TAU2_", "RAY_", "WANDB_")) and k != "DRY_RUN"}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env={**clean, **(environ or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def parsed_by_slime(lines: Sequence[JobLine]) -> dict[str, Any]:
    """slime's own parser and validation on every line; skips, naming what is missing."""
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    engine = ROOT / ".venv-engine" / "bin" / "python"
    python = os.environ.get("SLIME_PYTHON") or (str(engine) if engine.exists() else sys.executable)
    probe = subprocess.run([python, "-c", "import torch, transformers, yaml"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"{python} lacks torch or transformers: name an interpreter that has both in SLIME_PYTHON")
    path = [
        str(ROOT),
        os.environ.get("MEGATRON_DIR", ""),
        folder,
    ]  # MEGATRON_DIR: Megatron's own parser and validation as well
    done = subprocess.run(
        [python, str(PARSER)],
        input=json.dumps([{"argv": line.argv, "environ": {**line.environ, "PYTHONPATH": ""}} for line in lines]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in path if p)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.split("ANSWER ")[-1]))
