"""Workers that are actors of a real Ray: the tests of this folder that start workers, in an environment that has Ray."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import pytest

from tests.backends.setup_env import REPOSITORY, EnvUnavailable, backend_python

TESTS = [f"tests/workers/test_{name}.py" for name in ("pool", "deaths", "actors")]


@pytest.mark.timeout(900)
def test_the_same_holds_where_ray_runs() -> None:
    try:
        python = backend_python("ray")
    except EnvUnavailable as unavailable:
        pytest.skip(f"no Ray (python tests/backends/setup_env.py ray): {unavailable}")
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environ.pop("PYTEST_ADDOPTS", None)
    process = subprocess.Popen(
        [str(python), "-m", "pytest", "-p", "no:cacheprovider", "--timeout=300", *TESTS, "-k", "actor"],
        **{"cwd": REPOSITORY, "env": environ, "start_new_session": True},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True},
    )
    try:
        said, _ = process.communicate(timeout=800)
    finally:
        with contextlib.suppress(ProcessLookupError):  # whatever of Ray is left
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-6000:]
    assert " passed" in said and "skipped" not in said, said[-2000:]
