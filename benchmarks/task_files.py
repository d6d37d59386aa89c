"""What a task file costs: ``python benchmarks/task_files.py [--rows 100000 1000000] [--domain retail]``

A file of gold tasks under new ids is read through (every row is checked), then tasks are parsed as they are used: CPU time,
the memory that stays, and the most that was there at once. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World

USED = 20_000
"""Tasks that are asked for, at random."""


def write(path: Path, domain: str, rows: int) -> None:
    """``rows`` tasks: those of the domain over and over, each under an id of its own."""
    known = [task.model_dump(mode="json", exclude_none=True) for task in domains.tasks(domain, "base")]
    begun = [json.dumps({key: value for key, value in task.items() if key != "id"})[:-1] for task in known]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(f'{begun[number % len(begun)]}, "id": "task-{number}"}}\n')


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(path: Path, domain: str) -> None:
    """Print one line for the file."""
    World(domain, "base", domains.tasks(domain, "base")[0])  # the domain itself is read before the clock starts
    before, begun = resident(), time.process_time()
    file = domains.task_file(domain, f"file:{path}")
    read, kept = time.process_time() - begun, resident() - before
    rng = random.Random(0)
    begun = time.process_time()
    for _ in range(USED):
        assert file[rng.randrange(len(file))].id
    used = time.process_time() - begun
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(file):9,} rows, {path.stat().st_size / 2**20:6,.0f} MB: read and checked in {read:5.1f} s CPU "
        f"({1000 * read / len(file):.3f} ms a row), {kept:4.0f} MB stay; {1000 * used / USED:.3f} ms to parse a task; "
        f"{resident() - before:4.0f} MB after {USED:,} tasks, at most {most - before:4.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--domain", default="retail")
    parser.add_argument("--file", type=Path, help="measure this file only")
    options = parser.parse_args()
    if options.file is not None:
        measure(options.file, options.domain)
        return
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {tau2_compat.version()}")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tasks.jsonl")
            write(path, options.domain, rows)
            command = [sys.executable, __file__, "--domain", options.domain, "--file", str(path)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
