"""`tau2-slime rollout`: what the command line asks for, and what came out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import (
    AgentStrategy,
    AgentType,
    ConfigFile,
    FewShot,
    GoldRate,
    HfCheckpoint,
    MaxContextLen,
    MaxNewTokens,
    MaxTurns,
    Mistakes,
    PolicyApiKeyVar,
    PolicyArgs,
    PolicyBaseUrl,
    PolicyModel,
    PolicyNoise,
    RetrievalVariant,
    Router,
    Set,
    Spelling,
    TaskIds,
    Temperature,
    TopP,
    TrustRemoteCode,
    UserApiKeyVar,
    UserBaseUrl,
    UserConcurrency,
    UserStrategy,
    as_typed,
    begin,
    config_mapping,
    other_settings,
    refuse_misspelt_domains,
    refuse_unused,
    refuse_unused_policy_options,
    sampling_params,
    split_and_its_domain,
    typed_settings,
    unused_user_options,
)
from tau2_slime.config.settings import HUMAN
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.address import address
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tau2_slime.rollout import Played, RolloutPlan


def rollout(
    typed: typer.Context,
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    trust_remote_code: TrustRemoteCode = False,
    policy_model: PolicyModel = None,
    policy_base_url: PolicyBaseUrl = None,
    policy_api_key_var: PolicyApiKeyVar = None,
    policy_args: PolicyArgs = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", "-d", help="Repeatable; default: airline retail telecom mock.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            "--task-split",
            help="τ²'s, or file:PATH; default: train, or base without train and for other --task-ids.",
        ),
    ] = None,
    task_id: TaskIds = None,
    groups: Annotated[
        int | None, typer.Option("--groups", "--tasks", min=1, help="Tasks (prompts) per domain; default: 3.")
    ] = None,
    samples_per_prompt: Annotated[
        int, typer.Option("--samples-per-prompt", "--attempts", "--num-trials", min=1, help="Episodes per task.")
    ] = 1,
    user_model: Annotated[
        str | None,
        typer.Option(help="litellm model of the user simulator, or 'scripted'. Default: scripted if embedded."),
    ] = None,
    user_base_url: UserBaseUrl = None,
    user_api_key_var: UserApiKeyVar = None,
    user_concurrency: UserConcurrency = None,
    agent_type: AgentType = None,
    agent_strategy: AgentStrategy = None,
    few_shot: FewShot = None,
    user_strategy: UserStrategy = None,
    retrieval_variant: RetrievalVariant = None,
    max_turns: MaxTurns = None,
    set_: Set = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    max_context_len: MaxContextLen = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "--max-concurrency", min=1, help="Episodes at a time.")
    ] = 64,
    gold_rate: GoldRate = None,
    mistakes: Mistakes = None,
    policy_noise: PolicyNoise = None,
    spelling: Spelling = None,
    config: ConfigFile = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="Default: runs/rollout-<time>. One that exists is resumed."),
    ] = None,
) -> None:
    """Play τ² tasks through the real generate() and show what came out. An interrupted one goes on where it stopped."""
    begin("rollout", "loading τ²")
    from tau2_slime.config.settings import Tau2Config

    refuse_unused_policy_options(typed)
    sampling = {
        **{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8192},
        **sampling_params(temperature, top_p, max_new_tokens),
    }
    embedded = router is None and policy_model is None
    mapping = config_mapping(config)
    others = other_settings(set_)
    settings = Tau2Config.resolve(mapping)
    said = settings.model_fields_set | others.keys()
    options = typed_settings(typed)
    defaults: dict[str, object] = {"drift_rate": 1.0}
    person = (user_strategy or others.get("user_strategy") or settings.user_strategy) == HUMAN
    if embedded:
        # Gold play of telecom asks the user for every step: longer than what a trained agent is allowed by default.
        defaults["max_turns"] = 200
        if settings.user_path is None and not settings.user_pool:
            defaults["user_model"] = HUMAN if person else "scripted"
    overrides = {key: value for key, value in defaults.items() if key not in said}
    overrides |= {**others, **options}
    try:
        settings = Tau2Config.resolve(mapping, overrides)  # one clear error before anything starts
    except ConfigError as error:
        raise as_typed(error, options, others) from None
    refuse_unused(
        {
            "--groups": groups is not None and bool(task_id) and "--task-id names the tasks",
            **unused_user_options(settings, options),
        }
    )
    if settings.user_path is settings.agent_path is None:  # code of one's own may bring a domain
        refuse_misspelt_domains([*(domain or []), settings.domain])
    if router is not None:
        address(router)  # told before τ² is loaded
    split, of_file = split_and_its_domain(settings, said, split, domain[0] if domain else None)
    if domain is None and of_file is not None:
        domain = [of_file]
    if domain is None:
        domain = [settings.domain] if "domain" in said or not embedded else ["airline", "retail", "telecom", "mock"]
    from tau2_slime.runtime.files import hold_folder, new_run_folder

    folder = output_dir or new_run_folder("rollout")
    with hold_folder(folder, "rollout"):
        from tau2_slime.rollout import RolloutPlan, plan_jobs

        plan = RolloutPlan(
            jobs=plan_jobs(domain, split, task_id or [], groups or 3, samples_per_prompt, settings),
            output_dir=folder,
            router=router,
            hf_checkpoint=hf_checkpoint,
            trust_remote_code=trust_remote_code,
            overrides=overrides,
            yaml_mapping=mapping,
            sampling_params=sampling,
            max_context_len=max_context_len,
            concurrency=1 if person else concurrency,  # a person talks to one agent at a time
            mistakes=mistakes or 0.0,
            policy_noise=policy_noise or 0.0,
            spelling=0.1 if spelling is None else spelling,
            gold_rate=1.0 if gold_rate is None else gold_rate,
        )
        if policy_model is not None:
            from tau2_slime.evaluation.request import parse_json, policy_spec
            from tau2_slime.evaluation.runner.policies import ApiPolicy

            args = parse_json(policy_args, "--policy-args")
            spec = policy_spec(policy_model, policy_base_url, policy_api_key_var, args, concurrency=concurrency)
            spec.connection()  # a key that is missing is told before anything is played
            policy = ApiPolicy(spec)
            plan.api = (policy.describe(), functools.partial(policy.setup, sampling=sampling, training=True))
        status = _play(plan, person=person)
    raise typer.Exit(status)


def _play(plan: RolloutPlan, *, person: bool) -> int:
    """Run ``plan`` with a progress bar and print the table. The exit status: see `exit_status`.

    ``person``: somebody types in this terminal, so no bar is drawn.
    """
    from tau2_slime.local.person import leaving_on_signals
    from tau2_slime.observe.unfinished import left_beside
    from tau2_slime.rollout import run_in_held_folder, summarise
    from tau2_slime.runtime.console import new_console, progress, resume_command
    from tau2_slime.runtime.files import write_atomically

    console = new_console()
    if person and (left := left_beside(plan.output_dir)):
        console.print(left, style="yellow", markup=False, soft_wrap=True)
    started = time.perf_counter()
    finished: list[Played] = []
    stopped = ""
    with progress("episodes", console, hidden=person) as advance:
        advance(0, len(plan.jobs))

        def done(played: Played) -> None:
            finished.append(played)
            advance(len(finished), len(plan.jobs))

        async def play() -> bool:
            """Whether a person at the terminal left."""
            with contextlib.ExitStack() as stack:
                left = asyncio.Event()
                if person:
                    plan.stopped = left.is_set
                    stack.enter_context(leaving_on_signals(left.set))
                await run_in_held_folder(plan, done)
                return left.is_set()

        try:
            if asyncio.run(play()):
                stopped = "you left, and the conversation is kept"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except OSError as error:
            stopped = f"{plan.output_dir} cannot be written: {error.strerror or error}"
    if stopped and not finished:
        if stopped == "interrupted":
            raise KeyboardInterrupt
        goes_on = f"; this goes on: {resume_command(plan.output_dir)}" if person else ""
        typer.echo(f"tau2-slime: {shown(stopped)}{goes_on}", err=True)
        return exit_status.UNFINISHED
    finished.sort(key=lambda played: played.job.index)
    console.print(_table(finished))
    summary = summarise(finished, time.perf_counter() - started)
    summary |= {"hf_checkpoint": plan.hf_checkpoint, "embedded": plan.embedded and plan.hf_checkpoint is None}
    try:
        write_atomically(plan.output_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        stopped = stopped or f"{plan.output_dir} cannot be written: {error.strerror or error}"
    mean = "-" if summary["mean_reward"] is None else f"{summary['mean_reward']:.3f}"
    console.print(
        f"{summary['episodes']} episodes in {summary['seconds']:.1f} s: mean reward {mean}, {summary['excluded']} failed; "
        f"{summary['sampled_tokens']} sampled and {summary['context_tokens']} context tokens"
    )
    for detail in sorted({p.detail for p in finished if p.failed and p.detail}):
        console.print(f"failed: {shown(detail)}", style="red", markup=False)
    console.print(f"samples and trajectories: {plan.output_dir}", markup=False, soft_wrap=True)
    look = f"tau2-slime inspect {shlex.quote(str(plan.output_dir))} --html page.html"
    console.print(
        f"to see every {'token' if plan.api is None else 'message'} of them: {look}", markup=False, soft_wrap=True
    )
    if stopped:
        typer.echo(
            f"tau2-slime: {shown(stopped)}; {len(finished)} of {len(plan.jobs)} episodes are written, and this goes on: "
            f"{resume_command(plan.output_dir)}",
            err=True,
        )
        return exit_status.UNFINISHED
    return exit_status.NO if summary["excluded"] else exit_status.FINE


def _table(played: Sequence[Played]) -> Table:
    """One row per episode: what was played, how long it was, what it earned, how it ended."""
    from rich.table import Table
    from rich.text import Text

    from tau2_slime.runtime.console import ShortenedCell, describe_end

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", no_wrap=True, min_width=7)
    # Only these two give way on a narrow terminal; why an episode failed is printed below the table.
    table.add_column("task", max_width=48)
    for name in ("turns", "sampled", "context", "reward"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("ended")
    for one in played:
        reward = "-" if one.reward is None else f"{one.reward:g}"
        table.add_row(
            Text(shown(one.job.domain)),
            ShortenedCell(shown(one.job.task_id)),
            str(one.agent_turns + one.user_turns),
            str(one.sampled_tokens),
            str(one.context_tokens),
            Text(reward, style="red" if one.failed else "green" if one.reward == 1 else ""),
            Text(describe_end(one.termination, one.blame, excluded=one.failed), no_wrap=True, overflow="ellipsis"),
        )
    return table
