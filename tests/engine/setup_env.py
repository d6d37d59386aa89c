"""The virtual environment of the real sglang server: ``python tests/engine/setup_env.py`` builds ``.venv-engine``.

Idempotent: an environment whose stamp carries the hash of this recipe is used as it is, so CI may keep the folder between
runs. About 1.6 GB; uv where it is on PATH, else pip. torch comes first, with its dependencies, because its builds differ
from machine to machine (a CPU wheel among pip's or uv's find-links wins over the larger CUDA one); everything else
comes without dependencies from ``requirements.txt``. Standard library only: any Python >= 3.11 can run it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv-engine"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TORCH = "torch==2.13.0"


class EngineEnvUnavailable(RuntimeError):
    """The environment cannot be had on this machine; the message says what is missing and what the installer said."""


def engine_python() -> Path:
    """The interpreter of ``.venv-engine``, built first if need be (minutes, once).

    Raises:
        EngineEnvUnavailable: torch cannot be installed here (no wheel, no network).
        subprocess.CalledProcessError: anything after torch failed, which is a fault of the recipe.
    """
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "recipe.sha256"
    (REPOSITORY / ".cache").mkdir(exist_ok=True)
    with (REPOSITORY / ".cache" / "engine-env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once build one environment
        if python.exists() and stamp.exists() and stamp.read_text().strip() == _recipe_hash():
            return python
        _build(python)
        stamp.write_text(_recipe_hash() + "\n")
    return python


def _recipe_hash() -> str:
    version = "{}.{}".format(*sys.version_info[:2])
    return hashlib.sha256(f"{TORCH} python{version}\n{REQUIREMENTS.read_text()}".encode()).hexdigest()


def _build(python: Path) -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    base = [shutil.which("uv") or ""]
    if base[0]:
        _run([*base, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
        install = [*base, "pip", "install", "--quiet", "--python", str(python)]
    else:
        _run([sys.executable, "-m", "venv", str(ENVIRONMENT)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([*install, TORCH])
    except subprocess.CalledProcessError as error:
        raise EngineEnvUnavailable(
            f"{TORCH} cannot be installed on this machine: {_last_line(error.stderr)}"
        ) from error
    _run([*install, "--no-deps", "-r", str(REQUIREMENTS)])


def _run(command: list[str]) -> None:
    environ = dict(os.environ)
    if "PIP_FIND_LINKS" in environ:  # uv reads its own variable only
        environ.setdefault("UV_FIND_LINKS", environ["PIP_FIND_LINKS"])
    environ.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    done.check_returncode()


def _last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else "the installer said nothing"


if __name__ == "__main__":
    try:
        print(engine_python())
    except EngineEnvUnavailable as unavailable:
        sys.exit(str(unavailable))
