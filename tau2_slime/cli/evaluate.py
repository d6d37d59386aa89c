"""`tau2-slime eval`, `compare` and `convert-v1`: what their command lines ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tau2_slime.cli.options import (
    AgentStrategy,
    AgentType,
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
    begin,
    refuse_misspelt_domains,
    refuse_unused,
    refuse_unused_policy_options,
    sampling_params,
    typed_settings,
)
from tau2_slime.runtime.text import shown


def evaluate(
    typed: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="slime's --eval-config file; default: three domains x three scripted users.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="What ${oc.env:DATA_DIR} stands for in the file.")] = None,
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    trust_remote_code: TrustRemoteCode = False,
    policy_model: PolicyModel = None,
    policy_base_url: PolicyBaseUrl = None,
    policy_api_key_var: PolicyApiKeyVar = None,
    policy_args: PolicyArgs = None,
    policy_name: Annotated[str, typer.Option(help="What reports call the policy.")] = "",
    domain: Annotated[list[str] | None, typer.Option("--domain", "-d", help="Without --config. Repeatable.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            "--task-split",
            help="Without --config: a split or file:PATH; default: test, or base for other --task-ids.",
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", "--groups", min=1, help="Without --config: tasks per domain, default 10.")
    ] = None,
    task_ids: TaskIds = None,
    user_model: Annotated[list[str] | None, typer.Option(help="Without --config: user models. Repeatable.")] = None,
    user_base_url: UserBaseUrl = None,
    user_api_key_var: UserApiKeyVar = None,
    agent_type: AgentType = None,
    max_turns: MaxTurns = None,
    agent_strategy: AgentStrategy = None,
    few_shot: FewShot = None,
    user_strategy: UserStrategy = None,
    retrieval_variant: RetrievalVariant = None,
    attempts: Annotated[
        int | None,
        typer.Option(
            "--attempts", "--num-trials", "--samples-per-prompt", min=1, help="Attempts per task; wins over the file's."
        ),
    ] = None,
    set_: Set = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    max_context_len: MaxContextLen = None,
    gold_rate: GoldRate = None,
    mistakes: Mistakes = None,
    policy_noise: PolicyNoise = None,
    spelling: Spelling = None,
    concurrency: Annotated[
        int,
        typer.Option("--concurrency", "--max-concurrency", min=1, help="Episodes, so calls of the policy, at a time."),
    ] = 16,
    user_concurrency: UserConcurrency = None,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of an episode that failed, not by the agent.")] = 2,
    retry_excluded: Annotated[bool, typer.Option(help="Play the excluded episodes of an earlier run again.")] = False,
    max_cost: Annotated[float | None, typer.Option(min=0.0, help="US dollars that the whole run may cost.")] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="MODEL=IN,OUT dollars per million tokens. Repeatable.")
    ] = None,
    keep_tokens: Annotated[bool, typer.Option(help="Keep tokens and log-probs in simulations.jsonl.")] = False,
    baselines: Annotated[bool, typer.Option(help="Score doing nothing, and transferring at once, too.")] = True,
    wandb_project: Annotated[str | None, typer.Option(help="Log to this project of Weights & Biases.")] = None,
    fail_under: Annotated[
        list[str] | None, typer.Option(help="Exit status 1 if pass^1 is below this; or pass^K=X, pass@K=X. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, the calls and an estimate of the price; play nothing.")
    ] = False,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Default: runs/eval-<time>. One that exists is resumed.")
    ] = None,
) -> None:
    """Evaluate a policy: pass@k and pass^k with error bars. Interrupted runs go on where they stopped."""
    begin("eval", "reading what to play, loading τ²")
    refuse_unused_policy_options(typed)
    sampling = sampling_params(temperature, top_p, max_new_tokens)
    refuse_unused(
        {
            "--tasks": tasks is not None and bool(task_ids) and "--task-ids names the tasks",
            "--data-dir": data_dir is not None and config is None and "it is about --config, which is not given",
        }
    )
    refuse_misspelt_domains(domain or [])
    from tau2_slime.evaluation import command
    from tau2_slime.evaluation.request import Request, parse_json, parse_settings
    from tau2_slime.runtime.console import new_console
    from tau2_slime.runtime.files import new_run_folder

    if data_dir is not None:
        os.environ["DATA_DIR"] = str(data_dir)
    given = typed_settings(typed)
    request = Request(
        output_dir=output_dir or new_run_folder("eval"),
        config=config,
        domains=domain or [],
        split=split,
        tasks=tasks,
        task_ids=task_ids or [],
        attempts=attempts,
        users=user_model or [],
        overrides={**parse_settings(set_ or []), **given},
        options=frozenset(given),
        router=router,
        hf_checkpoint=hf_checkpoint,
        trust_remote_code=trust_remote_code,
        policy_model=policy_model,
        policy_base_url=policy_base_url,
        policy_api_key_var=policy_api_key_var,
        policy_args=parse_json(policy_args, "--policy-args"),
        policy_name=policy_name,
        max_context_len=max_context_len,
        sampling=sampling,
        gold_rate=1.0 if gold_rate is None else gold_rate,
        mistakes=mistakes,
        policy_noise=policy_noise,
        spelling=spelling,
        concurrency=concurrency,
        retries=retries,
        max_cost=max_cost,
        prices=price or [],
        retry_excluded=retry_excluded,
        keep_tokens=keep_tokens,
        with_baselines=baselines,
        wandb_project=wandb_project,
        fail_under=fail_under or [],
    )
    raise typer.Exit((command.dry_run if dry_run else command.evaluate)(request, new_console()))


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of the run that is compared with.")],
    second: Annotated[Path, typer.Argument(help="Folder of the other run.")],
    allow: Annotated[
        list[str] | None, typer.Option(help="Field of the protocol that may differ, or 'all'. Repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the comparison there as Markdown, too.")] = None,
    fail_if_worse: Annotated[bool, typer.Option(help="Exit status 1 if the second is worse beyond noise.")] = False,
) -> None:
    """Compare two evaluations, paired by task: is the difference more than noise?"""
    begin("compare", "reading both runs")
    from tau2_slime.evaluation import compare_command
    from tau2_slime.runtime.console import new_console

    raise typer.Exit(compare_command.run(first, second, allow or [], output, fail_if_worse, new_console()))


def convert_v1(
    file: Annotated[Path, typer.Argument(help="JSON file that tau-bench v1 wrote.")],
    domain: Annotated[str | None, typer.Option(help="airline or retail; default: what the tools fit.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Write τ²'s tasks.json and simulations.json there.")] = None,
) -> None:
    """Play recorded tau-bench v1 conversations again in τ², and compare the rewards."""
    begin("convert-v1", f"reading {shown(file)}, loading τ²")
    from tau2_slime.evaluation.taubench_v1 import command
    from tau2_slime.runtime.console import new_console

    raise typer.Exit(command.run(file, domain, output_dir, new_console()))
