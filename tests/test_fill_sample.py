"""`fill_sample` field by field: what the trainer reads of an episode that was paid, removed, interrupted or never began."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest

from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.episode.result import EpisodeStats, InteractionResult, failed_result
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Blame, Termination
from tau2_slime.slime_adapter.sample import (
    StandaloneSample,
    fill_sample,
    is_interrupted,
    metadata_of,
    read_metadata,
    replay_spec,
)
from tau2_slime.tokens.digest import trajectory_digest
from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.replay import NOTHING, CallReplay, ExpertShape, ReplaySpec
from tau2_slime.tokens.template.chat_template import ChatTemplate

pytestmark = pytest.mark.fast
Status = StandaloneSample.Status


class Words:
    """A template that decodes ids to numbers, and whose turns end with 7 or 9."""

    stop_ids = frozenset({9, 7})

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


WORDS = cast(ChatTemplate, Words())


def ledger() -> TokenLedger:
    made = TokenLedger([1, 2, 3])
    made.append_sampled([10, 9], [-0.5, -0.25], "4")
    made.append_context([20, 21])
    made.append_sampled([11, 9], [-1.0, -2.0], "5")
    return made


def episode(**changes: Any) -> InteractionResult:
    facts: dict[str, Any] = {
        **{"domain": "mock", "task_split": "base", "task_id": "t", "agent_type": "llm", "user_model": "scripted"},
        **{
            "agent_path": "a.B",
            "agent_strategy": "react",
            "user_strategy": "rules",
            "termination": Termination.USER_STOP,
        },
        **{"blame": Blame.AGENT, "reward": 1.0, "reward_info": {"reward_breakdown": {"DB": 1.0}}, "ledger": ledger()},
        "stats": EpisodeStats(agent_turns=2, generation_time=1.0, total_time=3.5, user_played={"m": 2, "n": 1}),
    }
    return InteractionResult(**{**facts, **changes})


def test_a_scored_episode() -> None:
    sample = StandaloneSample(index=4, group_index=1, prompt="p", session_id="s", metadata={"domain": "mock", "row": 8})
    assert fill_sample(sample, episode(), template=WORDS) is sample
    assert (sample.index, sample.group_index, sample.prompt, sample.session_id) == (4, 1, "p", "s")
    assert sample.tokens == [1, 2, 3, 10, 9, 20, 21, 11, 9]
    assert sample.response == "10 9 20 21 11 9"
    assert sample.response_length == 6
    assert sample.loss_mask == [1, 1, 0, 0, 1, 1]
    assert sample.rollout_log_probs == [-0.5, -0.25, 0.0, 0.0, -1.0, -2.0]
    assert sample.weight_versions == ["4", "5"]
    assert (sample.reward, sample.status, sample.remove_sample) == (1.0, Status.COMPLETED, False)
    assert sample.non_generation_time == 2.5
    told = sample.metadata["tau2"]
    assert {"domain": "mock", "row": 8, "raw_reward": 1.0, "round_number": 2, "tau2": told} == sample.metadata
    said = (
        "domain",
        "task_split",
        "task_id",
        "agent_type",
        "agent_path",
        "agent_strategy",
        "user_model",
        "user_strategy",
    )
    assert [told[name] for name in said] == ["mock", "base", "t", "llm", "a.B", "react", "scripted", "rules"]
    assert told["user_played"] == ["m", "n"]
    assert (told["termination"], told["blame"], told["excluded"]) == ("user_stop", "agent", False)
    assert (told["official_reward"], told["reward_breakdown"]) == (1.0, {"DB": 1.0})
    assert (told["detail"], told["restarted"]) == ("", "")
    assert told["tokens"] == {"prompt": 3, "sampled": 4, "context": 2}
    assert [(part["kind"], part["start"], part["stop"], part["weight_version"]) for part in told["segments"]] == [
        ("sampled", 3, 5, "4"),
        ("context", 5, 7, None),
        ("sampled", 7, 9, "5"),
    ]
    assert told["fingerprint"] == trajectory_digest(sample.tokens, sample.rollout_log_probs)
    assert (told["stats"]["agent_turns"], told["stats"]["user_played"]) == (2, {"m": 2, "n": 1})
    assert told["telemetry"]["loops"] == 0.0


def test_examples_and_a_retrieval_variant_are_told_where_there_are_any() -> None:
    told = fill_sample(StandaloneSample(), episode(examples="Example 1", retrieval_variant="bm25")).metadata["tau2"]
    assert (told["examples"], told["retrieval_variant"]) == ("Example 1", "bm25")
    told = fill_sample(StandaloneSample(), episode()).metadata["tau2"]
    assert not {"examples", "retrieval_variant"} & told.keys()


def test_a_line_of_samples_jsonl_is_read_back_as_it_was() -> None:
    sample = fill_sample(StandaloneSample(index=4, prompt="p"), episode(reward=0.5), template=WORDS)
    row = sample.row()
    assert (row["status"], row["index"], row["tokens"]) == ("completed", 4, sample.tokens)
    assert StandaloneSample.of_row(json.loads(json.dumps(row))) == sample


def test_the_samples_lists_are_its_own() -> None:
    """The ledger may be read later, for the trajectory file; slime changes its samples."""
    result, sample = episode(), StandaloneSample()
    fill_sample(sample, result, template=WORDS)
    assert sample.loss_mask is not None and sample.rollout_log_probs is not None
    for values in (sample.tokens, sample.loss_mask, sample.rollout_log_probs, sample.weight_versions):
        values.clear()
    assert result.ledger is not None
    result.ledger.check()
    assert result.ledger.weight_versions == ["4", "5"]


def test_a_failed_task_is_trained_on_and_a_limit_is_truncated() -> None:
    failed = fill_sample(StandaloneSample(), episode(reward=0.0), template=WORDS)
    assert (failed.reward, failed.status, failed.remove_sample) == (0.0, Status.COMPLETED, False)
    limit = episode(reward=0.0, blame=Blame.LIMIT, termination=Termination.MAX_STEPS)
    cut = fill_sample(StandaloneSample(), limit, template=WORDS)
    assert (cut.status, cut.remove_sample, cut.loss_mask) == (Status.TRUNCATED, False, [1, 1, 0, 0, 1, 1])


def test_shaping_changes_the_reward_and_not_the_raw_one() -> None:
    shaping = RewardShaping(turn_penalty=0.1, max_penalty=0.5)
    sample = fill_sample(StandaloneSample(), episode(), template=WORDS, shaping=shaping)
    assert sample.reward == pytest.approx(0.8)
    assert (sample.metadata["raw_reward"], sample.metadata["tau2"]["official_reward"]) == (1.0, 1.0)


def test_a_removed_episode_teaches_nothing_and_says_what_it_would_have_been_paid() -> None:
    result = episode(blame=Blame.USER, termination=Termination.USER_ERROR, detail="the simulator left")
    sample = fill_sample(StandaloneSample(), result, template=WORDS, shaping=RewardShaping(turn_penalty=0.1))
    assert (sample.reward, sample.status, sample.remove_sample) == (0.0, Status.FAILED, True)
    assert sample.tokens == [1, 2, 3, 10, 9, 20, 21, 11, 9]
    assert (sample.loss_mask, sample.rollout_log_probs) == ([0] * 6, [0.0] * 6)
    told = sample.metadata["tau2"]
    assert (sample.metadata["raw_reward"], told["official_reward"], told["excluded"]) == (0.0, 1.0, True)
    assert (told["detail"], told["tokens"]["sampled"]) == ("the simulator left", 4)


def test_an_interrupted_episode_keeps_what_was_sampled() -> None:
    saved = {"messages": []}
    result = episode(
        termination=Termination.ABORTED, reward=None, blame=Blame.INFRASTRUCTURE, saved=saved, restarted="why"
    )
    sample = fill_sample(StandaloneSample(), result, template=WORDS, shaping=RewardShaping(turn_penalty=0.1))
    assert (sample.reward, sample.status, sample.remove_sample) == (0.0, Status.ABORTED, True)
    assert sample.loss_mask == [1, 1, 0, 0, 1, 1]
    assert sample.rollout_log_probs == [-0.5, -0.25, 0.0, 0.0, -1.0, -2.0]
    assert sample.metadata["tau2_resume"] == saved
    assert sample.metadata["tau2"]["restarted"] == "why"
    assert is_interrupted(sample)
    fill_sample(sample, episode(), template=WORDS)
    assert "tau2_resume" not in sample.metadata
    assert not is_interrupted(sample)
    sample.status = Status.ABORTED
    assert not is_interrupted(sample)


@pytest.mark.parametrize(("template", "pad"), [(WORDS, 7), (None, 0)])
def test_an_episode_that_never_began_still_has_one_token_of_each(template: ChatTemplate | None, pad: int) -> None:
    sample = fill_sample(StandaloneSample(), failed_result("no server"), template=template)
    assert (sample.tokens, sample.response, sample.response_length) == ([pad, pad], "", 1)
    assert (sample.loss_mask, sample.rollout_log_probs, sample.weight_versions) == ([0], [0.0], [])
    assert (sample.status, sample.remove_sample, sample.reward) == (Status.FAILED, True, 0.0)
    told = sample.metadata["tau2"]
    assert (told["detail"], told["official_reward"], told["reward_breakdown"]) == ("no server", None, None)
    assert told["tokens"] == {"prompt": 0, "sampled": 0, "context": 0}
    assert told["segments"] == []


def test_an_episode_without_a_response_gets_one_token_after_its_prompt() -> None:
    sample = fill_sample(StandaloneSample(), episode(ledger=TokenLedger([1, 2]), reward=0.0), template=WORDS)
    assert (sample.tokens, sample.loss_mask, sample.rollout_log_probs) == ([1, 2, 7], [0], [0.0])
    assert sample.metadata["tau2"]["tokens"]["prompt"] == 2


def test_time_is_never_negative() -> None:
    stats = EpisodeStats(generation_time=2.0, total_time=1.0)
    assert fill_sample(StandaloneSample(), episode(stats=stats)).non_generation_time == 0.0


def test_the_conversation_is_kept_where_it_is_asked_for() -> None:
    result = episode(rejected_calls={1: [0]}, generations=[{"id": "x"}])
    sample = fill_sample(StandaloneSample(), result, template=WORDS, keep_trajectory=True)
    assert sample.metadata["tau2_trajectory"] == {
        **{"messages": [], "rejected_calls": {1: [0]}, "generations": [{"id": "x"}]},
        "reward_info": {"reward_breakdown": {"DB": 1.0}},
    }
    assert "tau2_trajectory" not in fill_sample(StandaloneSample(), result, template=WORDS).metadata


def test_only_the_calls_of_this_rollout_are_counted() -> None:
    @dataclass
    class Counts:
        metas: list[Any] = field(default_factory=list)

        def add(self, meta: Any) -> None:
            self.metas.append(meta)

    @dataclass
    class Counting(StandaloneSample):
        spec_info: Counts = field(default_factory=Counts)

    result = episode(generations=[{"id": "old"}, {"id": "new"}], earlier_generations=1)
    sample = fill_sample(Counting(), result, template=WORDS)
    assert sample.spec_info.metas == [{"id": "new"}]


# ---- what the trainer replays ----------------------------------------------------------------------------------------


class Args:
    """Of slime's arguments those that are given."""

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)


R3 = {"use_rollout_routing_replay": True, "num_layers": 2, "moe_router_topk": 2, "num_experts": 8}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, NOTHING),
        ({"rollout_top_p": 1.0}, NOTHING),
        ({"rollout_top_p": None}, NOTHING),
        ({"rollout_top_p": 0.9}, ReplaySpec(True)),
        (R3, ReplaySpec(False, ExpertShape(2, 2, 8))),
        ({**R3, "num_experts": None, "rollout_top_p": 0.9}, ReplaySpec(True, ExpertShape(2, 2, None))),
        ({**R3, "use_rollout_routing_replay": False}, NOTHING),
    ],
)
def test_what_is_replayed(given: dict[str, Any], wanted: ReplaySpec) -> None:
    args = cast(Any, Args(**given))
    assert replay_spec(args, StandaloneSample(), evaluation=False) == wanted
    assert replay_spec(args, StandaloneSample(), evaluation=True) == NOTHING


@pytest.mark.parametrize("missing", ["num_layers", "moe_router_topk"])
def test_experts_without_the_models_sizes_are_refused(missing: str) -> None:
    with pytest.raises(ConfigError, match="--num-layers and --moe-router-topk"):
        replay_spec(cast(Any, Args(**{**R3, missing: None})), StandaloneSample(), evaluation=False)


def test_a_sample_gets_what_its_ledger_has_to_replay() -> None:
    spec = ReplaySpec(True)
    kept = TokenLedger([1, 2], spec)
    kept.append_sampled([3, 9], [-0.5, -0.5], None, CallReplay(array("i", [3, 4, 9]), [0, 2, 3]))
    sample = fill_sample(StandaloneSample(), episode(ledger=kept), template=WORDS, replay=spec)
    assert list(sample.rollout_top_p_token_ids) == [3, 4, 9]
    assert list(sample.rollout_top_p_token_offsets) == [0, 2, 3]


def test_a_batch_that_replays_gets_the_fields_from_every_sample() -> None:
    spec = ReplaySpec(True, ExpertShape(2, 2, 8))
    sample = fill_sample(StandaloneSample(), episode(), template=WORDS, replay=spec)  # its ledger knows no replay
    assert list(sample.rollout_top_p_token_ids) == []
    assert list(sample.rollout_top_p_token_offsets) == [0] * 7
    assert np.shape(sample.rollout_routed_experts) == (8, 2, 2)
    only_top_p = fill_sample(StandaloneSample(), episode(), template=WORDS, replay=ReplaySpec(True))
    assert only_top_p.rollout_routed_experts is None
    only_experts = fill_sample(StandaloneSample(), episode(), template=WORDS, replay=ReplaySpec(False, spec.experts))
    assert only_experts.rollout_top_p_token_ids is None
    assert np.shape(only_experts.rollout_routed_experts) == (8, 2, 2)


def test_an_episode_that_never_began_fits_into_a_batch_that_replays() -> None:
    spec = ReplaySpec(True, ExpertShape(2, 2, 8))
    sample = fill_sample(StandaloneSample(), failed_result("no such task"), template=WORDS, replay=spec)
    assert list(sample.rollout_top_p_token_ids) == [] and list(sample.rollout_top_p_token_offsets) == [0, 0]
    assert np.shape(sample.rollout_routed_experts) == (len(sample.tokens) - 1, 2, 2)


def test_a_slime_without_fields_for_kept_sets_trains_without_them() -> None:
    @dataclass
    class Before:
        tokens: list[int] = field(default_factory=list)

    args = cast(Any, Args(rollout_top_p=0.9))
    assert replay_spec(args, cast(Any, Before()), evaluation=False) == NOTHING


# ---- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"domain": "mock"}, {"domain": "mock"}),
        ('{"domain": "mock"}', {"domain": "mock"}),
        (MappingProxyType({"domain": "mock"}), {"domain": "mock"}),
        (None, {}),
    ],
)
def test_metadata_is_read(given: Any, read: dict[str, Any]) -> None:
    found = read_metadata(cast(Any, Args(metadata=given)))
    assert (type(found), found) == (dict, read)
    assert read_metadata(cast(Any, Args())) == {}


@pytest.mark.parametrize("given", ["text", "[1]", "7", [1], 0, "[" * 100_000])
def test_metadata_that_is_not_a_mapping_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="not a mapping such as"):
        read_metadata(cast(Any, Args(metadata=given)))
    assert metadata_of(cast(Any, Args(metadata=given))) == {}


def test_metadata_that_is_a_mapping_is_handed_on_as_it_is() -> None:
    given = {"a": 1}
    assert read_metadata(cast(Any, Args(metadata=given))) is given
    assert metadata_of(cast(Any, Args(metadata=given))) is given
    assert metadata_of(cast(Any, Args())) == {}
    assert not is_interrupted(cast(Any, Args()))
