"""`tau2-slime inspect`: what the command line asks for."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.cli.options import TrustRemoteCode, begin, config_mapping
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import check_output
from tau2_slime.runtime.text import shown

if TYPE_CHECKING:
    from tau2_slime.inspector.found import FoundEpisodes
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
    trust_remote_code: TrustRemoteCode = False,
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
    check_output("--html", html, [path])
    begin("inspect", f"reading {shown(path)}")
    from tau2_slime.inspector.changed_tasks import refuse_changed_tasks
    from tau2_slime.inspector.sources import read_episodes

    loaded = read_episodes(path)
    if check or (world and (episode is not None or html is not None)):
        refuse_changed_tasks(path, loaded.trajectories, "or look at the episodes with --no-world")
    refuse_unknown_filters(loaded.trajectories, domain=domain, task_id=task_id, blame=blame)
    kept = [
        trajectory
        for trajectory in loaded.trajectories
        if (domain is None or trajectory.domain == domain)
        and (task_id is None or trajectory.task_id == task_id)
        and (blame is None or trajectory.blame == blame)
        and (reward is None or (trajectory.reward == reward and not trajectory.excluded))
    ]
    chosen = _named(kept, episode) if episode is not None else None
    profile = None
    if check or chosen is not None or html is not None:
        profile = _language(loaded, hf_checkpoint, config, trust_remote_code)
    if check:
        raise typer.Exit(_check(loaded, kept, profile))
    from tau2_slime.inspector import terminal

    if chosen is not None:
        terminal.show_episode(chosen, profile, world=world)
    elif html is None:
        terminal.show_list(kept, loaded.unreadable)
    if html is not None:
        _write_page(html, path, kept, loaded.unreadable, profile, world)


def refuse_unknown_filters(
    trajectories: list[Trajectory], *, domain: str | None, task_id: str | None, blame: str | None
) -> None:
    """Raises ConfigError for a filter that names what no episode can have: an empty list would look like an answer."""
    from tau2_slime.outcome import Blame

    for option, wanted, known in (
        ("--domain", domain, [one.domain for one in trajectories]),
        ("--task-id", task_id, [one.task_id for one in trajectories]),
        ("--blame", blame, [*Blame, *(one.blame for one in trajectories if one.blame)]),
    ):
        if wanted is not None and wanted not in known:
            there = list(dict.fromkeys(map(str, known)))
            near = difflib.get_close_matches(wanted, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            more = ", ..." if len(there) > 8 else ""
            raise ConfigError(f"{option} {wanted}: no episode has that{hint} (there are: {', '.join(there[:8])}{more})")


def _language(
    loaded: FoundEpisodes, hf_checkpoint: str | None, config: Path | None, trust_remote_code: bool
) -> CheckpointProfile | None:
    """The tokenizer and template. One that only the files name may fail: the episodes are shown without it."""
    begin("inspect", "loading the tokenizer and τ²")
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.inspector.tokenizers import language_of

    settings = Tau2Config.resolve(config_mapping(config), environ={})
    try:
        return language_of(loaded, hf_checkpoint, settings.chat_template_kwargs, trust_remote_code=trust_remote_code)
    except ConfigError as error:
        if hf_checkpoint is not None:
            raise
        typer.echo(shown(f"without the tokenizer that the files name: {error}"), err=True)
        return None


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
    from tau2_slime.runtime.console import progress
    from tau2_slime.view.page import write_page

    try:
        with progress("comparing databases and packing" if world else "packing") as advance:
            size = write_page(
                html,
                trajectories,
                title=str(path),
                language=profile,
                world=world,
                unreadable=unreadable,
                advance=advance,
            )
    except OSError as error:
        raise ConfigError(f"--html {html}: {error.strerror}") from error
    typer.echo(shown(f"{len(trajectories)} episodes: {html} ({size / 1e6:.1f} MB)"))
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
        typer.echo(f"violation: {shown(line)}")
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
        typer.echo(f"not rendered again: {count} ({shown(why)})")
    return 1 if lines or not trajectories else 0
