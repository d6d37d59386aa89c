"""`tau2-slime view`: what the command line asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import TrustRemoteCode, begin, refuse_unused
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import check_output
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from tau2_slime.inspector.page import Report
    from tau2_slime.policy.checkpoint import CheckpointProfile
    from tau2_slime.view.runs import Runs


def view(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Whatever `inspect` opens, the hooks' episodes.jsonl, or a folder of such folders. Several: one chart.",
        ),
    ],
    follow: Annotated[bool, typer.Option("--follow", help="Show new episodes and steps as they are written.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Serve at this port. Default: a free one.")] = 0,
    html: Annotated[
        Path | None, typer.Option(help="Write everything as one page to this file, and serve nothing.")
    ] = None,
    replay: Annotated[
        bool, typer.Option(help="Replay tool calls in τ² to compare databases and to diagnose failures.")
    ] = True,
    hf_checkpoint: Annotated[
        str | None, typer.Option(help="Folder or hub name of the policy's tokenizer. Default: what the files say.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """See a run in the browser: its curves over steps, every episode, every token; also while it is running."""
    check_output("--html", html, paths)
    begin("view", f"reading {', '.join(shown(path) for path in paths)}")
    from tau2_slime.view.runs import Runs

    if html is not None:
        refuse_unused({"--follow": follow and "a page is written once", "--port": bool(port) and "nothing is served"})
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
    runs = Runs(list(dict.fromkeys(paths)))
    if not follow:
        runs.look()
    if html is not None:
        _write(html, runs, hf_checkpoint, trust_remote_code, replay, _report(paths))
    else:
        _serve(runs, hf_checkpoint, trust_remote_code, follow=follow, port=port, replay=replay, report=_report(paths))


def _report(paths: list[Path]) -> Callable[[], Report] | None:
    """Makes the report of an evaluation's folder, if that is what is shown."""
    if len({*paths}) > 1 or not all((paths[0] / name).is_file() for name in ("manifest.json", "simulations.jsonl")):
        return None
    from tau2_slime.evaluation.report.html import report_of
    from tau2_slime.evaluation.statistics.summary import read_folder

    return lambda: report_of(read_folder(paths[0]))


def _serve(
    runs: Runs,
    hf_checkpoint: str | None,
    trust_remote_code: bool,
    *,
    follow: bool,
    port: int,
    replay: bool,
    report: Callable[[], Report] | None,
) -> None:
    from tau2_slime.evaluation.statistics.intervals import share_interval
    from tau2_slime.view.reader import Reader
    from tau2_slime.view.server import run

    def started(address: str) -> None:
        typer.echo(address)
        typer.echo("tau2-slime view: open this address in a browser of this machine; Ctrl-C stops", err=True)

    def language(read: Runs) -> CheckpointProfile | None:
        return _language(read, hf_checkpoint, trust_remote_code)

    run(Reader(runs, share_interval, language, follow=follow, replay=replay), port=port, started=started, report=report)
    typer.echo("tau2-slime view: stopped", err=True)


def _write(
    html: Path,
    runs: Runs,
    hf_checkpoint: str | None,
    trust_remote_code: bool,
    replay: bool,
    report: Callable[[], Report] | None,
) -> None:
    from tau2_slime.evaluation.statistics.intervals import share_interval
    from tau2_slime.inspector.curves import Curves
    from tau2_slime.runtime.console import progress
    from tau2_slime.view.page import write_page

    runs.refresh()
    if not runs.rows:
        raise ConfigError("; ".join(runs.problems[:3]) or f"{runs.title}: no episode in it")
    language = _language(runs, hf_checkpoint, trust_remote_code)
    measured = None
    try:
        measured = report() if report is not None else None
    except ConfigError as error:
        typer.echo(shown(f"tau2-slime view: without the report: {error}"), err=True)
    try:
        with progress("comparing with gold and packing" if replay else "packing") as advance:
            size = write_page(
                html,
                (runs.open(number) for number in range(len(runs.rows))),
                title=runs.title,
                rows=runs.rows,
                curves=Curves(share_interval),
                report=measured,
                language=language,
                world=replay,
                unreadable=runs.problems,
                advance=advance,
            )
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror}") from error
    typer.echo(shown(f"{len(runs.rows)} episodes: {html} ({size / 1e6:.1f} MB)"))


def _language(runs: Runs, hf_checkpoint: str | None, trust_remote_code: bool) -> CheckpointProfile | None:
    """The tokenizer. One that only the files name may fail: the episodes are shown without it."""
    from tau2_slime.inspector.tokenizers import language_of

    try:
        return language_of(runs.found(), hf_checkpoint, trust_remote_code=trust_remote_code)
    except ConfigError as error:
        typer.echo(shown(f"tau2-slime view: without a tokenizer: {error}"), err=True)
        if hf_checkpoint is not None:
            raise
        return None
