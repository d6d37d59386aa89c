"""`tau2-slime synth`: verified synthetic tasks, and the gates over tasks of any origin."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tau2_slime.cli.options import begin, refuse_unused
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.files import check_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tau2_slime.cli.synth_texts import Texts
    from tau2_slime.synth.gates.held_out import HoldOut
    from tau2_slime.synth.generate import Plan

synth = typer.Typer(
    add_completion=False,
    help="Make verified synthetic tasks, or verify tasks of any origin.",
    invoke_without_command=True,
)
HOLD_OUTS = ("test", "base", "none")

HoldOutOption = Annotated[
    str, typer.Option(help="Official tasks that nothing may be taken from: those of the split test or base, or none.")
]


def checked_hold_out(value: str) -> HoldOut:
    """Raises ConfigError for anything but a name in `HOLD_OUTS`."""
    if value not in HOLD_OUTS:
        raise ConfigError(f"--hold-out {value!r} is unknown: it is {', '.join(HOLD_OUTS)}")
    return cast("HoldOut", value)


@synth.callback()
def generate(
    context: typer.Context,
    domain: Annotated[list[str] | None, typer.Option(help="Repeatable: airline, retail, telecom, mock.")] = None,
    difficulty: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable: easy (1 gold write), medium (2 to 5), hard (6 to 10). Default: medium."),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Tasks a domain and difficulty.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    hold_out: HoldOutOption = "test",
    from_failures: Annotated[
        Path | None,
        typer.Option(
            help="What the policy fails at is drawn more often: a RUN, diagnosis.jsonl, steer.json, or weights of your own."
        ),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Default: runs/synth-<time>. One that exists is resumed.")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option(help="A collection of tasks that runs add to; nothing in it is made again.")
    ] = None,
    intermediate: Annotated[bool, typer.Option("--intermediate", help="Also write rows before formatting.")] = False,
    llm: Annotated[str | None, typer.Option(help="Any litellm model: it writes the texts.")] = None,
    llm_reader: Annotated[str | None, typer.Option(help="The model that reads them back. Default: the same.")] = None,
    llm_base_url: Annotated[str | None, typer.Option(help="Their endpoint, if it is your own.")] = None,
    llm_api_key_var: Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.0, help="US dollars that the texts may cost.")] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="MODEL=IN,OUT in US dollars per million tokens; repeatable.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, default 1; calls of the model at a time, default 8.")
    ] = None,
) -> None:
    """Make verified synthetic tasks: deterministic, resumed where it was interrupted, offline without --llm."""
    if context.invoked_subcommand is not None:
        return
    if llm is None:
        options = {
            "--llm-reader": llm_reader,
            "--llm-base-url": llm_base_url,
            "--llm-api-key-var": llm_api_key_var,
            "--max-cost": max_cost is not None,
            "--price": price,
        }
        refuse_unused(
            {name: bool(given) and "no model is asked; name one with --llm" for name, given in options.items()}
        )
    begin("synth", "loading τ²")
    if not domain:
        raise ConfigError("synth needs --domain: airline, retail, telecom or mock (repeatable)")
    from tau2_slime.cli.aimed import keep_weights, read_weights
    from tau2_slime.runtime.files import hold_folder, new_run_folder
    from tau2_slime.synth.generate import Plan

    weights = read_weights(from_failures, list(dict.fromkeys(domain))) if from_failures is not None else {}
    plans = [
        Plan(name, level, num_samples, seed, checked_hold_out(hold_out), weights.get(name, {}))
        for name in dict.fromkeys(domain)
        for level in dict.fromkeys(difficulty or ["medium"])
    ]
    for plan in plans:
        plan.check()
    texts = None
    if llm is not None:
        from tau2_slime.cli.synth_texts import Texts

        texts = Texts(
            llm, llm_reader or llm, llm_base_url, llm_api_key_var, max_cost, tuple(price or ()), max_concurrency or 8
        )
        texts.check()
    folder = output_dir or new_run_folder("synth")
    with hold_folder(folder, "synth"):
        keep_weights(folder, weights)
        raise typer.Exit(_make(plans, folder, output_file, intermediate, max_concurrency or 1, texts))


def _make(
    plans: list[Plan], folder: Path, collection: Path | None, intermediate: bool, concurrency: int, texts: Texts | None
) -> int:
    from tau2_slime.runtime.console import new_console, progress, resume_command
    from tau2_slime.runtime.files import write_atomically
    from tau2_slime.synth import output
    from tau2_slime.synth.aim import shift_of
    from tau2_slime.synth.generate import run
    from tau2_slime.synth.journal import Journal
    from tau2_slime.synth.verify import Judge
    from tau2_slime.synth.workers import workers

    console = new_console()
    own_ids = {p.prefix for p in plans}
    seen = (
        [r for r in output.read_collection(collection) if not str(r["id"]).startswith(tuple(own_ids))]
        if collection
        else []
    )
    journal = Journal(folder / "journal.jsonl")
    rejected: Counter[str] = Counter()
    began, already = time.monotonic(), sum(row["accepted"] for row in journal.rows)
    stopped: str | None = None
    try:
        with progress("tasks", console) as advance, workers(concurrency) as shared:

            def done(row: Mapping[str, Any], accepted: int, total: int) -> None:
                rejected.update(row["failed"])
                rate = 60 * (accepted - already) / max(1e-9, time.monotonic() - began)
                refused = ", ".join(f"{gate} {count}" for gate, count in sorted(rejected.items())) or "none"
                advance(accepted, total, f"({rate:.0f} a minute; rejected: {refused})")

            rows = run(plans, journal, seen=seen, workers=shared, done=done)
        if texts is not None:
            rows, stopped = texts.write(rows, folder, plans[0].hold_out, console)
    except KeyboardInterrupt:
        if not journal.rows:
            raise
        held = sum(row["accepted"] for row in journal.rows)
        typer.echo(
            f"tau2-slime: interrupted; {held} tasks are kept, and this goes on: {resume_command(folder)}", err=True
        )
        return exit_status.UNFINISHED
    finally:
        journal.close()
    shifts = {
        name: shift_of(own, [row for row in rows if row["key"][0] == name], Judge(name, hold_out=own[0].hold_out))
        for name in dict.fromkeys(plan.domain for plan in plans)
        if (own := [plan for plan in plans if plan.domain == name and plan.weights])
    }
    summaries = output.write_all(folder, rows, shifts=shifts)
    if intermediate:
        made = [output.ancestor_row(row) for row in rows if row["accepted"]]
        write_atomically(folder / "user_actions.json", output.as_json(made))
    if collection is not None and stopped is None:  # a task that is in it keeps its text
        console.print(
            f"{output.add_to_collection(collection, rows)} tasks in {collection}", markup=False, soft_wrap=True
        )
    for found in summaries:
        console.print(
            f"{found['domain']}: {found['accepted']} accepted of {found['proposals']} proposals ({found['yield']:.1%})"
        )
    short = [
        p
        for p in plans
        if sum(r["accepted"] and r["key"][:3] == [p.domain, p.difficulty, p.seed] for r in rows) < p.count
    ]
    for plan in short:
        console.print(
            f"{plan.domain} {plan.difficulty}: the database allows no more tasks of this kind", style="yellow"
        )
    console.print(f"tasks and report: {folder}", markup=False, soft_wrap=True)
    if stopped is not None:
        typer.echo(
            f"tau2-slime: {stopped}; the texts that are missing come from templates, and this goes on: "
            f"{resume_command(folder)}",
            err=True,
        )
        return exit_status.UNFINISHED
    return exit_status.NO if short else exit_status.FINE


@synth.command()
def verify(
    domain: Annotated[str, typer.Option(help="The domain of the tasks.")],
    tasks: Annotated[Path, typer.Option(help="A JSON list of native τ² tasks, or JSON lines.")],
    report: Annotated[Path, typer.Option(help="Gets one line a task: id, verdict, failed gates, reasons.")],
    hold_out: HoldOutOption = "test",
) -> None:
    """Judge tasks of any origin by the gates. Exit status 1 if some are rejected."""
    check_output("--report", report, [tasks])
    report.parent.mkdir(parents=True, exist_ok=True)
    begin("synth verify", "loading τ²")
    from tau2_slime.runtime.console import new_console, progress
    from tau2_slime.synth.verify import verify as judge

    console = new_console()
    with progress("tasks", console) as advance:
        verdicts = judge(domain, tasks, report, hold_out=checked_hold_out(hold_out), advance=advance)
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
