"""Run slime's whole ``parse_args`` on command lines, without GPUs: ``python parse_with_slime.py < cases.json``.

A program, not a module: tests start it in an interpreter with torch and transformers, slime on PYTHONPATH. Other than
`tests.slime_cpu`, which parses what a rollout reads, this is the command line of a whole training job: real are slime's
parser and validation and, where they can be imported, Megatron's (arguments and their validation) and sglang's. Where they
cannot, stand-ins below know the flags that a launch may use. ray and what else takes no part in arguments is an empty stub.

In: ``[{"argv": [...], "environ": {...}}]``. Out: one line ``ANSWER [...]`` with, per case, ``error`` (null or a text),
``unknown`` (flags that no parser knows; slime itself would ignore them silently) and ``args`` (plain values only), and the
names of the stand-ins that were used.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
import types
from typing import Any

from tests.slime_cpu.stubs import _Finder

STUBS = {
    *("ray", "wandb", "tensorboard", "numba", "memray", "mbridge", "six", "blake3", "zstandard", "httpx", "pylatexenc"),
    *("xxhash", "pybase64", "datasets", "absl", "sglang_router", "pandas", "aiohttp"),
}

# Megatron's and sglang's flags that this package's launches use, for machines that have neither.
VALUE: dict[str, Any] = {"type": str, "default": None}
NUMBER: dict[str, Any] = {"type": int, "default": None}
SWITCH: dict[str, Any] = {"action": "store_true"}
MEGATRON = {
    **dict.fromkeys(("--num-layers", "--hidden-size", "--ffn-hidden-size", "--num-attention-heads"), NUMBER),
    **dict.fromkeys(("--num-query-groups", "--rotary-base", "--vocab-size", "--kv-channels", "--seq-length"), NUMBER),
    **dict.fromkeys(("--recompute-num-layers", "--global-batch-size", "--max-position-embeddings"), NUMBER),
    **dict.fromkeys(("--save-interval", "--save-retain-interval"), NUMBER),
    **dict.fromkeys(("--normalization", "--lr-decay-style", "--optimizer", "--recompute-method"), VALUE),
    **dict.fromkeys(("--recompute-granularity", "--attention-backend", "--load", "--save"), VALUE),
    **dict.fromkeys(("--tokenizer-model", "--tokenizer-type", "--rope-type", "--moe-layer-freq"), VALUE),
    **dict.fromkeys(("--swiglu", "--group-query-attention", "--use-rotary-position-embeddings", "--fp16"), SWITCH),
    **dict.fromkeys(("--disable-bias-linear", "--qk-layernorm", "--sequence-parallel", "--finetune"), SWITCH),
    **dict.fromkeys(("--untie-embeddings-and-output-weights", "--multi-latent-attention", "--no-load-optim"), SWITCH),
    **dict.fromkeys(("--no-load-rng", "--accumulate-allreduce-grads-in-fp32", "--attention-softmax-in-fp32"), SWITCH),
    **dict.fromkeys(("--optimizer-cpu-offload", "--overlap-cpu-optimizer-d2h-h2d"), SWITCH),
    **dict.fromkeys(("--use-precision-aware-optimizer", "--moe-grouped-gemm", "--moe-permute-fusion"), SWITCH),
    **dict.fromkeys(("--add-qkv-bias", "--apply-layernorm-1p", "--attention-output-gate", "--no-rope-fusion"), SWITCH),
    **dict.fromkeys(("--no-position-embedding", "--use-gated-attention", "--moe-router-pre-softmax"), SWITCH),
    **dict.fromkeys(("--moe-router-enable-expert-bias",), SWITCH),
    **dict.fromkeys(("--num-experts", "--moe-ffn-hidden-size", "--moe-shared-expert-intermediate-size"), NUMBER),
    **dict.fromkeys(("--moe-router-topk", "--q-lora-rank", "--kv-lora-rank", "--qk-head-dim", "--v-head-dim"), NUMBER),
    **dict.fromkeys(("--qk-pos-emb-head-dim", "--make-vocab-size-divisible-by"), NUMBER),
    **dict.fromkeys(("--moe-router-dtype", "--moe-router-load-balancing-type", "--moe-router-score-function"), VALUE),
    **dict.fromkeys(("--moe-token-dispatcher-type", "--moe-token-drop-policy", "--position-embedding-type"), VALUE),
    "--spec": {"nargs": "*"},
    "--norm-epsilon": {"type": float, "default": 1e-5},
    **{
        flag: {"type": int, "default": 1}
        for flag in (
            *("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--context-parallel-size"),
            *("--expert-model-parallel-size", "--expert-tensor-parallel-size"),
        )
    },
    **{
        flag: {"type": float, "default": 0.0}
        for flag in (
            *("--lr", "--weight-decay", "--adam-beta1", "--adam-beta2"),
            *("--attention-dropout", "--hidden-dropout", "--clip-grad", "--min-lr", "--lr-warmup-fraction"),
            *("--moe-aux-loss-coeff", "--moe-router-bias-update-rate", "--moe-router-topk-scaling-factor"),
            "--rotary-percent",
        )
    },
}
SGLANG = {
    "--mem-fraction-static": {"type": float, "default": None},
    # Short names now, long ones in earlier versions of sglang.
    **{f"--{kind}-size": {"type": int, "default": 1} for kind in ("dp", "pp", "ep")},
    **{f"--{kind}-parallel-size": {"type": int, "default": 1} for kind in ("data", "pipeline", "expert")},
    "--context-length": {"type": int, "default": None},
}
standins: list[str] = []


def _stub(roots: set[str]) -> None:
    """Last in the path: asked only for what is not installed."""
    sys.meta_path.append(_Finder(roots))  # type: ignore[arg-type]


def prepare_torch() -> None:
    """What the real sglang and Megatron want of a GPU machine before they can be imported."""
    import torch

    if importlib.util.find_spec("torchvision"):  # a CUDA build beside a CPU torch lacks two operators
        library = torch.library.Library("torchvision", "DEF")
        prepare_torch.keep = library  # type: ignore[attr-defined]
        for operator in ("nms", "qnms"):
            try:
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            except RuntimeError:
                break  # a torchvision that fits its torch has them
    torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(major=9, minor=0, total_memory=80 << 30)
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.cuda.device_count = lambda: 8


def real_sglang() -> bool:
    found = importlib.util.find_spec("sglang")
    if found is None:
        return False
    os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    if importlib.util.find_spec("triton") is None:
        import torch._dynamo
        import torch._inductor.compile_fx
        import torch.utils._triton  # noqa: F401  (torch must learn that there is no triton before there is a stub)

        path = os.path.join(found.submodule_search_locations[0], "_triton_stub.py")
        spec = importlib.util.spec_from_file_location("_sglang_triton_stub", path)
        assert spec is not None and spec.loader is not None
        stub = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(stub)
        stub.install()
    return True


def fake_sglang() -> None:
    standins.append("sglang")

    class ServerArgs:
        @staticmethod
        def add_cli_args(parser: argparse.ArgumentParser) -> None:
            for flag, options in SGLANG.items():
                parser.add_argument(flag, **options)

    _stub({"sglang"})
    sys.modules["sglang.srt.server_args"] = types.SimpleNamespace(ServerArgs=ServerArgs)  # type: ignore[assignment]


def real_megatron() -> bool:
    """megatron-core alone has no arguments."""
    try:
        return importlib.util.find_spec("megatron.training.arguments") is not None
    except ModuleNotFoundError:
        return False


def fake_megatron() -> None:
    standins.append("megatron")

    def parse_args(extra_args_provider: Any, **_: Any) -> argparse.Namespace:
        parser = argparse.ArgumentParser(allow_abbrev=False)
        for flag, options in MEGATRON.items():
            parser.add_argument(flag, **options)
        args, _ = extra_args_provider(parser).parse_known_args()
        args.rank, args.world_size = 0, 1
        args.decoder_first_pipeline_num_layers = args.decoder_last_pipeline_num_layers = None
        return args

    def validate_args(args: argparse.Namespace) -> None:
        pass

    _stub({"megatron"})
    sys.modules["megatron.training.arguments"] = types.SimpleNamespace(  # type: ignore[assignment]
        parse_args=parse_args, validate_args=validate_args
    )
    sys.modules["megatron.core.tokenizers.utils.build_tokenizer"] = types.SimpleNamespace(  # type: ignore[assignment]
        vocab_size_with_padding=lambda size, args: size
    )


def fake_omegaconf() -> None:
    import yaml

    class OmegaConf:
        @staticmethod
        def load(path: str) -> Any:
            with open(path) as file:
                return yaml.safe_load(re.sub(r"\$\{oc\.env:(\w+)\}", lambda m: os.environ[m[1]], file.read()))

        @staticmethod
        def to_container(content: Any, resolve: bool) -> Any:
            return content

    standins.append("omegaconf")
    sys.modules["omegaconf"] = types.SimpleNamespace(OmegaConf=OmegaConf)  # type: ignore[assignment]


def main() -> None:
    cases = json.load(sys.stdin)
    _stub(STUBS)
    prepare_torch()
    if not real_sglang():
        fake_sglang()
    if not real_megatron():
        fake_megatron()
    if importlib.util.find_spec("omegaconf") is None:
        fake_omegaconf()

    known: set[str] = set()
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def recording(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        known.update(parser._option_string_actions)
        return parse_known_args(parser, *args, **kwargs)

    argparse.ArgumentParser.parse_known_args = recording  # type: ignore[method-assign]
    from slime.utils.arguments import parse_args

    answers = []
    environ = dict(os.environ)
    for case in cases:
        os.environ.clear()
        os.environ.update({**environ, **case["environ"]})
        sys.argv = ["train.py", *case["argv"]]
        error, values = None, {}
        try:
            parsed = parse_args()
            values = {k: v for k, v in vars(parsed).items() if isinstance(v, str | int | float | bool | None)}
            values["eval_dataset_names"] = [dataset.name for dataset in parsed.eval_datasets or []]
        except (Exception, SystemExit) as raised:
            error = f"{type(raised).__name__}: {raised}"
        flags = [word.split("=")[0] for word in case["argv"] if re.match(r"--[a-zA-Z]", word)]
        answers.append({"error": error, "unknown": [f for f in flags if f not in known], "args": values})
    print("ANSWER " + json.dumps({"cases": answers, "standins": standins}))


if __name__ == "__main__":
    main()
