"""What slime can be told to call besides `generate`. Each docstring names the flag that loads the function.

The two logging hooks add to slime's metrics and replace none. They never raise: a training job must not end for a metric.
The others decide what is trained on. They raise `ConfigError` where they would decide wrongly.
`docs/hooks.md` lists every metric.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError, first_time
from tau2_slime.observe.episode_log import TRAINING, write_episodes
from tau2_slime.observe.episodes import episode_of, episodes_of, flatten
from tau2_slime.observe.evaluation import dataset_metrics
from tau2_slime.observe.groups import COLUMNS, worth_a_look
from tau2_slime.observe.metrics import episode_metrics, tag
from tau2_slime.runtime import run_stop, tracebacks
from tau2_slime.slime_adapter import compat, trackers
from tau2_slime.slime_adapter.advantages import counts, normalise, reward_value
from tau2_slime.slime_adapter.compat import argument
from tau2_slime.slime_adapter.sample import metadata_of
from tau2_slime.slime_adapter.settings import resolve_settings
from tau2_slime.slime_adapter.weights import evaluation_weights, is_stale, lag_metrics, stale_metrics

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import DynamicFilterOutput, Samples, SlimeArgs, SlimeSample

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def _never_raises(hook: Callable[P, bool]) -> Callable[P, bool]:
    """slime's own logging goes on (False) whatever goes wrong in ours; each cause is logged once."""

    @functools.wraps(hook)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            return hook(*args, **kwargs)
        except Exception as error:  # whatever it is, training goes on; it is logged
            if first_time(f"hooks.{hook.__name__}", repr(error)):
                what = f"tau2_slime.hooks.{hook.__name__} failed: this time slime logs no metrics of tau2_slime"
                tracebacks.log(logger, what, error)
            return False

    return guarded


@_never_raises
def log_train_rollout(
    rollout_id: int,
    args: SlimeArgs,
    samples: Samples,
    rollout_extra_metrics: dict[str, Any] | None,
    rollout_time: float,
) -> bool:
    """``--custom-rollout-log-function-path tau2_slime.hooks.log_train_rollout``

    Adds ``rollout/tau2/...`` to what slime logs of a rollout: to ``rollout_extra_metrics``, or as a record of its own where
    that is None (fully-async rollouts). Samples of other data sources are counted as ``foreign_samples``. Always False:
    slime's own logging follows. ``tau2: {episode_log: FOLDER}`` and ``{group_table: 5}`` ask for more (`docs/view.md`).
    """
    if argument(args, "load_debug_rollout_data", None):  # a replay: slime logs nothing of it either
        return False
    episodes, foreign = episodes_of(samples)
    metrics = {**episode_metrics(episodes), "foreign_samples": float(foreign), **_group_metrics(args, samples)}
    metrics |= lag_metrics(flatten(samples)) | _spending()
    named = {f"rollout/tau2/{name}": value for name, value in metrics.items()}
    _publish(rollout_id, args, named, rollout_extra_metrics, "rollout")
    settings = resolve_settings(args)
    if settings.group_table:
        rows = worth_a_look(samples, rollout_id, settings.group_table)
        if not trackers.log_table(args, "rollout/tau2/groups", COLUMNS, rows, rollout_id) and first_time(
            "hooks: no W&B"
        ):
            logger.warning("group_table: slime has no W&B run in this process (--use-wandb), so it gets no table")
    if settings.episode_log is not None:
        write_episodes(Path(settings.episode_log), rollout_id, TRAINING, samples)
    return False


@_never_raises
def log_eval_rollout(
    rollout_id: int, args: SlimeArgs, data: Mapping[str, Mapping[str, Any]], extra_metrics: dict[str, Any] | None
) -> bool:
    """``--custom-eval-rollout-log-function-path tau2_slime.hooks.log_eval_rollout``

    Adds ``eval/<dataset>/tau2/...``: pass@k and pass^k (``pass_hat_k``) for every k up to the dataset's own samples per
    prompt. Excluded samples are left out and counted. Always False: slime's own logging follows.

    slime's pass@k (``--log-passrate``) takes the samples per prompt from its command line. Where that contradicts a
    dataset, it would end the job or count the samples of two tasks as one's. Only then it is switched off here.

    ``data``: dataset -> ``rewards`` and ``samples``, one of each for every attempt. ``extra_metrics`` as above.
    """
    sizes = {dataset.name: dataset.n_samples_per_eval_prompt for dataset in argument(args, "eval_datasets", None) or ()}
    default = argument(args, "n_samples_per_eval_prompt", None)
    _avert_wrong_pass_rate(
        args, {name: (sizes.get(name) or default, len(part.get("rewards") or ())) for name, part in data.items()}
    )
    metrics: dict[str, float] = {}
    for name, part in data.items():
        found = dataset_metrics(part.get("samples") or (), sizes.get(name))
        if found:
            found |= evaluation_weights(name, rollout_id, flatten(part.get("samples") or ()))
        metrics |= {f"eval/{name}/tau2/{key}": value for key, value in found.items()}
    _publish(rollout_id, args, metrics, extra_metrics, "eval")
    log = resolve_settings(args).episode_log
    if log is not None:
        for name, part in data.items():
            kind = f"eval {name}" if name == TRAINING else name
            write_episodes(Path(log), rollout_id, kind, part.get("samples") or ())
    return False


def post_process_rewards(args: SlimeArgs, samples: Samples) -> tuple[list[float], list[float]]:
    """``--custom-reward-post-process-path tau2_slime.hooks.post_process_rewards``

    ``(raw rewards, normalised rewards)``, one of each for every sample: slime's GRPO normalisation with removed samples left
    out of their group's statistics, and groups found by ``group_index``. ``tau2: {simulator_baseline: batch}`` adds a
    baseline for each user simulator.

    Raises:
        ConfigError: the ``tau2:`` mapping is not valid, or no episode can be played any more (`run_stop`). The job ends
            before it trains on wrong advantages, or on nothing.
    """
    config = _config_of_a_run_that_can_go_on(args)
    flat = list(flatten(samples))
    for group in _groups(flat).values():
        if is_stale(group, config.max_weight_lag):
            for sample in group:
                sample.remove_sample = True
    return normalise(args, flat, simulator_baseline=config.simulator_baseline == "batch")


def keep_informative_groups(args: SlimeArgs, samples: Samples, **_: object) -> bool | DynamicFilterOutput:
    """``--dynamic-sampling-filter-path tau2_slime.hooks.keep_informative_groups``

    Keeps a group if at least ``tau2: {min_valid_samples: 2}`` of its samples count and their rewards differ. A sample counts
    if it is neither removed nor aborted, and has a reward and a turn of the policy. A group beyond
    ``tau2: {max_weight_lag: N}`` is dropped too. slime counts dropped groups as
    ``rollout/dynamic_filter/drop_too_few_valid``, ``drop_no_spread`` and ``drop_stale``.

    Raises:
        ConfigError: the ``tau2:`` mapping is not valid, or no episode can be played any more (`run_stop`). slime would ask
            for new groups without end, because every episode fails.
    """
    config = _config_of_a_run_that_can_go_on(args)
    group = list(flatten(samples))
    rewards = [reward_value(args, sample) for sample in group if counts(sample)]
    too_few = len(rewards) < config.min_valid_samples
    _warn_of_failures(group, too_few)
    if too_few:
        return compat.filter_output(False, "too_few_valid")
    if is_stale(group, config.max_weight_lag):
        return compat.filter_output(False, "stale")
    return compat.filter_output(max(rewards) > min(rewards), "no_spread")


def exclude_recited_rewards(args: SlimeArgs, samples: Samples) -> None:
    """``--rollout-sample-filter-path tau2_slime.hooks.exclude_recited_rewards``

    Takes episodes that were paid although the agent said hundreds of numbers (``unearned/recitation``) out of the loss: τ²
    looks for the right ones anywhere in its words. What was paid, and the metric, stay. Rewards that
    `post_process_rewards` normalises are those of the other samples.
    """
    for sample in flatten(samples):
        episode = episode_of(sample)
        if episode is not None and episode.telemetry.get("unearned/recitation"):
            sample.remove_sample = True


# ---- parts -------------------------------------------------------------------------------------------------------------


def _config_of_a_run_that_can_go_on(args: SlimeArgs) -> Tau2Config:
    """The job's configuration, without what single data rows override.

    Raises:
        ConfigError: it is not valid, or no episode can be played any more.
    """
    reason = run_stop.reason_to_stop()
    if reason is not None:
        raise ConfigError(f"this run cannot go on: {reason}")
    return resolve_settings(args)


def _spending() -> dict[str, float]:
    """What the simulators have cost this process from its beginning: samples that a filter threw away were paid for too."""
    from tau2_slime.world.users import spending

    accounts = spending.accounts()
    if not accounts:
        return {}
    out = {"user_model/spent": sum(account.dollars for account in accounts.values())}
    for name, account in accounts.items():
        prefix = f"user/{tag(name)}"
        out |= {f"{prefix}/spent": account.dollars, f"{prefix}/calls_failed": float(account.failed)}
        if account.calls:
            out[f"{prefix}/call_seconds"] = account.seconds / account.calls
    return out


def _publish(
    rollout_id: int,
    args: SlimeArgs,
    metrics: dict[str, float],
    extra_metrics: dict[str, Any] | None,
    axis: Literal["rollout", "eval"],
) -> None:
    """Into slime's own record where it hands one over (default rollouts), else beside it (fully-async, evaluation)."""
    if not metrics:
        return
    if extra_metrics is not None:
        extra_metrics.update(metrics)
        return
    logger.info("%s %s: %s", axis, rollout_id, metrics)
    if not trackers.log_scalars(args, metrics, rollout_id, axis) and first_time("hooks: no logging"):
        logger.warning("slime's logging is not loaded: the metrics of tau2_slime are only in this log")


def _group_metrics(args: SlimeArgs, samples: Samples) -> dict[str, float]:
    """How many groups can teach something, by the rule of `keep_informative_groups`."""
    groups = _groups(flatten(samples))
    if not groups:
        return {}
    sizes = [len(group) for group in groups.values()]
    valid = [[reward_value(args, sample) for sample in group if counts(sample)] for group in groups.values()]
    return {
        "groups": float(len(valid)),
        "groups_informative": sum(len(set(rewards)) > 1 for rewards in valid) / len(valid),
        "groups_with_excluded": sum(len(v) < size for v, size in zip(valid, sizes, strict=True)) / len(valid),
        **stale_metrics(groups.values(), resolve_settings(args).max_weight_lag),
    }


def _groups(samples: Iterable[SlimeSample]) -> dict[Hashable, list[SlimeSample]]:
    """Our samples by their group, as far as slime named one."""
    groups: dict[Hashable, list[SlimeSample]] = {}
    for sample in samples:
        if getattr(sample, "group_index", None) is not None and episode_of(sample) is not None:
            groups.setdefault(sample.group_index, []).append(sample)
    return groups


def _avert_wrong_pass_rate(args: SlimeArgs, datasets: Mapping[str, tuple[int | None, int]]) -> None:
    """Switch slime's own pass@k off if it would be wrong. ``datasets``: name -> (samples per prompt, samples)."""
    size = argument(args, "n_samples_per_eval_prompt", None) or 1
    if not argument(args, "log_passrate", False) or size == 1:  # 1: slime logs no pass@k, right or wrong
        return
    wrong = [name for name, (own, total) in datasets.items() if own != size or total % size]
    if wrong:
        args.log_passrate = False  # of this process: trainers have their own arguments
        if first_time("hooks: pass rate"):
            logger.warning(
                "slime's own pass@k of evaluations is switched off: --n-samples-per-eval-prompt is %d, but %s has another "
                "number of samples per prompt; pass@k is logged as eval/<dataset>/tau2/pass@k",
                size,
                ", ".join(wrong),
            )


_dropped_in_a_row = 0


def _warn_of_failures(group: Sequence[SlimeSample], dropped: bool) -> None:
    """slime asks for new groups until enough are kept. While a simulator or a server is dead, none is: the log says so."""
    global _dropped_in_a_row
    _dropped_in_a_row = _dropped_in_a_row + 1 if dropped else 0
    if _dropped_in_a_row < 32 or _dropped_in_a_row & (_dropped_in_a_row - 1):  # at 32, 64, 128, ...
        return
    causes = {str((metadata_of(sample).get("tau2") or {}).get("detail") or "") for sample in group} - {""}
    logger.error(
        "%d groups in a row were dropped because their episodes failed, and slime keeps asking for more. Last cause: %s",
        _dropped_in_a_row,
        "; ".join(sorted(causes)) or "unknown",
    )
