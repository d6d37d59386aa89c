"""smg, the successor of sglang-router, from PyPI (`setup_env.py smg`, 60 MB): `generate` plays behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.backends.test_doors import environment
from tests.engine.cluster import free_port
from tests.slime_cpu import check
from tests.slime_cpu.server import Options, serving

PARAMS = {"temperature": 0.7, "top_p": 1.0, "top_k": -1, "max_new_tokens": 512}


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


@contextlib.contextmanager
def smg(workers: list[str], log: Path) -> Iterator[str]:
    """The router's URL, once it knows all ``workers``."""
    port = free_port()
    command = [str(environment("smg").with_name("smg")), "launch", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", *workers, "--policy", "consistent_hashing", "--prometheus-port", str(free_port())]
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--worker-startup-check-interval", "1"], stdout=out, stderr=out)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                if {worker["url"] for worker in get(f"{url}/workers")["workers"]} == set(workers):  # what slime asks
                    break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_episodes_are_token_exact_and_stay_on_their_worker(tmp_path: Path) -> None:
    checkpoint = str(local_checkpoint())
    samples = [
        StandaloneSample(index=i, metadata={"domain": "mock", "task_split": "base", "task_id": task})
        for i, task in enumerate(["create_task_1", "update_task_1"] * 8)
    ]
    options = Options(checkpoint, spread=0.5)
    with serving(options) as one, serving(options) as other, smg([one, other], tmp_path / "smg.log") as router:
        host, port = router.removeprefix("http://").split(":")
        args: Any = SimpleNamespace(
            hf_checkpoint=checkpoint,
            sglang_router_ip=host,
            sglang_router_port=int(port),
            tau2={"user_model": "scripted"},
        )

        async def play() -> None:
            await asyncio.gather(*(generate(args, sample, PARAMS) for sample in samples))

        asyncio.run(play())
        calls = [get(f"{worker}/journal")["calls"] for worker in (one, other)]
    journal = check.Journal()
    for called in calls:
        journal.add(called)
    for sample in samples:
        verdict = check.check_sample(sample, journal, params=(0.7, 1.0, -1))
        assert verdict.problems == [] and verdict.proven > 0
    keys = [{call["key"] for call in called} for called in calls]
    assert all(keys), "both workers played"
    assert not keys[0] & keys[1], "an episode stays where its prefix is cached"
