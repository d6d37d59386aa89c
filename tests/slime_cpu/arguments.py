"""slime's real command line, parsed and validated without megatron and sglang."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

# What sglang's and megatron's own parsers would add, and a rollout reads.
_FOREIGN: dict[str, Any] = {
    "--sglang-router-ip": None,
    "--sglang-router-port": 0,
    "--sglang-server-concurrency": 512,
    "--sglang-dp-size": 1,
    "--sglang-context-length": None,
    "--router-policy": "cache_aware",
    "--sglang-speculative-algorithm": None,
    "--sglang-enable-deterministic-inference": False,
    "--rollout-num-engines": None,
    "--context-parallel-size": 1,
    "--num-layers": 2,
    "--moe-router-topk": 2,
    "--train-backend": "megatron",
    "--debug-rollout-only": False,
    "--debug-train-only": False,
    "--load-debug-rollout-data": None,
    "--fp16": False,
}
_DEFAULTS: dict[str, Any] = {
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "rank": 0,
    "world_size": 1,
    "start_rollout_id": 0,
    "use_slime_router": False,
    "use_miles_router": False,
    "sglang_router_policy": None,
    "data_parallel_size": 1,
    "slime_router_middleware_paths": [],
    "ci_test": False,
    "offload": False,
}


def parse(argv: Sequence[str], package: str = "slime") -> argparse.Namespace:
    """What the rollout of ``package`` (slime or miles) would get for ``argv``. Call it while the stubs are in place.

    Raises:
        SystemExit: a flag that this slime does not know.
        Exception: whatever slime's validation says.
    """
    module = importlib.import_module(f"{package}.utils.arguments")
    parser = argparse.ArgumentParser(package, allow_abbrev=False, conflict_handler="resolve")
    parser = getattr(module, f"get_{package}_extra_args_provider")()(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    for flag, default in _FOREIGN.items():
        if flag in known:
            continue
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, default=default, type=type(default) if default is not None else str)
    args = parser.parse_args(list(argv))
    if args.global_batch_size is None:
        args.global_batch_size = args.rollout_batch_size * args.n_samples_per_prompt
    for _ in range(300):  # what only megatron's parser would set is None
        try:
            getattr(module, f"{package}_validate_args")(args)
            break
        except AttributeError as error:
            if not error.name or error.obj is not args:
                raise
            setattr(args, error.name, _DEFAULTS.get(error.name))
    for name, value in _DEFAULTS.items():
        if not hasattr(args, name):
            setattr(args, name, value)
    return args
