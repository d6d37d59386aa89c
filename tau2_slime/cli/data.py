"""`tau2-slime data`: the command line of `tau2_slime.data.command`, which takes several values after one option."""

from __future__ import annotations

import typer

from tau2_slime.cli.options import begin


def data(context: typer.Context) -> None:
    """Write prompt data for slime from τ²'s splits or from task files (--help lists the options)."""
    begin("data", "loading τ²")
    from tau2_slime.data.command import main

    raise typer.Exit(main(context.args))
