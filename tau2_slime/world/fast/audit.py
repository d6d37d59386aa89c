"""Rewards computed again by τ²'s unmodified evaluator, in a process of its own: insurance for the fast paths.

python -m tau2_slime.world.fast.audit        # what the parent starts: pickled questions in, pickled answers out
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tau2_slime.errors import first_time

logger = logging.getLogger(__name__)


class Auditor:
    """A child process that scores one trajectory after another, started at the first question."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        # One thread, which waits for the child: a question takes up to two seconds of the child's time, not of ours.
        self._waiter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tau2-slime-audit")

    async def official(self, arguments: dict[str, Any]) -> Any:
        """τ²'s RewardInfo for `tau2_compat.evaluation_arguments`; None if τ² raised (logged) or the child died.

        A cancelled caller stops waiting.
        """
        return await asyncio.wrap_future(self._waiter.submit(self._ask, pickle.dumps(arguments)))

    def _ask(self, question: bytes) -> Any:
        with self._lock:
            try:
                if self._child is None or self._child.poll() is not None:
                    self._child = _start()
                assert self._child.stdin is not None and self._child.stdout is not None
                _write(self._child.stdin, question)
                answer = _read(self._child.stdout)
            except (OSError, EOFError) as error:
                answer = f"the process ended ({error})"
        if isinstance(answer, str):
            if first_time("audit of a reward", answer):
                logger.error("tau2_slime: an audit of a reward failed: %s", answer)
            return None
        return answer

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()


def _start() -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "tau2_slime.world.fast.audit"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def _write(pipe: Any, data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "big") + data)
    pipe.flush()


def _read(pipe: Any) -> Any:
    size = pipe.read(8)
    if len(size) < 8:
        raise EOFError("no answer")
    return pickle.loads(pipe.read(int.from_bytes(size, "big")))


auditor = Auditor()
"""Of this process."""
atexit.register(auditor.close)


def _serve() -> None:
    # τ² prints; what it prints must not get between the answers.
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from tau2_slime.world import tau2_compat

    t = tau2_compat.load()
    while True:
        try:
            arguments = _read(questions)
        except EOFError:
            return
        try:
            tau2_compat.restore_class_state()
            answer: Any = t.evaluate_simulation(**arguments)
        except Exception as error:  # whatever τ² raises is the parent's to tell
            answer = f"{type(error).__name__}: {error}"
        _write(answers, pickle.dumps(answer))


if __name__ == "__main__":
    _serve()
