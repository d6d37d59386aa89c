"""Each backend's tests, run where its packages are: an environment of its own, because their pins conflict."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.backends.setup_env import NEWER, REPOSITORY, EnvUnavailable, backend_python, installer, newer_release


def environment(name: str) -> Path:
    try:
        return backend_python(name)
    except EnvUnavailable as unavailable:
        pytest.skip(str(unavailable))


def run(
    python: Path, *arguments: str, cwd: Path = REPOSITORY, path: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """``path``: what is found before anything that is installed."""
    found = os.pathsep.join(map(str, (*path, REPOSITORY)))
    environ = {**os.environ, "PYTHONPATH": found, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environ.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=1200
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "folder"), [("verifiers", "verifiers_v0"), ("verifiers-v1", "verifiers_v1"), ("tinker", "tinker")]
)
def test_the_doors_own_tests_pass(name: str, folder: str) -> None:
    done = run(environment(name), "-m", "pytest", "-p", "no:cacheprovider", f"tests/backends/{folder}")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


@pytest.mark.timeout(1800)
def test_rollouts_and_the_whole_training_loop_run_on_the_newer_cookbook_too() -> None:
    python = environment("tinker")
    try:
        newer = newer_release("tinker")
    except EnvUnavailable as unavailable:
        pytest.skip(str(unavailable))
    version = run(
        python, "-c", "from importlib.metadata import version as v; print(v('tinker-cookbook'))", path=(newer,)
    )
    assert version.stdout.strip() == NEWER["tinker"].split("==")[1]
    tests = [f"tests/backends/tinker/test_{name}.py" for name in ("env", "train")]
    done = run(python, "-m", "pytest", "-p", "no:cacheprovider", *tests, path=(newer,))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


LOADED = {
    "verifiers": "import verifiers as vf; env = vf.load_environment('tau2-bench', domain='mock', task_split='base', "
    "user_llm='scripted'); print('found', env.env_id, len(env.get_dataset()) > 0)",
    "verifiers-v1": "import verifiers.v1 as vf; env = vf.load_environment(vf.resolve_env_config({'taskset': {'id': "
    "'tau2-bench', 'domain': 'mock', 'user_llm': 'scripted'}})); "
    "print('found', env.config.taskset.id, len(list(env.taskset)) > 0, type(env).__name__)",
}
"""How each API finds the environment by its id."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", LOADED)
def test_the_environment_package_installs_as_the_hub_installs_it(name: str, tmp_path: Path) -> None:
    """Its wheel, installed into a folder that holds nothing else, is found by its id; tau2_slime is not part of it."""
    python = environment(name)
    source = REPOSITORY / "environments" / "tau2_bench"
    built = run(python, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("tau2_bench-*.whl")
    site = tmp_path / "site"
    done = subprocess.run([*installer(python), "--no-deps", "--target", str(site), str(wheel)], capture_output=True)
    assert done.returncode == 0, done.stderr
    installed = {path.relative_to(site).parts[0] for path in site.rglob("*.py")}
    assert installed == {"tau2_bench.py"}
    loaded = run(python, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {LOADED[name]}", cwd=tmp_path)
    assert "found tau2-bench True" in loaded.stdout, loaded.stdout + loaded.stderr
