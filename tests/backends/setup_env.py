"""The backends' own virtual environments: ``python tests/backends/setup_env.py verifiers`` builds ``.venv-verifiers``.

Each framework pins what another one pins otherwise, so each gets a folder of its own, from its list of exact versions beside
this file. Idempotent: an environment whose stamp carries the hash of its recipe is used as it is, so CI may keep the folders
between runs. torch comes first where it is needed, because its builds differ from machine to machine. Standard library only.
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
FIRST = {
    **{"verifiers": [], "verifiers-v1": [], "tinker": ["torch==2.13.0"], "maseval": []},
    **{"miles": ["torch==2.13.0"], "smg": [], "ray": []},
}
"""Backend -> what is installed first, with its dependencies."""

NEWER = {"tinker": "tinker-cookbook==0.6.1"}
"""Backend -> a second release of its framework that the same environment serves. Its own requirements cannot be met: it
asks for a tml-renderers that is not published, and does without."""


class EnvUnavailable(RuntimeError):
    """The environment cannot be had on this machine; the message says what the installer said."""


def backend_python(name: str) -> Path:
    """The interpreter of ``.venv-<name>``, built first if need be (minutes, once).

    Raises:
        EnvUnavailable: the packages cannot be had here (no network, no wheel).
    """
    folder = REPOSITORY / f".venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "recipe.sha256"
    (REPOSITORY / ".cache").mkdir(exist_ok=True)
    with (REPOSITORY / ".cache" / f"{name}-env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once build one environment
        if python.exists() and stamp.exists() and stamp.read_text().strip() == _recipe_hash(name):
            return python
        _build(name, folder, python)
        stamp.write_text(_recipe_hash(name) + "\n")
    return python


def newer_release(name: str) -> Path:
    """A folder that goes before everything else on the path of `backend_python`: `NEWER`, alone.

    Raises:
        EnvUnavailable: it cannot be had here.
    """
    python = backend_python(name)
    folder = python.parents[1] / NEWER[name]
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        _run([*installer(python), "--no-deps", "--target", str(part), NEWER[name]])
        part.rename(folder)
    return folder


def _requirements(name: str) -> Path:
    return Path(__file__).with_name(f"{name.replace('-', '_')}.txt")


def _recipe_hash(name: str) -> str:
    version = "{}.{}".format(*sys.version_info[:2])
    return hashlib.sha256(f"{FIRST[name]} python{version}\n{_with_lists(_requirements(name))}".encode()).hexdigest()


def _with_lists(requirements: Path) -> str:
    """A list of requirements, then the lists that it names by ``-r``."""
    text = requirements.read_text()
    named = [line.removeprefix("-r ") for line in text.splitlines() if line.startswith("-r ")]
    return text + "".join(_with_lists(requirements.parent / name) for name in named)


def _build(name: str, folder: Path, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = _uv()
    _run(
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        if uv
        else [sys.executable, "-m", "venv", str(folder)]
    )
    install = installer(python)
    if FIRST[name]:
        _run([*install, *FIRST[name]])
    _run([*install, "--no-deps", "-r", str(_requirements(name))])


def installer(python: Path) -> list[str]:
    """The command that installs what is named after it into that interpreter's environment."""
    uv = _uv()
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _uv() -> str | None:
    return shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _run(command: list[str]) -> None:
    environ = dict(os.environ)
    if "PIP_FIND_LINKS" in environ:  # uv reads its own variable only
        environ.setdefault("UV_FIND_LINKS", environ["PIP_FIND_LINKS"])
    environ.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise EnvUnavailable(
            f"{' '.join(command[:4])} ... failed: {lines[-1] if lines else 'the installer said nothing'}"
        )


if __name__ == "__main__":
    try:
        print(backend_python(sys.argv[1]))
    except EnvUnavailable as unavailable:
        sys.exit(str(unavailable))
