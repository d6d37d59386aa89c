"""Play a file of cases through one door and write the records: the door's own environment needs no other test code."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from tests.backends.doors import cases, records
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record
from tests.backends.doors.stage import Chat, Stage

DOORS = ("slime", "tinker", "verifiers_v0", "verifiers_v1", "eval_router", "eval_api")
AT_ONCE = 8


class Door(Protocol):
    """A module of this folder: an asynchronous context manager that plays cases."""

    async def play(self, case: Case) -> Record: ...


async def play(door: str, todo: list[Case], options: Any) -> list[Record]:
    """The records of ``todo``, in its order."""
    stage = Stage(todo)
    module = importlib.import_module(f"tests.backends.doors.{door}")
    gate = asyncio.Semaphore(AT_ONCE)
    async with Chat(stage) as chat, module.Door(stage, chat.url, options) as opened:

        async def one(case: Case) -> Record:
            async with gate:
                record: Record = await opened.play(case)
            return {**record, "asked": stage.asked.get(case.key), "user_asked": stage.user_asked.get(case.key)}

        return list(await asyncio.gather(*map(one, todo)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("door", choices=DOORS)
    parser.add_argument("cases", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--checkpoint", default="", help="tokenizer and chat template of the doors that use tokens")
    parser.add_argument("--renderer", default="qwen3_instruct", help="Tinker's renderer")
    parser.add_argument("--tokens", action="store_true", help="records hold the tokens too")
    options = parser.parse_args()
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    logging.disable(logging.WARNING)
    played = asyncio.run(play(options.door, cases.read(options.cases), options))
    records.write(options.records, played)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
