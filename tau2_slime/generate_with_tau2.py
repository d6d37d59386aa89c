"""The door that slime opens: ``--custom-generate-function-path tau2_slime.generate_with_tau2.generate``.

One call plays one τ² conversation and fills the sample that it was given. It raises nothing but `CancelledError`: an
exception here would end the training job.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from tau2_slime.errors import first_time
from tau2_slime.runtime.threads import Once, until_abort
from tau2_slime.slime_adapter.compat import argument, refuse_too_old, rollout_state

logger = logging.getLogger(__name__)

_imports: Once[Any] = Once()

refuse_too_old()  # slime imports this module at its first sample: better no training than one that cannot be right


async def generate(args: Any, sample: Any, sampling_params: dict[str, Any], evaluation: bool = False) -> Any:
    """Play ``sample``'s task and return the same ``sample``, filled.

    ``args``: slime's namespace (hf_checkpoint, sglang_router_ip/port, the ``tau2`` mapping of --custom-config-path).
    ``sampling_params``: slime's, per call of the server; not changed. ``evaluation``: no user-model rotation.

    Status: COMPLETED (scored), TRUNCATED (a limit), ABORTED (slime stopped the rollout), FAILED (the user simulator, the
    infrastructure or the configuration; ``remove_sample`` is set and ``metadata["tau2"]["detail"]`` says what).
    """
    from tau2_slime.episode.result import failed_result
    from tau2_slime.errors import ConfigError, EpisodeAborted
    from tau2_slime.outcome import Termination
    from tau2_slime.slime_adapter import resume
    from tau2_slime.slime_adapter.sample import fill_sample, replay_spec
    from tau2_slime.tokens.replay import NOTHING

    started = time.perf_counter()
    pad_id, text, replay, shaping = 0, "", NOTHING, None
    try:
        replay = replay_spec(args, sample, evaluation=evaluation)
        assembly = await _imports.get("assembly", _import_everything)
        tokenizer, aborted = rollout_state(args)

        async def assembled() -> Any:
            # Environments are built two at a time: with hundreds waiting, an abort must not wait for the queue.
            work = assembly.assemble(args, sample, sampling_params, evaluation=evaluation, tokenizer=tokenizer)
            return await until_abort(work, aborted)

        parts = await assembled()
        template = parts.agent.policy.delta.template
        pad_id = min(parts.agent.policy.delta.stop_ids)
        shaping = None if evaluation else parts.config.reward_shaping
        result = await _play(parts, sample, assembled, aborted)
        if result.ledger is not None:
            text = template.decode(result.ledger.tokens[result.ledger.prompt_length :])
    except asyncio.CancelledError:
        raise
    except EpisodeAborted as error:
        if resume.is_saved(sample):
            return sample  # aborted again before it was taken up: it keeps what it has
        result = failed_result(str(error), termination=Termination.ABORTED)
    except ConfigError as error:
        result = failed_result(str(error), termination=Termination.CONFIG_ERROR)
    except Exception as error:  # whatever it is, the training job must go on; it is logged and blamed
        result = failed_result(_bug(error))
    result.stats.total_time = result.stats.total_time or time.perf_counter() - started
    _tell(result)
    try:
        fill_sample(
            sample,
            result,
            response_text=text,
            pad_id=pad_id,
            replay=replay,
            shaping=shaping,
            keep_trajectory=bool(argument(args, "save_debug_rollout_data", None)),
        )
    except Exception as error:  # the result has something that this sample cannot take: then without it
        result = failed_result(_bug(error))
        fill_sample(sample, result, pad_id=pad_id, replay=replay)
    _keep(args, sample, result)
    return sample


async def _play(parts: Any, sample: Any, assembled: Callable[[], Any], aborted: Callable[[], bool]) -> Any:
    """The episode: taken up where an earlier rollout left it, or from its beginning."""
    from tau2_slime.episode.play import identity
    from tau2_slime.errors import CannotResume
    from tau2_slime.slime_adapter import resume

    if not resume.is_saved(sample):
        return await parts.solve(aborted=aborted)
    try:
        agent = parts.agent
        saved = resume.read(sample, identity(agent, parts.user_model), agent.policy.replay)
        return await parts.solve(aborted=aborted, saved=saved)
    except CannotResume as error:
        if first_time("an interrupted episode starts over", str(error)):
            logger.warning("tau2_slime: an interrupted episode starts over: %s", error)
        result = await (await assembled()).solve(aborted=aborted)
        result.restarted = str(error)
        return result


def _import_everything() -> Any:
    """τ², litellm and transformers take seconds to import: off the loop, at the first sample."""
    from tau2_slime.slime_adapter import request as assembly
    from tau2_slime.world import tau2_compat

    tau2_compat.load()
    return assembly


def _bug(error: Exception) -> str:
    """The cause of an exception that nobody foresaw; each one's traceback is logged once a process."""
    cause = f"{type(error).__name__}: {error}"
    if first_time("unforeseen", cause):
        logger.error("tau2_slime: unforeseen, please report it: %s", cause, exc_info=error)
    return cause


def _tell(result: Any) -> None:
    """Log why an episode failed, each cause once a process."""
    from tau2_slime.outcome import Status

    if result.status is Status.FAILED and first_time(f"episode failed ({result.termination})", result.detail):
        logger.error("tau2_slime: episode failed (%s, %s): %s", result.termination, result.blame, result.detail)


def _keep(args: Any, sample: Any, result: Any) -> None:
    """Hand the trajectory to whoever asked for it (``args.tau2_on_result``, set by the stand-alone commands)."""
    callback = getattr(args, "tau2_on_result", None)
    if callback is not None:
        try:
            callback(sample, result)
        except Exception as error:  # the caller's code: what it does with a trajectory must not lose the sample
            _bug(error)
