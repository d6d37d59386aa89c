"""What `tau2-slime doctor` tries out: τ², the tokenizer, the router, the user models, slime.

Each check says what it found, or raises a `Tau2SlimeError` that says what is wrong together with the fix.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.task_split import names_a_file, short_name
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.loops import offload

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, but the user may want to know it."""
    FAIL = "fail"


Answer = tuple[Verdict, str]
"""What a check found, in words."""


def installed_tau2(chosen: Sequence[str], config: Tau2Config) -> str:
    """The data of the ``chosen`` domains (empty: of all) can be read, and their environments built."""
    from tau2_slime.world import domains, retrieval, tau2_compat
    from tau2_slime.world.environment import World

    parts = []
    for domain in chosen or domains.domains():
        splits = domains.splits(domain)
        if domain == config.domain and config.task_split not in splits:
            domains.tasks(domain, config.task_split)  # raises the error that names the splits
        first = next(iter(splits))
        if not retrieval.variants(domain):
            World(domain, first, domains.tasks(domain, first)[0], env_kwargs=config.environment)
        parts.append(f"{domain} " + "/".join(f"{name} {len(ids)}" for name, ids in splits.items()))
        if made := domains.made_split_hash(domain, "test"):
            parts[-1] += f" (by seed {domains.SPLIT_SEED}, test {made[:12]})"
        if domain == config.domain and names_a_file(config.task_split):
            parts[-1] += f"/{short_name(config.task_split)} {len(domains.tasks(domain, config.task_split))}"
    litellm = importlib.metadata.version("litellm")
    return f"{tau2_compat.version()}: {'; '.join(parts)} (litellm {litellm})"


def with_documents(asked: Sequence[str], config: Tau2Config) -> list[str]:
    """Of ``asked``, and of all domains if a retrieval variant is chosen, those whose agents read documents."""
    from tau2_slime.world import domains, retrieval

    known = domains.domains()
    chosen = [*asked, *(known if "retrieval_variant" in config.environment else [])]
    return [domain for domain in dict.fromkeys(chosen) if domain in known and retrieval.variants(domain)]


def documents(domain: str, config: Tau2Config) -> str:
    """The retrieval variant of ``domain`` is chosen, has what it needs here, and its index can be built."""
    from tau2_slime.world import domains, retrieval
    from tau2_slime.world.environment import World

    variant = retrieval.require(domain, config.environment)
    assert variant is not None
    first = next(iter(domains.splits(domain)))
    started = time.perf_counter()
    world = World(domain, first, domains.tasks(domain, first)[0], env_kwargs=config.environment)
    took, offline = time.perf_counter() - started, [n for n, v in retrieval.variants(domain).items() if v.offline]
    return (
        f"{domain} by retrieval_variant={variant.name}: {variant.needs()}; read in {took:.1f} s, {len(world.agent_tools)} "
        f"tools; without a network there are: {', '.join(offline)}"
    )


def first_tasks(asked: Sequence[str], config: Tau2Config) -> list[tuple[Tau2Config, str]]:
    """The first task of each domain of ``asked`` that can be played under ``config``."""
    from tau2_slime.world import domains, retrieval

    found = []
    for domain in dict.fromkeys(asked):
        if domain not in domains.domains() or (
            retrieval.variants(domain) and "retrieval_variant" not in config.environment
        ):
            continue
        splits = domains.splits(domain)
        split = config.task_split if domain == config.domain and names_a_file(config.task_split) else next(iter(splits))
        task = domains.tasks(domain, split)[0]
        found.append((config.model_copy(update={"domain": domain, "task_split": split}), str(task.id)))
    return found


def context(played: Sequence[tuple[Tau2Config, str]], profile: CheckpointProfile, limit: int | None) -> str:
    """Every first prompt leaves room for an answer."""
    from tau2_slime.policy.context_plan import longest_first_prompt

    tokens, where = longest_first_prompt(played, profile, limit)
    room = min((one for one in (limit, profile.context_length) if one), default=None)
    limited = f"the context {room:,}" if room else "no limit is known"
    return f"the longest first prompt has {tokens:,} tokens ({where}), {limited}"


async def router_workers(router: str) -> Answer:
    """A router with healthy workers answers at ``router``, which is ``http://host:port``."""
    import aiohttp

    from tau2_slime.runtime.address import address

    address(router)  # raises if it is something else
    url = router.rstrip("/")
    try:
        status, body = await _get(f"{url}/workers")
        if status != 200 or not isinstance(body, dict):
            health, _ = await _get(f"{url}/health")
            if health == 200:
                return Verdict.NOTE, f"{router} answers but lists no workers: a single server, or an old router"
            raise ConfigError(
                f"{router}/workers and /health answer {status} and {health}: this is not an sglang router"
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ConfigError(f"{router} does not answer ({type(error).__name__}); is it running there?") from error
    workers = body.get("workers") or []
    healthy = [worker for worker in workers if worker.get("is_healthy", True)]
    if not healthy:
        raise ConfigError(f"{router} has {len(workers)} workers, none healthy; start or restart them")
    verdict = Verdict.OK if len(healthy) == len(workers) else Verdict.NOTE
    return verdict, f"{router}: {len(healthy)} of {len(workers)} workers healthy"


async def _get(url: str) -> tuple[int, object]:
    """Status and body; the body is parsed if it is JSON."""
    import aiohttp

    async with (
        aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(url) as response,
    ):
        kind = response.headers.get("Content-Type", "")
        return response.status, await response.json() if "json" in kind else await response.text()


async def one_token(router: str, profile: CheckpointProfile, config: Tau2Config) -> Answer:
    """One token through the whole path, with everything that the package checks on every turn."""
    from tau2_slime.tokens.engine import SglangEngine

    engine = SglangEngine(router, timeout=min(config.request_timeout, 120.0), retries=1)
    prompt = await offload(profile.delta.template.encode, "Hello")
    started = time.perf_counter()
    completion = await engine.generate(
        prompt, {"max_new_tokens": 1, "temperature": 1.0}, routing_key="tau2-slime-doctor"
    )
    took = (time.perf_counter() - started) * 1000
    vocabulary = len(profile.delta.template.tokenizer)
    if completion.ids and completion.ids[0] >= vocabulary + 4096:
        raise ConfigError(
            f"the server sampled id {completion.ids[0]}, the tokenizer has {vocabulary}: does it serve another model?"
        )
    return (
        Verdict.OK,
        f"1 token with its log-probability in {took:.0f} ms, weight version {completion.weight_version}",
    )


async def replayed(router: str, checkpoint: str, profile: CheckpointProfile) -> Answer:
    """Whether what slime can replay comes back through this router. Only two of slime's flags need it: never a failure."""
    from tau2_slime.errors import EngineError, ReplayUnavailable
    from tau2_slime.policy.checkpoint import expert_shape
    from tau2_slime.tokens.replay import ReplaySpec
    from tau2_slime.tokens.replay_probe import probe

    nucleus = {"temperature": 1.0, "top_p": 0.9, "custom_params": {"return_top_p_token_ids": True}}
    wanted = {"--rollout-top-p other than 1": (ReplaySpec(top_p=True), nucleus)}
    shape = expert_shape(checkpoint)
    if shape is not None:
        wanted["--use-rollout-routing-replay"] = (ReplaySpec(experts=shape), {"temperature": 1.0})
    missing = []
    for flag, (spec, params) in wanted.items():
        try:
            await probe(router, profile.stop_ids, params, spec)
        except (ReplayUnavailable, EngineError) as error:
            missing.append(f"{flag}: {error}")
    if missing:
        return (
            Verdict.NOTE,
            f"matters only with these flags of slime, which would end the job here: {'; '.join(missing)}",
        )
    return Verdict.OK, f"{router} returns what these flags of slime need: {', '.join(wanted)}"


async def user_answers(model: str, config: Tau2Config) -> Answer:
    """One real opening message of the user simulator, with τ²'s own prompt."""
    from tau2_slime.config.settings import HUMAN
    from tau2_slime.episode.users import is_scripted, user_spec
    from tau2_slime.world import domains, tau2_compat
    from tau2_slime.world.environment import World
    from tau2_slime.world.users import LitellmUser
    from tau2_slime.world.users.spec import SERVED_BY_SLIME

    if config.user_strategy == HUMAN:
        return Verdict.OK, "a person at the terminal"
    spec = dataclasses.replace(user_spec(config, model), retries=0)
    if is_scripted(spec.model):
        return Verdict.OK, "plays the gold script; for tests, not for training"
    if (spec.base_url or "").startswith(SERVED_BY_SLIME):
        return Verdict.NOTE, "not called: slime's --sglang-config serves it once the job runs"
    splits = domains.splits(config.domain)
    named = config.task_split
    split = named if named in splits or names_a_file(named) else next(iter(splits))
    task = (await offload(domains.tasks, config.domain, split))[0]
    world = await offload(World, config.domain, split, task, env_kwargs=config.environment)
    user = LitellmUser(spec, tools=world.user_tools, instructions=str(task.user_scenario))
    user.start([])
    started = time.perf_counter()
    reply = await user.reply(tau2_compat.load().FIRST_AGENT_MESSAGE)
    took = time.perf_counter() - started
    words = " ".join((reply.content or f"calls {reply.tool_calls[0].name}").split())
    return Verdict.OK, f"{took:.1f} s, ${user.stats.cost:.5f}: {words[:60]!r}"


async def installed_slime() -> Answer:
    """The slime, or its fork miles, that this Python would import, if there is one."""
    from tau2_slime.slime_adapter.compat import describe, installed

    package = installed()
    if package is None:
        return Verdict.NOTE, "not installed here (needed only inside a training job)"
    try:
        return Verdict.OK, await asyncio.to_thread(describe, package)
    except ImportError as error:
        raise ConfigError(
            f"cannot be imported ({error}): use the Python of {package}'s container, or install that"
        ) from error
