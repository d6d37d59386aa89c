"""miles, a fork of slime: its own rollout code plays `generate`, as `tests/test_slime.py` has slime's.

`setup_env.py miles` builds its environment (1.3 GB): PyPI's miles-rl 0.0.2, without sglang, Ray and Megatron, which
`tests/slime_cpu` stands in for. MILES_DIR names another miles, such as a checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.local.tokenizer import local_checkpoint
from tests.backends.setup_env import REPOSITORY, EnvUnavailable, backend_python
from tests.slime_cpu.modes import MILES_MODES, play
from tests.slime_cpu.server import Options, serving
from tests.test_hooks_in_slime import HOOKS, ours
from tests.test_slime import statuses, total

HOOK_FLAGS = [part for pair in HOOKS.items() for part in pair]
ABORT = """
import asyncio, json, sys, time
from types import SimpleNamespace

from tests.slime_cpu.stubs import stubbed

folder, checkpoint, router = sys.argv[1:]
sys.path.insert(0, folder)
with stubbed():
    from miles.rollout.base_types import GenerateFnInput
    from miles.rollout.inference_rollout.compatibility import load_generate_function
    from miles.utils.types import Sample
    from tau2_slime.local.tokenizer import AutoTokenizer

host, port = router.removeprefix("http://").split(":")
args = SimpleNamespace(hf_checkpoint=checkpoint, sglang_router_ip=host, sglang_router_port=int(port), partial_rollout=True,
                       tau2={"user_model": "scripted", "domain": "mock", "task_split": "base"})
generate = load_generate_function("tau2_slime.generate_with_tau2.generate")


async def play(by_slimes_way):
    state = SimpleNamespace(args=args, tokenizer=AutoTokenizer.from_pretrained(checkpoint), aborted=False)
    sample = Sample(index=0, prompt="create_task_1", metadata={"task_id": "create_task_1"})
    params = {"temperature": 1.0, "max_new_tokens": 512}
    given = [args, sample, params] if by_slimes_way else [GenerateFnInput(state, sample, params, False)]
    episode = asyncio.create_task(generate(*given))
    await asyncio.sleep(5)
    state.aborted, begin = True, time.perf_counter()
    done, _ = await asyncio.wait([episode], timeout=20)
    if not done:
        episode.cancel()
        return None
    return [episode.result().samples is sample, sample.status.name, sample.routing_key if hasattr(sample, "routing_key")
            else sample.session_id, time.perf_counter() - begin]


print("ANSWER", json.dumps([asyncio.run(play(way)) for way in (False, True)]))
"""


@pytest.fixture(scope="module")
def python() -> str:
    try:
        return str(backend_python("miles"))
    except EnvUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def miles(python: str) -> str:
    """The folder that holds the package."""
    return os.environ.get("MILES_DIR") or str(next(Path(python).parents[1].glob("lib/python*/site-packages")))


@pytest.mark.parametrize("mode", list(MILES_MODES))
def test_every_mode_gives_miles_true_samples(miles: str, python: str, mode: str) -> None:
    report = play(python, {"slime": miles, **MILES_MODES[mode]}, 500)
    assert report["problems"] == []
    assert total(report, "proven") > 0
    assert total(report, "restarted") == 0, "what was sampled once is not sampled again"
    assert statuses(report) <= {"COMPLETED", "TRUNCATED"}
    if "partial" in mode:
        assert total(report, "resumed") > 0, "the abort reached episodes, and they went on afterwards"
        assert {entry["dataset"] for entry in report["evaluations"]} == {"mock", "mock-short"}
    else:
        cut, kept = total(report, "cut"), total(report, "spanned")
        assert (cut > 0, kept > 0) == ((True, False) if "abort" in mode else (False, True))


def test_the_hooks_serve_miles(miles: str, python: str) -> None:
    report = play(
        python,
        {
            **{"slime": miles, "rollouts": 1, "groups": 2, "group_size": 4, "evaluate": True, "flags": HOOK_FLAGS},
            "server": {"latency": 0.001, "mistakes": 0.5},
        },
        500,
    )
    assert report["problems"] == []
    (entry,) = report["rollouts"]
    metrics = ours(entry, "rollout/tau2/")
    assert metrics["groups_informative"] == 1, "the filter saw to it"
    assert 0 < metrics["reward"] < 1
    for evaluation in report["evaluations"]:
        assert ours(evaluation, f"eval/{evaluation['dataset']}/tau2/")["pass_hat_1"] == pytest.approx(
            evaluation["reward"]
        )


def test_an_abort_reaches_an_episode_whose_turn_never_ends(miles: str, python: str) -> None:
    checkpoint = str(local_checkpoint())
    with serving(Options(checkpoint, latency=1000.0)) as router:
        done = subprocess.run(
            [python, "-c", ABORT, miles, checkpoint, router],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    heard, deaf = json.loads(done.stdout.split("ANSWER ")[-1])
    same, status, key, seconds = heard
    assert same and status == "ABORTED" and key
    assert deaf is None, "slime's way of calling carries no flag of miles"
    print(f"the abort took {seconds:.2f} s")


def test_the_parameters_say_which_way_a_process_calls() -> None:
    """miles looks at the first parameter's name, slime's contract test at the first three."""
    code = """
import inspect, sys, types
if sys.argv[1] == "miles":
    for name in ("miles", "miles.rollout", "miles.rollout.base_types"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["miles.rollout.base_types"].GenerateFnInput = object
from tau2_slime.generate_with_tau2 import generate
print(*list(inspect.signature(generate).parameters)[:3])
"""
    said: dict[str, Any] = {
        way: subprocess.run(
            [os.sys.executable, "-c", code, way], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.split()
        for way in ("miles", "slime")
    }
    assert said["slime"] == ["args", "sample", "sampling_params"]
    assert said["miles"][0] == "input"
