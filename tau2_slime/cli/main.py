"""`tau2-slime`: the package without a training job."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tau2_slime import __version__
from tau2_slime.cli.evaluate import compare, convert_v1, evaluate
from tau2_slime.cli.inspect import inspect
from tau2_slime.cli.options import ConfigFile, HfCheckpoint, Router, config_mapping

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="τ²-bench episodes for slime, without a training job."
)


@app.command()
def rollout(
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    domain: Annotated[list[str] | None, typer.Option(help="Repeatable; default: airline retail telecom mock.")] = None,
    split: Annotated[
        str | None, typer.Option(help="τ²'s split; default: train, or base where there is no train.")
    ] = None,
    task_id: Annotated[list[str] | None, typer.Option(help="Repeatable; exactly these tasks.")] = None,
    groups: Annotated[int, typer.Option(min=1, help="Tasks (prompts) per domain.")] = 3,
    samples_per_prompt: Annotated[int, typer.Option(min=1, help="Episodes per task.")] = 1,
    user_model: Annotated[
        str | None,
        typer.Option(help="litellm model of the user simulator, or 'scripted'. Default: scripted if embedded."),
    ] = None,
    user_base_url: Annotated[str | None, typer.Option(help="Endpoint of the user model.")] = None,
    user_api_key_var: Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")] = None,
    agent_type: Annotated[str | None, typer.Option(help="llm, solo or gt.")] = None,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Messages of agent and user together.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens per turn.")] = 8192,
    max_context_len: Annotated[int | None, typer.Option(min=1, help="Tokens per trajectory.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at a time.")] = 64,
    mistakes: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Embedded policy: share of episodes that go wrong.")
    ] = 0.0,
    config: ConfigFile = None,
    output_dir: Annotated[Path | None, typer.Option(help="Default: runs/rollout-<time>.")] = None,
) -> None:
    """Play τ² tasks through the real generate() and show what came out."""
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.rollout import RolloutPlan, plan_jobs

    embedded = router is None
    mapping = config_mapping(config)
    chosen = domain or (["airline", "retail", "telecom", "mock"] if embedded else [Tau2Config.resolve(mapping).domain])
    overrides = {
        "user_model": user_model or ("scripted" if embedded else None),
        "user_base_url": user_base_url,
        "user_api_key_var": user_api_key_var,
        "agent_type": agent_type,
        # Gold play of telecom asks the user for every step: longer than what a trained agent is allowed by default.
        "max_turns": max_turns or (200 if embedded else None),
        "drift_rate": 1.0,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    Tau2Config.resolve(mapping, overrides)  # one clear error before anything starts
    plan = RolloutPlan(
        jobs=plan_jobs(chosen, split, task_id or [], groups, samples_per_prompt),
        output_dir=output_dir or Path("runs") / time.strftime("rollout-%Y%m%d-%H%M%S"),
        router=router,
        hf_checkpoint=hf_checkpoint,
        overrides=overrides,
        yaml_mapping=mapping,
        sampling_params={"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens},
        max_context_len=max_context_len,
        concurrency=concurrency,
        mistakes=mistakes,
    )
    raise typer.Exit(_play(plan))


def _play(plan: Any) -> int:
    """Run ``plan`` with a progress bar, print the table; 1 if an episode failed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tau2_slime.cli.rollout_table import rollout_table
    from tau2_slime.rollout import Played, run, summarise
    from tau2_slime.runtime.console import new_console

    console = new_console()
    started = time.perf_counter()
    finished: list[Played] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("episodes", total=len(plan.jobs))

        def done(played: Played) -> None:
            finished.append(played)
            progress.advance(bar)

        try:
            asyncio.run(run(plan, done))
        except KeyboardInterrupt:
            console.print(f"interrupted: {len(finished)} of {len(plan.jobs)} episodes finished and written")
    finished.sort(key=lambda played: played.job.index)
    console.print(rollout_table(finished))
    summary = summarise(finished, time.perf_counter() - started)
    summary |= {"hf_checkpoint": plan.hf_checkpoint, "embedded": plan.router is None and plan.hf_checkpoint is None}
    (plan.output_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    mean = "-" if summary["mean_reward"] is None else f"{summary['mean_reward']:.3f}"
    console.print(
        f"{summary['episodes']} episodes in {summary['seconds']:.1f} s: mean reward {mean}, {summary['excluded']} failed; "
        f"{summary['sampled_tokens']} sampled and {summary['context_tokens']} context tokens"
    )
    for detail in sorted({p.result.detail for p in finished if not p.result.trainable and p.result.detail}):
        console.print(f"failed: {detail}", style="red", markup=False)
    console.print(f"samples and trajectories: {plan.output_dir}", markup=False, soft_wrap=True)
    look = f"tau2-slime inspect {shlex.quote(str(plan.output_dir))} --html page.html"
    console.print(f"every token of them: {look}", markup=False, soft_wrap=True)
    return 1 if summary["excluded"] or len(finished) < len(plan.jobs) else 0


@app.command()
def doctor(
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    domain: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all of the installed τ².")] = None,
    user_model: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: those of the configuration.")
    ] = None,
    user_base_url: Annotated[str | None, typer.Option(help="Endpoint of the user models.")] = None,
    user_api_key_var: Annotated[str | None, typer.Option(help="NAME of the variable that holds their key.")] = None,
    config: ConfigFile = None,
    prompt_data: Annotated[str | None, typer.Option(help="Training rows: file.jsonl, or file.jsonl@[0:10].")] = None,
    eval_config: Annotated[Path | None, typer.Option(help="slime's --eval-config YAML.")] = None,
    torch_dist: Annotated[Path | None, typer.Option(help="The checkpoint as slime's converter wrote it.")] = None,
    slime_dir: Annotated[Path | None, typer.Option(help="A slime checkout.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs that the job uses on this machine.")] = None,
    user_calls: Annotated[
        bool, typer.Option(help="Call every user model once; otherwise only look for its key.")
    ] = True,
) -> None:
    """Check a set-up before a training job burns GPUs. Exit status 1 if something is wrong."""
    from tau2_slime.cli.doctor import Finding, Launch, Verdict, examine
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.runtime.console import new_console

    console = new_console()
    marks = {Verdict.OK: "[green]ok  [/]", Verdict.NOTE: "[yellow]note[/]", Verdict.FAIL: "[red]FAIL[/]"}
    overrides = {"user_base_url": user_base_url, "user_api_key_var": user_api_key_var}
    given = {k: v for k, v in overrides.items() if v is not None}
    mapping = config_mapping(config)
    settings = Tau2Config.resolve(mapping, given)
    # The rows of a training job say which models it talks to, and each is called once.
    own = [] if prompt_data else [s.name for s in settings.user_pool()] or [settings.user_model]
    launch = Launch(
        torch_dist=torch_dist,
        slime_dir=slime_dir,
        gpus=gpus,
        prompt_data=prompt_data,
        eval_config=eval_config,
        mapping={**mapping, **given},
        call_users=user_calls,
    )

    async def check() -> list[Finding]:
        found = []
        async for finding in examine(
            settings,
            hf_checkpoint=hf_checkpoint,
            router=router,
            user_models=user_model or own,
            domains=domain or [],
            launch=launch,
        ):
            console.print(f"{marks[finding.verdict]} {finding.subject:10}", end=" ")
            console.print(finding.text, markup=False, highlight=False, soft_wrap=True)
            found.append(finding)
        return found

    failed = sum(finding.verdict is Verdict.FAIL for finding in asyncio.run(check()))
    console.print("all well" if not failed else f"{failed} problem{'s' if failed > 1 else ''}")
    raise typer.Exit(1 if failed else 0)


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
    """Entry point: errors that a user can fix are one line on stderr and exit status 2."""
    from tau2_slime.errors import ConfigError

    # Without torch transformers says at every start that it cannot load models; nobody here asks it to.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        app()
    except ConfigError as error:
        typer.secho(f"tau2-slime: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(2) from None
