"""The commands of `tau2-slime`: the package without a training job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from tau2_slime import __version__
from tau2_slime.cli import tasks
from tau2_slime.cli.completion import completion
from tau2_slime.cli.curate import curate
from tau2_slime.cli.data import data
from tau2_slime.cli.diagnose import diagnose
from tau2_slime.cli.doctor import doctor
from tau2_slime.cli.evaluate import compare, convert_v1, evaluate
from tau2_slime.cli.export import export
from tau2_slime.cli.help import Command
from tau2_slime.cli.inspect import inspect
from tau2_slime.cli.play import play
from tau2_slime.cli.rollout import rollout
from tau2_slime.cli.synth import synth
from tau2_slime.cli.view import view

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="τ²-bench episodes for slime, without a training job.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit(0)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """τ²-bench episodes for slime, without a training job."""


EXAMPLES = {
    rollout: "tau2-slime rollout -d mock --groups 2",
    play: "tau2-slime play --as agent -d retail -t 0",
    doctor: "tau2-slime doctor --user-model gpt-4o-mini",
    evaluate: "tau2-slime eval --policy-model gpt-4.1-mini --user-model gpt-4o-mini -d retail",
    compare: "tau2-slime compare runs/before runs/after",
    convert_v1: "tau2-slime convert-v1 gpt-4o-airline.json",
    inspect: "tau2-slime inspect runs/rollout-1 --html page.html",
    export: "tau2-slime export runs/rollout-1 --format slime-sft",
    curate: "tau2-slime curate runs/eval-1 -o hard.jsonl",
    diagnose: "tau2-slime diagnose runs/rollout-1",
    view: "tau2-slime view runs/rollout-1 --follow",
    completion: 'eval "$(tau2-slime completion bash)"',
}
"""Command -> a line to copy, at the end of its help."""


def _add(command: Callable[..., None], name: str | None = None) -> None:
    app.command(name, cls=Command, epilog=EXAMPLES[command])(command)


_add(rollout)
_add(play)
_add(doctor)
_add(evaluate, "eval")
_add(compare)
_add(convert_v1)
_add(inspect)
_add(export)
app.command(
    name="data",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(data)
_add(curate)
app.add_typer(tasks.app, name="tasks")
app.add_typer(synth, name="synth")
_add(diagnose)
_add(view)
_add(completion)


@app.command()
def version() -> None:
    """Print the versions of this package and of τ²."""
    from tau2_slime.world import tau2_compat

    typer.echo(f"tau2-slime {__version__} ({tau2_compat.version()})")


def usage_error(error: Exception) -> str | None:
    """What is wrong with a command line, if ``error`` is what typer raises for one; else None."""
    context = getattr(error, "ctx", None)
    words = getattr(error, "format_message", None)
    if not callable(words):
        return "aborted" if isinstance(error, typer.Abort) else None
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(words())
    place = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{str(words()).rstrip('.')}{place}"
