"""Fixtures: the environment, the tiny checkpoint, the forge of workers, and one healthy cluster for the whole session."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.local.tokenizer import CHAT_TEMPLATE
from tests.engine.cluster import HERE, Cluster, Forge, tail
from tests.engine.setup_env import REPOSITORY, REQUIREMENTS, EngineEnvUnavailable, engine_python

CACHE = REPOSITORY / ".cache" / "engine"
LOGS = CACHE / "logs"


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter that has torch and sglang."""
    try:
        return engine_python()
    except EngineEnvUnavailable as reason:
        pytest.skip(str(reason))


def make_checkpoint(python: Path, *kind: str) -> Path:
    """Folder of a tiny model, made once per recipe."""
    recipe = HERE / "make_tiny_model.py"
    ingredients = recipe.read_bytes() + REQUIREMENTS.read_bytes() + CHAT_TEMPLATE.encode()
    digest = hashlib.sha256(ingredients).hexdigest()[:16]
    folder = CACHE / "-".join(("model", *kind, digest))
    if not folder.is_dir():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        template = CACHE / "chat_template.jinja"
        template.write_text(CHAT_TEMPLATE, encoding="utf-8")
        command = [str(python), str(recipe), str(draft), str(template), *kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        draft.rename(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(python: Path) -> Path:
    """Folder of the tiny Qwen3."""
    return make_checkpoint(python)


@pytest.fixture(scope="session")
def moe_checkpoint(python: Path) -> Path:
    """Folder of the tiny Qwen3 with experts."""
    return make_checkpoint(python, "moe")


@pytest.fixture(scope="session")
def forge(python: Path, checkpoint: Path) -> Iterator[Forge]:
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    forge = Forge(python, checkpoint, LOGS)
    yield forge
    forge.close()


class LogprobsCheck:
    """The process that recomputes log-probabilities; see `logprobs_check`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def __call__(self, samples: list[Any], temperature: float) -> tuple[list[float], int]:
        """Largest |difference| of each of these slime samples, and how many positions were compared."""
        rows = [{"tokens": s.tokens, "loss_mask": s.loss_mask, "log_probs": s.rollout_log_probs} for s in samples]
        request = self._folder / "samples.json"
        request.write_text(json.dumps({"temperature": temperature, "samples": rows}))
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the recomputation failed:\n{tail(LOGS / 'logprobs.log')}"
        answer = json.loads(line)
        return answer["max_difference"], answer["positions"]


@pytest.fixture(scope="session")
def logprobs_check(
    python: Path, checkpoint: Path, forge: Forge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LogprobsCheck]:
    with (LOGS / "logprobs.log").open("w") as log:
        process = subprocess.Popen(
            [str(python), str(HERE / "logprobs_check.py"), str(checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:  # closes stdin, which ends it, and waits
        yield LogprobsCheck(process, tmp_path_factory.mktemp("logprobs"))


@pytest.fixture(scope="session")
def cluster(forge: Forge) -> Iterator[Cluster]:
    """Two workers behind a router, with slime's router settings. Nobody may hurt these."""
    with Cluster.start(forge, 2, disable_health_check=True, disable_circuit_breaker=True) as healthy:
        yield healthy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """A failure shows how every server's log ends."""
    report: Any = yield
    if report.failed and HERE in item.path.parents:
        for log in sorted(LOGS.glob("*.log")):
            report.sections.append((f"end of {log.name}", tail(log)))
    return report
