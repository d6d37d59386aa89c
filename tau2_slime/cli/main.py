"""The entry point of `tau2-slime`: what goes wrong is one line on stderr, with an exit status that says what kind it is."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from tau2_slime.runtime import exit_status
from tau2_slime.runtime.text import shown


def main() -> NoReturn:
    """Run the command of the command line and exit with its status. A mistake of the package itself is a traceback."""
    # Without torch, transformers would say at every start that it cannot load models; no command wants it to.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # What Slurm, Kubernetes and `timeout` send ends a command as Ctrl-C does; processes that it forks end at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    try:
        status = _run()
    except KeyboardInterrupt:
        status = _interrupted()
    if status == exit_status.INTERRUPTED:
        sys.stdout.flush()
        os._exit(status)  # a thread that is in the middle of something would hold the process back
    raise SystemExit(status)


def _run() -> int:
    from tau2_slime.cli.commands import app, usage_error
    from tau2_slime.cli.options import spread_lists
    from tau2_slime.errors import ConfigError

    _show_log_lines()
    try:
        status = app(args=spread_lists(sys.argv[1:]), standalone_mode=False)
    except ConfigError as error:
        return _say(str(error), exit_status.WRONG)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_status.UNFINISHED
    except OSError as error:
        if error.strerror is None:
            return _own_mistake(error)
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror}", exit_status.UNFINISHED)
    except Exception as error:
        text = usage_error(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(text, file=sys.stderr)
            return exit_status.WRONG
        return _own_mistake(error) if text is None else _say(text, exit_status.WRONG)
    if status == exit_status.INTERRUPTED:  # typer's answer to Ctrl-C
        return _interrupted()
    return status if isinstance(status, int) else exit_status.FINE


def _say(text: str, status: int) -> int:
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}tau2-slime: {shown(text)}{plain}", file=sys.stderr)
    return status


def _own_mistake(error: Exception) -> int:
    from tau2_slime.runtime import tracebacks

    print(shown(tracebacks.written(error), lines=True), file=sys.stderr)
    return exit_status.NO


def _interrupted() -> int:
    return _say("interrupted", exit_status.INTERRUPTED)


def _show_log_lines() -> None:
    """Warnings of the package hold what endpoints and files say: they are shown like everything else of theirs."""
    import logging

    class Shown(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return shown(super().format(record), lines=bool(record.exc_text or record.exc_info))

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Shown())
