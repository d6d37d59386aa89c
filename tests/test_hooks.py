"""The hooks as slime calls them: what they log, what they keep, and that nothing they meet ends the job."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tau2_slime import hooks
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Termination
from tau2_slime.runtime import run_stop
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.hook_samples import failed, played, slime_args


@pytest.fixture
def slime_log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """slime's logging modules as they stand in ``sys.modules``; what was logged, with its step key."""
    logged: list[tuple[str, dict[str, Any]]] = []
    steps, log = ModuleType("slime.utils.metric_utils"), ModuleType("slime.utils.logging_utils")
    steps.compute_rollout_step = lambda args, rollout_id: rollout_id * 10  # type: ignore[attr-defined]
    log.log = lambda args, metrics, step_key: logged.append((step_key, metrics))  # type: ignore[attr-defined]
    for module in (steps, log):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return logged


def train(samples: Any, **args: Any) -> dict[str, float]:
    """What `log_train_rollout` adds to slime's record, without its prefix."""
    record: dict[str, Any] = {}
    assert hooks.log_train_rollout(0, slime_args(**args), samples, record, 1.0) is False
    assert all(name.startswith("rollout/tau2/") for name in record)
    assert all(type(value) is float and math.isfinite(value) for value in record.values()), "scalars for every tracker"
    return {name.removeprefix("rollout/tau2/"): value for name, value in record.items()}


def evaluate(samples: Any, size: int | None = None, **args: Any) -> dict[str, float]:
    """What `log_eval_rollout` adds for one dataset, without its prefix."""
    record: dict[str, Any] = {}
    datasets = [SimpleNamespace(name="d", n_samples_per_eval_prompt=size)] if size else []
    data = {"d": {"rewards": [s.reward for s in samples], "samples": samples}}
    hooks.log_eval_rollout(0, slime_args(eval_datasets=datasets, **args), data, record)
    assert all(name.startswith("eval/d/tau2/") for name in record)
    return {name.removeprefix("eval/d/tau2/"): value for name, value in record.items()}


# ---- training ----------------------------------------------------------------------------------------------------------


def test_failures_are_counted_and_kept_out_of_every_mean() -> None:
    metrics = train([played(1.0, agent_turns=4), played(0.0, agent_turns=2), failed(agent_turns=30), failed()])
    assert metrics["samples"] == 4
    assert metrics["excluded"] == 0.5
    assert metrics["excluded_user"] == 2
    assert metrics["reward"] == metrics["success"] == 0.5
    assert metrics["turns/agent/mean"] == 3
    assert metrics["termination/user_stop"] == metrics["termination/user_error"] == 0.5
    assert metrics["blame/agent"] == metrics["blame/user"] == 0.5


@pytest.mark.parametrize("reward", [0.5, 0.75, 0.999])
def test_most_of_a_reward_is_no_success(reward: float) -> None:
    """τ² pays parts of a reward where a task has several; its pass^k counts full ones only."""
    metrics = train([played(reward), played(1.0)])
    assert (metrics["success"], metrics["reward"]) == (0.5, pytest.approx((1 + reward) / 2))
    metrics = evaluate([played(reward), played(1.0)], size=2)
    assert (metrics["pass@1"], metrics["pass_hat_2"]) == (0.5, 0.0)


def test_what_tau2_would_have_paid_a_failure_is_not_counted() -> None:
    lost = failed(Termination.TOO_MANY_ERRORS)
    lost.metadata["tau2"].update(official_reward=1.0, excluded=True, blame="user")
    assert train([lost, played(0.0)])["reward"] == 0.0


def test_reward_by_domain_and_by_simulator() -> None:
    metrics = train(
        [
            played(1.0, user="openai/gpt-4o"),
            played(0.0, user="openai/gpt-4o", domain="airline"),
            played(0.0, user="qwen:7b", domain="airline"),
            failed(user="qwen:7b"),
        ]
    )
    assert (metrics["domain/retail/reward"], metrics["domain/airline/reward"]) == (1.0, 0.0)
    assert (metrics["user/openai_gpt-4o/reward"], metrics["user/qwen_7b/reward"]) == (0.5, 0.0)
    assert metrics["user/qwen_7b/excluded"] == 0.5


def test_tokens_tools_drift_and_the_simulators_price() -> None:
    metrics = train(
        [
            played(
                tool_calls={"ok": 2, "invalid_json": 1},
                drift={"turns": 4, "retokenised_turns": 1, "retokenised_tokens": 2, "environment_mismatches": 0},
                user_time=6.0,
                user_calls=3,
                user_cost=0.02,
                user_retries=1,
            ),
            played(versions=("1", "2"), tool_calls={"ok": 1}, user_time=2.0, user_calls=1),
        ]
    )
    assert metrics["tokens/prompt/mean"] == 4
    assert metrics["tokens/sampled/mean"] == 4.5
    assert metrics["tokens/sampled/max"] == 6
    assert metrics["tokens/context/mean"] == 3
    assert metrics["tool_calls/ok"] == 0.75
    assert metrics["tool_calls/invalid_json"] == 0.25
    assert metrics["tool_calls/unclosed"] == 0
    assert metrics["drift/episodes"] == 1
    assert metrics["drift/retokenised_turns"] == 0.25
    assert metrics["user_model/latency"] == 2.0
    assert metrics["user_model/cost"] == 0.02
    assert metrics["user_model/retries_per_call"] == 0.25
    assert metrics["weight_versions/mean"] == 1.5
    assert metrics["mixed_weights"] == 0.5


def test_episodes_that_were_taken_up_again_or_started_over() -> None:
    resumed, restarted = played(), played()
    resumed.metadata["tau2"]["stats"]["resumes"] = 2
    restarted.metadata["tau2"]["restarted"] = "another tokenizer"
    metrics = train([resumed, restarted, played(), played()])
    assert metrics["resumed_episodes"] == metrics["restarted_episodes"] == 0.25


def test_removed_samples_still_tell_how_much_was_sampled() -> None:
    sample = failed(termination=Termination.USER_ERROR)
    assert sum(sample.loss_mask) == 0
    assert sample.metadata["tau2"]["tokens"] == {"prompt": 4, "sampled": 3, "context": 2}


def test_groups_are_judged_as_the_filter_judges_them() -> None:
    samples = [played(1.0, group=0), played(0.0, group=0), played(1.0, group=1), failed(group=1)]
    metrics = train([samples[:2], samples[2:]])
    assert metrics["groups"] == 2
    assert metrics["groups_informative"] == metrics["groups_with_excluded"] == 0.5


def test_other_data_sources_are_counted_and_left_alone() -> None:
    foreign = StandaloneSample(reward=7.0, metadata={"source_name": "math"})
    metrics = train([[played(1.0)], [[foreign]], [StandaloneSample(metadata=None)]])  # type: ignore[arg-type]
    assert metrics["foreign_samples"] == 2
    assert metrics["reward"] == 1.0


def test_fully_async_rollouts_get_a_record_of_their_own(slime_log: list[Any]) -> None:
    hooks.log_train_rollout(3, slime_args(), [played()], None, 1.0)
    ((key, metrics),) = slime_log
    assert key == "rollout/step"
    assert metrics["rollout/step"] == 30, "the step is slime's own"
    assert metrics["rollout/tau2/reward"] == 1.0


def test_a_replayed_rollout_is_not_logged_again(slime_log: list[Any]) -> None:
    hooks.log_train_rollout(3, slime_args(load_debug_rollout_data="x.pt"), [played()], None, 1.0)
    assert not slime_log


# ---- evaluation --------------------------------------------------------------------------------------------------------


def test_pass_at_k_and_pass_hat_k_use_what_each_task_has_left() -> None:
    metrics = evaluate(
        [
            *(played(r, task="a") for r in (1.0, 1.0, 0.0, 0.0)),
            *(played(r, task="b") for r in (1.0, 1.0)),
            *(failed(task="b") for _ in range(2)),
        ],
        size=4,
    )
    assert metrics["tasks"] == 2
    assert metrics["pass@1"] == metrics["pass_hat_1"] == pytest.approx((2 / 4 + 2 / 2) / 2)
    assert metrics["pass@2"] == pytest.approx((5 / 6 + 1) / 2)
    assert metrics["pass_hat_2"] == pytest.approx((1 / 6 + 1) / 2)
    assert (metrics["tasks_below_2"], metrics["tasks_below_3"], metrics["tasks_below_4"]) == (0, 1, 1)
    assert metrics["pass@4"] == 1.0, "of task a alone"
    assert metrics["excluded_user"] == 2


def test_a_task_without_any_usable_sample_is_reported_not_scored() -> None:
    metrics = evaluate([failed(task="a"), failed(task="a"), played(1.0, task="b"), played(1.0, task="b")], size=2)
    assert metrics["pass@1"] == 1.0
    assert metrics["tasks_below_1"] == 1


def test_nothing_usable_at_all_gives_counts_and_no_estimate() -> None:
    metrics = evaluate([failed(), failed()], size=2)
    assert metrics["excluded"] == 1.0
    assert not [name for name in metrics if name.startswith("pass")]


def test_the_same_task_twice_in_a_dataset_is_one_task_with_more_samples() -> None:
    rows = [played(1.0, task="a"), played(0.0, task="a"), played(0.0, task="b"), played(0.0, task="b")]
    metrics = evaluate([*rows, played(1.0, task="a"), played(1.0, task="a")], size=2)
    assert metrics["tasks"] == 2
    assert metrics["pass@1"] == pytest.approx((3 / 4 + 0) / 2)
    assert "pass@3" not in metrics, "k stays what the dataset asks for"


def test_two_simulators_are_two_tasks_and_two_curves() -> None:
    samples = [played(r, user=user) for user, r in [("x", 1.0), ("x", 1.0), ("y", 0.0), ("y", 0.0)]]
    metrics = evaluate(samples, size=2)
    assert (metrics["user/x/pass_hat_2"], metrics["user/y/pass_hat_2"]) == (1.0, 0.0)
    assert metrics["pass@2"] == 0.5


def test_an_episode_that_failed_before_its_task_was_known_is_counted_where_it_belongs() -> None:
    early = played(None, task="", domain="", user="", termination=Termination.CONFIG_ERROR, row={"domain": "retail"})
    early.metadata["task_id"], early.prompt = "a", "a"
    metrics = evaluate([early, played(1.0, task="a")], size=2)
    assert metrics["tasks"] == 1
    assert metrics["tasks_below_2"] == 1
    assert metrics["domain/retail/pass@1"] == 1.0


def test_k_comes_from_the_samples_where_no_dataset_says_it() -> None:
    metrics = evaluate([played(1.0, task="a") for _ in range(3)])
    assert metrics["pass_hat_3"] == 1.0
    assert "pass@4" not in metrics


def test_evaluation_is_logged_beside_slimes_own_record(slime_log: list[Any]) -> None:
    assert hooks.log_eval_rollout(2, slime_args(), {"d": {"rewards": [1.0], "samples": [played()]}}, None) is False
    ((key, metrics),) = slime_log
    assert (key, metrics["eval/step"], metrics["eval/d/tau2/pass@1"]) == ("eval/step", 20, 1.0)


@pytest.mark.parametrize(
    ("on_the_command_line", "of_the_dataset", "kept"),
    [(2, 2, True), (1, 4, True), (3, 2, False), (4, 2, False)],
    ids=["right", "slime logs none", "slime would end the job", "slime would mix tasks"],
)
def test_slimes_pass_rate_is_switched_off_only_where_it_is_wrong(
    on_the_command_line: int, of_the_dataset: int, kept: bool
) -> None:
    args = slime_args(
        log_passrate=True,
        n_samples_per_eval_prompt=on_the_command_line,
        eval_datasets=[SimpleNamespace(name="d", n_samples_per_eval_prompt=of_the_dataset)],
    )
    samples = [played(1.0, task=str(i // of_the_dataset)) for i in range(2 * of_the_dataset)]
    hooks.log_eval_rollout(0, args, {"d": {"rewards": [1.0] * len(samples), "samples": samples}}, {})
    assert args.log_passrate is kept


# ---- what must never happen --------------------------------------------------------------------------------------------


class Hostile:
    """A sample that raises whatever one asks it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "samples",
    [[], [[]], [None], [Hostile()], "text", None, [{"reward": 1}], [SimpleNamespace()]],
    ids=["none", "an empty group", "a None", "raising", "a string", "None", "a dict", "bare"],
)
def test_no_metric_ends_the_job(samples: Any) -> None:
    for record in ({}, None):
        assert hooks.log_train_rollout(0, slime_args(), samples, record, 0.0) is False
        assert hooks.log_eval_rollout(0, slime_args(), {"d": {"rewards": [], "samples": samples}}, record) is False
    assert hooks.log_eval_rollout(0, slime_args(), {}, None) is False
    assert hooks.log_eval_rollout(0, SimpleNamespace(), {"d": {}}, None) is False


@pytest.mark.parametrize(
    "damage", [{}, {"stats": None}, {"stats": {"tool_calls": 3, "user_cost": "?"}}, {"tokens": "x"}]
)
def test_episodes_of_other_versions_are_read_as_far_as_they_go(damage: dict[str, Any]) -> None:
    odd = StandaloneSample(reward=None, metadata={"tau2": {"blame": "agent", "official_reward": 1.0, **damage}})
    assert train([odd, played(0.0)])["reward"] == 0.5


def test_a_tracker_that_fails_does_not_end_the_job(slime_log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no tracker")

    monkeypatch.setattr(sys.modules["slime.utils.logging_utils"], "log", offline)
    assert hooks.log_train_rollout(0, slime_args(), [played()], None, 1.0) is False


# ---- the filter --------------------------------------------------------------------------------------------------------


def aborted(**known: Any) -> StandaloneSample:
    sample = failed(Termination.ABORTED, **known)
    sample.reward, sample.remove_sample = None, False
    return sample


@pytest.mark.parametrize(
    ("group", "kept", "reason"),
    [
        ([played(1.0), played(0.0)], True, None),
        ([played(1.0), played(0.0), failed(), aborted()], True, None),
        ([played(1.0), played(1.0)], False, "no_spread"),
        ([played(0.0), played(0.0), failed()], False, "no_spread"),
        ([played(1.0), failed(), failed()], False, "too_few_valid"),
        ([played(1.0), aborted()], False, "too_few_valid"),
        ([failed(), failed()], False, "too_few_valid"),
        ([], False, "too_few_valid"),
        ([[played(1.0)], [played(0.0)]], True, None),
    ],
)
def test_a_group_is_kept_if_its_valid_samples_differ(
    group: list[Any], kept: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hooks.keep_informative_groups(slime_args(), group) is kept, "a bare bool without slime"
    module = ModuleType("slime.rollout.filter_hub.base_types")
    module.DynamicFilterOutput = lambda keep, reason: SimpleNamespace(keep=keep, reason=reason)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    answer = hooks.keep_informative_groups(slime_args(), group, rollout_id=3)
    assert (answer.keep, answer.reason) == (kept, reason)


def test_how_many_valid_samples_a_group_needs_is_a_setting() -> None:
    args = slime_args(tau2={"min_valid_samples": 3})
    assert hooks.keep_informative_groups(args, [played(1.0), played(0.0), failed()]) is False
    assert hooks.keep_informative_groups(args, [played(1.0), played(0.0), played(0.0)]) is True


def test_a_dead_simulator_is_told_while_slime_keeps_asking(caplog: pytest.LogCaptureFixture) -> None:
    dead = failed()
    dead.metadata["tau2"]["detail"] = "connection refused"
    hooks.keep_informative_groups(slime_args(), [played(1.0), played(0.0)])
    for _ in range(40):
        hooks.keep_informative_groups(slime_args(), [dead, dead])
    assert [r.levelname for r in caplog.records if "connection refused" in r.getMessage()] == ["ERROR"]


@pytest.mark.parametrize("mapping", [{"simulator_baselin": "batch"}, {"simulator_baseline": "bach"}, ["domain"]])
def test_no_gradient_comes_from_a_configuration_that_nobody_can_read(mapping: Any) -> None:
    """`generate` has refused it for every sample; defaults in its place would train on something that was not asked for."""
    args, group = slime_args(tau2=mapping), [played(1.0, group=0), played(0.0, group=0)]
    for hook in (hooks.post_process_rewards, hooks.keep_informative_groups):
        with pytest.raises(ConfigError, match="tau2"):
            hook(args, group)


def test_a_configuration_that_nobody_can_read_costs_no_metrics() -> None:
    assert train([played(1.0), played(0.0)], tau2={"simulator_baselin": "batch"})["reward"] == 0.5
    assert evaluate([played(1.0), played(0.0)], tau2=["domain"])["pass@1"] == 0.5


@pytest.fixture
def stopped() -> Iterator[None]:
    run_stop.stop_run("the key of openai/a is refused")
    yield
    run_stop.clear()


@pytest.mark.usefixtures("stopped")
def test_a_run_that_cannot_go_on_ends_where_slime_would_train_or_ask_for_more() -> None:
    for hook in (hooks.post_process_rewards, hooks.keep_informative_groups):
        with pytest.raises(ConfigError, match="cannot go on: the key of openai/a is refused"):
            hook(slime_args(), [failed(), failed()])
    assert train([failed()])["excluded"] == 1.0, "the log still says what happened"


# ---- rewards for words -------------------------------------------------------------------------------------------------


def test_a_recited_reward_leaves_the_loss_and_its_group_and_stays_in_the_metrics() -> None:
    """The agent that did nothing is trained on: some tasks want just that."""
    group = [played(1.0, group=0), played(1.0, group=0), played(0.0, group=0), played(1.0, group=0)]
    group[0].metadata["tau2"]["telemetry"] = {"unearned/recitation": 1.0}
    group[1].metadata["tau2"]["telemetry"] = {"unearned/recitation": 0.0, "unearned/nothing": 1.0}
    foreign = SimpleNamespace(metadata={}, remove_sample=False, group_index=1)
    assert hooks.exclude_recited_rewards(slime_args(), [group, [foreign]]) is None
    assert [sample.remove_sample for sample in [*group, foreign]] == [True, False, False, False, False]
    assert (group[0].reward, group[0].metadata["raw_reward"]) == (1.0, 1.0)
    _, normalised = hooks.post_process_rewards(slime_args(n_samples_per_prompt=4), group)
    assert normalised[0] == 0.0
    assert normalised[1] == normalised[3] > 0 > normalised[2]
    assert train(group)["unearned/recitation"] == 0.5  # of the two that say
