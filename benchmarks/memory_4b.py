#!/usr/bin/env python3
"""GPU memory of training a Qwen3-4B with scripts/run_qwen3_4B.sh, by arithmetic: nothing of it is measured.

    python benchmarks/memory_4b.py [--context 32768] [--micro-batch 16384]

Per GPU, in 10^9 bytes. Trainer: bf16 weights (2 bytes a parameter) and fp32 gradients (4) divided by TP; Adam's fp32 copy
and two moments (12) divided by all training GPUs (Megatron's distributed optimizer); the inputs of the layers that full
recomputation keeps (2 bytes x hidden size a token and layer, divided by TP through sequence parallelism) and one layer under
recomputation; logits of the largest micro-batch: bf16 once and fp32 three times (values, softmax, gradient). Left out: CUDA
contexts, NCCL buffers, fragmentation, and what the other engine leaves behind when it is moved to the host.
"""

from __future__ import annotations

import argparse

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 36, 2560, 9728, 32, 8, 128, 151936
GPU = 80e9


def parameters() -> int:
    attention = HIDDEN * HEADS * HEAD_DIM * 2 + HIDDEN * KV_HEADS * HEAD_DIM * 2 + 2 * HEAD_DIM
    layer = attention + 3 * HIDDEN * FFN + 2 * HIDDEN
    return LAYERS * layer + VOCABULARY * HIDDEN + HIDDEN  # input and output embedding are one


def trainer(gpus: int, tp: int, cp: int, tokens: int) -> dict[str, float]:
    count = parameters()
    local = tokens / cp
    layer = local * (16 * HIDDEN + 8 * HEADS * HEAD_DIM + 8 * FFN) / tp
    return {
        "weights, gradients": count * 6 / tp,
        "Adam": 0.0 if gpus == 1 else count * 12 / gpus,
        "activations": local * HIDDEN * 2 * LAYERS / tp + layer,
        "logits": local * VOCABULARY / tp * (2 + 3 * 4),
    }


def kv_bytes() -> int:
    """Of one token."""
    return 2 * LAYERS * KV_HEADS * HEAD_DIM * 2


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--context", type=int, default=32768, help="tokens of the longest episode (CONTEXT)")
    p.add_argument("--micro-batch", type=int, default=16384, help="MAX_TOKENS_PER_GPU")
    args = p.parse_args()
    count = parameters()
    print(
        f"{count / 1e9:.2f}e9 parameters; a checkpoint with optimizer: {count * 14 / 1e9:.0f} GB; "
        f"KV cache: {kv_bytes()} bytes a token"
    )
    shapes = [(8, 2, 1), (8, 2, 2), (4, 2, 1), (2, 2, 1), (1, 1, 1)]
    print("| training GPUs | TP | CP | weights, gradients | Adam | activations | logits | sum |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for gpus, tp, cp in shapes:
        # One episode longer than the micro-batch is a micro-batch of its own; with CP a micro-batch holds CP times as much.
        parts = trainer(gpus, tp, cp, max(args.context, args.micro_batch * cp))
        cells = " | ".join(f"{value / 1e9:.1f}" for value in parts.values())
        print(f"| {gpus} | {tp} | {cp} | {cells} | {sum(parts.values()) / 1e9:.0f} |")
    cache = 0.7 * GPU - 2 * count
    print(f"engine on 1 GPU at 0.7: {cache / 1e9:.0f} GB of KV cache = {cache / kv_bytes() / 1e3:.0f} thousand tokens")
    print(f"= {cache / kv_bytes() / args.context:.0f} episodes of {args.context} tokens, if they shared nothing")


if __name__ == "__main__":
    main()
