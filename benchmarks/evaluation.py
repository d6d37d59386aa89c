"""What the evaluation claims, shown on the embedded policy: no model, no key, no network.

    python benchmarks/evaluation.py [--gold-rate 0.6] [--output-dir DIR]

3 user simulators x 3 domains x 10 tasks x 4 attempts with a policy that plays gold with a known probability, so that
pass^k = p^k and pass@k = 1 - (1 - p)^k are known; then 2,000 simulations into one report.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tau2_slime.evaluation.command import Request, evaluate
from tau2_slime.evaluation.report import html
from tau2_slime.evaluation.statistics.summary import Summary, read_folder


def closed_form(summary: Summary, p: float) -> None:
    """Every group's scores beside what they must be."""
    inside = total = 0
    print(f"{'':32} k  pass^k  closed  95% interval      pass@k  closed  95% interval")
    for group in summary.groups:
        for k, hat in group.scores.pass_hat.items():
            at = group.scores.pass_at[k]
            truths = (p**k, 1 - (1 - p) ** k)
            for estimate, truth in zip((hat, at), truths, strict=True):
                total += 1
                inside += estimate.low <= truth <= estimate.high
            if group.kind == "overall":
                print(
                    f"{group.name:32} {k}  {hat.value:.3f}   {truths[0]:.3f}   {hat.low:.3f} to {hat.high:.3f}"
                    f"    {at.value:.3f}   {truths[1]:.3f}   {at.low:.3f} to {at.high:.3f}"
                )
    print(f"intervals that hold the closed form, all groups and k: {inside} of {total}")


def big_report(folder: Path, episodes: int) -> None:
    """The run's records, repeated under new attempt numbers until there are ``episodes``, as one report."""
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    attempts = max(row["attempt"] for row in rows) + 1
    copies = -(-episodes // len(rows))
    with tempfile.TemporaryDirectory() as scratch:
        big = Path(scratch)
        for part in manifest["protocol"].values():
            part["attempts"] = attempts * copies
        (big / "manifest.json").write_text(json.dumps(manifest))
        with (big / "simulations.jsonl").open("w") as file:
            for copy in range(copies):
                for row in rows:
                    file.write(json.dumps({**row, "attempt": row["attempt"] + copy * attempts}) + "\n")
        started = time.perf_counter()
        summary = read_folder(big)
        page = html.render(summary)
        seconds = time.perf_counter() - started
    print(f"report of {len(summary.played)} simulations: {seconds:.1f} s, {len(page.encode()) / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold-rate", type=float, default=0.6)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--attempts", type=int, default=4)
    parser.add_argument("--output-dir", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.output_dir or Path(scratch) / "run"
        started = time.perf_counter()
        request = Request(folder, tasks=given.tasks, attempts=given.attempts, gold_rate=given.gold_rate)
        status = evaluate(request, Console(quiet=True))
        summary = read_folder(folder)
        print(f"{summary.overall.played} episodes in {time.perf_counter() - started:.1f} s, exit status {status}")
        closed_form(summary, given.gold_rate)
        big_report(folder, 2000)


if __name__ == "__main__":
    main()
