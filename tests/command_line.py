"""`tau2-slime` as a process of its own: forked from one that has imported τ² already, which takes most of a command's time.

The first second of a command, and what it imports when, are tested with `python -m tau2_slime.cli` itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.preloaded"])
_READ_AT_IMPORT = ("HF_", "LITELLM_", "LOGURU_", "PYTHON", "TRANSFORMERS_")
"""Variables that a process must have from its beginning."""


def run(
    *arguments: str, environ: Mapping[str, str], folder: Path | None = None, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``tau2-slime ARGUMENTS``. ``environ``: the whole environment. ``folder``: where, if not here.

    Raises:
        TimeoutExpired: it took longer than ``seconds``; it is killed.
    """
    changed = {name for name, value in environ.items() if os.environ.get(name) != value} - {"PYTHONPATH"}
    if any(name.startswith(_READ_AT_IMPORT) for name in changed):
        command = [sys.executable, "-m", "tau2_slime.cli", *arguments]
        return subprocess.run(command, env=environ, cwd=folder, timeout=seconds, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as kept:
        said = [Path(kept, name) for name in ("stdout", "stderr")]
        process = start(arguments, environ, folder or Path.cwd(), ["/dev/null", *map(str, said)])
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["tau2-slime", *arguments], seconds)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in said]
    return subprocess.CompletedProcess(["tau2-slime", *arguments], process.exitcode, *texts)


def start(arguments: Sequence[str], environ: Mapping[str, str], folder: Path, files: list[str]) -> BaseProcess:
    """Start ``tau2-slime ARGUMENTS``, the first process of a session, with these ``files`` as stdin, stdout and stderr."""
    process = _forking.Process(target=_be_the_command, args=(arguments, dict(environ), str(folder), files))
    process.start()
    return process


def _be_the_command(arguments: Sequence[str], environ: dict[str, str], folder: str, files: list[str]) -> None:
    os.setsid()  # a terminal among the files becomes this process's own
    for number, path in enumerate(files):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path[:0] = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["tau2-slime", *arguments]
    from tau2_slime.cli.main import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
