"""The doctor's round: which checks are made, in which order, and what becomes of one that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

from tau2_slime.cli import checks, preflight
from tau2_slime.cli.checks import Answer, Verdict
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.users import check_user
from tau2_slime.errors import Tau2SlimeError
from tau2_slime.policy.checkpoint import profile_for
from tau2_slime.policy.context_plan import Played
from tau2_slime.runtime.loops import offload
from tau2_slime.runtime.secrets import described

P = ParamSpec("P")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    subject: str
    text: str
    """What was found, or what is wrong together with the fix."""


@dataclass(frozen=True)
class Launch:
    """What only a training job needs; None: not checked."""

    torch_dist: Path | None = None
    sft_data: Path | None = None
    """A folder of `tau2-slime export --format slime-sft`."""
    slime_dir: Path | None = None
    gpus: int | None = None
    prompt_data: str | None = None
    """A file of rows, slices included: ``tasks.jsonl@[0:10]``."""
    eval_config: Path | None = None
    tau2: Mapping[str, object] = field(default_factory=dict)
    """The ``tau2:`` mapping of the job, which the rows' own settings win over."""
    max_context_len: int | None = None
    """Tokens of a trajectory, where the job sets a limit (slime's ``--rollout-max-context-len``)."""
    call_users: bool = True
    """False: no user model is called, only its key is looked for."""


async def examine(
    config: Tau2Config,
    *,
    hf_checkpoint: str | None,
    router: str | None,
    user_models: Sequence[str],
    domains: Sequence[str],
    launch: Launch | None = None,
    trust_remote_code: bool = False,
) -> AsyncIterator[Finding]:
    """Check one thing after another; raises nothing. Without ``hf_checkpoint`` or ``router`` they are not checked.

    ``user_models``: called under ``config``, besides those that the rows of ``launch`` name. ``domains``: empty: all.
    """
    launch = launch or Launch()
    yield await _finding("tau2", _fine(checks.installed_tau2, domains, config))
    asked = [*domains, *([config.domain] if "domain" in config.model_fields_set else [])]
    for domain in await offload(checks.with_documents, asked, config):
        yield await _finding("documents", _fine(checks.documents, domain, config))
    profile = None
    if hf_checkpoint is None:
        yield Finding(Verdict.NOTE, "tokenizer", "not checked: give --hf-checkpoint")
    else:
        try:
            profile = await profile_for(hf_checkpoint, config, trust_remote_code=trust_remote_code)
            calibrated = profile.delta.report.one_line()
            said = f"{calibrated}; tool calls: {profile.parser.name}; context {profile.context_length}"
            yield Finding(Verdict.OK, "tokenizer", said)
        except Exception as error:  # anything that a checkpoint's own files can raise
            yield Finding(Verdict.FAIL, "tokenizer", str(error))
    if router is not None:
        yield await _finding("router", checks.router_workers(router))
        if profile is not None:
            yield await _finding("generate", checks.one_token(router, profile, config))
            yield await _finding("replay", checks.replayed(router, str(hf_checkpoint), profile))
    elif launch.torch_dist is None:  # a training job starts its own router
        yield Finding(Verdict.NOTE, "router", "not checked: give --router http://host:port")
    if launch.torch_dist is not None:
        yield await _finding("torch_dist", _fine(preflight.torch_dist, launch.torch_dist))
    if launch.gpus is not None:
        yield await _finding("gpus", _fine(preflight.gpus, launch.gpus))
    users = [(model, config) for model in user_models]
    played: list[Played] = []
    if launch.prompt_data is not None:
        yield await _finding("data", _rows(users, played, preflight.prompt_data, launch.prompt_data, launch.tau2))
    if launch.sft_data is not None and profile is not None:
        template, kwargs = profile.delta.template, config.chat_template_kwargs
        yield await _finding("sft data", _fine(preflight.sft_data, launch.sft_data, template, kwargs))
    elif launch.sft_data is not None:
        there = Verdict.NOTE if launch.sft_data.is_dir() else Verdict.FAIL
        lacks = "not compared: give --hf-checkpoint" if there is Verdict.NOTE else f"{launch.sft_data} is missing"
        yield Finding(there, "sft data", lacks)
    if launch.eval_config is not None:
        yield await _finding("evaluation", _rows(users, played, preflight.eval_config, launch.eval_config, launch.tau2))
    if profile is not None:
        wanted = played or await offload(checks.first_tasks, asked, config)
        if wanted:
            yield await _finding("context", _fine(checks.context, wanted, profile, launch.max_context_len))
    found = []
    for model, settings in preflight.distinct(users):
        if launch.call_users and settings.user_path is None:
            found.append((model, await _finding(f"user {model}", checks.user_answers(model, settings))))
        else:
            found.append((model, await _finding(f"user {model}", _fine(check_user, settings, model))))
    for finding in _grouped(found):
        yield finding
    if not users and launch.prompt_data is None and launch.eval_config is None and launch.sft_data is None:
        yield Finding(Verdict.NOTE, "user", "not checked: give --user-model")
    if launch.slime_dir is not None:
        yield await _finding("slime source", _fine(preflight.slime_source, launch.slime_dir))
    yield await _finding("slime", checks.installed_slime())


def _grouped(found: Sequence[tuple[str, Finding]]) -> list[Finding]:
    """One finding for all models that fail for the same reason, such as one key that is not set."""
    causes: dict[str, list[tuple[str, Finding]]] = {}
    for model, finding in found:
        failed = finding.verdict is Verdict.FAIL
        causes.setdefault(finding.text.replace(model, "") if failed else f"ok {model}", []).append((model, finding))
    return [
        dataclasses.replace(alike[0][1], subject=f"user {', '.join(model for model, _ in alike)}")
        for alike in causes.values()
    ]


async def _fine(check: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> Answer:
    """A check that says what is fine and raises what is not, run off the event loop."""
    return Verdict.OK, await offload(check, *args, **kwargs)


async def _rows(
    users: list[tuple[str, Tau2Config]],
    played: list[Played],
    check: Callable[P, preflight.RowsFound],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Answer:
    """A check of data rows, whose user models are added to ``users``, and their tasks to ``played``."""
    found = await offload(check, *args, **kwargs)
    users += found.users
    played += found.played
    return Verdict.OK, found.text


async def _finding(subject: str, check: Awaitable[Answer]) -> Finding:
    try:
        verdict, text = await check
    except Tau2SlimeError as error:
        verdict, text = Verdict.FAIL, str(error)
    except Exception as error:  # a check that breaks is a finding, not the end of the round
        verdict, text = Verdict.FAIL, described(error)
    return Finding(verdict, subject, text)
