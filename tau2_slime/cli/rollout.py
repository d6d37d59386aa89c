"""`tau2-slime rollout`: what the command line asks for, and what came out."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import ConfigFile, HfCheckpoint, Router, UserApiKeyVar, UserBaseUrl, config_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.rollout import Played, RolloutPlan


def rollout(
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    domain: Annotated[list[str] | None, typer.Option(help="Repeatable; default: airline retail telecom mock.")] = None,
    split: Annotated[
        str | None, typer.Option(help="τ²'s split; default: train, or base in a domain without train.")
    ] = None,
    task_id: Annotated[list[str] | None, typer.Option(help="Repeatable; exactly these tasks.")] = None,
    groups: Annotated[int, typer.Option(min=1, help="Tasks (prompts) per domain.")] = 3,
    samples_per_prompt: Annotated[int, typer.Option(min=1, help="Episodes per task.")] = 1,
    user_model: Annotated[
        str | None,
        typer.Option(help="litellm model of the user simulator, or 'scripted'. Default: scripted if embedded."),
    ] = None,
    user_base_url: UserBaseUrl = None,
    user_api_key_var: UserApiKeyVar = None,
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
    settings = Tau2Config.resolve(mapping)
    chosen = domain or (["airline", "retail", "telecom", "mock"] if embedded else [settings.domain])
    options = {
        "user_model": user_model or ("scripted" if embedded and settings.user_path is None else None),
        "user_base_url": user_base_url,
        "user_api_key_var": user_api_key_var,
        "agent_type": agent_type,
        # Gold play of telecom asks the user for every step: longer than what a trained agent is allowed by default.
        "max_turns": max_turns or (200 if embedded else None),
        "drift_rate": 1.0,
    }
    overrides = {key: value for key, value in options.items() if value is not None}
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


def _play(plan: RolloutPlan) -> int:
    """Run ``plan`` with a progress bar and print the table. The exit status: 1 if an episode failed or was not played."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tau2_slime.rollout import run, summarise
    from tau2_slime.runtime.console import new_console
    from tau2_slime.runtime.files import write_atomically

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
    console.print(_table(finished))
    summary = summarise(finished, time.perf_counter() - started)
    summary |= {"hf_checkpoint": plan.hf_checkpoint, "embedded": plan.router is None and plan.hf_checkpoint is None}
    write_atomically(plan.output_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    mean = "-" if summary["mean_reward"] is None else f"{summary['mean_reward']:.3f}"
    console.print(
        f"{summary['episodes']} episodes in {summary['seconds']:.1f} s: mean reward {mean}, {summary['excluded']} failed; "
        f"{summary['sampled_tokens']} sampled and {summary['context_tokens']} context tokens"
    )
    for detail in sorted({p.result.detail for p in finished if not p.result.trainable and p.result.detail}):
        console.print(f"failed: {detail}", style="red", markup=False)
    console.print(f"samples and trajectories: {plan.output_dir}", markup=False, soft_wrap=True)
    look = f"tau2-slime inspect {shlex.quote(str(plan.output_dir))} --html page.html"
    console.print(f"to see every token of them: {look}", markup=False, soft_wrap=True)
    return 1 if summary["excluded"] or len(finished) < len(plan.jobs) else 0


def _table(played: Sequence[Played]) -> Table:
    """One row per episode: what was played, how long it was, what it earned, how it ended."""
    from rich.table import Table
    from rich.text import Text

    from tau2_slime.outcome import Status
    from tau2_slime.runtime.console import ShortenedCell, describe_end

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", no_wrap=True, min_width=7)
    # Only these two give way on a narrow terminal; why an episode failed is printed below the table.
    table.add_column("task", max_width=48)
    for name in ("turns", "sampled", "context", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended")
    for item in played:
        result = item.result
        ledger = result.ledger
        ended = describe_end(result.termination, result.blame, excluded=result.status is Status.FAILED)
        table.add_row(
            item.job.domain,
            ShortenedCell(result.task_id or item.job.task_id),
            str(result.stats.agent_turns + result.stats.user_turns),
            str(ledger.sampled_count if ledger else 0),
            str(len(ledger.tokens) - ledger.sampled_count if ledger else 0),
            _reward(result),
            Text(ended, no_wrap=True, overflow="ellipsis"),
        )
    return table


def _reward(result: InteractionResult) -> str:
    if not result.trainable or result.reward is None:
        return "[red]-[/]"
    return f"[green]{result.reward:g}[/]" if result.reward == 1 else f"{result.reward:g}"
