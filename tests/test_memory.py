"""The arithmetic behind the launch script's parallelism: known sizes, and choices that fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from memory import FITS, GPU, QWEN3_4B, Model, choose, engine_gpus, trainer

pytestmark = pytest.mark.fast

QWEN3_8B = [*QWEN3_4B, "--hidden-size", "4096", "--ffn-hidden-size", "12288", "--untie-embeddings-and-output-weights"]
QWEN3_30B = [
    *("--num-layers", "48", "--hidden-size", "2048", "--ffn-hidden-size", "6144", "--num-attention-heads", "32"),
    *("--num-query-groups", "4", "--kv-channels", "128", "--vocab-size", "151936"),
    *("--untie-embeddings-and-output-weights", "--num-experts", "128", "--moe-ffn-hidden-size", "768"),
    *("--moe-router-topk", "8", "--moe-layer-freq", f"[{', '.join(['1'] * 48)}]"),
]
GLM_FLASH = [
    *("--num-layers", "47", "--hidden-size", "2048", "--ffn-hidden-size", "10240", "--num-attention-heads", "20"),
    *("--kv-channels", "192", "--vocab-size", "154880", "--untie-embeddings-and-output-weights"),
    *("--multi-latent-attention", "--q-lora-rank", "768", "--kv-lora-rank", "512", "--qk-pos-emb-head-dim", "64"),
    *("--v-head-dim", "256", "--num-experts", "64", "--moe-ffn-hidden-size", "1536", "--moe-router-topk", "4"),
    *("--moe-shared-expert-intermediate-size", "1536", "--moe-layer-freq", "[0]*1+[1]*46"),
]


@pytest.mark.parametrize(
    ("words", "published"),  # in 10^9, as the models' cards have them
    [(QWEN3_4B, 4.0), (QWEN3_8B, 8.2), (QWEN3_30B, 30.5), (GLM_FLASH, 30)],
    ids=["Qwen3-4B", "Qwen3-8B", "Qwen3-30B-A3B", "GLM-4.7-Flash"],
)
def test_the_sizes_are_the_models(words: list[str], published: float) -> None:
    assert Model.of(words).parameters / 1e9 == pytest.approx(published, rel=0.01)


def test_a_pattern_of_layers() -> None:
    assert Model.of(GLM_FLASH).moe_layers == 46
    assert Model.of(QWEN3_30B).moe_layers == 48
    assert Model.of(QWEN3_4B).in_experts == 0


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("words", [QWEN3_4B, QWEN3_8B, QWEN3_30B, GLM_FLASH])
def test_what_is_chosen_fits_and_divides(words: list[str], gpus: int) -> None:
    model = Model.of(words)
    shape = choose(model, gpus, min(8, gpus), (32768, 16384), 16384)
    if shape is None:
        assert gpus < (8 if model.experts else 2)
        return
    assert sum(trainer(model, shape, 16384).values()) <= FITS < GPU
    assert gpus % (shape.tp * shape.cp) == 0 == gpus % shape.ep
    assert model.heads % shape.tp == 0 == model.kv_heads % shape.tp
    assert shape.ep == 1 or model.experts % shape.ep == 0


def test_what_is_settled_stays_settled() -> None:
    model = Model.of(QWEN3_4B)
    shape = choose(model, 8, 8, (65536,), 16384, {"tp": None, "cp": 2, "ep": None, "offload": 1})
    assert shape is not None
    assert (shape.cp, shape.offload, shape.context) == (2, True, 65536)
    assert choose(model, 8, 8, (65536,), 16384, {"tp": 1, "cp": 1, "ep": None, "offload": None}) is None


def test_an_engine_holds_its_weights() -> None:
    assert engine_gpus(Model.of(QWEN3_4B), 8) == 1
    assert engine_gpus(Model.of(QWEN3_30B), 8) == 2  # 61 GB of weights
