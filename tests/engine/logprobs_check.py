"""Recompute log-probabilities with transformers, in one forward pass per trajectory (runs inside ``.venv-engine``).

    python logprobs_check.py CHECKPOINT    # reads one path of a JSON file per line of stdin, answers each with a JSON line

The file: {"temperature": T, "samples": [{"tokens": [...], "loss_mask": [...], "log_probs": [...]}]}, mask and log-probs for
the response only, as in a slime Sample. The answer: {"max_difference": [one per sample], "positions": number of positions
with mask 1}. fp32; log-probability = log_softmax(logits / T) over the whole vocabulary. It is a process of its own, so that
nothing which sglang does to torch or transformers can reach it, and a lasting one, because its imports take 10 CPU-seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from launch_sglang import declare_torchvision_ops

declare_torchvision_ops()

from transformers import Qwen3ForCausalLM  # noqa: E402


@torch.inference_mode()
def differences(model: Qwen3ForCausalLM, sample: dict[str, list[float]], temperature: float) -> torch.Tensor:
    """|recomputed - given| at every position with mask 1."""
    tokens = torch.tensor([sample["tokens"]], dtype=torch.long)
    mask, given = torch.tensor(sample["loss_mask"]), torch.tensor(sample["log_probs"])
    logits = model(tokens, logits_to_keep=len(mask) + 1).logits[0, :-1]
    scores = torch.log_softmax(logits / temperature, dim=-1)
    recomputed = scores.gather(1, tokens[0, -len(mask) :, None]).squeeze(1)
    return (recomputed - given).abs()[mask == 1]


def answer(model: Qwen3ForCausalLM, path: Path) -> str:
    request = json.loads(path.read_text())
    found = [differences(model, sample, request["temperature"]) for sample in request["samples"]]
    # nan must not pass for small
    worst = [float(d.nan_to_num(nan=float("inf")).max()) if len(d) else 0.0 for d in found]
    return json.dumps({"max_difference": worst, "positions": sum(len(d) for d in found)})


if __name__ == "__main__":
    loaded = Qwen3ForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="sdpa").eval()
    for line in iter(sys.stdin.readline, ""):
        print(answer(loaded, Path(line.strip())), flush=True)
