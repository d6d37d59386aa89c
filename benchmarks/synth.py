"""How many verified tasks a CPU minute gives, how many proposals pass, and how varied they are.

    python -m benchmarks.synth --num-samples 1000 --seed 7

With ``--stock FILE`` every task, the hard ones too, is scored by τ²'s unmodified evaluator as well: gold, doing nothing and
a transfer at once. FILE gets a line a task, and the same command goes on after an interruption. τ²'s own loader reads a
database once; every environment then gets a fresh copy of it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import pickle
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.synth import report
from tau2_slime.synth.gates.held_out import held_out
from tau2_slime.synth.generate import Event, Generator, Plan
from tau2_slime.synth.verify import Judge
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import tau2_compat

DOMAINS = ("airline", "retail", "telecom")
EASY = {"airline": 0.5, "retail": 0.5, "telecom": 0.1}
"""Share of easy tasks; telecom has 13 compositions of faults that take one call."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hard", type=int, default=100)
    parser.add_argument("--stock", type=Path, metavar="FILE")
    parser.add_argument("--domain", action="append", choices=DOMAINS)
    given = parser.parse_args()
    for domain in given.domain or DOMAINS:
        judge = Judge(domain, templates=True)
        events: list[Event] = []
        tasks: list[dict[str, Any]] = []
        easy = int(given.num_samples * EASY[domain])
        for difficulty, count in (("easy", easy), ("medium", given.num_samples - easy), ("hard", given.hard)):
            own = measured(domain, difficulty, count, given.seed, judge)
            tasks += [event.row for event in own if event.verdict.accepted]
            events += own if difficulty != "hard" else []
        describe(domain, events)
        if given.stock is not None:
            stock(domain, tasks, given.stock)


def measured(domain: str, difficulty: str, count: int, seed: int, judge: Judge) -> list[Event]:
    """Make a set, and print its yield and its speed."""
    began = time.process_time()
    events = list(Generator(Plan(domain, difficulty, count, seed), judge).events())
    seconds = time.process_time() - began
    accepted = sum(event.verdict.accepted for event in events)
    gates = Counter(gate for event in events for gate in event.verdict.failed)
    share = accepted / max(1, len(events))
    print(
        f"{domain:8} {difficulty:7} {accepted:5} of {count} tasks, {share:6.1%} of {len(events)} proposals accepted, "
        f"{60 * accepted / max(seconds, 1e-9):6.0f} a CPU minute, rejected by {dict(gates)}",
        flush=True,
    )
    return events


def describe(domain: str, events: Sequence[Event]) -> None:
    """Print the diversity of the accepted tasks, and the held-out customers among them."""
    found = report.summary(domain, [event.as_row() for event in events])
    own = found["measures"]["synthetic"]
    test_users = held_out(domain, "test").users & {event.proposal.user for event in events if event.verdict.accepted}
    print(
        f"{domain:8} bigrams {found['official_bigrams_covered']:.0%}, tools JS {found['js_divergence_of_tools']:.3f} bits, "
        f"distinct-3 {own['distinct_3']:.2f}, jaccard {own['jaccard']:.2f}, write multisets {own['write_multisets']}, "
        f"{found['users']} customers, {len(test_users)} of the test split",
        flush=True,
    )


def stock(domain: str, tasks: Sequence[dict[str, Any]], path: Path) -> None:
    """Score ``tasks`` by τ²'s evaluator alone, and print how many pay the gold 1 and the others 0.

    ``path`` holds what earlier runs scored: lines with the hash of the whole task, so that a changed one is scored again.
    """
    hashes = [hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest() for row in tasks]
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    paid = {line["task"]: line["paid"] for line in map(json.loads, lines)}
    began = time.process_time()
    new = sorted(
        (key, number) for number, key in enumerate(hashes) if key not in paid
    )  # interrupted, it is a fair sample
    copies_of_databases()
    gc.freeze()
    with path.open("a", encoding="utf-8") as out:
        for count, (key, number) in enumerate(new):
            gc.disable()  # it would walk each copy of a database several times
            row = tasks[number]
            task = tau2_compat.load().Task.model_validate(row)
            paid[key] = list(paid_without_a_model(Tau2Config(domain=domain), task, unmodified=True)[:3])
            gc.enable()
            out.write(json.dumps({"task": key, "id": row["id"], "paid": paid[key]}) + "\n")
            out.flush()
            if count % 50 == 49:
                gc.collect()
    right = sum(paid[key] == [1.0, 0.0, 0.0] for key in hashes)
    print(
        f"{domain:8} τ²'s own evaluator: {right} of {len(tasks)} tasks pay gold 1, nothing 0, transfer 0 "
        f"({len(new)} scored in {time.process_time() - began:.0f} CPU s)",
        flush=True,
    )


def copies_of_databases() -> None:
    """Let τ²'s loader read each database once, and hand out copies that hash alike."""
    base = importlib.import_module("tau2.environment.db").DB
    read = base.load.__func__
    kept: dict[tuple[type, str], bytes] = {}

    def load(cls: type, path: object) -> object:
        key = (cls, str(path))
        if key not in kept:
            db = read(cls, path)
            kept[key] = pickle.dumps(db, pickle.HIGHEST_PROTOCOL)
            assert pickle.loads(kept[key]).get_hash() == db.get_hash()
        return pickle.loads(kept[key])

    base.load = classmethod(load)


if __name__ == "__main__":
    main()
