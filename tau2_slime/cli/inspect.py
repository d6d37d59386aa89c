"""`tau2-slime inspect`: what the command line asks for, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = 20
"""Violations printed; the rest is counted."""


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A rollout's folder, a .pt of slime's --save-debug-rollout-data, a --dump-details folder, "
            "an evaluation's folder, or τ²'s results .json."
        ),
    ],
    episode: Annotated[
        str | None, typer.Option(help="Show this episode's conversation; its name is in the list.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write everything as one page to this file.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Validate every sample; exit status 1 if one is not true.")
    ] = False,
    hf_checkpoint: Annotated[
        str | None, typer.Option(help="Tokenizer of the ids. Default: what the files say, if they do.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML with a tau2: mapping; chat_template_kwargs are taken from it.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    task_id: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    blame: Annotated[str | None, typer.Option(help="Only agent, user, infrastructure or limit.")] = None,
    reward: Annotated[float | None, typer.Option(help="Only episodes with this reward.")] = None,
    world: Annotated[
        bool, typer.Option(help="Replay tool calls in τ² to compare databases (--html, --episode).")
    ] = True,
) -> None:
    """See what happened: the episodes of a file or folder, one of them in full, a page of all, or a check of all."""
    from tau2_slime.inspector.sources import read_episodes

    loaded = read_episodes(path)
    kept = [
        trajectory
        for trajectory in loaded.trajectories
        if (domain is None or trajectory.domain == domain)
        and (task_id is None or trajectory.task_id == task_id)
        and (blame is None or trajectory.blame == blame)
        and (reward is None or (trajectory.reward == reward and not trajectory.excluded))
    ]
    language = None
    if check or episode is not None or html is not None:
        from tau2_slime.inspector.tokenizers import language_of

        language = language_of(loaded, hf_checkpoint, _template_kwargs(config))
    if check:
        raise typer.Exit(_check(loaded, kept, language))
    from tau2_slime.inspector import terminal

    if episode is not None:
        terminal.show_episode(_named(kept, episode), language, world=world)
    elif html is None:
        terminal.show_list(kept, loaded.unreadable)
    if html is not None:
        _write_page(html, path, kept, loaded.unreadable, language, world)


def _named(trajectories: list[Any], name: str) -> Any:
    from tau2_slime.errors import ConfigError

    found = next((trajectory for trajectory in trajectories if trajectory.name == name), None)
    if found is None:
        known = ", ".join(trajectory.name for trajectory in trajectories[:5])
        raise ConfigError(f"--episode {name}: no such episode; there are {len(trajectories)}: {known} ...")
    return found


def _write_page(
    html: Path, path: Path, trajectories: list[Any], unreadable: list[str], language: Any, world: bool
) -> None:
    from tau2_slime.errors import ConfigError
    from tau2_slime.inspector.page import write_page

    try:
        size = write_page(html, trajectories, title=str(path), language=language, world=world, unreadable=unreadable)
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror}") from error
    typer.echo(f"{len(trajectories)} episodes: {html} ({size / 1e6:.1f} MB)")
    if language is None and any(trajectory.ledger for trajectory in trajectories):
        typer.echo("tokens are shown by their ids: give --hf-checkpoint for their text")


def _check(loaded: Any, trajectories: list[Any], language: Any) -> int:
    from tau2_slime.inspector.check import check_trajectory
    from tau2_slime.inspector.drift_check import DriftCounts, check_drift

    violations = []
    drift = DriftCounts()
    with_tokens = [trajectory for trajectory in trajectories if trajectory.ledger is not None]
    for trajectory in trajectories:
        found = check_trajectory(trajectory)
        violations += found
        if language is not None and not found and trajectory.ledger is not None:
            violations += check_drift(trajectory, language, drift)
    lines = [*loaded.unreadable, *map(str, violations)]
    for line in lines[:SHOWN]:
        typer.echo(f"violation: {line}")
    if len(lines) > SHOWN:
        typer.echo(f"... and {len(lines) - SHOWN} more")
    typer.echo(f"{len(trajectories)} samples, {len(with_tokens)} with tokens: {len(lines)} violations")
    if language is None:
        typer.echo("drift was not checked: give --hf-checkpoint, the policy's tokenizer and chat template")
    else:
        typer.echo(
            f"rendered again: {drift.prompts} first prompts, {drift.joins} texts between turns, {drift.turns} turns "
            f"({drift.retokenised_turns} of them would be other tokens if their text were tokenised again)"
        )
    for why, count in sorted(drift.skipped.items()):
        typer.echo(f"not rendered again: {count} ({why})")
    return 1 if lines or not trajectories else 0


def _template_kwargs(config: Path | None) -> dict[str, Any]:
    from tau2_slime.cli.options import config_mapping

    return dict(config_mapping(config).get("chat_template_kwargs") or {})
