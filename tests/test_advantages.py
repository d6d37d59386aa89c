"""`post_process_rewards`: slime's normalisation on clean groups, and what it does about failures and simulators."""

from __future__ import annotations

import itertools
import random
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tau2_slime import errors
from tau2_slime.hooks import post_process_rewards
from tau2_slime.outcome import Termination
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.hook_samples import failed, played, slime_args
from tests.slime_checkout import run_in_slime

rewards = st.sampled_from([0.0, 1.0, 0.25, -0.5, 0.1])
# A batch: groups of (reward, removed).
batches = st.lists(st.lists(st.tuples(rewards, st.booleans()), min_size=1, max_size=8), min_size=1, max_size=5)


def sample(reward: float | None, group: int | None, *, removed: bool = False, user: str = "a") -> Any:
    tau2 = {"domain": "retail", "user_model": user}
    made = StandaloneSample(group_index=group, reward=reward, metadata={"tau2": tau2})
    made.remove_sample, made.status = removed, StandaloneSample.Status.COMPLETED
    return made


def advantages(samples: list[Any], **args: Any) -> list[float]:
    raw, normalised = post_process_rewards(slime_args(**args), samples)
    assert raw == [s.reward or 0.0 for s in samples], "rewards as such are not changed"
    assert len(normalised) == len(samples)
    assert all(type(value) is float for value in raw + normalised)
    return normalised


# ---- against slime -----------------------------------------------------------------------------------------------------

_SLIMES = """
import ast, types
import torch
source = ast.parse(open("slime/ray/rollout.py", encoding="utf-8").read())
method = next(n for n in ast.walk(source) if isinstance(n, ast.FunctionDef) and n.name == "_post_process_rewards")
method.args.args[1].annotation = None
space = {"torch": torch}
exec(compile(ast.Module([method], []), "rollout.py", "exec"), space)

class Sample:
    def __init__(self, reward): self.reward = reward
    def get_reward_value(self, args): return self.reward

answer = []
for batch in given:
    owner = types.SimpleNamespace(custom_reward_post_process_func=None, args=types.SimpleNamespace(**batch["args"]))
    answer.append(space["_post_process_rewards"](owner, [Sample(r) for r in batch["rewards"]]))
"""


def test_whole_groups_get_exactly_what_slime_gives_them(slime: str, python: str) -> None:
    rng = random.Random(0)
    given_batches = []
    for estimator in ("grpo", "gspo", "cispo", "reinforce_plus_plus_baseline", "ppo", "reinforce_plus_plus"):
        for normalise in (True, False):
            for std in (True, False):
                for _ in range(10):
                    size, groups = rng.randint(2, 8), rng.randint(1, 6)
                    values = [rng.choice([0.0, 1.0, 0.5, -0.25, rng.uniform(-1, 1)]) for _ in range(size * groups)]
                    args = {
                        "advantage_estimator": estimator,
                        "rewards_normalization": normalise,
                        "grpo_std_normalization": std,
                        "n_samples_per_prompt": size,
                        "rollout_batch_size": groups,
                    }
                    given_batches.append({"args": args, "rewards": values})
    for batch, (raw, normalised) in zip(given_batches, run_in_slime(_SLIMES, given_batches), strict=True):
        args, values = batch["args"], batch["rewards"]
        size = args["n_samples_per_prompt"]
        for grouped in (True, False):
            samples = [sample(r, i // size if grouped else None) for i, r in enumerate(values)]
            ours = post_process_rewards(slime_args(**args), samples)
            assert ours[0] == raw
            assert ours[1] == pytest.approx(normalised, abs=1e-4)  # slime's are 32-bit


# ---- groups and failures -----------------------------------------------------------------------------------------------
@given(batches, st.randoms(use_true_random=False))
def test_order_and_removed_rewards_change_nothing(batch: list[list[tuple[float, bool]]], rng: random.Random) -> None:
    samples = [sample(r, g, removed=gone) for g, group in enumerate(batch) for r, gone in group]
    before = {id(s): value for s, value in zip(samples, advantages(samples), strict=True)}
    kept = [s for s in samples if not s.remove_sample]
    if kept:
        assert advantages(kept) == pytest.approx([before[id(s)] for s in kept]), "as if the removed had never been"
    rng.shuffle(samples)
    assert advantages(samples) == pytest.approx([before[id(s)] for s in samples])
    assert all(before[id(s)] == 0.0 for s in samples if s.remove_sample)


@given(batches)
def test_a_group_is_centred_and_scaled_over_its_valid_samples(batch: list[list[tuple[float, bool]]]) -> None:
    samples = [sample(r, g, removed=gone) for g, group in enumerate(batch) for r, gone in group]
    values = advantages(samples)
    for g in range(len(batch)):
        pairs = [
            (s.reward, v) for s, v in zip(samples, values, strict=True) if s.group_index == g and not s.remove_sample
        ]
        got = [v for _, v in pairs]
        if len({r for r, _ in pairs}) < 2:
            assert not any(got), "fewer than two, or all alike: nothing to learn"
            continue
        assert sum(got) == pytest.approx(0, abs=1e-6)
        assert sum(v * v for v in got) / (len(got) - 1) == pytest.approx(1, rel=1e-4)
        for (r1, v1), (r2, v2) in itertools.pairwise(pairs):
            assert (r1 > r2) == (v1 > v2) or v1 == pytest.approx(v2)


def test_a_failure_no_longer_makes_success_look_better() -> None:
    group = [played(1.0, group=0), played(1.0, group=0), failed(group=0), failed(group=0)]
    assert advantages(group) == [0.0] * 4


def test_a_policy_that_was_never_asked_earned_nothing() -> None:
    """The first prompt filled the context: τ²'s 0 is there, and would make the others of its group look better."""
    mute = played(0.0, group=0, termination=Termination.CONTEXT_LENGTH, versions=())
    assert not mute.remove_sample and not any(mute.loss_mask or ())
    assert advantages([played(1.0, group=0), played(1.0, group=0), mute]) == [0.0] * 3


def test_an_aborted_sample_without_a_reward_is_no_zero() -> None:
    gone = failed(Termination.ABORTED, group=0)
    gone.reward, gone.remove_sample = None, False
    assert advantages([played(1.0, group=0), played(0.0, group=0), gone], grpo_std_normalization=False) == [
        0.5,
        -0.5,
        0,
    ]


def test_a_sample_that_nobody_scored_does_not_count() -> None:
    values = advantages([sample(1.0, 0), sample(0.0, 0), sample(None, 0)], grpo_std_normalization=False)
    assert values == [0.5, -0.5, 0.0]


def test_an_aborted_sample_does_not_count_whatever_it_was_given() -> None:
    gone = played(1.0, group=0)
    gone.status = StandaloneSample.Status.ABORTED
    assert not gone.remove_sample and gone.reward == 1.0
    assert advantages([played(0.0, group=0), played(0.5, group=0), gone], grpo_std_normalization=False) == [
        -0.25,
        0.25,
        0.0,
    ]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("grpo", [2**-0.5, -(2**-0.5)]),
        ("gspo", [2**-0.5, -(2**-0.5)]),
        ("cispo", [2**-0.5, -(2**-0.5)]),
        ("reinforce_plus_plus_baseline", [1.0, -1.0]),
        ("reinforce_plus_plus", [3.0, 1.0]),
        ("ppo", [3.0, 1.0]),
        (None, [3.0, 1.0]),
    ],
)
def test_each_estimator_gets_what_it_asks_for(estimator: str | None, expected: list[float]) -> None:
    """As slime's `_post_process_rewards` has it: centred and scaled, centred only, or untouched."""
    values = advantages([sample(3.0, 0), sample(1.0, 0)], advantage_estimator=estimator)
    assert values == pytest.approx(expected, rel=1e-5)


def test_the_deviation_has_slimes_epsilon() -> None:
    close = advantages([sample(1e-6, 0), sample(0.0, 0)])
    assert close == pytest.approx([0.5e-6 / (0.5**0.5 * 1e-6 + 1e-6), -0.5e-6 / (0.5**0.5 * 1e-6 + 1e-6)])


def test_without_group_index_groups_are_as_many_samples_in_a_row() -> None:
    values = [1.0, 0.0, 0.5, 0.5, 0.0, 0.2]
    in_pairs = advantages([sample(r, None) for r in values], n_samples_per_prompt=2, grpo_std_normalization=False)
    assert in_pairs == pytest.approx([0.5, -0.5, 0.0, 0.0, -0.1, 0.1])
    one_group = advantages([sample(r, None) for r in values], n_samples_per_prompt=4, grpo_std_normalization=False)
    assert one_group == pytest.approx([r - sum(values) / 6 for r in values])
    unknown = advantages([sample(r, None) for r in values], n_samples_per_prompt=None, grpo_std_normalization=False)
    assert unknown == one_group
    mixed = [sample(r, 7 if i else None) for i, r in enumerate(values)]
    assert advantages(mixed, n_samples_per_prompt=2, grpo_std_normalization=False) == in_pairs


def test_one_group_of_everything_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())
    for _ in range(3):
        advantages([sample(r, None) for r in (1.0, 0.0, 0.5)], n_samples_per_prompt=2)
    (record,) = caplog.records
    assert "3 samples without group_index" in record.getMessage()
    advantages([sample(r, None) for r in (1.0, 0.0)], n_samples_per_prompt=2)
    assert len(caplog.records) == 1


def test_groups_of_uneven_size_are_not_thrown_together() -> None:
    samples = [sample(r, g) for g, r in [(7, 1.0), (3, 1.0), (7, 0.0), (3, 0.0), (3, 0.0), (3, 0.0)]]
    values = advantages(samples, grpo_std_normalization=False)
    assert values == pytest.approx([0.5, 0.75, -0.5, -0.25, -0.25, -0.25])


@pytest.mark.parametrize("changes", [{"advantage_estimator": "ppo"}, {"rewards_normalization": False}])
def test_without_normalisation_rewards_pass(changes: dict[str, Any]) -> None:
    assert advantages([sample(1.0, 0), sample(0.0, 0)], **changes) == [1.0, 0.0]


def test_nothing_gives_nothing() -> None:
    assert advantages([]) == []
    assert advantages([sample(1.0, None)], n_samples_per_prompt=0) == [0.0]


def test_rewards_of_several_parts_are_read_by_slimes_key() -> None:
    samples = [StandaloneSample(group_index=0, reward={"score": r}) for r in (1.0, 0.0)]
    found = post_process_rewards(slime_args(reward_key="score", grpo_std_normalization=False), samples)
    assert found == ([1.0, 0.0], [0.5, -0.5])


# ---- the baseline for each simulator -----------------------------------------------------------------------------------

WITH = {"tau2": {"simulator_baseline": "batch"}}


def rotated(level: float, group: int, effects: dict[str, float]) -> list[Any]:
    """Eight samples over three simulators, three, three and two, as the rotation by index gives them."""
    users = sorted(effects)
    return [sample(level + effects[users[i % 3]], group, user=users[i % 3]) for i in range(8)]


def test_samples_of_other_sources_and_without_a_user_are_simulators_of_their_own() -> None:
    """A mixed batch: samples that no τ² episode filled, solo episodes, and two user models."""
    samples = []
    for g in range(60):
        kinds = [sample(1.0, g, user="a"), sample(0.5, g, user="b"), sample(0.25, g), sample(0.0, g)]
        kinds[2].metadata["tau2"]["user_model"] = None
        kinds[3].metadata = {}
        samples += kinds
    plain = advantages(samples, grpo_std_normalization=False)
    assert plain[:4] == pytest.approx([0.5625, 0.0625, -0.1875, -0.4375])
    assert max(map(abs, advantages(samples, grpo_std_normalization=False, **WITH))) < 0.1


def test_what_is_the_simulators_doing_is_taken_out() -> None:
    effects = {"easy": 0.4, "hard": -0.4, "plain": 0.0}
    samples = [s for g in range(40) for s in rotated((g % 5) / 10, g, effects)]
    plain = advantages(samples, grpo_std_normalization=False)
    baseline = advantages(samples, grpo_std_normalization=False, **WITH)
    assert max(map(abs, plain)) > 0.3
    assert max(map(abs, baseline)) < 0.1


@given(batches)
def test_with_one_simulator_it_changes_nothing(batch: list[list[tuple[float, bool]]]) -> None:
    samples = [sample(r, g, removed=gone) for g, group in enumerate(batch) for r, gone in group]
    assert advantages(samples, **WITH) == pytest.approx(advantages(samples))


group_of_three = st.lists(st.tuples(rewards, st.sampled_from("abc")), min_size=1, max_size=8)


@given(st.lists(group_of_three, min_size=1, max_size=4), group_of_three, st.integers(0, 40))
@example([[(1.0, "a"), (0.9, "b")]], [(1.0, "a"), (1.0, "a"), (0.0, "b"), (0.0, "b")], 40)
def test_no_simulator_makes_a_groups_best_bad_or_its_worst_good(
    batch: list[list[tuple[float, str]]], pattern: list[tuple[float, str]], times: int
) -> None:
    """``pattern``, met often, is what makes the effects of the simulators large."""
    batch = [*batch, *[pattern] * times]
    samples = [sample(r, g, user=user) for g, group in enumerate(batch) for r, user in group]
    values = advantages(samples, **WITH)
    for g, group in enumerate(batch):
        inside = [r for r, _ in group]
        for s, value in zip(samples, values, strict=True):
            if s.group_index == g and s.reward == max(inside):
                assert value >= -1e-12
            if s.group_index == g and s.reward == min(inside):
                assert value <= 1e-12


def test_a_strong_effect_takes_no_more_than_the_group_spread() -> None:
    """The effects of the two are about 0.45 each, far more than the 0.1 between the two samples of the last group."""
    often = [[(1.0, "easy"), (1.0, "easy"), (0.0, "hard"), (0.0, "hard")]] * 40
    batch = [*often, [(1.0, "easy"), (0.9, "hard")]]
    samples = [sample(r, g, user=user) for g, group in enumerate(batch) for r, user in group]
    assert advantages(samples, grpo_std_normalization=False, **WITH)[-2:] == [0.0, 0.0]


def test_the_baseline_is_the_ridge_solution() -> None:
    """Ten groups of two easy samples and a hard one, the normal equations solved by hand.

    Less its mean in the group, "easy" is 1/3, 1/3, -2/3, and "hard" the opposite. So each group adds 2/3 to the diagonal,
    -2/3 beside it, and 2/3 and -2/3 to the target. With a shrinkage of 8, (8 + 2 * 20/3) e = 20/3: e = 5/16.
    """
    samples = [sample(r, g, user=user) for g in range(10) for r, user in ((1.0, "easy"), (1.0, "easy"), (0.0, "hard"))]
    level = 2 / 3 - (2 - 1) * 5 / 16 / 3
    easy, hard = 1 - (level + 5 / 16), 0 - (level - 5 / 16)
    assert (easy, hard) == (pytest.approx(1 / 8), pytest.approx(-1 / 4))
    values = advantages(samples, grpo_std_normalization=False, **WITH)
    assert values == pytest.approx([easy, easy, hard] * 10)


def test_how_hard_a_task_is_is_not_the_simulators_doing() -> None:
    """In easy tasks a and b earn the same, in hard ones b and c: a seems better than c only because of its tasks."""
    easy, hard = [(1.0, "a"), (0.8, "a"), (1.0, "b"), (0.8, "b")], [(0.2, "b"), (0.0, "b"), (0.2, "c"), (0.0, "c")]
    samples = [sample(r, g, user=user) for g in range(40) for r, user in (hard if g % 2 else easy)]
    assert advantages(samples, **WITH) == pytest.approx(advantages(samples))


def test_a_simulator_that_was_hardly_seen_is_hardly_believed() -> None:
    group = [sample(1.0, 0, user="rare"), *(sample(r, 0, user="usual") for r in (0.0, 0.0, 1.0))]
    values = advantages(group, grpo_std_normalization=False, **WITH)
    assert values == pytest.approx(advantages(group, grpo_std_normalization=False), abs=0.1)


def test_the_same_simulator_may_be_easy_in_one_domain_and_hard_in_another() -> None:
    samples = []
    for g in range(40):
        sign = 1 if g % 2 else -1
        group = rotated(0.0, g, {"a": 0.4 * sign, "b": -0.4 * sign, "c": 0.0})
        for s in group:
            s.metadata["tau2"]["domain"] = "airline" if g % 2 else "retail"
        samples += group
    assert max(map(abs, advantages(samples, grpo_std_normalization=False, **WITH))) < 0.15


def test_the_filter_that_the_training_page_shows_leaves_truncated_episodes_out() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text()
    code = textwrap.dedent(page.split("```python\n")[1].split("```")[0])
    space: dict[str, Any] = {}
    exec(code, space)
    cut = Termination.MAX_TURNS
    group = [played(1.0, group=0), played(0.0, group=0), played(0.0, group=0, termination=cut), failed(group=0)]
    space["leave_out_truncated"](slime_args(), [group])
    assert [s.remove_sample for s in group] == [False, False, True, True]
    assert advantages(group, grpo_std_normalization=False) == [0.5, -0.5, 0.0, 0.0]
