"""slime's own rollout, advantages and loss, or those of miles, its fork, imported on a machine without a GPU.

Real are `RolloutManager` with slime's rollout functions, `compute_advantages_and_returns`, `loss_function`, its schedule of
optimizer steps and `megatron.core`. Stand-ins are Ray (calls go straight through) and the start of its servers.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import types
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch.distributed

from tests.slime_cpu import arguments
from tests.slime_cpu.drive import listen_to_trackers, manager_module, nothing
from tests.slime_cpu.modes import FULLY_ASYNC_FLAGS
from tests.slime_cpu.plan import package_of
from tests.slime_cpu.stubs import stubbed

if TYPE_CHECKING:
    from benchmarks.learning.settings import Settings
    from tau2_slime.slime_adapter.types import SlimeSample

GENERATE = "tau2_slime.generate_with_tau2.generate"
TURN = 128
"""Tokens that a turn may sample. Gold's longest has half of them; a policy that rambles costs most of the time."""
HOOKS = (
    *("--custom-reward-post-process-path", "tau2_slime.hooks.post_process_rewards"),
    *("--custom-rollout-log-function-path", "tau2_slime.hooks.log_train_rollout"),
    *("--custom-eval-rollout-log-function-path", "tau2_slime.hooks.log_eval_rollout"),
)
# What only Megatron's command line sets, as slime's launch scripts leave it.
TRAINER_DEFAULTS = {
    **{"use_opd": False, "use_opsm": False, "use_tis": False, "get_mismatch_metrics": False, "allgather_cp": False},
    **{"recompute_loss_function": False, "log_probs_chunk_size": -1, "calculate_per_token_loss": False},
    **{"normalize_advantages": False, "use_kl_loss": False, "kl_coef": 0.0, "use_unbiased_kl": False},
    **{"use_rollout_logprobs": False, "custom_advantage_function_path": None, "use_dynamic_batch_size": False},
    **{"balance_data": False, "balance_by_flops": False, "micro_batch_size": 16},
    # miles' own
    **{"qkv_format": "thd", "use_dynamic_global_batch_size": False, "true_on_policy_mode": False},
    **{"custom_pg_loss_reducer_function_path": None, "dump_details": None, "recompute_logprobs_via_prefill": False},
}


class LossModule(Protocol):
    """slime/backends/megatron_utils/loss.py, as far as it is used here."""

    compute_advantages_and_returns: Callable[[Namespace, dict[str, Any]], None]
    loss_function: Callable[..., tuple[torch.Tensor, Any, dict[str, Any]]]


class MilesLoss:
    """The loss module of miles, called as slime's."""

    def __init__(self) -> None:
        parallel = importlib.import_module("miles.backends.training_utils.parallel")
        alone = parallel.GroupInfo(0, 1, torch.distributed.group.WORLD)
        names = ("intra_dp", "intra_dp_cp", "cp", "tp", "pp", "ep", "etp")
        parallel.set_parallel_state(parallel.ParallelState(**dict.fromkeys(names, alone)))
        self._module = importlib.import_module("miles.backends.training_utils.loss")
        self.compute_advantages_and_returns = self._module.compute_advantages_and_returns

    def loss_function(
        self, args: Namespace, batch: dict[str, Any], micro_batches: int, size: int, logits: torch.Tensor
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """``size``: episodes of the optimizer step, miles' global batch."""
        args = Namespace(**{**vars(args), "global_batch_size": size})
        told: tuple[torch.Tensor, Any, dict[str, Any]] = self._module.loss_function(
            args, batch, micro_batches, logits, apply_megatron_loss_scaling=True
        )
        return told


@functools.cache
def load_loss(slime: str) -> LossModule:
    """slime's loss module on a real `megatron.core.mpu` of one process, or that of miles.

    The package around slime's wants an accelerator when it is imported, so a bare one takes its place.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    mpu = importlib.import_module("megatron.core").mpu
    mpu.initialize_model_parallel()
    if slime not in sys.path:
        sys.path.insert(0, slime)
    if package_of(slime) == "miles":
        with stubbed():  # Ray and sglang, which its helpers import
            return MilesLoss()
    importlib.import_module("slime")
    package = types.ModuleType("slime.backends.megatron_utils")
    package.__path__ = [os.path.join(slime, "slime", "backends", "megatron_utils")]
    sys.modules["slime.backends.megatron_utils"] = package
    loss: LossModule = importlib.import_module("slime.backends.megatron_utils.loss")  # type: ignore[assignment]
    return loss


def command_line(settings: Settings, router: str, checkpoint: Path, folder: Path) -> list[str]:
    """slime's arguments for a run; writes the files that they name into ``folder``."""
    host, port = router.removeprefix("http://").split(":")
    datasets = []
    for name, tasks in (("train", settings.train_tasks), ("held_out", settings.held_out)):
        rows = [
            {"prompt": task, "metadata": {"task_id": task, "domain": "mock", "task_split": settings.task_split}}
            for task in tasks
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths = {"path": str(folder / f"{name}.jsonl"), "custom_generate_function_path": GENERATE}
        datasets.append({"name": name, "input_key": "prompt", "metadata_key": "metadata", **paths})
    defaults: dict[str, float] = {"n_samples_per_eval_prompt": settings.eval_attempts, "max_response_len": TURN}
    defaults["temperature"] = settings.temperature
    (folder / "eval.yaml").write_text(json.dumps({"eval": {"defaults": defaults, "datasets": datasets}}))
    tau2 = {
        "domain": "mock",
        "task_split": settings.task_split,
        "user_model": "scripted",
        "drift_rate": 1.0,
        "max_turns": 16,
    }
    (folder / "tau2.yaml").write_text(json.dumps({"tau2": tau2}))
    argv = [
        *("--hf-checkpoint", str(checkpoint), "--prompt-data", str(folder / "train.jsonl"), "--input-key", "prompt"),
        *("--metadata-key", "metadata", "--custom-config-path", str(folder / "tau2.yaml")),
        *("--custom-generate-function-path", GENERATE, "--sglang-router-ip", host, "--sglang-router-port", port),
        *("--rollout-batch-size", str(settings.groups), "--n-samples-per-prompt", str(settings.group_size)),
        *("--global-batch-size", str(settings.global_batch), "--num-rollout", str(settings.steps)),
        *("--rollout-max-response-len", str(TURN), "--rollout-max-context-len", "2000"),
        *("--rollout-temperature", str(settings.temperature)),
        *("--rollout-num-gpus", "1", "--rollout-num-gpus-per-engine", "1", "--actor-num-gpus-per-node", "1"),
        *("--rollout-seed", str(settings.seed), "--rollout-shuffle", "--eval-config", str(folder / "eval.yaml")),
        *("--advantage-estimator", "grpo", "--eps-clip", "0.2", "--eps-clip-high", "0.28"),
        *("--entropy-coef", "0", *HOOKS),
    ]
    if not settings.divide_by_std:
        argv += ["--disable-grpo-std-normalization"]
    if settings.mode == "partial":
        argv += ["--partial-rollout", "--over-sampling-batch-size", str(settings.groups * 2), "--use-rollout-logprobs"]
        argv += ["--dynamic-sampling-filter-path", "tau2_slime.hooks.keep_informative_groups"]
    if settings.mode == "async":
        argv += [*FULLY_ASYNC_FLAGS, "--sglang-server-concurrency", str(settings.groups), "--use-rollout-logprobs"]
    return argv


class Rollouts:
    """slime's `RolloutManager`, and what its last rollout was."""

    def __init__(self, slime: str, argv: Sequence[str]) -> None:
        if slime not in sys.path:
            sys.path.insert(0, slime)
        self.metrics: dict[str, float] = {}
        """What slime and the hooks logged of the last rollout or evaluation."""
        self._package = package_of(slime)
        with stubbed():
            self._module = manager_module(self._package)
            importlib.import_module(f"{self._package}.rollout.sglang_rollout")
            listen_to_trackers(self._package, lambda metrics, *_, **__: self.metrics.update(metrics))
            self.args = arguments.parse(argv, self._package)
            self._manager = self._build()
        self.args.use_wandb = True  # what it logs arrives in self.metrics
        for name, value in TRAINER_DEFAULTS.items():
            if getattr(self.args, name, None) is None:
                setattr(self.args, name, value)
        self.samples: list[list[SlimeSample]] = []
        self._output: Any = None
        original = self._module.call_rollout_fn

        def call_rollout_fn(*args: Any, **kwargs: Any) -> Any:
            self._output = original(*args, **kwargs)
            return self._output

        self._module.call_rollout_fn = call_rollout_fn

    def _build(self) -> Any:
        module, args = self._module, self.args
        with_handles = "rollout_init_handles" in module.RolloutManager.__init__.__code__.co_varnames
        for name, stand_in in {
            "start_rollout_servers": lambda *_: ({}, []) if with_handles else {},
            "init_rollout_engines": lambda *_: 0,
            "_start_router": lambda *_, **__: (args.sglang_router_ip, args.sglang_router_port),
            "init_tracking": lambda *_, **__: None,
            "_start_session_server": lambda *_: None,
        }.items():
            if hasattr(module, name):
                setattr(module, name, stand_in)
        if self._package == "miles":
            importlib.import_module("miles.utils.dumper_utils").configure_sglang = nothing
        manager = module.RolloutManager(args, None)
        parallel = {"dp_size": 1, "cp_size": 1, "vpp_size": 1, "microbatch_group_size_per_vp_stage": 1}
        if hasattr(manager, "set_train_parallel_config"):
            manager.set_train_parallel_config(parallel)
        return manager

    def generate(self, rollout_id: int) -> dict[str, Any]:
        """One rollout as slime's trainer gets it. `samples` holds its groups."""
        self.metrics.clear()
        (box,) = self._manager.generate(rollout_id)
        self.samples = self._output.samples
        data: dict[str, Any] = getattr(box, "inner", box)
        if self._package == "miles":  # its trainer makes the schedule, not its rollout
            _add_schedule(self.args, data)
        return data

    def evaluate(self, attempts: int) -> dict[str, list[float]]:
        """Dataset and task -> the rewards of its ``attempts`` episodes (``train/create_task_1``)."""
        self.metrics.clear()
        for dataset in self.args.eval_datasets:
            dataset.n_samples_per_eval_prompt = attempts
        self._manager.eval(0)
        found: dict[str, list[float]] = {}
        for name, data in self._output.data.items():
            for sample in data["samples"]:
                if not sample.metadata["tau2"].get("excluded"):
                    found.setdefault(f"{name}/{sample.metadata['task_id']}", []).append(float(sample.reward))
        return found

    @contextmanager
    def worker_ended(self) -> Iterator[None]:
        """On leaving, slime's fully-async worker is stopped, if there is one."""
        try:
            yield
        finally:
            module = sys.modules.get("slime.rollout.fully_async_rollout")
            if module is not None:
                module._stop_global_worker()


def _add_schedule(args: Namespace, data: dict[str, Any]) -> None:
    """miles' own schedule of micro-batches, spelt as slime spells it in ``data``."""
    schedule = importlib.import_module("miles.backends.training_utils.data")
    _, data["num_microbatches"] = schedule.get_data_iterator(args, [], data)
    size = args.micro_batch_size  # of every micro-batch: they follow one another
    starts = range(0, sum(data["num_microbatches"]) * size, size)
    data["micro_batch_indices"] = [list(range(start, start + size)) for start in starts]
