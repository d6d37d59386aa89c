"""``python -m tau2_slime.synth.generate_user_actions``: the first stage of the earlier pipeline, with its flags and rows.

The rows hold the customer, the gold calls and a summary, before they become tasks. Only proposals that pass every gate are
written. Runs accumulate in the output file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.files import write_atomically
from tau2_slime.synth.generate import DOMAINS, Generator, Plan
from tau2_slime.synth.output import ancestor_row, as_json
from tau2_slime.synth.proposal import WRITES
from tau2_slime.synth.verify import Judge
from tau2_slime.synth.workers import workers
from tau2_slime.world import tau2_compat


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``--num-samples`` rows and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tau2_slime.synth.generate_user_actions", description=__doc__)
    parser.add_argument("--domain", choices=DOMAINS, default="airline")
    parser.add_argument("--num-samples", type=int, default=10)
    parser.add_argument("--difficulty", choices=tuple(WRITES), default="easy")
    parser.add_argument("--max-concurrency", type=int, default=1, help="worker processes; the rows do not depend on it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-file", type=Path, default=Path("user_actions.json"))
    given = parser.parse_args(arguments)
    if given.num_samples < 1 or given.max_concurrency < 1:
        parser.error("--num-samples and --max-concurrency are at least 1")
    try:
        return _make(
            given.domain, given.difficulty, given.num_samples, given.seed, given.output_file, given.max_concurrency
        )
    except ConfigError as error:
        print(f"generate_user_actions: {error}", file=sys.stderr)
        return exit_status.WRONG


def _make(domain: str, difficulty: str, count: int, seed: int, path: Path, concurrency: int) -> int:
    held = _held(path)
    judge = Judge(domain, templates=True)
    for row in held:
        if row.get("domain") == domain and isinstance(row.get("task"), dict):
            judge.remember(tau2_compat.load().Task.model_validate(row["task"]))
    made = []
    with workers(concurrency) as shared:
        for event in Generator(Plan(domain, difficulty, count, seed), judge).events(workers=shared):
            if event.verdict.accepted:
                row = event.as_row()
                made.append({**ancestor_row(row), "domain": domain, "task": row["task"]})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, as_json([*held, *made]))
    print(f"{len(made)} rows added to {path}, which holds {len(held) + len(made)}")
    return exit_status.FINE if len(made) == count else exit_status.NO


def _held(path: Path) -> list[dict[str, object]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"--output-file {path} cannot be read: {error}") from None
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ConfigError(f"--output-file {path} is not a JSON list of rows; name another file")
    return content


if __name__ == "__main__":
    raise SystemExit(main())
