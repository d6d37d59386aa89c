"""The door that slime opens: ``--custom-generate-function-path tau2_slime.generate_with_tau2.generate``.

One call plays one τ² conversation and fills the sample that it was given. It raises nothing but `CancelledError`: an
exception here would end the training job. Start reading here, go on with `episode.play`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import CannotResume, EpisodeAborted, Tau2SlimeError, first_time
from tau2_slime.runtime import tracebacks
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import Once, take_turn
from tau2_slime.runtime.secrets import described
from tau2_slime.slime_adapter.compat import argument, refuse_too_old, rollout_state
from tau2_slime.slime_adapter.miles import as_the_framework_calls_it

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample
    from tau2_slime.tokens.replay import ReplaySpec

logger = logging.getLogger(__name__)

_imports: Once[ModuleType] = Once()

refuse_too_old()  # slime imports this module at its first sample: better no training than one that cannot be right


@as_the_framework_calls_it
async def generate(
    args: SlimeArgs, sample: SlimeSample, sampling_params: dict[str, Any], evaluation: bool = False
) -> SlimeSample:
    """Play ``sample``'s task and return the same ``sample``, filled.

    Args:
        args: slime's namespace (``hf_checkpoint``, the router's address, the ``tau2`` mapping of --custom-config-path).
        sample: names the task (``metadata.task_id``, or its position as the prompt) and any setting of its own. Gets
            ``tokens`` (T,), ``loss_mask`` and ``rollout_log_probs`` (R,; natural logarithms), ``reward`` (0.0 to 1.0),
            ``status`` and ``metadata["tau2"]``.
        sampling_params: slime's, for every call of the server; not changed.
        evaluation: no rotation of user simulators, no reward shaping.

    The status is COMPLETED (τ² scored it), TRUNCATED (a limit), ABORTED (slime stopped the rollout; the next one can go on)
    or FAILED (the user simulator, the infrastructure or the configuration; ``remove_sample`` is set, the loss mask is zero
    and ``metadata["tau2"]["detail"]`` names the cause).

    Example:
        >>> sample = Sample(index=0, prompt="0", metadata={"domain": "retail", "task_split": "test"})  # doctest: +SKIP
        >>> (await generate(args, sample, {"temperature": 1.0})).reward                                # doctest: +SKIP
        1.0
    """
    weights = await _imports.get("weights", _import_for_samples)
    workers = _workers(args)
    if workers:
        await _have_played(workers, args, sample, sampling_params, evaluation)
    else:
        await play(args, sample, sampling_params, evaluation)
    weights.saw(getattr(sample, "weight_versions", None) or ())
    return sample


async def _have_played(
    workers: int, args: SlimeArgs, sample: SlimeSample, sampling_params: dict[str, Any], evaluation: bool
) -> None:
    """Have one of the worker processes play ``sample`` and fill it."""
    await _imports.get("pool", _import_for_workers)
    await take_turn()  # thousands of samples may come at once
    from tau2_slime.slime_adapter.sample import fill_sample, is_interrupted, replay_spec
    from tau2_slime.slime_adapter.workers.pool import pool
    from tau2_slime.tokens.replay import NOTHING

    replay = NOTHING
    try:
        replay = replay_spec(args, sample, evaluation=evaluation)
        _, aborted = rollout_state(args)
        chosen = pool(workers, f"{__name__}.{play.__name__}")
        await chosen.play(args, sample, sampling_params, evaluation=evaluation, aborted=aborted)
    except Exception as error:  # no worker played it: the training job goes on
        if is_interrupted(sample) and isinstance(error, EpisodeAborted):
            return  # it keeps what it has
        result = _failed(error)
        _log_failure(result)
        fill_sample(sample, result, replay=replay)


_job: tuple[SlimeArgs, int] | None = None


def _workers(args: SlimeArgs) -> int:
    """How many worker processes play the episodes; 0: this process does. Read once for all samples of a job."""
    global _job
    if _job is not None and _job[0] is args:
        return _job[1]
    from tau2_slime.slime_adapter.settings import resolve_settings

    try:
        workers = resolve_settings(args).rollout_workers
    except Exception:  # whatever is wrong with the settings, `play` tells it
        workers = 0
    if getattr(args, "tau2_on_result", None) is not None:  # not a job of slime's, and an object for each episode
        if workers and first_time("rollout_workers without slime"):
            logger.info("rollout_workers: %d is for slime's rollouts: this command plays in its own process", workers)
        return 0
    _job = args, workers
    return workers


async def play(
    args: SlimeArgs, sample: SlimeSample, sampling_params: dict[str, Any], evaluation: bool = False
) -> SlimeSample:
    """What `generate` does, in this process whatever the settings say: also what a worker process does."""
    started = time.perf_counter()
    await _imports.get("weights", _import_for_samples)
    await take_turn()
    from tau2_slime.slime_adapter.sample import fill_sample, is_interrupted, read_metadata, replay_spec
    from tau2_slime.slime_adapter.settings import resolve_settings
    from tau2_slime.tokens.replay import NOTHING

    interrupted = is_interrupted(sample)
    template, replay, shaping = None, NOTHING, None
    try:
        replay = replay_spec(args, sample, evaluation=evaluation)
        request = await _imports.get("request", _import_everything)
        from tau2_slime.episode.play import play_and_score

        tokenizer, aborted = rollout_state(args)
        if aborted():
            raise EpisodeAborted("the rollout was aborted before the episode began")
        sample.metadata = read_metadata(sample)
        config = resolve_settings(args, sample.metadata, evaluation=evaluation)
        shaping = None if evaluation else config.reward_shaping
        profile = await request.profile_from_slime(args, config, tokenizer)
        template = profile.delta.template

        follow = getattr(args, "tau2_on_setup", None)  # set by the stand-alone commands

        async def build() -> EpisodeSetup:
            # Environments are built two at a time: with hundreds waiting, an abort must not wait for the queue.
            async with UntilAbort(aborted):
                setup: EpisodeSetup = await request.setup_from_slime(
                    args, sample, sampling_params, config, profile, replay=replay, evaluation=evaluation
                )
            if follow is not None:
                follow(setup, sample, template)
            return setup

        if interrupted:
            result = await _resume(sample, build, replay, aborted, config.max_weight_lag)
        else:
            result = await play_and_score(await build(), aborted=aborted)
    except Exception as error:  # whatever it is, the training job must go on; it is logged and blamed
        result = _failed(error)
        if interrupted and isinstance(error, EpisodeAborted):  # again, before it was resumed: it keeps what it has
            _notify_observer(args, sample, result)
            return sample
    result.stats.total_time = result.stats.total_time or time.perf_counter() - started
    _log_failure(result)
    try:
        keep = bool(argument(args, "save_debug_rollout_data", None))
        fill_sample(sample, result, template=template, replay=replay, shaping=shaping, keep_trajectory=keep)
    except Exception as error:  # the result has something that this sample cannot take: then without it
        from tau2_slime.episode.result import failed_result

        result = failed_result(_log_unforeseen(error))
        fill_sample(sample, result, template=template, replay=replay)
    _notify_observer(args, sample, result)
    return sample


async def _resume(
    sample: SlimeSample,
    build: Callable[[], Awaitable[EpisodeSetup]],
    replay: ReplaySpec,
    aborted: Callable[[], bool],
    max_lag: int | None,
) -> InteractionResult:
    """Go on where an earlier rollout left the episode; start over if that is not possible any more, or it is too old."""
    from tau2_slime.episode.play import play_and_score
    from tau2_slime.slime_adapter import resume, weights

    setup = await build()
    try:
        saved = resume.read(sample, setup.identity, replay)
        behind = weights.lag_of_segments(saved.ledger.segments) if saved.ledger is not None else 0
        if max_lag is not None and behind > max_lag:
            raise CannotResume(f"its tokens are {behind} weight updates old, max_weight_lag is {max_lag}")
        return await play_and_score(setup, aborted=aborted, saved=saved)
    except CannotResume as error:
        if first_time("an interrupted episode starts over", str(error)):
            logger.warning("tau2_slime: an interrupted episode starts over: %s", error)
        result = await play_and_score(await build(), aborted=aborted)
        result.restarted = str(error)
        return result


def _import_for_samples() -> ModuleType:
    """What reads samples and settings: off the loop, as pydantic alone may take 0.1 s to import."""
    from tau2_slime.slime_adapter import settings, weights  # noqa: F401

    return weights


def _import_for_workers() -> ModuleType:
    from tau2_slime.slime_adapter.workers import pool

    return pool


def _import_everything() -> ModuleType:
    """τ², litellm and transformers take seconds to import: off the loop, at the first sample."""
    from tau2_slime.episode import play  # noqa: F401
    from tau2_slime.slime_adapter import request
    from tau2_slime.world import tau2_compat

    tau2_compat.load()
    return request


def _failed(error: Exception) -> InteractionResult:
    """The result of an episode that an error kept from being played."""
    from tau2_slime.episode.result import failed_result
    from tau2_slime.outcome import Termination

    if isinstance(error, Tau2SlimeError):
        return failed_result(str(error), termination=Termination(error.termination))
    return failed_result(_log_unforeseen(error))


def _log_failure(result: InteractionResult) -> None:
    """Each cause once."""
    from tau2_slime.outcome import Status

    if result.status is Status.FAILED and first_time(f"episode failed ({result.termination})", result.detail):
        logger.error("tau2_slime: episode failed (%s, %s): %s", result.termination, result.blame, result.detail)


def _log_unforeseen(error: Exception) -> str:
    """The cause of an exception that nobody foresaw; each one's traceback is logged once a process."""
    cause = described(error)
    if first_time("unforeseen", cause):
        tracebacks.log(logger, f"tau2_slime: unforeseen, please report it: {cause}", error)
    return cause


def _notify_observer(args: SlimeArgs, sample: SlimeSample, result: InteractionResult) -> None:
    """Hand the trajectory to whoever asked for it (``args.tau2_on_result``, set by the stand-alone commands)."""
    callback = getattr(args, "tau2_on_result", None)
    if callback is not None:
        try:
            callback(sample, result)
        except Exception as error:  # the caller's code: what it does with a trajectory must not lose the sample
            _log_unforeseen(error)
