#!/usr/bin/env python3
"""GPU memory of training with scripts/run_qwen3_4B.sh, by arithmetic: nothing of it is measured.

    python benchmarks/memory.py [--gpus 8] [--context 32768] [--micro-batch 16384] [-- MODEL_ARGS of slime's model file]
    python benchmarks/memory.py --models /root/slime/scripts/models    # what the launch script chooses for each, on 8 GPUs

Without MODEL_ARGS: Qwen3-4B. Per GPU, in 10^9 bytes. Trainer: bf16 weights (2 bytes a parameter) and fp32 gradients (4),
divided by TP, those of experts by EP; Adam's fp32 copy and two moments (12) divided by all training GPUs (Megatron's
distributed optimizer), or in the host's memory; the inputs of the layers that full recomputation keeps (2 bytes x hidden
size a token and layer, divided by TP through sequence parallelism) and one layer under recomputation; logits of the largest
micro-batch: bf16 once and fp32 three times (values, softmax, gradient). Left out: CUDA contexts, NCCL buffers,
fragmentation, and what the other engine leaves behind when it is moved to the host. A linear-attention layer counts as a
full one.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GPU = 80e9
FITS = 72e9
"""What a training GPU may need: the rest is for what the arithmetic leaves out."""
ENGINE_SHARE = 0.7
"""--sglang-mem-fraction-static."""
SMALLEST_CACHE = 16e9
"""Of an engine, for its KV cache."""
CONTEXTS = (32768, 16384)
QWEN3_4B = [
    *("--num-layers", "36", "--hidden-size", "2560", "--ffn-hidden-size", "9728", "--num-attention-heads", "32"),
    *("--num-query-groups", "8", "--kv-channels", "128", "--vocab-size", "151936"),
]


@dataclass(frozen=True)
class Model:
    """The sizes in a model file of slime's."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    gated: bool = False
    """A gate as large as the queries (Qwen3.5)."""
    latent: tuple[int, int, int, int] | None = None
    """Ranks of queries and of keys and values, position dimensions, value dimensions (multi-latent attention)."""
    experts: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    topk: int = 0
    moe_layers: int = 0

    @classmethod
    def of(cls, words: Sequence[str]) -> Model:
        """Raises KeyError for a size that ``words`` lack."""
        given: dict[str, str] = {}
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            if word.startswith("--"):
                given[word[2:]] = "" if following.startswith("--") else following

        def size(name: str, default: int | None = None) -> int:
            if default is not None and not given.get(name):
                return default
            return int(given[name])

        layers, heads = size("num-layers"), size("num-attention-heads")
        experts = size("num-experts", 0)
        return cls(
            layers=layers,
            hidden=size("hidden-size"),
            ffn=size("ffn-hidden-size"),
            heads=heads,
            kv_heads=size("num-query-groups", heads),
            head_dim=size("kv-channels", size("hidden-size") // heads),
            vocabulary=size("vocab-size"),
            tied="untie-embeddings-and-output-weights" not in given,
            gated="attention-output-gate" in given,
            latent=(size("q-lora-rank"), size("kv-lora-rank"), size("qk-pos-emb-head-dim"), size("v-head-dim"))
            if "multi-latent-attention" in given
            else None,
            experts=experts,
            expert_ffn=size("moe-ffn-hidden-size", 0),
            shared_ffn=size("moe-shared-expert-intermediate-size", 0),
            topk=size("moe-router-topk", 0),
            moe_layers=_ones(given.get("moe-layer-freq", ""), layers) if experts else 0,
        )

    @property
    def attention(self) -> int:
        """Parameters of one layer's attention."""
        queries = self.heads * self.head_dim
        if self.latent is not None:
            q_rank, kv_rank, position, value = self.latent
            down = self.hidden * (q_rank + kv_rank + position)
            up = q_rank * self.heads * (self.head_dim + position) + kv_rank * self.heads * (self.head_dim + value)
            return down + up + self.heads * value * self.hidden
        kv = self.hidden * self.kv_heads * self.head_dim * 2
        return self.hidden * queries * (3 if self.gated else 2) + kv + 2 * self.head_dim

    @property
    def in_experts(self) -> int:
        """Parameters that expert parallelism divides."""
        return self.moe_layers * self.experts * 3 * self.hidden * self.expert_ffn

    @property
    def parameters(self) -> int:
        dense = (self.layers - self.moe_layers) * 3 * self.hidden * self.ffn
        shared = self.moe_layers * self.hidden * (3 * self.shared_ffn + self.experts)
        layers = self.layers * (self.attention + 2 * self.hidden) + dense + shared + self.in_experts
        return layers + self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def kv_bytes(self) -> int:
        """Of one token in the engine's cache."""
        if self.latent is not None:
            return 2 * self.layers * (self.latent[1] + self.latent[2])
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


def _ones(pattern: str, layers: int) -> int:
    """How many layers have experts: ``[0]*1+[1]*46`` or ``[0,1,1]``; without a pattern all."""
    if not pattern:
        return layers
    total = 0
    for part in pattern.replace(" ", "").split("+"):
        ones, _, times = part.partition("*")
        total += sum(ast.literal_eval(ones)) * int(times or 1)
    return total


@dataclass(frozen=True)
class Shape:
    """How a job divides the model and its episodes."""

    gpus: int
    """That train."""
    tp: int
    cp: int
    ep: int
    offload: bool
    """Adam lives in the host's memory."""
    context: int
    """Tokens of the longest episode."""


def trainer(model: Model, shape: Shape, micro_batch: int) -> dict[str, float]:
    """Bytes on each training GPU."""
    # One episode longer than the micro-batch is a micro-batch of its own; with CP a micro-batch holds CP times as much.
    local = max(shape.context, micro_batch * shape.cp) / shape.cp
    dense = (model.parameters - model.in_experts) / shape.tp + model.in_experts / shape.ep
    ffn = max(model.ffn if model.moe_layers < model.layers else 0, model.topk * model.expert_ffn + model.shared_ffn)
    layer = local * (16 * model.hidden + 8 * model.heads * model.head_dim + 8 * ffn) / shape.tp
    return {
        "weights, gradients": dense * 6,
        "Adam": 0.0 if shape.offload else model.parameters * 12 / shape.gpus,
        "activations": local * model.hidden * 2 * model.layers / shape.tp + layer,
        "logits": local * model.vocabulary / shape.tp * (2 + 3 * 4),
    }


def shapes(model: Model, gpus: int, per_node: int, contexts: Sequence[int], wanted: Wanted) -> Iterator[Shape]:
    """Every way to divide the job, the simplest first: long episodes, Adam on the GPU, few parts, TP before CP."""
    powers = [2**n for n in range(10)]
    ep = wanted["ep"] or max(
        (p for p in powers if model.experts and model.experts % p == 0 and gpus % p == 0 and p <= per_node), default=1
    )
    splits = [
        (tp, cp)
        for tp in powers
        for cp in powers
        if wanted["tp"] in (None, tp) and wanted["cp"] in (None, cp)
        if tp <= per_node and model.heads % tp == 0 and model.kv_heads % tp == 0 and gpus % (tp * cp) == 0
    ]
    for offload in (False, True) if wanted["offload"] is None else (bool(wanted["offload"]),):
        for context in contexts:
            for tp, cp in sorted(splits, key=lambda one: (one[0] * one[1], one[1])):
                yield Shape(gpus, tp, cp, ep, offload, context)


Wanted = Mapping[str, int | None]
"""``tp``, ``cp``, ``ep`` and ``offload`` that are settled already; None for those that are not."""
ANY: Wanted = {"tp": None, "cp": None, "ep": None, "offload": None}


def choose(
    model: Model, gpus: int, per_node: int, contexts: Sequence[int], micro_batch: int, wanted: Wanted = ANY
) -> Shape | None:
    """The first shape that fits; None if none does."""
    fitting = (
        shape
        for shape in shapes(model, gpus, per_node, contexts, wanted)
        if sum(trainer(model, shape, micro_batch).values()) <= FITS
    )
    return next(fitting, None)


def engine_gpus(model: Model, gpus: int) -> int:
    """GPUs of one engine: the fewest that hold the weights and a useful cache; ``gpus`` if none do."""
    sizes = (2**n for n in range(10) if 2**n <= gpus and model.heads % 2**n == 0)
    return next((n for n in sizes if n * ENGINE_SHARE * GPU - 2 * model.parameters >= SMALLEST_CACHE), gpus)


def row(model: Model, shape: Shape, micro_batch: int, name: str = "") -> str:
    parts = trainer(model, shape, micro_batch)
    numbers = [f"{value / 1e9:.1f}" for value in parts.values()] + [f"{sum(parts.values()) / 1e9:.0f}"]
    cells = [name] * bool(name) + list(map(str, (shape.gpus, shape.tp, shape.cp, shape.ep, shape.context)))
    return "| " + " | ".join([*cells, "host" if shape.offload else "GPU", *numbers]) + " |"


def head(first: str = "") -> str:
    names = [first] * bool(first) + ["training GPUs", "TP", "CP", "EP", "CONTEXT", "Adam on"]
    names += ["weights, gradients", "Adam", "activations", "logits", "sum"]
    return "| " + " | ".join(names) + " |\n|" + " --- |" * len(names)


def model_args(file: Path) -> list[str]:
    """MODEL_ARGS of a model file of slime's."""
    script = 'source "$1" >/dev/null && printf "%s\\n" "${MODEL_ARGS[@]}"'
    done = subprocess.run(["bash", "-c", script, "-", str(file)], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gpus", type=int, default=8, help="that train")
    p.add_argument("--gpus-per-node", type=int, default=8)
    p.add_argument("--context", type=int, help="tokens of the longest episode (CONTEXT)")
    p.add_argument("--micro-batch", type=int, default=16384, help="MAX_TOKENS_PER_GPU")
    for name in ("--tp", "--cp", "--ep", "--offload"):
        p.add_argument(name, type=int, help="settled; default: the first that fits")
    p.add_argument(
        "--choose", action="store_true", help="print TP CP EP OFFLOAD CONTEXT ENGINE_GPUS for the launch script"
    )
    p.add_argument("--models", type=Path, help="slime's scripts/models: one line for each model file")
    p.add_argument("model_args", nargs="*", default=QWEN3_4B)
    args = p.parse_args()
    contexts = (args.context,) if args.context else CONTEXTS
    if args.models is not None:
        print(head("model file"))
        for file in sorted(args.models.glob("*.sh")):
            try:
                model = Model.of(model_args(file))
            except (KeyError, ValueError):
                continue
            shape = choose(model, args.gpus, args.gpus_per_node, contexts, args.micro_batch)
            print(
                f"| {file.name} | more than {args.gpus} |"
                if shape is None
                else row(model, shape, args.micro_batch, file.name)
            )
        return
    try:
        model = Model.of(args.model_args)
    except (KeyError, ValueError) as error:
        sys.exit(
            f"memory.py: these MODEL_ARGS have no usable {error}: set TP, CP, EP, CONTEXT and ENGINE_GPUS yourself"
        )
    wanted = {name: getattr(args, name) for name in ANY}
    chosen = choose(model, args.gpus, args.gpus_per_node, contexts, args.micro_batch, wanted)
    if args.choose:
        if chosen is None:
            sys.exit(
                f"memory.py: {model.parameters / 1e9:.1f}e9 parameters do not fit on {args.gpus} GPUs of 80 GB with "
                f"episodes of {contexts[-1]} tokens: more GPUs, a smaller CONTEXT, or set TP, CP, EP, OFFLOAD and "
                "ENGINE_GPUS yourself"
            )
        print(chosen.tp, chosen.cp, chosen.ep, int(chosen.offload), chosen.context, engine_gpus(model, args.gpus))
        return
    print(
        f"{model.parameters / 1e9:.2f}e9 parameters; a checkpoint with optimizer: {model.parameters * 14 / 1e9:.0f} GB; "
        f"KV cache: {model.kv_bytes} bytes a token"
    )
    print(head())
    context, ep = contexts[0], chosen.ep if chosen is not None else 1
    for gpus, tp, cp in [(8, 2, 1), (8, 2, 2), (4, 2, 1), (2, 2, 1), (1, 1, 1)]:
        print(row(model, Shape(gpus, tp, cp, min(ep, gpus), gpus == 1, context), args.micro_batch))
    if chosen is not None:
        print(row(model, chosen, args.micro_batch), "<- the launch script's")
    engine = engine_gpus(model, args.gpus)
    cache = ENGINE_SHARE * GPU * engine - 2 * model.parameters
    print(
        f"engine on {engine} GPU at {ENGINE_SHARE}: {cache / 1e9:.0f} GB of KV cache = "
        f"{cache / model.kv_bytes / 1e3:.0f} thousand tokens"
    )
    print(f"= {cache / model.kv_bytes / context:.0f} episodes of {context} tokens, if they shared nothing")


if __name__ == "__main__":
    main()
