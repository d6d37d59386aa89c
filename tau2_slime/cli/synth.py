"""`tau2-slime synth`: verified synthetic tasks, and the gates over tasks of any origin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tau2_slime.cli.options import begin
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status

synth = typer.Typer(
    add_completion=False,
    help="Make verified synthetic tasks, or verify tasks of any origin.",
    invoke_without_command=True,
)
HOLD_OUTS = ("test", "base", "none")

HoldOutOption = Annotated[
    str, typer.Option(help="Official tasks that nothing may be taken from: those of the split test or base, or none.")
]


def checked_hold_out(value: str) -> str:
    """Raises ConfigError for anything but a name in `HOLD_OUTS`."""
    if value not in HOLD_OUTS:
        raise ConfigError(f"--hold-out {value!r} is unknown: it is {', '.join(HOLD_OUTS)}")
    return value


@synth.command()
def verify(
    domain: Annotated[str, typer.Option(help="The domain of the tasks.")],
    tasks: Annotated[Path, typer.Option(help="A JSON list of native τ² tasks, or JSON lines.")],
    report: Annotated[Path, typer.Option(help="Gets one line a task: id, verdict, failed gates, reasons.")],
    hold_out: HoldOutOption = "test",
) -> None:
    """Judge tasks of any origin by the gates. Exit status 1 if some are rejected."""
    begin("synth verify", "loading τ²")
    from tau2_slime.runtime.console import new_console, progress
    from tau2_slime.synth.verify import verify as judge

    console = new_console()
    with progress("tasks", console) as advance:
        verdicts = judge(domain, tasks, report, hold_out=checked_hold_out(hold_out), advance=advance)  # type: ignore[arg-type]
    accepted = sum(verdict.accepted for verdict in verdicts)
    console.print(f"{accepted} of {len(verdicts)} tasks accepted")
    by_gate = Counter(gate for verdict in verdicts for gate in verdict.failed)
    if by_gate:
        console.print(
            "rejected by "
            + ", ".join(f"{gate}: {count}" for gate, count in sorted(by_gate.items(), key=lambda g: int(g[0][1:])))
        )
    console.print(f"report: {report}", markup=False, soft_wrap=True)
    raise typer.Exit(exit_status.FINE if accepted == len(verdicts) else exit_status.NO)
