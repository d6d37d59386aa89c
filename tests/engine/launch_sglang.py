"""Forge of real sglang servers and real sglang-routers, without a GPU (runs inside ``.venv-engine``).

    python launch_sglang.py     # prints "ready", then reads one JSON line per server and prints that server's pid:
        {"log": FILE, "worker": ["--model-path", DIR, "--port", "N", ...]}     sglang's own arguments
        {"log": FILE, "router": {"port": N, "worker_urls": [...], ...}}        RouterArgs; its CLI refuses some policies

sglang is imported once (20 CPU-seconds) and every server is forked from there, each the leader of its own process group.
When stdin closes, whatever still runs is killed: no server outlives the tests, however they end. Nothing in sglang's
request path is touched: what is replaced are imports and process starts that want CUDA.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",  # be a CPU server without AMX and without sgl_kernel
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",  # /health answers at once instead of sampling a token
    "OMP_NUM_THREADS": "1",  # a tiny model is 10 times slower when threads share its 64-wide matrices
    "TOKENIZERS_PARALLELISM": "false",
}
CPU_SETTINGS = {
    "device": "cpu",
    "dtype": "float32",
    "attention-backend": "torch_native",
    "sampling-backend": "pytorch",
    "grammar-backend": "none",
    "mem-fraction-static": "0.5",
    "host": "127.0.0.1",
}
CPU_SWITCHES = ("disable-overlap-schedule", "disable-cuda-graph", "skip-server-warmup", "sleep-on-idle")

_keep_alive: list[Any] = []


def declare_torchvision_ops() -> None:
    """PyPI's torchvision may be a CUDA build whose C extension does not load; its import asks for these two operators."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep_alive.append(library)


def only_load_qwen3() -> None:
    """sglang imports all its 200 model files to look one up (10 CPU-seconds); it has a variable for those to leave out."""
    models = _package_folder("sglang") / "srt" / "models"
    others = {path.stem for path in models.glob("*.py")} - {"qwen3", "qwen3_moe"}
    os.environ["SGLANG_DISABLED_MODEL_ARCHS"] = ",".join(sorted(others))


def _package_folder(name: str) -> Path:
    """Where an installed package lies, found without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def stand_in_for_triton() -> None:
    """sglang imports triton at module level; its own stub for macOS serves, once torch has settled that there is none."""
    if importlib.util.find_spec("triton") is not None:
        return
    for name in ("torch.utils._triton", "torchvision", "torch._dynamo", "torch._inductor.compile_fx"):
        importlib.import_module(name)
    path = _package_folder("sglang") / "_triton_stub.py"
    spec = importlib.util.spec_from_file_location("_sglang_triton_stub", path)
    assert spec is not None and spec.loader is not None
    stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    stub.install()


def without_pinned_memory() -> None:
    """The host buffer of routed experts asks for pinned memory, which is the GPU's."""
    import torch

    def unpinned(make: Any) -> Any:
        return lambda *args, pin_memory=False, **kwargs: make(*args, **kwargs)

    torch.zeros = unpinned(torch.zeros)


def main() -> None:
    only_load_qwen3()
    declare_torchvision_ops()
    without_pinned_memory()
    stand_in_for_triton()
    multiprocessing.set_start_method("fork", force=True)
    # sglang asks for "spawn" later; a spawned scheduler would import everything once more
    multiprocessing.set_start_method = lambda *_args, **_kwargs: None
    for name in ("entrypoints.http_server", "managers.detokenizer_manager", "managers.scheduler", "models.registry"):
        importlib.import_module(f"sglang.srt.{name}")

    alive: set[int] = set()

    def reap(*_: object) -> None:
        """Nobody else waits for the servers; a zombie would look alive to those who ask for its process group."""
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                alive.discard(pid)
        except ChildProcessError:
            return

    signal.signal(signal.SIGCHLD, reap)
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_server(request)
        os.setpgid(pid, pid)  # the child does so too: whoever reads the pid may address the group at once
        alive.add(pid)
        print(pid, flush=True)
    for pid in list(alive):
        os.killpg(pid, signal.SIGKILL)
    os._exit(0)  # nothing is left to tidy up, and the exit handlers of what was imported take seconds


def _become_server(request: dict[str, Any]) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(request["log"], "ab", buffering=0) as out, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        if "worker" in request:
            from sglang.srt.entrypoints.http_server import launch_server
            from sglang.srt.server_args import prepare_server_args

            settings = [part for name, value in CPU_SETTINGS.items() for part in (f"--{name}", value)]
            switches = [f"--{name}" for name in CPU_SWITCHES]
            launch_server(prepare_server_args([*settings, *switches, *request["worker"]]))
        else:
            from sglang_router.launch_router import launch_router
            from sglang_router.router_args import RouterArgs

            launch_router(RouterArgs(host="127.0.0.1", **request["router"]))
        status = 0
    except BaseException:  # nothing of the child may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    main()
