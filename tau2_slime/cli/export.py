"""`tau2-slime export`: what the command line asks for, and what left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import ConfigFile, TrustRemoteCode, begin, config_mapping, refuse_unused
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from tau2_slime.export.command import Exported


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="What `inspect` reads: folders of rollouts, slime's dumps ..."),
    ],
    format: Annotated[
        str, typer.Option("--format", help="slime-sft, openai, hf, dataframe, leaderboard, or examples (few_shot).")
    ],
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Default: runs/export-<time>. It must be empty.")
    ] = None,
    side: Annotated[
        str, typer.Option(help="Whose words are trained: the agent's, or the user's (openai, hf, slime-sft messages).")
    ] = "agent",
    min_reward: Annotated[float, typer.Option(help="Only episodes that earned this.")] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Only episodes of at most so many tokens.")] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Repeatable; a file of data rows whose tasks must not leave.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; export these too: malformed-call, simulator-flaw, duplicate, test-task."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; only what `diagnose` calls so: none, agent, wrong_argument, unconfirmed ..."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Repeatable; not what `diagnose` calls so, such as unconfirmed or user.")
    ] = None,
    organization: Annotated[str | None, typer.Option(help="leaderboard: who submits.")] = None,
    email: Annotated[str | None, typer.Option(help="leaderboard: the contact's address.")] = None,
    hf_checkpoint: Annotated[
        str | None, typer.Option(help="The policy's tokenizer. Default: what the runs say. slime-sft only.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    config: ConfigFile = None,
    route: Annotated[
        str | None,
        typer.Option(help="slime-sft: exact (default; the ledgers' tokens) or messages (slime renders them, proved)."),
    ] = None,
    global_batch_size: Annotated[
        int | None, typer.Option(min=1, help="slime-sft: episodes a step; default: 32.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="slime-sft: passes over the episodes; default: 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="exact: order of the episodes; default: 42.")] = None,
    loss_mask_type: Annotated[
        str | None, typer.Option(help="messages: slime's; default: the one that proves the most rows.")
    ] = None,
    slime_dir: Annotated[Path | None, typer.Option(help="messages: a slime checkout; default: the installed.")] = None,
) -> None:
    """Write finished episodes as training data or as a table. Each export has a card and says what stayed and why."""
    begin("export", "reading the runs, loading τ²")
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.diagnosis.flags import LABELS
    from tau2_slime.export.command import ExportRequest, Format, Route, Side
    from tau2_slime.export.command import export as run_export
    from tau2_slime.export.episodes import CHOICES, Filters
    from tau2_slime.export.slime_messages import MASK_TYPES
    from tau2_slime.runtime.files import new_run_folder

    is_submission = _one_of("--format", format, [*Format, "leaderboard"]) == "leaderboard"
    refuse_unused({"--organization": not is_submission and bool(organization) and "it is for --format leaderboard"})
    refuse_unused({"--email": not is_submission and bool(email) and "it is for --format leaderboard"})
    if is_submission:
        given = {
            **{
                "--max-tokens": max_tokens,
                "--held-out": held_out,
                "--keep": keep,
                "--only": only,
                "--without": without,
            },
            **{
                "--hf-checkpoint": hf_checkpoint,
                "--config": config,
                "--route": route,
                "--epochs": epochs,
                "--seed": seed,
            },
            **{"--global-batch-size": global_batch_size, "--loss-mask-type": loss_mask_type, "--slime-dir": slime_dir},
        }
        refuse_unused({name: value is not None and "a submission is whole" for name, value in given.items()})
        _submit(runs, output_dir or new_run_folder("leaderboard"), organization, email)
        return
    chosen = Format(format)
    way = Route(_one_of("--route", route or Route.EXACT, list(Route)))
    for name in keep or []:
        _one_of("--keep", name, list(CHOICES))
    for option, names in (("--only", only), ("--without", without)):
        for name in names or []:
            _one_of(option, name, list(LABELS))
    if loss_mask_type is not None:
        _one_of("--loss-mask-type", loss_mask_type, list(MASK_TYPES))
    whose = Side(_one_of("--side", side, list(Side)))
    of_user = whose is Side.USER
    if of_user and chosen is Format.SLIME_SFT:
        if route == Route.EXACT:
            raise ConfigError(
                "--side user: the runs keep no tokens of the user model; leave --route out, or say messages"
            )
        way = Route.MESSAGES
    sft = chosen is Format.SLIME_SFT
    only_sft = not sft and "it is for --format slime-sft"
    of_agent = only_sft or (of_user and "it is about the agent's tokens, and --side is user")
    exact = only_sft or (way is Route.MESSAGES and "it is for --route exact: slime shuffles messages by its own seed")
    messages = only_sft or (way is Route.EXACT and "it is for --route messages")
    refuse_unused(
        {
            "--route": route is not None and only_sft,
            "--side": of_user
            and chosen in (Format.DATAFRAME, Format.EXAMPLES)
            and "it is for openai, hf and slime-sft",
            "--hf-checkpoint": hf_checkpoint is not None and of_agent,
            "--config": config is not None and of_agent,
            **{
                option: value is not None and why
                for option, value, why in (
                    ("--global-batch-size", global_batch_size, of_agent),
                    ("--epochs", epochs, of_agent),
                    ("--seed", seed, exact),
                    ("--loss-mask-type", loss_mask_type, messages or of_agent),
                    ("--slime-dir", slime_dir, messages or of_agent),
                )
            },
        }
    )
    settings = Tau2Config.resolve(config_mapping(config), environ={})
    request = ExportRequest(
        runs=tuple(runs),
        format=chosen,
        output_dir=output_dir or new_run_folder("export"),
        # What the agent did wrong is not the user's fault.
        filters=Filters(
            min_reward,
            max_tokens,
            frozenset([*(keep or []), *(["malformed-call"] if of_user else [])]),
            tuple(held_out or []),
            frozenset(only or []),
            frozenset(without or []),
        ),
        side=whose,
        hf_checkpoint=hf_checkpoint,
        trust_remote_code=trust_remote_code,
        chat_template_kwargs=dict(settings.chat_template_kwargs),
        route=way,
        loss_mask_type=loss_mask_type,
        slime_dir=slime_dir,
        batch=global_batch_size or 32,
        epochs=epochs or 1,
        seed=42 if seed is None else seed,
    )
    _tell(run_export(request), request.output_dir)


def _submit(runs: list[Path], folder: Path, organization: str | None, email: str | None) -> None:
    from tau2_slime.evaluation.report.leaderboard import Submitter, write_submission

    if not organization or not email:
        raise ConfigError("--format leaderboard needs --organization and --email: τ²'s submissions name both")
    made = write_submission(runs, folder, Submitter(organization, email))
    for domain, scores in made["results"].items():
        typer.echo(f"{domain}: " + ", ".join(f"pass^{k} {scores[f'pass_{k}']:.1f}%" for k in range(1, 5)))
    typer.echo(shown(f"{made['methodology']['notes'].partition(':')[0]} submission: {folder}"))
    typer.echo(shown(f"check it with τ²: tau2 submit validate {folder}"))


def _one_of(option: str, given: str, known: list[str]) -> str:
    if given not in known:
        raise ConfigError(f"{option} {given}: there are {', '.join(map(str, known))}")
    return given


def _tell(exported: Exported, folder: Path) -> None:
    card = exported.card
    for reason, count in card["left_out"].items():
        first = next(one for one in exported.episodes if one.left_out == reason)
        typer.echo(shown(f"{count} left out, {reason}: {first.why}"))
    found = card["episodes"]
    unreadable = f", {found['unreadable']} rows unreadable" if found["unreadable"] else ""
    written = f"all {found['read']} episodes" if "rows" in card else f"{found['written']} of {found['read']} episodes"
    tokens = "" if card.get("side") == "user" else f", {card['tokens']['trained']} trained tokens"
    typer.echo(f"{written}{tokens}{unreadable}: {shown(folder)}")
    if "steps" in card:
        typer.echo(f"{card['steps']} steps of {card['global_batch_size']} episodes, {card['epochs']} epochs")
    if "loss_mask_type" in card:
        typer.echo(
            f"slime's --loss-mask-type {card['loss_mask_type']} renders every row as the policy saw it; it also trains "
            f"{card['trained_line_breaks']} line breaks after turns"
        )
