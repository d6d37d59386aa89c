"""How much code one episode runs through: own functions, modules and frames of `generate` in a warm process.

    python benchmarks/episode_path.py [--list]

It plays mock's ``create_task_1`` (4 turns) three times over the embedded policy and profiles the third `generate` call, its
worker threads included. The embedded policy and user (``local/``), and what they call, do not count: a training job has
servers of its own. Comprehensions count as frames, not as functions.

    0.1.0         221 functions, 45 modules, 20 frames
    2026-11-27    194 functions, 49 modules, 14 frames (aim: 150, 30, 14)

Of the functions, 26 are the event loop and the HTTP client (``runtime``), 26 the fast path of environments and scoring
(``world/fast``), 41 the tokens (engine, ledger, chat template, parsers).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import tau2_slime
from tau2_slime.generate_with_tau2 import generate
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.slime_adapter.sample import StandaloneSample

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
        if not self.listening or event != "call" or not counts(frame.f_code):
            return
        stack: list[str] = []
        at: FrameType | None = frame
        while at is not None:
            if at.f_code.co_filename.startswith(EMBEDDED):
                return  # the embedded policy or user called it
            if counts(at.f_code):
                stack.append(name_of(at.f_code))
            at = at.f_back
        self.calls[frame.f_code] += 1
        if len(stack) > len(self.deepest):
            self.deepest = stack[::-1]


def counts(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGE)


def name_of(code: CodeType) -> str:
    return f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}"


async def play(seen: Watch) -> None:
    """Three `generate` calls as slime makes them; the last one is watched."""
    checkpoint = str(local_checkpoint())
    about = {"domain": "mock", "task_split": "base", "task_id": "create_task_1", "user_model": "scripted"}
    async with PolicyServer(checkpoint) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        args: Any = SimpleNamespace(
            hf_checkpoint=checkpoint, sglang_router_ip=host, sglang_router_port=int(port), tau2={}
        )
        threading.setprofile(seen)  # before the worker threads begin
        for number in range(PROFILED + 1):
            sample = StandaloneSample(index=number, session_id=f"s{number}", metadata=dict(about))
            seen.listening = number == PROFILED
            sys.setprofile(seen)
            await generate(args, sample, {"temperature": 1.0, "max_new_tokens": 4096})
            sys.setprofile(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also print every function and how often it was called")
    arguments = parser.parse_args()
    seen = Watch()
    asyncio.run(play(seen))
    functions = [code for code in seen.calls if not re.search("comp>|genexpr>", code.co_name)]
    modules = {code.co_filename for code in functions}
    calls = sum(seen.calls[code] for code in functions)
    print(f"functions {len(functions)}, modules {len(modules)}, calls {calls}, frames {len(seen.deepest)}")
    print("deepest stack:\n  " + "\n  ".join(seen.deepest))
    if arguments.list:
        for code in sorted(functions, key=name_of):
            print(f"{seen.calls[code]:5d}  {name_of(code)}")


if __name__ == "__main__":
    main()
