"""`tau2-slime tasks list`, `show` and `check`: what a split or a task file holds."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tau2_slime.cli.options import begin, refuse_misspelt_domains
from tau2_slime.config.task_split import PREFIX, absolute, names_a_file
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.tasks.facts import TaskFacts
    from tau2_slime.world.types import Task

app = typer.Typer(no_args_is_help=True, help="What a split or a task file holds, and whether it can be played.")

Domain = Annotated[str | None, typer.Option(help="Default: retail, or what the file's first task names.")]
Split = Annotated[str | None, typer.Option(help="A split of τ² or file:PATH; default: train, or base without one.")]


@app.command(name="list")
def list_tasks(
    domain: Domain = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tasks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line instead of a table.")] = False,
) -> None:
    """One line a task: its gold calls, writes, tools and reward basis, and what is paid without solving it."""
    begin("tasks list", "loading τ²")
    config = _config(domain, split)
    from tau2_slime.tasks.facts import all_facts
    from tau2_slime.world.domains import tasks

    pool = tasks(config.domain, config.task_split)
    count = min(limit or len(pool), len(pool))
    found = all_facts(config, islice(pool, count))
    if as_json:
        for facts in found:
            typer.echo(json.dumps(facts.plain(), ensure_ascii=False))
        return
    _print_table(_counted(found, count), count)


def _counted(found: Iterable[TaskFacts], count: int) -> Iterator[TaskFacts]:
    if not sys.stderr.isatty():
        yield from found
        return
    for number, facts in enumerate(found, 1):
        typer.echo(f"\r{number} of {count} ", err=True, nl=False)
        yield facts
    typer.echo("\r", err=True, nl=False)


def _print_table(found: Iterable[TaskFacts], count: int) -> None:
    from rich.table import Table

    from tau2_slime.runtime.console import ShortenedCell, new_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", max_width=40)
    for name in ("calls", "writes", "nothing", "transfer", "gold"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("order", no_wrap=True, min_width=6)
    table.add_column("basis", no_wrap=True)
    table.add_column("tools")
    trivial = unpaid = ordered = 0
    for one in found:
        paid = ["-" if reward is None else f"{reward:g}" for reward in (one.do_nothing, one.transfer, one.gold)]
        last = one.problem or " ".join(one.tools)
        numbers = (str(one.actions), str(one.writes), *paid)
        table.add_row(
            ShortenedCell(shown(one.task_id)), *numbers, one.order or "-", " ".join(one.basis), shown(last)[:200]
        )
        trivial, unpaid, ordered = trivial + one.trivial, unpaid + (not one.gold_pays), ordered + bool(one.order)
    console = new_console()
    console.print(table)
    console.print(
        f"{count} tasks: {trivial} are paid for doing nothing or transferring at once, gold is not paid on {unpaid}, "
        f"an order decides {ordered}",
        soft_wrap=True,
    )


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(help="The task's id.")],
    domain: Domain = None,
    split: Split = None,
) -> None:
    """One task, readable: what the user wants, the gold calls, and the parts of the policy that they touch."""
    begin("tasks show", "loading τ²")
    config = _config(domain, split, task_id)
    from tau2_slime.world import domains

    task = domains.find_task(config.domain, config.task_split, task_id=task_id)
    for line in _described(config, task):
        typer.echo(shown(line, lines=True))


def _described(config: Tau2Config, task: Task) -> Iterator[str]:
    from tau2_slime.tasks.facts import all_facts
    from tau2_slime.tasks.policy_clauses import clauses
    from tau2_slime.world import domains
    from tau2_slime.world.environment import World

    yield f"{config.domain}/{config.task_split}/{task.id}\n"
    if task.description is not None and str(task.description):
        yield f"{task.description}\n"
    yield f"{task.user_scenario}\n"
    if task.initial_state is not None:
        state = json.dumps(task.initial_state.model_dump(mode="json", exclude_none=True), ensure_ascii=False, indent=2)
        yield f"Initial state:\n{state if len(state) < 4000 else state[:4000] + ' ...'}\n"
    criteria = task.evaluation_criteria
    yield "Gold calls:"
    for action in (criteria.actions if criteria is not None else None) or []:
        yield f"  {action.requestor}: {action.name}({json.dumps(action.arguments, ensure_ascii=False)})"
    for name in ("env_assertions", "communicate_info", "nl_assertions"):
        for one in getattr(criteria, name, None) or []:
            said = one if isinstance(one, str) else f"{one.env_type}: {one.func_name}({json.dumps(one.arguments)})"
            yield f"  {name}: {said}"
    facts = next(all_facts(config, [task]))
    yield f"Reward basis: {' '.join(facts.basis) or 'none'}"
    paid = {"doing nothing": facts.do_nothing, "transferring at once": facts.transfer, "gold": facts.gold}
    yield "Paid for " + ", ".join(f"{name}: {'-' if value is None else f'{value:g}'}" for name, value in paid.items())
    if facts.order:
        yield f"The end depends on the order {'inside a list' if facts.order == 'lists' else 'of the writes'}."
    if facts.problem:
        yield f"It cannot be played: {facts.problem}"
    writes = domains.write_tools(config.domain)
    for text in clauses(World(config.domain, config.task_split, task).policy, [t for t in facts.tools if t in writes]):
        yield f"\nPolicy, {text}"


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="JSON or JSONL, also gzip.")],
    domain: Domain = None,
    play: Annotated[bool, typer.Option(help="Also play every task; otherwise only read it.")] = True,
) -> None:
    """Every row of a task file: can it be played, is gold paid, is nothing paid for nothing. Exit status 1 if not."""
    begin("tasks check", "loading τ²")
    config = _config(domain, f"{PREFIX}{file}")
    from tau2_slime.tasks.facts import all_facts
    from tau2_slime.world.domains import task_file

    tasks = task_file(config.domain, config.task_split)
    for fault in tasks.faults:
        typer.echo(f"bad   {fault}")
    bad, noted = len(tasks.faults), 0
    for one in all_facts(config, tasks) if play else ():
        name = shown(one.task_id)
        if one.problem or not one.gold_pays:
            bad += 1
            typer.echo(f"bad   task {name}: {shown(one.problem) or f'its gold earns {one.gold:g}, not 1'}")
            continue
        notes = ["an agent that solves nothing earns 1"] if one.trivial else []
        notes += [f"its end depends on the order of {one.order}"] if one.order else []
        noted += bool(notes)
        if notes:
            typer.echo(f"note  task {name}: {'; '.join(notes)}")
    typer.echo(f"{len(tasks) + len(tasks.faults)} tasks of {config.domain}: {bad} bad, {noted} with notes")
    raise typer.Exit(exit_status.NO if bad else exit_status.FINE)


def _config(domain: str | None, split: str | None, *task_ids: str) -> Tau2Config:
    """The settings of the environment, with what the command line says; its split has ``task_ids`` if one has them."""
    from tau2_slime.config.settings import Tau2Config

    given: dict[str, Any] = {"task_split": absolute(split)} if split is not None else {}
    if domain is not None:
        given["domain"] = domain
    config = Tau2Config.resolve(None, given)
    refuse_misspelt_domains([config.domain])
    from tau2_slime.world import domains

    found = config.domain
    if "domain" not in config.model_fields_set and names_a_file(config.task_split):
        found = domains.domain_of_file(config.task_split)
    known = domains.splits(found)
    wanted = config.task_split
    if "task_split" not in config.model_fields_set:
        wanted = domains.usual_split(found, wanted, task_ids)
    if not names_a_file(wanted) and wanted not in known:
        raise ConfigError(f"--split {wanted}: {found} has: {', '.join(known)}; a file of tasks is file:PATH")
    return config.model_copy(update={"domain": found, "task_split": wanted})
