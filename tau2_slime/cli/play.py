"""`tau2-slime play`: what the command line asks for, and what the person is told at the end."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import (
    AgentStrategy,
    AgentType,
    ConfigFile,
    FewShot,
    HfCheckpoint,
    MaxNewTokens,
    PolicyApiKeyVar,
    PolicyArgs,
    PolicyBaseUrl,
    PolicyModel,
    RetrievalVariant,
    Router,
    Set,
    Temperature,
    TopP,
    TrustRemoteCode,
    UserApiKeyVar,
    UserBaseUrl,
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
from tau2_slime.config.settings import HUMAN, Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.runtime.address import address
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from tau2_slime.play.command import PlayRequest


_OF_THE_USER = ("user_model", "user_base_url", "user_api_key_var", "user_strategy")
_OF_THE_AGENT = (
    *("router", "hf_checkpoint", "policy_model", "agent_strategy", "few_shot"),
    *("temperature", "top_p", "max_new_tokens"),
)


def play(
    typed: typer.Context,
    seat: Annotated[str, typer.Option("--as", help="Who you are: the user, or the agent.")] = "user",
    domain: Annotated[str | None, typer.Option("--domain", "-d", help="Default: retail, or a task file's.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", "--task-split", help="τ²'s, or file:PATH; default: train, or base for another --task-id."
        ),
    ] = None,
    task_id: Annotated[str | None, typer.Option("--task-id", "-t", help="Default: the split's first.")] = None,
    router: Router = None,
    hf_checkpoint: HfCheckpoint = None,
    trust_remote_code: TrustRemoteCode = False,
    policy_model: PolicyModel = None,
    policy_base_url: PolicyBaseUrl = None,
    policy_api_key_var: PolicyApiKeyVar = None,
    policy_args: PolicyArgs = None,
    user_model: Annotated[
        str | None, typer.Option(help="As agent: the user's litellm model; default: scripted, which needs none.")
    ] = None,
    user_base_url: UserBaseUrl = None,
    user_api_key_var: UserApiKeyVar = None,
    user_strategy: UserStrategy = None,
    agent_type: AgentType = None,
    agent_strategy: AgentStrategy = None,
    few_shot: FewShot = None,
    max_turns: Annotated[
        int | None, typer.Option(min=1, help="Messages of agent and user together; default: 200.")
    ] = None,
    retrieval_variant: RetrievalVariant = None,
    set_: Set = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    config: ConfigFile = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="Default: runs/play-<time>. An unfinished episode there goes on."),
    ] = None,
) -> None:
    """Be the user, or the agent, of one conversation in this terminal. It is saved after each message."""
    from tau2_slime.local.terminal import require_terminal

    if seat not in ("user", "agent"):
        raise ConfigError(f"--as {seat}: you can be the user or the agent")
    mapping = config_mapping(config)
    as_user = seat == "user"
    options, others = typed_settings(typed), other_settings(set_)
    unused = _OF_THE_USER if as_user else _OF_THE_AGENT
    refuse_unused(
        {f"--{name.replace('_', '-')}": typed.params[name] is not None and f"you are the {seat}" for name in unused}
    )
    refuse_unused_policy_options(typed)
    if router is not None:
        address(router)
    require_terminal("tau2-slime play")
    begin("play", "loading τ²")
    sampling = {
        **{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8192},
        **sampling_params(temperature, top_p, max_new_tokens),
    }
    said = Tau2Config.resolve(mapping).model_fields_set | others.keys()
    defaults: dict[str, object] = {"max_turns": 200, "drift_rate": 1.0}
    if not as_user:
        defaults["user_model"] = "scripted"
    given = {key: value for key, value in defaults.items() if key not in said}
    given |= {**others, **options}
    given |= {"user_strategy": HUMAN} if as_user else {"agent_strategy": "native"}
    try:
        settings = Tau2Config.resolve(mapping, given)
    except ConfigError as error:
        raise as_typed(error, options, others) from None
    if as_user and settings.agent_type == "solo":
        raise ConfigError("agent_type=solo has no user: play it with --as agent")
    if not as_user and settings.user_strategy == HUMAN:
        raise ConfigError("you cannot be both: user_strategy human makes you the user, and --as agent the agent")
    if not as_user:
        refuse_unused(unused_user_options(settings, options))
    if settings.user_path is settings.agent_path is None:
        refuse_misspelt_domains([domain or settings.domain])
    from tau2_slime.runtime.files import hold_folder, new_run_folder

    settings, task = _task(settings, mapping, given, domain, split, task_id)
    folder = output_dir or new_run_folder("play")
    with hold_folder(folder, "conversation"):
        from tau2_slime.play.command import PlayRequest

        request = PlayRequest(
            "user" if as_user else "agent",
            settings,
            task,
            folder,
            router=router,
            hf_checkpoint=hf_checkpoint,
            trust_remote_code=trust_remote_code,
            sampling_params=sampling,
        )
        if policy_model is not None:
            request = _behind_an_api(request, policy_model, policy_base_url, policy_api_key_var, policy_args)
        status = _play(request)
    raise typer.Exit(status)


def _task(
    settings: Tau2Config,
    mapping: dict[str, object],
    given: dict[str, object],
    domain: str | None,
    split: str | None,
    task_id: str | None,
) -> tuple[Tau2Config, str]:
    """The settings with domain and split, and the task: the one that is named, or the first that can be played."""
    from tau2_slime.rollout import plan_jobs

    split, domain = split_and_its_domain(settings, settings.model_fields_set, split, domain)
    (job, *_) = plan_jobs([domain or settings.domain], split, [task_id] if task_id else [], 1, 1, settings)
    return Tau2Config.resolve(mapping, {**given, "domain": job.domain, "task_split": job.split}), job.task_id


def _behind_an_api(
    request: PlayRequest, model: str, base_url: str | None, key_var: str | None, args: str | None
) -> PlayRequest:
    import dataclasses

    from tau2_slime.evaluation.request import parse_json, policy_spec
    from tau2_slime.evaluation.runner.api_agent import ApiSpeaker, litellm_sampling

    spec = policy_spec(model, base_url, key_var, parse_json(args, "--policy-args"))
    spec.connection()
    sampling = litellm_sampling(request.sampling_params)
    return dataclasses.replace(request, api=lambda: ApiSpeaker(spec, sampling), api_name=model)


def _play(request: PlayRequest) -> int:
    """The exit status."""
    from tau2_slime.local.person import Person
    from tau2_slime.observe.unfinished import left_beside
    from tau2_slime.outcome import Termination
    from tau2_slime.play import command
    from tau2_slime.play.verdict import verdict
    from tau2_slime.runtime.console import resume_command

    person = Person(undo=True)
    if left := left_beside(request.output_dir):
        person.terminal.show(left, "yellow")
    result = asyncio.run(command.play(request, person))
    folder = shlex.quote(str(request.output_dir))
    if result.termination is Termination.ABORTED:
        why = result.detail if not person.left and result.detail else "you left"
        typer.echo(f"tau2-slime: {shown(why)}; the conversation is kept, and this goes on: ", err=True, nl=False)
        typer.echo(resume_command(request.output_dir), err=True)
        return exit_status.UNFINISHED
    for line, style in verdict(result):
        person.terminal.show(line, style)
    typer.echo(f"every message: tau2-slime inspect {folder} --html page.html")
    return exit_status.FINE
