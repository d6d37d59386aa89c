"""`tau2-slime diagnose`: what the command line asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import begin, refuse_unused
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import check_output
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tau2_slime.diagnosis.findings import Diagnosis
    from tau2_slime.inspector.found import FoundEpisodes
    from tau2_slime.inspector.trajectory import Trajectory
    from tau2_slime.world.judge import JudgeSpec


def diagnose(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Whatever `inspect` opens, and files of tau-bench v1."),
    ] = None,
    jsonl: Annotated[Path | None, typer.Option(help="Write a line for each episode to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the failed episodes as one page to this file, each with its diagnosis.")
    ] = None,
    steer: Annotated[
        Path | None, typer.Option(help="Write what to make tasks for, and what to repair, to this file.")
    ] = None,
    domain: Annotated[str | None, typer.Option("--domain", "--env", help="Only this domain.")] = None,
    who: Annotated[str | None, typer.Option(help="Show only failures of: agent, user, task or infrastructure.")] = None,
    what: Annotated[str | None, typer.Option(help="Show only failures of this kind, such as wrong_argument.")] = None,
    results_path: Annotated[Path | None, typer.Option(help="One more RUN, as the earlier tool called it.")] = None,
    output_path: Annotated[
        Path | None, typer.Option(help="Write the earlier tool's two lists of faults to this file.")
    ] = None,
    llm: Annotated[
        str | None, typer.Option("--llm", "--judge", help="Any litellm model, asked where the rules are not sure.")
    ] = None,
    judge_all: Annotated[bool, typer.Option("--judge-all", help="Ask it about every failure.")] = False,
    judge_base_url: Annotated[str | None, typer.Option(help="Its endpoint, if it is your own.")] = None,
    judge_api_key_var: Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")] = None,
    judge_budget: Annotated[float | None, typer.Option(min=0.0, help="The most dollars that it may cost.")] = None,
    judge_cache: Annotated[
        Path | None, typer.Option(help="Keep its answers in this file; the same command then goes on.")
    ] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="Calls of the model at a time, default 8.")] = None,
    max_num_failed_results: Annotated[
        int | None,
        typer.Option(
            "--max-num-failed-results", "-n", min=1, help="List, judge and write only so many failures of a run."
        ),
    ] = None,
) -> None:
    """Why episodes failed: who, what, where, by which words. With two runs also what the second cures and breaks."""
    paths = [*(runs or []), *([results_path] if results_path is not None else [])]
    if not paths:
        raise ConfigError("diagnose: name a RUN, such as a folder of `tau2-slime rollout` or τ²'s results .json")
    _refuse_unknown(who, what)
    outputs = {"--jsonl": jsonl, "--steer": steer, "--output-path": output_path, "--html": html}
    named = [path.absolute() for path in outputs.values() if path is not None]
    if len({*named}) < len(named):
        raise ConfigError("two of --jsonl, --steer, --output-path and --html name one file")
    for option, path in outputs.items():
        check_output(option, path, paths)
    if llm is None:
        options = {
            "--judge-all": judge_all,
            "--judge-base-url": judge_base_url,
            "--judge-api-key-var": judge_api_key_var,
            "--judge-budget": judge_budget is not None,
            "--judge-cache": judge_cache,
        }
        refuse_unused(
            {name: bool(given) and "no model is asked; name one with --llm" for name, given in options.items()}
        )
    begin("diagnose", f"reading {', '.join(shown(path) for path in paths)}, loading τ²")
    names = _names(paths)
    read = {name: _diagnosed(path, name, domain) for name, path in zip(names, paths, strict=True)}
    found = {name: [diagnosis for _, diagnosis in pairs] for name, pairs in read.items()}
    every = [one for diagnoses in found.values() for one in diagnoses]
    most = len(every) if max_num_failed_results is None else max_num_failed_results
    beyond = {id(one) for run in found.values() for one in [one for one in run if one.failed][most:]}
    if llm is not None:
        from tau2_slime.world.judge import JudgeSpec

        spec = JudgeSpec(
            llm,
            base_url=judge_base_url,
            api_key_var=judge_api_key_var,
            args={"temperature": 0.0},
            concurrency=max_concurrency or 8,
            budget=judge_budget,
        )
        asked = [pair for pairs in read.values() for pair in pairs if id(pair[1]) not in beyond]
        _ask(asked, spec, judge_cache, every=judge_all)
    kept = [
        one
        for one in every
        if id(one) not in beyond
        and (who is None or one.finding.who == who)
        and (what is None or str(one.finding.what) == what)
    ]
    _write(jsonl, steer, output_path, every, kept)
    if html is not None:
        chosen = {id(one) for one in kept if one.failed}
        _write_page(html, [pair for pairs in read.values() for pair in pairs if id(pair[1]) in chosen], paths)
    _show(kept, found)


def _names(paths: list[Path]) -> list[str]:
    """What the runs are called: the stem of a file, a folder's name; told apart by a number where they are the same."""
    from tau2_slime.diagnosis.decide import run_name

    names: list[str] = []
    for path in paths:
        name = run_name(path)
        names.append(name if name not in names else f"{name}@{len(names)}")
    return names


def _refuse_unknown(who: str | None, what: str | None) -> None:
    from tau2_slime.diagnosis.findings import What, Who

    for option, given, known in (("--who", who, [*Who]), ("--what", what, [*What])):
        if given is not None and given not in [str(one) for one in known]:
            raise ConfigError(f"{option} {given}: give one of {', '.join(str(one) for one in known)}")


def _ask(read: Sequence[tuple[Trajectory, Diagnosis]], spec: JudgeSpec, cache: Path | None, *, every: bool) -> None:
    """Ask the judge, and say what came of it."""
    import asyncio

    from tau2_slime.diagnosis.judge import Opinions, judge_all, worth_asking
    from tau2_slime.errors import BudgetSpent
    from tau2_slime.runtime.console import progress

    asked = [pair for pair in read if worth_asking(pair[1], every=every)]
    problems: list[str] = []
    try:
        with progress(f"asking {shown(spec.model)}") as advance:
            problems = asyncio.run(judge_all(asked, spec, Opinions(cache), advance))
    except BudgetSpent as error:
        problems = [f"the judge stopped: {error}"]
    except OSError as error:
        raise ConfigError(f"--judge-cache {cache}: {error.strerror}") from error
    for line in problems[:10]:
        typer.echo(f"not judged: {shown(line)}", err=True)
    said = [one.judge for _, one in asked if one.judge is not None]
    agree = sum(bool(one["agrees"]) for one in said)
    typer.echo(
        f"judge {shown(spec.model)}: {len(said)} of {len(asked)} answered, {agree} agree with the rules", err=True
    )


def _diagnosed(path: Path, name: str, domain: str | None) -> list[tuple[Trajectory, Diagnosis]]:
    """The diagnosis of every episode of a run."""
    from tau2_slime.diagnosis.decide import diagnose as diagnose_one
    from tau2_slime.runtime.console import progress

    loaded = _read(path, domain)
    for line in loaded.unreadable[:10]:
        typer.echo(f"unreadable: {shown(line)}", err=True)
    there = sorted({one.domain for one in loaded.trajectories})
    if domain is not None and domain not in there:
        raise ConfigError(f"--domain {domain}: no episode of {path} has that (there are: {', '.join(there)})")
    chosen = [one for one in loaded.trajectories if domain is None or one.domain == domain]
    found: list[tuple[Trajectory, Diagnosis]] = []
    with progress(f"diagnosing {shown(name)}") as advance:
        for done, one in enumerate(chosen, 1):
            found.append((one, diagnose_one(one, name)))
            advance(done, len(chosen))
    return found


def _read(path: Path, domain: str | None) -> FoundEpisodes:
    from tau2_slime.evaluation.taubench_v1.results import is_v1, played_again
    from tau2_slime.inspector.found import FoundEpisodes
    from tau2_slime.inspector.sources import read_episodes
    from tau2_slime.inspector.tau2_results import add_results

    if not is_v1(path):
        return read_episodes(path)
    found = FoundEpisodes()
    add_results(played_again(path, domain), path.name, found)
    return found


def _write(
    jsonl: Path | None, steer: Path | None, ancestor: Path | None, every: Sequence[Diagnosis], kept: Sequence[Diagnosis]
) -> None:
    from tau2_slime.diagnosis.ancestor import as_ancestor
    from tau2_slime.diagnosis.clusters import clusters_of
    from tau2_slime.diagnosis.clusters import steer as steering
    from tau2_slime.runtime.files import write_atomically

    files: list[tuple[str, Path | None, str]] = []
    if jsonl is not None:
        lines = (json.dumps(one.to_dict(), ensure_ascii=False) for one in kept)
        files.append(("--jsonl", jsonl, "".join(f"{line}\n" for line in lines)))
    if steer is not None:
        content = steering(clusters_of(every, _interval), _held_out)
        files.append(("--steer", steer, json.dumps(content, indent=1, ensure_ascii=False) + "\n"))
    if ancestor is not None:
        files.append(("--output-path", ancestor, json.dumps(as_ancestor(kept), indent=4, ensure_ascii=False) + "\n"))
    for option, path, text in files:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise ConfigError(f"{option} {path}: {error.strerror}") from error
        typer.echo(f"written: {shown(path)}", err=True)


def _write_page(html: Path, pairs: Sequence[tuple[Trajectory, Diagnosis]], paths: Sequence[Path]) -> None:
    """The viewer's page of the failed episodes, each headed by its diagnosis."""
    from tau2_slime.runtime.console import progress
    from tau2_slime.view.page import write_page

    for trajectory, diagnosis in pairs:
        trajectory.name = f"{diagnosis.key.run}/{trajectory.name}" if len(paths) > 1 else trajectory.name
    try:
        with progress("comparing databases and packing") as advance:
            trajectories, diagnoses = [one for one, _ in pairs], [one for _, one in pairs]
            title = ", ".join(map(str, paths))
            size = write_page(html, trajectories, title=title, diagnoses=diagnoses, advance=advance)
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror}") from error
    typer.echo(f"{len(pairs)} failures: {shown(html)} ({size / 1e6:.1f} MB)", err=True)


def _interval(domains: Sequence[str], tasks: Sequence[object], values: Sequence[float]) -> tuple[float, float]:
    from tau2_slime.evaluation.statistics.intervals import share_interval

    return share_interval(domains, tasks, values)


def _held_out(domain: str, task_id: str) -> bool:
    """True for a task of the test split, which may be counted and never cloned."""
    from tau2_slime.world import domains

    try:
        return task_id in domains.splits(domain).get("test", ())
    except (ConfigError, ImportError):
        return False


def _show(kept: Sequence[Diagnosis], found: dict[str, list[Diagnosis]]) -> None:
    from tau2_slime.diagnosis import table
    from tau2_slime.diagnosis.clusters import by_simulator, clusters_of, compare, of_shared_tasks
    from tau2_slime.world import tau2_compat

    every = [one for diagnoses in found.values() for one in diagnoses]
    table.show_failures(kept, total=len(every), several_runs=len(found) > 1)
    if any(one.failed for one in every):
        typer.echo(f"judged by the policy of {tau2_compat.version()}, and by its tasks where a file brings none")
    for name, diagnoses in found.items():
        chosen = {id(one) for one in kept}
        clusters = [one for one in clusters_of(diagnoses, _interval) if any(id(m) in chosen for m in one.members)]
        if len(found) > 1:
            typer.echo(f"\n{shown(name)}")
        table.show_clusters(clusters)
        table.show_simulators(by_simulator(diagnoses, _interval))
    if len(found) == 2:
        first, second = found
        both = of_shared_tasks(found[first], found[second])
        rates = [f"{sum(not one.failed for one in run) / len(run):.1%}" if run else "-" for run in both]
        table.show_comparison(compare(*both), (first, second), (rates[0], rates[1]))
