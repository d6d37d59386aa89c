"""How old the weights behind the trained tokens are, what a bound on it does, and which weights an evaluation belongs to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime import errors, hooks
from tau2_slime.slime_adapter import weights
from tests.fresh import forget_users
from tests.hook_samples import failed, played, slime_args

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_users()
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())
    yield
    forget_users()


def see(*samples: Any) -> None:
    """As `generate` does when these end."""
    for sample in samples:
        weights.saw(sample.weight_versions)


def group(index: int, *versions: tuple[str, ...]) -> list[Any]:
    """Samples of one group with rewards 1, 0, 1, ...; three tokens for each weight version."""
    made = [played(float(i % 2 == 0), versions=each, group=index) for i, each in enumerate(versions)]
    see(*made)
    return made


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 5))
def test_every_trained_token_is_as_old_as_the_updates_since_its_weights(episodes: list[list[int]], later: int) -> None:
    weights.forget()
    made = [played(versions=tuple(map(str, each))) for each in episodes]
    see(*made)
    latest = max(max(each) for each in episodes) + later
    weights.saw([str(latest)])
    for sample, each in zip(made, episodes, strict=True):
        expected: Counter[int] = Counter()
        for version in each:
            expected[latest - version] += 3
        assert weights.lags(sample) == expected
    told = weights.lag_metrics(made)
    oldest = min(min(each) for each in episodes)
    assert told["weight_lag/max"] == weights.lag(made) == latest - oldest
    shares = {name: value for name, value in told.items() if "/share/" in name}
    assert sum(shares.values()) == pytest.approx(1.0)
    flat = [latest - version for each in episodes for version in each]
    assert told["weight_lag/mean"] == pytest.approx(sum(flat) / len(flat))
    assert told["weight_lag/share/2"] == pytest.approx(flat.count(2) / len(flat))
    assert told["weight_lag/share/8_or_more"] == pytest.approx(sum(n >= 8 for n in flat) / len(flat))


def test_what_slime_masked_has_no_lag() -> None:
    sample = played(versions=("1", "5"))
    see(sample)
    assert weights.lag([sample]) == 4
    assert sample.loss_mask is not None
    sample.loss_mask[:3] = [0, 0, 0]  # --mask-offpolicy-in-partial-rollout
    assert weights.lag([sample]) == 0
    assert weights.lags(sample) == {0: 3}


def test_failures_and_weights_without_a_number_have_no_lag() -> None:
    weights.saw(["9", "default", None])
    assert weights.newest() == 9
    assert weights.lag([failed(versions=("1",)), played(versions=("default",))]) == 0
    assert weights.lag_metrics([failed(versions=("1",))]) == {}


def test_the_filter_drops_groups_that_are_too_old(caplog: pytest.LogCaptureFixture) -> None:
    old, fresh = group(0, ("3", "7"), ("7",)), group(1, ("5", "7"), ("7",))
    for bound, kept in ((None, (True, True)), (4, (True, True)), (3, (False, True)), (0, (False, False))):
        args = slime_args(tau2={"max_weight_lag": bound})
        assert (hooks.keep_informative_groups(args, old), hooks.keep_informative_groups(args, fresh)) == kept
    told = [r.getMessage() for r in caplog.records if "not trained on" in r.getMessage()]
    assert told == [
        "a group is not trained on: its oldest trained tokens are 4 weight updates old, max_weight_lag is 3"
    ]


def test_what_no_filter_sees_is_taken_out_before_training(caplog: pytest.LogCaptureFixture) -> None:
    """Fully-async rollouts call no filter: the old group is left out of the loss, the other's advantages stay."""
    batch = [*group(0, ("1",), ("6",)), *group(1, ("5",), ("6",))]
    alone = hooks.post_process_rewards(slime_args(n_samples_per_prompt=2), batch[2:])[1]
    args = slime_args(n_samples_per_prompt=2, tau2={"max_weight_lag": 2})
    metrics: dict[str, Any] = {}
    hooks.log_train_rollout(0, args, batch, metrics, 1.0)
    _, advantages = hooks.post_process_rewards(args, batch)
    assert [sample.remove_sample for sample in batch] == [True, True, False, False]
    assert advantages == [0.0, 0.0, *alone] and alone[0] > 0
    assert metrics["rollout/tau2/groups_stale"] == 0.5
    assert metrics["rollout/tau2/weight_lag/max"] == 5.0


def test_an_evaluation_says_which_weights_it_belongs_to(caplog: pytest.LogCaptureFixture) -> None:
    one, mixed = (
        [played(versions=("4",)), played(versions=("4", "4"))],
        [played(versions=("4", "5")), played(versions=("6",))],
    )
    metrics: dict[str, Any] = {}
    hooks.log_eval_rollout(3, slime_args(), {"one": {"samples": one}, "mixed": {"samples": mixed}}, metrics)
    names = ("distinct", "oldest", "newest")
    assert [metrics[f"eval/one/tau2/weight_versions/{name}"] for name in names] == [1.0, 4.0, 4.0]
    assert [metrics[f"eval/mixed/tau2/weight_versions/{name}"] for name in names] == [3.0, 4.0, 6.0]
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert told.startswith("evaluation mixed of rollout 3 was sampled with the weight versions 4, 5, 6")
