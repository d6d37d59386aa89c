"""Does a policy get better through this package?  ``make learn`` (an hour and a half on two cores), or

    python -m benchmarks.learning --slime SLIME_CHECKOUT [--small] [--kinds sync shuffle ...] [--seeds 1 2 3 4]

Real are slime's rollout code, advantages and loss, sglang and its router, and `generate`; the weights go through sglang's
endpoint. Only Megatron's model is replaced, by transformers' Qwen3 with half a million weights. A run goes on where it
stopped. The end is a line for each claim, and PASS or FAIL (exit status 1). ``docs/learning.md`` says what it shows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.learning import numbered_tasks, plot, verdict
from benchmarks.learning.rows import read_curve
from benchmarks.learning.settings import Settings, WarmStart
from tests.slime_cpu.plan import package_of

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "learning"
ENVIRONMENT = {
    **{"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    "TORCHDYNAMO_DISABLE": "1",  # slime's losses are compiled with it, which takes longer than the run
}
FAULTS = ("context", "shift")


SEEDS = {"sync": None, "shuffle": 3, "unseen": 3}
"""How many of the seeds a kind takes at most; the others take one."""


def runs_of(kind: str, seeds: Sequence[int], *, small: bool, device: str) -> Iterator[Settings]:
    """The runs of one kind. Controls and other modes take half of the steps; a fault is found in the first."""
    full = Settings(device=device)
    if small:
        # The first steps of the whole run, with its learning rates.
        full = replace(full, steps=8, final_rate=full.rate_at(7), eval_every=0, final_attempts=32)
    elif kind in ("shuffle", "partial", "async"):
        full = replace(full, steps=full.steps // 2)
    if kind == "unseen":
        split, seen, unseen = numbered()
        full = replace(full, task_split=split, train_tasks=seen, held_out=unseen, eval_every=10)
        full = replace(full, eval_attempts=1, final_attempts=1)
    for seed in seeds[: SEEDS.get(kind, 1)]:
        settings = replace(full, seed=seed)
        if kind in ("partial", "async"):
            yield replace(settings, mode=kind)
        elif kind in FAULTS:
            yield replace(settings, control=kind, steps=1, final_attempts=1)
        else:
            yield replace(settings, control="shuffle") if kind == "shuffle" else settings


def numbered() -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The split of the numbered tasks, the ids that training may see, and the others."""
    path = CACHE / "numbered.json"
    return f"file:{path}", *numbered_tasks.write(path)


def warm_start(slime: str, kind: str) -> Path:
    """The checkpoint that the runs of ``kind`` start from; made in the first minutes, and kept in ``CACHE``."""
    import torch

    from benchmarks.learning import slime_code
    from benchmarks.learning import warm_start as start

    torch.set_num_threads(1)
    args = Namespace(**slime_code.TRAINER_DEFAULTS, rollout_temperature=1.0, entropy_coef=0.0)
    recipe = WarmStart()
    if kind == "unseen":
        split, seen, _ = numbered()
        model = replace(recipe.model, single_digits=True)
        recipe = replace(recipe, model=model, task_split=split, tasks=seen, attempts=4)
        recipe = replace(recipe, whole=True, steps=1000, rate=2e-3)
    return start.make(recipe, slime_code.load_loss(slime), args, CACHE)


_running: list[subprocess.Popen[str]] = []


def _stop(*_: object) -> None:
    """On SIGTERM: the runs stop their servers, and go on after their last step when they are started again."""
    for process in _running:
        process.terminate()
    sys.exit(143)


def carry_out(folder: Path, settings: Settings, checkpoint: Path, options: argparse.Namespace) -> verdict.Curve:
    """A run in a process of its own; its lines are printed with its name."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps({**asdict(settings), **({"router": options.router} if options.router else {})})
    described = folder / "settings.json"
    if described.is_file() and described.read_text(encoding="utf-8") != wanted:
        raise SystemExit(f"{folder} holds a run with other settings: name another folder with --output-dir")
    described.write_text(wanted, encoding="utf-8")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.learning.run",
        str(folder),
        str(checkpoint),
        options.slime,
    ]
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=log, text=True
        )
        _running.append(process)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("step "):
                    print(f"{folder.name}: {line}", end="", flush=True)
                else:
                    log.write(line)
        except BaseException:
            process.terminate()
            raise
        finally:
            _running.remove(process)
    if process.wait():
        raise SystemExit(f"{folder.name} failed; see {folder / 'log.txt'}")
    return verdict.Curve(folder.name, read_curve(folder))


def main() -> None:
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--slime",
        default=os.environ.get("SLIME_DIR"),
        help="slime checkout, or folder that holds miles (default: SLIME_DIR)",
    )
    parser.add_argument("--output-dir", type=Path, default=ROOT / "runs" / "learning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    kinds = ["sync", "shuffle", "partial", "async", "unseen", *FAULTS]
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--small", action="store_true", help="8 steps instead of 20")
    parser.add_argument("--at-once", type=int, default=2, help="runs that share the machine (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="Qwen3 checkpoint to start from instead of the tiny one")
    parser.add_argument("--router", help="http://host:port of a router that serves it (default: sglang on this CPU)")
    parser.add_argument("--device", default="cpu", help="of the trainer (default: %(default)s)")
    options = parser.parse_args()
    package = package_of(options.slime or "")
    if not options.slime or not Path(options.slime, package, "rollout").is_dir():
        parser.error(f"--slime {options.slime}: no slime checkout (git clone https://github.com/THUDM/slime)")
    if package == "miles" and "async" in options.kinds:
        parser.error("--kinds async: these are slime's fully-async rollouts, and --slime names miles; leave async out")
    options.slime = str(Path(options.slime).resolve())
    planned = [
        (kind, f"{kind}-{settings.seed}", settings)
        for kind in options.kinds
        for settings in runs_of(kind, options.seeds, small=options.small, device=options.device)
    ]
    starts = {kind: options.checkpoint or warm_start(options.slime, kind) for kind in options.kinds}

    def run(one: tuple[str, str, Settings]) -> verdict.Curve:
        return carry_out(options.output_dir / one[1], one[2], starts[one[0]], options)

    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(run, planned))
    curves: dict[str, list[verdict.Curve]] = {}
    for (kind, _, _), curve in zip(planned, found, strict=True):
        curves.setdefault(kind, []).append(curve)
    plot.draw(curves, options.output_dir / "curves.png")
    checks = list(verdict.judge(curves))
    print("\n".join(map(str, checks)))
    print(f"curves: {options.output_dir / 'curves.png'}")
    print("PASS" if all(check.holds for check in checks) else "FAIL")
    sys.exit(not all(check.holds for check in checks))


if __name__ == "__main__":
    main()
