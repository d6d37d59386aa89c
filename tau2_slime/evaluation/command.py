"""`tau2-slime eval`: play what was asked for, show, report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.config.settings import HUMAN
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.request import Request, make_plan, make_policy, parse_threshold
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.console import resume_command
from tau2_slime.runtime.files import hold_folder
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from rich.console import Console

    from tau2_slime.evaluation.plan.datasets import Plan
    from tau2_slime.evaluation.runner.policies import PolicyBackend
    from tau2_slime.evaluation.runner.run import End, Progress
    from tau2_slime.evaluation.statistics.summary import Summary

PASSED, BELOW, UNFINISHED = exit_status.FINE, exit_status.NO, exit_status.UNFINISHED
"""Exit statuses: complete; below --fail-under; not everything was played or reported."""

OWN_USER_BUDGET = (
    "--max-cost does not see every call of the user simulator {}: those through LitellmUser before they are made, others "
    "only when an episode is over, and only what its `stats` report (calls, tokens, cost)"
)


def dry_run(request: Request, console: Console) -> int:
    """Print what would be played, how many calls that takes and what they may cost. Nothing is asked or written.

    Raises:
        ConfigError: a setting is wrong.
    """
    from tau2_slime.evaluation.estimate import plan_table
    from tau2_slime.evaluation.runner.budget import Budget, parse_prices

    plan = make_plan(request)
    check_attempts([parse_threshold(text) for text in request.fail_under], plan)
    policy = make_policy(request, plan)
    console.print(plan_table(plan, policy.paid_models(), Budget(None, None, parse_prices(request.prices))))
    console.print(
        f"{plan.episodes} episodes. Calls and dollars are estimates from the tasks' gold actions: a real agent may need "
        "twice as many turns. Nothing was asked.",
        soft_wrap=True,
    )
    return PASSED


def evaluate(request: Request, console: Console) -> int:
    """Play, report and return the exit status.

    Raises:
        ConfigError: a setting is wrong; nothing was played.
    """
    limits = [parse_threshold(text) for text in request.fail_under]
    if request.wandb_project is not None:
        from tau2_slime.evaluation.report import wandb_log

        wandb_log.require()  # told now, not after hours of playing
    with hold_folder(request.output_dir, "evaluation"):
        plan = make_plan(request)
        check_attempts(limits, plan)
        policy = make_policy(request, plan)
        summary, end, left, unwritten = asyncio.run(_session(request, plan, policy, console))
    show(summary, request.output_dir, console)
    if request.wandb_project is not None and not unwritten:
        wandb_log.log(summary, request.output_dir, request.wandb_project)
    from tau2_slime.evaluation.runner.run import End

    if unwritten:
        print(f"tau2-slime: the reports cannot be written: {shown(unwritten)}", file=sys.stderr)
    if unwritten or end is not End.COMPLETE or left:
        why = "a report is missing" if unwritten and end is End.COMPLETE else end
        console.print(f"not complete ({why}); the same command goes on where this one stopped:", style="yellow")
        console.print(f"  {resume_command(request.output_dir)}", markup=False, soft_wrap=True, highlight=False)
        return UNFINISHED
    for group in summary.groups:
        if group.kind == "dataset" and group.played < group.planned:
            line = (
                f"{group.name}: {group.played} of {group.planned} episodes; the command that played it goes on with it"
            )
            console.print(line, style="yellow", markup=False, soft_wrap=True)
    return check_thresholds(summary, limits, console)


async def _session(
    request: Request, plan: Plan, policy: PolicyBackend, console: Console
) -> tuple[Summary, End, int, str]:
    """The summary, why the session ended, how many episodes of ``plan`` are not recorded, and why the reports could not be
    written (empty if they were)."""
    from tau2_slime.evaluation.report.output import write_reports
    from tau2_slime.evaluation.runner.budget import Budget, parse_prices
    from tau2_slime.evaluation.runner.policies import RouterPolicy, check_users
    from tau2_slime.evaluation.runner.run import End, Options, Runner
    from tau2_slime.evaluation.statistics import baselines
    from tau2_slime.evaluation.statistics.summary import known_baselines, summarise
    from tau2_slime.evaluation.store import manifest as manifests
    from tau2_slime.evaluation.store.records import Store, jobs
    from tau2_slime.local.person import leaving_on_signals
    from tau2_slime.observe.unfinished import Unfinished, left_beside
    from tau2_slime.runtime.console import progress
    from tau2_slime.runtime.files import write_atomically
    from tau2_slime.runtime.loops import offload

    folder = request.output_dir
    budget = Budget(None, request.max_cost, parse_prices(request.prices))
    check_users([item for dataset in plan.datasets for item in dataset.items], budget)
    budget.require_prices(policy.paid_models())
    own_users = {path for dataset in plan.datasets for item in dataset.items if (path := item.config.user_path)}
    for path in sorted(own_users) if request.max_cost is not None else ():
        console.print(OWN_USER_BUDGET.format(path), style="yellow", markup=False, highlight=False, soft_wrap=True)
    async with policy:
        if isinstance(policy, RouterPolicy):
            await policy.require_room(plan)
        built = await offload(manifests.build, plan, policy.describe())
        manifest = manifests.open_folder(folder, built)
        store = Store(folder)
        store.repair(replay_excluded=request.retry_excluded)
        budget = Budget(folder / "costs.jsonl", request.max_cost, parse_prices(request.prices))
        if store.records:
            console.print(f"{folder}: {len(store.records)} episodes are there already", soft_wrap=True, markup=False)
        if store.damaged:
            console.print(f"{store.damaged} damaged lines dropped; their episodes are played again", style="yellow")
        person = any(dataset.config.user_strategy == HUMAN for dataset in plan.datasets)
        concurrency = 1 if person else request.concurrency  # a person talks to one agent at a time
        options = Options(concurrency=concurrency, retries=request.retries, tokens=request.keep_tokens)
        with _progress_bar(plan.episodes, console, hidden=person) as on_change:
            runner = Runner(jobs(plan), policy, store, budget, options, on_change=on_change)
            for note in budget.notes:
                runner.progress.note(note)
            on_change(runner.progress)
            if person:
                if left := left_beside(folder):
                    console.print(left, style="yellow", markup=False, soft_wrap=True)
                policy.unfinished = Unfinished(folder)
                policy.unfinished.drop(job.label for job in jobs(plan) if job.name in store.records)
                with leaving_on_signals(runner.interrupt):
                    end = await runner.run()
            else:
                end = await _interruptible(runner.run())
        known = known_baselines(folder, runner.progress.note)  # of datasets of earlier calls, too
        if request.with_baselines and end is not End.INTERRUPTED:
            items = [item for dataset in plan.datasets for item in dataset.items]
            with progress("scoring the do-nothing and transfer-at-once policies", console) as advance:
                scored = await baselines.score_baselines(items, tell=runner.progress.note, advance=advance)
            known = {**(known or {}), **scored}

        def report() -> tuple[Summary, str]:
            notes = runner.progress.notes
            summary = summarise(manifest, store.records, known=known, bills=budget.bills, end=str(end), notes=notes)
            try:
                if known is not None:
                    write_atomically(folder / baselines.FILE, json.dumps(known, indent=1) + "\n")
                write_reports(summary, folder)
            except OSError as error:
                return summary, f"{error.filename or folder}: {error.strerror or error}"
            return summary, ""

        with console.status("writing the reports"):
            summary, unwritten = await offload(report)
        unplayed = sum(job.name not in store.records for job in jobs(plan))
    return summary, end, unplayed, unwritten


async def _interruptible(work: Coroutine[None, None, End]) -> End:
    """Ctrl-C and SIGTERM cancel ``work``, which then ends in good order; a second Ctrl-C ends the process."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        loop.remove_signal_handler(number)
        task.cancel()

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number)
            handled.append(number)
    try:
        return await task
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _progress_bar(total: int, console: Console, *, hidden: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar with the episodes that are done, running and passed, the money spent and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task("episodes", total=total, facts="")

        def on_change(progress: Progress) -> None:
            rate = f"{progress.successes / progress.scored:.0%} passed" if progress.scored else "none scored"
            facts = [f"{progress.running} running", rate]
            facts += [f"{progress.excluded} excluded"] if progress.excluded else []
            facts += [f"${progress.spent:.2f}"] if progress.spent else []
            bar.update(task, completed=progress.done, total=max(total, progress.done), facts=", ".join(facts))

        yield on_change


def show(summary: Summary, folder: Path, console: Console) -> None:
    """Print the tables that fit a terminal."""
    from tau2_slime.evaluation.report import table, tables
    from tau2_slime.evaluation.report.compliance import compliance_table
    from tau2_slime.evaluation.report.markdown import heading

    found = (
        tables.score_table(summary, brief=console.width < 130),
        tables.ending_table(summary),
        tables.reason_table(summary),
        tables.unearned_table(summary),
        compliance_table(summary),
        tables.metric_table(summary),
        tables.cost_table(summary),
    )
    table.print_page(heading(summary), (one for one in found if one is not None and one.rows), console)
    console.print()
    console.print(f"everything, with every conversation: {folder / 'report.html'}", markup=False, soft_wrap=True)


def check_attempts(limits: list[tuple[str, int, float]], plan: Plan) -> None:
    """Raises ConfigError if a limit asks for more attempts of a task than are played: before anything is paid for."""
    most = max(dataset.attempts for dataset in plan.datasets)
    for kind, k, limit in limits:
        if k > most:
            raise ConfigError(
                f"--fail-under {kind}{k}={limit:g}: at most {most} attempts of a task are played; give --attempts {k}"
            )


def check_thresholds(summary: Summary, limits: list[tuple[str, int, float]], console: Console) -> int:
    """The exit status under --fail-under; prints each score that is too low. ``limits``: from `parse_threshold`."""
    status = PASSED
    for kind, k, limit in limits:
        scores = summary.overall.scores
        estimate = (scores.pass_hat if kind == "pass^" else scores.pass_at).get(k)
        if estimate is None or estimate.value < limit - 1e-9:  # a mean of fifths may miss 0.4 by its last digit
            value = "unknown" if estimate is None else f"{estimate.value:.3f}"
            console.print(f"{kind}{k} is {value}, below {limit:g}", style="red", markup=False)
            status = BELOW
    return status
