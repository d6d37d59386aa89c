"""Each backend's tests, run where its packages are: an environment of its own, because their pins conflict."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.backends.setup_env import REPOSITORY, EnvUnavailable, backend_python


def environment(name: str) -> Path:
    try:
        return backend_python(name)
    except EnvUnavailable as unavailable:
        pytest.skip(str(unavailable))


def run(python: Path, *arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environ.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=1200
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "folder"), [("verifiers", "verifiers_v0"), ("tinker", "tinker")])
def test_the_doors_own_tests_pass(name: str, folder: str) -> None:
    done = run(environment(name), "-m", "pytest", "-p", "no:cacheprovider", f"tests/backends/{folder}")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


@pytest.mark.timeout(1800)
def test_the_environment_package_installs_as_the_hub_installs_it(tmp_path: Path) -> None:
    """Its wheel holds the module that verifiers looks for, and the id finds it without the repository on the path."""
    python = environment("verifiers")
    source = REPOSITORY / "environments" / "tau2_bench"
    built = run(python, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("tau2_bench-*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # what an installer does with a pure wheel
    names = {path.relative_to(site).parts[0] for path in site.rglob("*")}
    assert {"tau2_bench.py"} < names and not any(name.startswith("tau2_slime") for name in names)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import verifiers as vf; "
        "env = vf.load_environment('tau2-bench', domain='mock', task_split='base', user_llm='scripted'); "
        "print('loaded', env.env_id, len(env.get_dataset()) > 0)"
    )
    loaded = run(python, "-c", code, cwd=tmp_path)
    assert "loaded tau2-bench True" in loaded.stdout, loaded.stdout + loaded.stderr
