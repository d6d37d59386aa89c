"""slime's `RolloutManager`, played through rollouts and evaluations, every sample checked."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib
import json
import os
import pickle
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slime_cpu import arguments, check, watch
from tests.slime_cpu.plan import Plan
from tests.slime_cpu.server import Options, serving
from tests.slime_cpu.stubs import stubbed
from tests.slime_cpu.updates import WeightUpdates, update

FULLY_ASYNC = "slime.rollout.fully_async_rollout"
"""Runs in a thread of its own; miles' is a task of the rollouts' loop."""
LATE = ("fully_async_rollout", "inference_rollout.inference_rollout_train", "inference_rollout.inference_rollout_eval")
"""Modules of slime or miles that are imported when they are used, and want the stubs."""


class Run:
    """A plan being carried out. ``report`` is plain data."""

    def __init__(self, plan: Plan, router: str, checkpoint: str) -> None:
        self.plan, self.router = plan, router
        self.journal = check.Journal()
        self.metrics: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.report: dict[str, Any] = {"problems": self.problems, "rollouts": [], "evaluations": []}
        self._seen: set[int] = set()
        self._waiting: dict[int, check.Snapshot] = {}
        self._output: Any = None
        self.counts: dict[str, int] = {}
        os.environ.update(plan.env)
        with stubbed():
            self._manager_module = manager_module(plan.package)
            self.sample_class = importlib.import_module(f"{plan.package}.utils.types").Sample
            importlib.import_module(f"{plan.package}.rollout.sglang_rollout")
            for late in LATE:
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(f"{plan.package}.rollout.{late}")
            listen_to_trackers(plan.package, lambda metrics, *_, **__: self.metrics.append(dict(metrics)))
            self.args = arguments.parse(plan.command_line(router, checkpoint), plan.package)
            self.manager = self._build_manager()
        self.args.use_wandb = True  # what it logs arrives in self.metrics
        for name in ("call_rollout_fn", "call_rollout_function"):  # the second is miles', of its class-based rollouts
            if hasattr(self._manager_module, name):
                setattr(self._manager_module, name, self._listening(getattr(self._manager_module, name)))

    # ---- setting up --------------------------------------------------------------------------------------------------

    def _listening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*args: Any, **kwargs: Any) -> Any:
            self._output = call(*args, **kwargs)
            return self._output

        return listening

    def _build_manager(self) -> Any:
        module = self._manager_module

        def no_servers(*_: Any) -> Any:
            return ({}, []) if "rollout_init_handles" in module.RolloutManager.__init__.__code__.co_varnames else {}

        if self.plan.package == "miles":  # sglang's own class says that nothing is dumped
            importlib.import_module("miles.utils.dumper_utils").configure_sglang = nothing
        for name, stand_in in {
            "start_rollout_servers": no_servers,
            "init_rollout_engines": lambda *_: 0,
            "_start_router": lambda *_, **__: (self.args.sglang_router_ip, self.args.sglang_router_port),
            "init_tracking": lambda *_, **__: None,
            "_start_session_server": lambda *_: None,
            "start_session_server": lambda *_: None,
        }.items():
            if hasattr(module, name):
                setattr(module, name, stand_in)
        manager = module.RolloutManager(self.args, None)
        if hasattr(manager, "set_train_parallel_config"):
            parallel = {"dp_size": 1, "cp_size": 1, "vpp_size": 1, "microbatch_group_size_per_vp_stage": 1}
            manager.set_train_parallel_config(parallel)
        return manager

    # ---- playing -----------------------------------------------------------------------------------------------------

    def train(self, rollout_id: int) -> None:
        begin = time.perf_counter()
        self.metrics.clear()
        limited(lambda: finished(self.manager.generate(rollout_id)), self.plan.patience)
        seconds = time.perf_counter() - begin
        self._read_journal()
        groups = self._output.samples
        self._tell(f"rollout {rollout_id}", check.batch_problems(groups, self.plan.group_size, self._seen))
        if len(groups) != self.plan.groups:
            self._tell(f"rollout {rollout_id}", [f"{len(groups)} groups instead of {self.plan.groups}"])
        told = [self._check(f"rollout {rollout_id}", sample, evaluation=False) for group in groups for sample in group]
        entry = {
            "seconds": round(seconds, 2),
            "groups": len(groups),
            **_sum(told),
            "metrics": self._metric_names(),
            "logged": self._logged(),
        }
        self._load_dump(rollout_id, [sample for group in groups for sample in group])
        entry["buffered"] = self._look_at_buffer(f"buffer after {rollout_id}")
        if self.plan.watched:
            entry.update(memory=round(watch.memory(), 1), threads=len(watch.threads()))
        self.report["rollouts"].append(entry)
        self._output = None

    def evaluate(self) -> None:
        begin = time.perf_counter()
        self.metrics.clear()
        limited(lambda: finished(self.manager.eval(0)), self.plan.patience)
        seconds = time.perf_counter() - begin
        self._read_journal()
        for name, data in self._output.data.items():
            samples = data["samples"]
            expected = len(samples) if self.plan.eval_config else 2 * len(self.plan.tasks)
            if [sample.index for sample in samples] != list(range(expected)):
                self._tell(f"eval {name}", [f"indices {[sample.index for sample in samples]}"])
            told = [self._check(f"eval {name}", sample, evaluation=True) for sample in samples]
            entry = {
                "seconds": round(seconds, 2),
                "dataset": name,
                **_sum(told),
                "metrics": self._metric_names(),
                "logged": self._logged(),
            }
            self.report["evaluations"].append(entry)

    def finish(self) -> None:
        """Stop slime's worker, if it has one, and look at what is left."""
        module = sys.modules.get(FULLY_ASYNC)
        worker = getattr(module, "_global_worker", None)
        if module is not None and worker is not None:
            module._stop_global_worker()
            worker.worker_thread.join(60)
            if worker.worker_thread.is_alive():
                self.problems.append("slime's worker thread does not end")
        self._read_journal()
        self.report.update(self.counts)
        self.report["slime"] = self._features()
        if self.plan.watched:
            self.report["watched"] = {
                "left_behind": {k: n for k, n in watch.left_behind.items() if not k.startswith(watch.LITELLM)},
                "loops": len(watch.loops),
                "played": watch.played,
                "at_once": watch.peak,
                "threads": watch.threads(),
            }

    # ---- looking -----------------------------------------------------------------------------------------------------

    def _check(self, where: str, sample: Any, *, evaluation: bool) -> dict[str, Any]:
        before = None if evaluation else self._waiting.pop(sample.index, None)
        params = (
            None if evaluation else (self.args.rollout_temperature, self.args.rollout_top_p, self.args.rollout_top_k)
        )
        masked = bool(getattr(self.args, "mask_offpolicy_in_partial_rollout", False))
        verdict = check.check_sample(sample, self.journal, before=before, mask_offpolicy=masked, params=params)
        if not evaluation:
            verdict.problems += check.replay_problems(
                sample,
                top_p=self.args.rollout_top_p != 1.0 and hasattr(sample, "rollout_top_p_token_ids"),
                routed=self.args.use_rollout_routing_replay,
            )
        self._tell(f"{where}, sample {sample.index}", verdict.problems)
        told = {
            **{
                "calls": verdict.calls,
                "cut": verdict.cut,
                "spanned": verdict.spanned,
                "unused": verdict.unused,
                "proven": verdict.proven,
            },
            "traced": verdict.traced,
            "resumed": int(before is not None and before.unfinished and before.sampled > 0),
            "weights": max(0, len(set(sample.weight_versions)) - 1),
            "restarted": int(bool(sample.metadata["tau2"].get("restarted"))),
            "status": sample.status.name,
            "reward": sample.reward,
        }
        return told

    def _look_at_buffer(self, where: str) -> int:
        """What slime took back unfinished: remembered, and put through a file if the plan says so."""
        buffer = getattr(self.manager.data_source, "buffer", [])
        for group in buffer:
            for position, sample in enumerate(group):
                if not sample.tokens:
                    continue
                self._tell(f"{where}, sample {sample.index}", check.shape_problems(sample))
                self._waiting[sample.index] = check.Snapshot.of(sample, self._waiting.get(sample.index))
                if self.plan.reload_buffer:
                    group[position] = self.sample_class.from_dict(pickle.loads(pickle.dumps(sample.to_dict())))
        return len(buffer)

    def _load_dump(self, rollout_id: int, samples: list[Any]) -> None:
        import torch

        path = Path(self.plan.folder) / f"{rollout_id}.pt"
        again = [self.sample_class.from_dict(row) for row in torch.load(path, weights_only=False)["samples"]]
        if [sample.tokens for sample in again] != [sample.tokens for sample in samples]:
            self._tell(f"dump {rollout_id}", ["is not what was returned"])
        if not self.plan.keep_dumps:
            path.unlink()

    def _read_journal(self) -> None:
        with urllib.request.urlopen(f"{self.router}/journal", timeout=60) as reply:
            told = json.load(reply)
        self.journal.add(told.pop("calls"))
        self.counts = told

    def _logged(self) -> list[dict[str, float]]:
        """What slime's tracker was handed, call by call."""
        return [{name: float(value) for name, value in metrics.items()} for metrics in self.metrics]

    def _metric_names(self) -> list[str]:
        return sorted({name for metrics in self.metrics for name in metrics})

    def _tell(self, where: str, problems: list[str]) -> None:
        self.problems += [f"{where}: {problem}" for problem in problems]

    def _features(self) -> dict[str, bool]:
        fields = self.sample_class.__dataclass_fields__
        return {
            "session_id": "session_id" in fields,
            "tracing": any(name.endswith("trace_utils") for name in sys.modules if name.startswith(self.plan.package)),
            "fully_async": FULLY_ASYNC in sys.modules,
        }


def _sum(told: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("calls", "cut", "spanned", "unused", "proven", "traced", "resumed", "restarted", "weights")
    return {
        "episodes": len(told),
        "status": dict(collections.Counter(one["status"] for one in told)),
        "reward": sum(one["reward"] for one in told) / max(1, len(told)),
        **{name: sum(one[name] for one in told) for name in names},
    }


def listen_to_trackers(package: str, listener: Callable[..., None]) -> None:
    """``listener`` gets each record that slime hands to W&B, or miles to its trackers."""
    if package == "slime":
        sys.modules["wandb"].log = listener  # type: ignore[attr-defined]
        return
    trackers = importlib.import_module("miles.utils.tracking_utils")
    if not hasattr(trackers, "_manager"):  # miles has moved it since 0.0.2
        trackers = importlib.import_module("miles.utils.tracking_utils.tracking")
    trackers._manager.log = listener


def manager_module(package: str) -> Any:
    """Where `RolloutManager` is; miles has moved it since 0.0.2."""
    moved = f"{package}.ray.rollout.rollout_manager"
    module = importlib.import_module(f"{package}.ray.rollout")
    return module if hasattr(module, "RolloutManager") else importlib.import_module(moved)


async def nothing(*_: Any) -> None:
    pass


def finished(result: Any) -> Any:
    """``result``, awaited if it is a coroutine (miles)."""
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def limited(work: Callable[[], Any], seconds: float) -> Any:
    """``work()``, in a thread of its own so that a rollout that never returns can be given up."""
    box: dict[str, Any] = {}

    def call() -> None:
        try:
            box["value"] = work()
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=call, name="rollout", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"it has not returned after {seconds:g} s")
    if "error" in box:
        raise box["error"]
    return box.get("value")


def carry_out(plan: Plan) -> dict[str, Any]:
    """The report of ``plan``; what slime itself raised is a problem like any other."""
    from tau2_slime.local.tokenizer import local_checkpoint

    sys.path.insert(0, plan.slime)
    checkpoint = str(local_checkpoint())
    with serving(Options(checkpoint, **plan.server)) as router:
        run = Run(plan, router, checkpoint)
        updates = WeightUpdates(router, plan.update_every, plan.pause_mode) if plan.update_every else None
        if updates is not None:
            updates.start()
        try:
            for rollout_id in range(plan.rollouts):
                run.train(rollout_id)
                if updates is None and plan.update_between:
                    update(router)
            if plan.evaluate or plan.eval_beside:
                run.evaluate()
        except Exception as error:
            run.problems.append(f"slime raised {type(error).__name__}: {error}")
        if updates is not None:
            updates.stop()
        run.finish()
    return run.report
