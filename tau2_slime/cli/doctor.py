"""`tau2-slime doctor`: what the command line asks for, and one line for each thing that was checked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tau2_slime.cli.options import (
    ConfigFile,
    HfCheckpoint,
    RetrievalVariant,
    Router,
    TrustRemoteCode,
    UserApiKeyVar,
    UserBaseUrl,
    as_typed,
    begin,
    config_mapping,
    refuse_misspelt_domains,
    typed_settings,
)
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown


def doctor(
    typed: typer.Context,
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    trust_remote_code: TrustRemoteCode = False,
    domain: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all of the installed τ².")] = None,
    user_model: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: those of the configuration.")
    ] = None,
    user_base_url: UserBaseUrl = None,
    user_api_key_var: UserApiKeyVar = None,
    retrieval_variant: RetrievalVariant = None,
    max_context_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens per trajectory that the job allows.")
    ] = None,
    config: ConfigFile = None,
    prompt_data: Annotated[str | None, typer.Option(help="Training rows: file.jsonl, or file.jsonl@[0:10].")] = None,
    eval_config: Annotated[Path | None, typer.Option(help="slime's --eval-config YAML.")] = None,
    torch_dist: Annotated[Path | None, typer.Option(help="The checkpoint as slime's converter wrote it.")] = None,
    sft_data: Annotated[Path | None, typer.Option(help="A folder of export --format slime-sft.")] = None,
    slime_dir: Annotated[Path | None, typer.Option(help="A slime checkout.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs that the job uses on this machine.")] = None,
    user_calls: Annotated[
        bool, typer.Option(help="Call every user model once; otherwise only look for its key.")
    ] = True,
) -> None:
    """Check a set-up before a training job burns GPUs. Exit status 1 if something is wrong."""
    begin("doctor", "loading τ²")
    from rich.markup import escape

    from tau2_slime.cli.checks import Verdict
    from tau2_slime.cli.examine import Launch, examine
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.runtime.console import new_console

    console = new_console()
    marks = {Verdict.OK: "[green]ok  [/]", Verdict.NOTE: "[yellow]note[/]", Verdict.FAIL: "[red]FAIL[/]"}
    tau2 = config_mapping(config)
    given = typed_settings(typed)
    try:
        settings = Tau2Config.resolve(tau2, given)
    except ConfigError as error:
        raise as_typed(error, given) from None
    configured = [simulator.name for simulator in settings.user_pool]
    if not configured and {"user_model", "user_path", "user_base_url", "user_api_key_var"} & settings.model_fields_set:
        configured = [settings.user_model]
    refuse_misspelt_domains(domain or [])
    launch = Launch(
        torch_dist=torch_dist,
        sft_data=sft_data,
        slime_dir=slime_dir,
        gpus=gpus,
        prompt_data=prompt_data,
        eval_config=eval_config,
        tau2={**tau2, **given},
        max_context_len=max_context_len,
        call_users=user_calls,
    )

    found = examine(
        settings,
        hf_checkpoint=hf_checkpoint,
        trust_remote_code=trust_remote_code,
        router=router,
        # The rows of a training job and of an evaluation say which models they call.
        user_models=user_model or ([] if prompt_data or eval_config or sft_data else configured),
        domains=domain or [],
        launch=launch,
    )

    async def count_failures() -> int:
        failed = 0
        async for finding in found:
            console.print(f"{marks[finding.verdict]} {escape(shown(finding.subject)):10}", end=" ")
            console.print(shown(finding.text), markup=False, highlight=False, soft_wrap=True)
            failed += finding.verdict is Verdict.FAIL
        return failed

    failed = asyncio.run(count_failures())
    console.print("all well" if not failed else f"{failed} problem{'s' if failed > 1 else ''}")
    raise typer.Exit(1 if failed else 0)
