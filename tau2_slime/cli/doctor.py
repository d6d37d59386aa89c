"""`tau2-slime doctor`: everything that a training job needs, proved before it burns GPUs; one line each."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import importlib.util
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tau2_slime.cli import preflight
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.users import check_user
from tau2_slime.errors import Tau2SlimeError
from tau2_slime.runtime.threads import offload


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Nothing wrong; something that the user may want to know."""
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    subject: str
    text: str
    """What is, or what is wrong together with the fix."""


@dataclass(frozen=True)
class Launch:
    """What only a training job needs; None: not checked."""

    torch_dist: Path | None = None
    slime_dir: Path | None = None
    gpus: int | None = None
    prompt_data: str | None = None
    """A file of rows, slices included: ``tasks.jsonl@[0:10]``."""
    eval_config: Path | None = None
    mapping: Mapping[str, Any] = field(default_factory=dict)
    """The ``tau2:`` mapping of the job: rows are resolved over it."""
    call_users: bool = True
    """False: the keys of the user models are looked for, no call is made."""


async def examine(
    config: Tau2Config,
    *,
    hf_checkpoint: str | None,
    router: str | None,
    user_models: Sequence[str],
    domains: Sequence[str],
    launch: Launch | None = None,
) -> AsyncIterator[Finding]:
    """Check one thing after another; never raises.

    ``user_models``: those to call under ``config``; the models that the data of ``launch`` brings along come on top.
    """
    launch = launch or Launch()
    users: list[tuple[str, Tau2Config]] = [(model, config) for model in user_models]
    yield await _guarded("tau2", _tau2(list(domains), config))
    language = None
    if hf_checkpoint is None:
        yield Finding(Verdict.NOTE, "tokenizer", "not checked: give --hf-checkpoint")
    else:
        finding, language = await _tokenizer(hf_checkpoint, config)
        yield finding
    if router is None and launch.torch_dist is not None:
        pass  # the job that is to be launched starts its own
    elif router is None:
        yield Finding(Verdict.NOTE, "router", "not checked: give --router http://host:port")
    else:
        yield await _guarded("router", _workers(router))
        if language is not None:
            yield await _guarded("generate", _generate(router, language, config))
            yield await _guarded("replay", _replay(router, str(hf_checkpoint), language))
    if launch.torch_dist is not None:
        yield await _guarded("torch_dist", _of(preflight.torch_dist, launch.torch_dist))
    if launch.gpus is not None:
        yield await _guarded("gpus", _of(preflight.gpus, launch.gpus))
    for subject, check, path in (
        ("data", preflight.prompt_data, launch.prompt_data),
        ("evaluation", preflight.eval_config, launch.eval_config),
    ):
        if path is not None:
            yield await _guarded(subject, _of_data(check, path, launch.mapping, users))
    told: set[tuple[Any, ...]] = set()
    for model, settings in users:
        known = settings.simulator(model)
        identity = (model, known.model, known.base_url, known.api_key_var)
        if identity not in told:
            told.add(identity)
            calls = launch.call_users and settings.user_path is None
            probe = _user(model, settings) if calls else _of(check_user, settings, model)
            yield await _guarded(f"user {model}", probe)
    if launch.slime_dir is not None:
        yield await _guarded("slime source", _of(preflight.slime_source, launch.slime_dir))
    yield await _guarded("slime", _slime())


async def _of(check: Callable[..., str], *args: Any) -> Finding:
    return Finding(Verdict.OK, check.__name__, await offload(check, *args))


async def _of_data(
    check: Callable[..., preflight.Data],
    path: Any,
    mapping: Mapping[str, Any],
    users: list[tuple[str, Tau2Config]],
) -> Finding:
    data = await offload(check, path, mapping)
    users += data.users
    return Finding(Verdict.OK, check.__name__, data.text)


async def _guarded(subject: str, check: Any) -> Finding:
    try:
        return dataclasses.replace(await check, subject=subject)
    except Tau2SlimeError as error:
        return Finding(Verdict.FAIL, subject, str(error))
    except Exception as error:  # a check that breaks is a finding, not a crash of the doctor
        return Finding(Verdict.FAIL, subject, f"{type(error).__name__}: {error}")


async def _tau2(chosen: list[str], config: Tau2Config) -> Finding:
    from tau2_slime.world import domains, tau2_compat

    def look() -> str:
        parts = []
        for domain in chosen or domains.domains():
            splits = domains.splits(domain)
            if domain == config.domain and config.task_split not in splits:
                domains.tasks(domain, config.task_split)  # raises the error that names the splits
            domains.World(
                domain, next(iter(splits)), domains.tasks(domain, next(iter(splits)))[0], env_kwargs=config.env_kwargs
            )
            parts.append(f"{domain} " + "/".join(f"{name} {len(ids)}" for name, ids in splits.items()))
        return f"{tau2_compat.version()}: " + "; ".join(parts)

    text = await offload(look)
    return Finding(Verdict.OK, "tau2", f"{text} (litellm {importlib.metadata.version('litellm')})")


async def _tokenizer(checkpoint: str, config: Tau2Config) -> tuple[Finding, Any]:
    from tau2_slime.policy.checkpoint import profile_for

    try:
        language = await profile_for(checkpoint, config)
    except Exception as error:  # anything that a checkpoint's own files can raise
        return Finding(Verdict.FAIL, "tokenizer", str(error)), None
    text = f"{language.delta.report.one_line()}; tool calls: {language.parser.name}; context {language.context_length}"
    return Finding(Verdict.OK, "tokenizer", text), language


async def _get(url: str) -> tuple[int, Any]:
    import aiohttp

    async with (
        aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(url) as response,
    ):
        kind = response.headers.get("Content-Type", "")
        return response.status, await response.json() if "json" in kind else await response.text()


async def _workers(router: str) -> Finding:
    import aiohttp

    from tau2_slime.runtime.address import address

    address(router)  # raises if it is no http://host:port
    try:
        status, body = await _get(f"{router.rstrip('/')}/workers")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Finding(
            Verdict.FAIL, "router", f"{router} does not answer ({type(error).__name__}); is it running there?"
        )
    if status != 200 or not isinstance(body, dict):
        status, _ = await _get(f"{router.rstrip('/')}/health")
        if status == 200:
            return Finding(
                Verdict.NOTE, "router", f"{router} answers but lists no workers: a single server, or an old router"
            )
        return Finding(
            Verdict.FAIL, "router", f"{router}/workers and /health answer {status}: this is no sglang router"
        )
    workers = body.get("workers") or []
    healthy = [w for w in workers if w.get("is_healthy", True)]
    if not healthy:
        return Finding(
            Verdict.FAIL, "router", f"{router} has {len(workers)} workers, none healthy; start or restart them"
        )
    verdict = Verdict.OK if len(healthy) == len(workers) else Verdict.NOTE
    return Finding(verdict, "router", f"{router}: {len(healthy)} of {len(workers)} workers healthy")


async def _generate(router: str, language: Any, config: Tau2Config) -> Finding:
    """One token through the whole path, with everything that the package checks on every turn."""
    from tau2_slime.tokens.engine import SglangEngine

    engine = SglangEngine(router, timeout=min(config.request_timeout, 120.0), retries=1)
    prompt = await offload(language.delta.template.encode, "Hello")
    started = time.perf_counter()
    completion = await engine.generate(
        prompt, {"max_new_tokens": 1, "temperature": 1.0}, routing_key="tau2-slime-doctor"
    )
    took = (time.perf_counter() - started) * 1000
    vocabulary = len(language.delta.template.tokenizer)
    if completion.ids and completion.ids[0] >= vocabulary + 4096:
        return Finding(
            Verdict.FAIL,
            "generate",
            f"the server sampled id {completion.ids[0]}, the tokenizer has {vocabulary}: another model?",
        )
    return Finding(
        Verdict.OK,
        "generate",
        f"1 token with its log-probability in {took:.0f} ms, weight version {completion.weight_version}",
    )


async def _replay(router: str, checkpoint: str, language: Any) -> Finding:
    """Does what slime can replay come back through this router? Two of slime's flags need it, so it is never a failure."""
    from tau2_slime.errors import EngineError, ReplayUnavailable
    from tau2_slime.policy.checkpoint import expert_shape
    from tau2_slime.tokens.replay import ReplaySpec
    from tau2_slime.tokens.replay_probe import probe

    nucleus = {"temperature": 1.0, "top_p": 0.9, "custom_params": {"return_top_p_token_ids": True}}
    asked = {"--rollout-top-p other than 1": (ReplaySpec(top_p=True), nucleus)}
    shape = expert_shape(checkpoint)
    if shape is not None:
        asked["--use-rollout-routing-replay"] = (ReplaySpec(experts=shape), {"temperature": 1.0})
    there, reasons = [], []
    for name, (spec, params) in asked.items():
        try:
            await probe(router, language.stop_ids, params, spec)
            there.append(name)
        except (ReplayUnavailable, EngineError) as error:
            reasons.append(f"{name}: {error}")
    if not reasons:
        return Finding(Verdict.OK, "replay", f"{router} returns what these flags of slime need: {', '.join(there)}")
    return Finding(
        Verdict.NOTE,
        "replay",
        "matters only with these flags of slime, which would end the job here: " + "; ".join(reasons),
    )


async def _user(model: str, config: Tau2Config) -> Finding:
    """One real opening message, with τ²'s own prompt."""
    from tau2_slime.episode.users import is_scripted, user_spec
    from tau2_slime.world import domains, tau2_compat
    from tau2_slime.world.users import LitellmUser
    from tau2_slime.world.users.spec import SERVED_BY_SLIME

    spec = dataclasses.replace(user_spec(config, model), retries=0)
    if is_scripted(spec.model):
        return Finding(Verdict.OK, f"user {model}", "plays the gold script; for tests, not for training")
    if (spec.base_url or "").startswith(SERVED_BY_SLIME):
        return Finding(Verdict.NOTE, f"user {model}", "not called: slime's --sglang-config serves it once the job runs")
    domain = config.domain
    splits = domains.splits(domain)
    split = config.task_split if config.task_split in splits else next(iter(splits))
    task = (await offload(domains.tasks, domain, split))[0]
    world = await offload(domains.World, domain, split, task, env_kwargs=config.env_kwargs)
    user = LitellmUser(spec, tools=world.user_tools, instructions=str(task.user_scenario))
    user.start([])
    started = time.perf_counter()
    reply = await user.reply(tau2_compat.load().FIRST_AGENT_MESSAGE)
    took = time.perf_counter() - started
    words = " ".join((reply.content or f"calls {reply.tool_calls[0].name}").split())
    return Finding(Verdict.OK, f"user {model}", f"{took:.1f} s, ${user.stats.cost:.5f}: {words[:60]!r}")


async def _slime() -> Finding:
    if importlib.util.find_spec("slime") is None or importlib.util.find_spec("slime.utils") is None:
        return Finding(Verdict.NOTE, "slime", "not installed here (needed only inside a training job)")
    from tau2_slime.slime_adapter.compat import describe

    try:
        return Finding(Verdict.OK, "slime", await asyncio.to_thread(describe))
    except ImportError as error:
        return Finding(
            Verdict.FAIL, "slime", f"cannot be imported ({error}): use the Python of slime's container, or install that"
        )
