"""`tau2-slime curate`: from the results of runs to a task file of what is worth training on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tau2_slime.cli.options import begin
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown


def curate(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Gets <domain>_curated.jsonl and curation.json.")
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Folders or files of rollouts, evaluations, slime's dumps."),
    ] = None,
    from_diagnosis: Annotated[
        list[Path] | None,
        typer.Option(
            help="Repeatable: a RUN, diagnosis.jsonl or steer.json. Only tasks at which the agent fails stay in, those "
            "with the most frequent kinds of failure first; without a RUN the attempts are read here, too."
        ),
    ] = None,
    above: Annotated[float, typer.Option(min=0.0, max=1.0, help="Pass rate greater than this.")] = 0.0,
    below: Annotated[float, typer.Option(min=0.0, help="Pass rate less than this; above 1: no limit.")] = 1.0,
    min_attempts: Annotated[int, typer.Option(min=1, help="Episodes that count.")] = 2,
    min_mixed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of groups in which some episodes succeed and some fail.")
    ] = 0.0,
    keep_trivial: Annotated[bool, typer.Option("--keep-trivial", help="Keep what is paid for nothing.")] = False,
    keep_unpaid: Annotated[bool, typer.Option("--keep-unpaid", help="Keep tasks whose gold is not paid.")] = False,
    drop_order_dependent: Annotated[
        bool, typer.Option("--drop-order-dependent", help="Leave out what an order of writes or lists decides.")
    ] = False,
    allow_test_tasks: Annotated[bool, typer.Option("--allow-test-tasks", help="Keep tasks of the test split.")] = False,
    per_domain: Annotated[int | None, typer.Option(min=1, help="At most so many, rates near 0.5 first.")] = None,
    prompt_data: Annotated[bool, typer.Option("--prompt-data", help="Write rows for slime instead of tasks.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold other tasks.")] = False,
) -> None:
    """Pick the tasks that a policy solves sometimes, and say of every other one why it was left out."""
    begin("curate", "reading the runs")
    if output_dir.is_file():
        raise ConfigError(f"--output-dir {output_dir}: that is a file; name a folder")
    if above >= below:
        raise ConfigError(f"--above {above:g} --below {below:g}: no rate lies between them")
    from tau2_slime.evaluation.curation.attempts import attempts_of
    from tau2_slime.evaluation.curation.choice import Wanted, judge
    from tau2_slime.evaluation.curation.output import REPORT, counted, write
    from tau2_slime.runtime.console import new_console, progress

    if not runs and not from_diagnosis:
        raise ConfigError("curate: name a RUN, or a diagnosis with --from-diagnosis")
    found, unreadable = attempts_of(runs or [])
    failures = None
    if from_diagnosis:
        from tau2_slime.evaluation.curation.failures import failures_of

        failures, attempts = failures_of(from_diagnosis)
        found = found or attempts
        if not found:
            raise ConfigError(f"--from-diagnosis {from_diagnosis[0]} names no attempts: name the RUN, too")
    for line in unreadable[:5]:
        typer.echo(f"note: {shown(line)}", err=True)
    if len(unreadable) > 5:
        typer.echo(f"note: {len(unreadable) - 5} more rows cannot be read", err=True)
    if not found:
        raise ConfigError(f"{', '.join(map(str, runs or []))}: no episode that can be read says which task it played")
    wanted = Wanted(
        above=above,
        below=below,
        min_attempts=min_attempts,
        min_mixed=min_mixed,
        keep_trivial=keep_trivial,
        keep_unpaid=keep_unpaid,
        drop_order_dependent=drop_order_dependent,
        allow_test_tasks=allow_test_tasks,
        per_domain=per_domain,
        failures=failures,
    )
    console = new_console()
    with progress("tasks", console) as advance:
        verdicts = judge(found, wanted, advance)
    files = write(output_dir, verdicts, as_prompt_data=prompt_data, replace=force)
    kept = sum(not verdict.reason for verdict in verdicts)
    console.print(
        f"{kept} of {len(verdicts)} tasks stay in; left out:" if kept < len(verdicts) else f"all {kept} stay in"
    )
    for reason, count in counted(verdicts).items():
        console.print(f"{count:6}  {shown(reason)}", markup=False, soft_wrap=True)
    for path in files:
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    console.print(f"every task with its rate, interval and reason: {output_dir / REPORT}", markup=False, soft_wrap=True)
