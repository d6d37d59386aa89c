"""How much code one episode runs through: own functions, modules and frames of `generate` in a warm process.

    python benchmarks/episode_path.py [--list]

It plays mock's ``create_task_1`` (4 turns) three times over the embedded policy and profiles the third `generate` call, its
worker threads included. Code in ``local/`` (the embedded policy and user) does not count: a training job has its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import tau2_slime
from tau2_slime import generate_with_tau2
from tau2_slime.rollout import RolloutPlan, plan_jobs, run

PACKAGE = str(Path(tau2_slime.__file__).parent) + os.sep
EMBEDDED = PACKAGE + "local" + os.sep
PROFILED = 2
"""Position of the call that is profiled: the ones before it import, calibrate and fill the caches."""


class Watch:
    """What was called while it listened."""

    def __init__(self) -> None:
        self.listening = False
        self.calls: Counter[CodeType] = Counter()
        self.deepest: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.listening or event != "call" or not own(frame.f_code):
            return
        self.calls[frame.f_code] += 1
        stack, at = [], frame
        while at is not None:
            if own(at.f_code):
                stack.append(name_of(at.f_code))
            at = at.f_back
        if len(stack) > len(self.deepest):
            self.deepest = stack[::-1]


def own(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGE) and not code.co_filename.startswith(EMBEDDED)


def name_of(code: CodeType) -> str:
    return f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also print every function and how often it was called")
    arguments = parser.parse_args()
    seen = Watch()
    played = 0
    generate = generate_with_tau2.generate

    async def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal played
        played += 1
        seen.listening = played == PROFILED + 1
        try:
            return await generate(*args, **kwargs)
        finally:
            seen.listening = False

    generate_with_tau2.generate = watched
    threading.setprofile(seen)
    sys.setprofile(seen)
    with tempfile.TemporaryDirectory() as folder:
        jobs = plan_jobs(["mock"], None, ["create_task_1"], None, PROFILED + 1)
        asyncio.run(run(RolloutPlan(jobs, Path(folder) / "run", overrides={"user_model": "scripted"}, concurrency=1)))
    sys.setprofile(None)
    # What wraps `generate` here stands on the stack too; it is not the package's.
    modules = {code.co_filename for code in seen.calls}
    print(
        f"functions {len(seen.calls)}, modules {len(modules)}, calls {seen.calls.total()}, frames {len(seen.deepest)}"
    )
    print("deepest stack:\n  " + "\n  ".join(seen.deepest))
    if arguments.list:
        for code, count in sorted(seen.calls.items(), key=lambda item: name_of(item[0])):
            print(f"{count:5d}  {name_of(code)}")


if __name__ == "__main__":
    main()
