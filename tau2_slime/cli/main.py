"""`tau2-slime`: the package without a training job."""

from __future__ import annotations

import os

import typer

from tau2_slime import __version__
from tau2_slime.cli.doctor import doctor
from tau2_slime.cli.evaluate import compare, convert_v1, evaluate
from tau2_slime.cli.inspect import inspect
from tau2_slime.cli.rollout import rollout

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="τ²-bench episodes for slime, without a training job."
)
app.command()(rollout)
app.command()(doctor)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(convert_v1)
app.command()(inspect)


@app.command()
def version() -> None:
    """Print the versions of this package and of τ²."""
    from tau2_slime.world import tau2_compat

    typer.echo(f"tau2-slime {__version__} ({tau2_compat.version()})")


def main() -> None:
    """Entry point: a mistake that the user can mend is one line on stderr and exit status 2."""
    from tau2_slime.errors import ConfigError

    # Without torch, transformers would say at every start that it cannot load models; no command wants it to.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        app()
    except ConfigError as error:
        typer.secho(f"tau2-slime: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(2) from None
