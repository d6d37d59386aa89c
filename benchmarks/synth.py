"""How many verified tasks a CPU minute gives, how many proposals pass, and how varied they are.

    python -m benchmarks.synth --num-samples 1000 --seed 7

With ``--unmodified N``, N tasks of each set are scored by τ²'s own evaluator as well, without the product's fast path.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence

from tau2_slime.config.settings import Tau2Config
from tau2_slime.synth import report
from tau2_slime.synth.gates.held_out import held_out
from tau2_slime.synth.generate import Event, Generator, Plan
from tau2_slime.synth.verify import Judge
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import tau2_compat

DOMAINS = ("airline", "retail", "telecom")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hard", type=int, default=100)
    parser.add_argument("--unmodified", type=int, default=20)
    parser.add_argument("--domain", action="append", choices=DOMAINS)
    given = parser.parse_args()
    for domain in given.domain or DOMAINS:
        judge = Judge(domain, templates=True)
        events: list[Event] = []
        for difficulty, count in (
            ("easy", given.num_samples // 2),
            ("medium", given.num_samples // 2),
            ("hard", given.hard),
        ):
            own = measured(domain, difficulty, count, given.seed, judge)
            events += own if difficulty != "hard" else []
        describe(domain, events)
        unmodified(domain, events, given.unmodified)


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


def unmodified(domain: str, events: Sequence[Event], count: int) -> None:
    """Score a sample by τ²'s evaluator alone, and print how often gold earned 1 and the others 0."""
    accepted = [event for event in events if event.verdict.accepted]
    right = 0
    sample = random.Random(0).sample(accepted, min(count, len(accepted)))
    for event in sample:
        task = tau2_compat.load().Task.model_validate(event.row)
        right += paid_without_a_model(Tau2Config(domain=domain), task, unmodified=True)[:3] == (1.0, 0.0, 0.0)
    print(
        f"{domain:8} τ²'s own evaluator: {right} of {len(sample)} tasks pay gold 1, nothing 0, transfer 0", flush=True
    )


if __name__ == "__main__":
    main()
