"""`tau2-slime inspect`: what the command line asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import config_mapping
from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from tau2_slime.inspector.sources import FoundEpisodes
    from tau2_slime.inspector.trajectory import Trajectory
    from tau2_slime.policy.checkpoint import CheckpointProfile

SHOWN = 20
"""So many violations are printed, the others are counted."""


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
        bool, typer.Option("--check", help="Validate every sample; exit status 1 if one is not as it must be.")
    ] = False,
    hf_checkpoint: Annotated[
        str | None, typer.Option(help="Folder or hub name of the policy's tokenizer. Default: what the files say.")
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
    profile = None
    if check or episode is not None or html is not None:
        from tau2_slime.config.settings import Tau2Config
        from tau2_slime.inspector.tokenizers import language_of

        settings = Tau2Config.resolve(config_mapping(config), environ={})
        profile = language_of(loaded, hf_checkpoint, settings.chat_template_kwargs)
    if check:
        raise typer.Exit(_check(loaded, kept, profile))
    from tau2_slime.inspector import terminal

    if episode is not None:
        terminal.show_episode(_named(kept, episode), profile, world=world)
    elif html is None:
        terminal.show_list(kept, loaded.unreadable)
    if html is not None:
        _write_page(html, path, kept, loaded.unreadable, profile, world)


def _named(trajectories: list[Trajectory], name: str) -> Trajectory:
    found = next((trajectory for trajectory in trajectories if trajectory.name == name), None)
    if found is None:
        known = ", ".join(trajectory.name for trajectory in trajectories[:5])
        raise ConfigError(f"--episode {name}: no such episode; there are {len(trajectories)}: {known} ...")
    return found


def _write_page(
    html: Path,
    path: Path,
    trajectories: list[Trajectory],
    unreadable: list[str],
    profile: CheckpointProfile | None,
    world: bool,
) -> None:
    from tau2_slime.inspector.page import write_page

    try:
        size = write_page(html, trajectories, title=str(path), language=profile, world=world, unreadable=unreadable)
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror}") from error
    typer.echo(f"{len(trajectories)} episodes: {html} ({size / 1e6:.1f} MB)")
    if profile is None and any(trajectory.ledger for trajectory in trajectories):
        typer.echo("tokens are shown by their ids: give --hf-checkpoint for their text")


def _check(loaded: FoundEpisodes, trajectories: list[Trajectory], profile: CheckpointProfile | None) -> int:
    """Print every violation and what was compared; the exit status."""
    from tau2_slime.inspector.check import check_trajectory
    from tau2_slime.inspector.drift_check import DriftCounts, check_drift

    lines = list(loaded.unreadable)
    drift = DriftCounts()
    for trajectory in trajectories:
        found = check_trajectory(trajectory)
        lines += map(str, found)
        if profile is not None and not found and trajectory.ledger is not None:
            lines += map(str, check_drift(trajectory, profile, drift))
    for line in lines[:SHOWN]:
        typer.echo(f"violation: {line}")
    if len(lines) > SHOWN:
        typer.echo(f"... and {len(lines) - SHOWN} more")
    with_tokens = sum(trajectory.ledger is not None for trajectory in trajectories)
    typer.echo(f"{len(trajectories)} samples, {with_tokens} with tokens: {len(lines)} violations")
    if profile is None:
        typer.echo("drift was not checked: give --hf-checkpoint, the policy's tokenizer and chat template")
    else:
        typer.echo(
            f"rendered again: {drift.prompts} first prompts, {drift.joins} texts between turns, {drift.turns} turns "
            f"({drift.retokenised_turns} of them would be other tokens if their text were tokenised again)"
        )
    for why, count in sorted(drift.skipped.items()):
        typer.echo(f"not rendered again: {count} ({why})")
    return 1 if lines or not trajectories else 0
