"""banking_knowledge: the agent reads documents as it was told to, and is paid what τ² pays. Needs a τ² with that domain."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.files import source_hashes
from tau2_slime.data.rows import Row, row_task
from tau2_slime.episode.history import replay_calls
from tau2_slime.episode.setup import playable
from tau2_slime.errors import CannotResume, ConfigError
from tau2_slime.evaluation.plan.datasets import default_plan
from tau2_slime.evaluation.store.protocol import dataset_protocol
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.policy.checkpoint import build_profile
from tau2_slime.policy.context_plan import longest_first_prompt
from tau2_slime.rollout import plan_jobs
from tau2_slime.world import domains, retrieval, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.guards import LONG_ANSWER
from tests import parity_play as play
from tests.parity_play import Call
from tests.world.twins import Player, gold_calls, stock_reward

BANK = "banking_knowledge"
pytestmark = pytest.mark.skipif(BANK not in domains.domains(), reason="this τ² has no banking_knowledge domain")
OFFLINE = ("no_knowledge", "full_kb", "golden_retrieval", "grep_only", "bm25", "bm25_grep")
SEARCHES = [Call("KB_search", {"query": "wire transfer fee"}), Call("grep", {"pattern": "credit.*card"})]


def untimed(result: Any) -> tuple[str, bool]:
    return re.sub(r"\[Timing: .*\]\Z", "", result.content or ""), result.error


def tau2_environment(task: Any, variant: str) -> Any:
    constructor = tau2_compat.load().registry.get_env_constructor(BANK)
    return constructor(**play.runner_env_kwargs(BANK, task, variant))


def corrupted(calls: list[Call], rng: random.Random) -> list[Call]:
    """The gold calls with one left out, made twice, or made with another text for one of its texts."""
    calls = copy.deepcopy(calls)
    at = rng.randrange(len(calls))
    kind = rng.choice(("drop", "twice", "change"))
    if kind == "drop":
        return calls[:at] + calls[at + 1 :]
    if kind == "twice":
        return [*calls, Call(**{**vars(calls[at]), "id": "again"})]
    texts = [key for key, value in calls[at].arguments.items() if isinstance(value, str)]
    if texts:
        calls[at].arguments[rng.choice(texts)] = "something else"
    return calls


def play_out(task: Any, variant: str, calls: list[Call]) -> Player:
    player = Player(BANK, task, variant=variant)
    for number, call in enumerate([*SEARCHES, *calls]):
        player.call(Call(**{**vars(call), "id": f"call_{number}"}))
    player.say("Done.")
    return player


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", OFFLINE)
def test_gold_and_corrupted_play_earn_what_tau2_pays(variant: str) -> None:
    rng = random.Random(variant)
    pool = [play.without_judge(task) for task in domains.tasks(BANK, "base") if gold_calls(task)]
    rewards = []
    for task in rng.sample(pool, 6):
        for calls in (gold_calls(task), corrupted(gold_calls(task), rng)):
            player = play_out(task, variant, calls)
            assert player.world.quick, "the fast path was left"
            expected = stock_reward(player)
            assert player.reward() == expected, (task.id, calls)
            rewards.append(expected["reward"])
    assert {0.0, 1.0} <= set(rewards)


@pytest.mark.parametrize("variant", OFFLINE)
def test_an_agent_reads_what_tau2_would_let_it_read(variant: str) -> None:
    for task in domains.tasks(BANK, "base")[:2]:
        ours, theirs = Player(BANK, task, variant=variant), tau2_environment(task, variant)
        assert ours.world.policy == theirs.get_policy()
        assert [t.name for t in ours.world.agent_tools] == [t.name for t in theirs.get_tools()]
        for number, call in enumerate(SEARCHES):
            asked = tau2_compat.load().ToolCall(**{**vars(call), "id": str(number)})
            assert untimed(ours.call(Call(**{**vars(call), "id": str(number)}))) == untimed(theirs.get_response(asked))


def test_episodes_share_the_index_and_nothing_that_they_write() -> None:
    one, two = (Player(BANK, task, variant="bm25_grep") for task in domains.tasks(BANK, "base")[:2])
    tools, others = one.world.environment.tools, two.world.environment.tools
    assert tools._kb_pipeline is others._kb_pipeline and tools._grep_pipeline is others._grep_pipeline
    assert tools._kb_pipeline is not tools._grep_pipeline
    assert tools.db is not others.db and one.world.environment.user_tools.db is tools.db


# ---- the choice ----------------------------------------------------------------------------------------------------------


def test_nobody_plays_without_a_choice() -> None:
    row = Row({"metadata": {"domain": BANK, "task_split": "base", "task_id": domains.splits(BANK)["base"][0]}}, "here")
    doors: list[Any] = [
        lambda: plan_jobs([BANK], None, [], 1, 1, Tau2Config()),
        lambda: default_plan([BANK], ["scripted"], tasks=1),
        lambda: row_task(row),
        lambda: playable(Tau2Config(domain=BANK), "base"),
    ]
    for door in doors:
        with pytest.raises(ConfigError, match=r"needs a retrieval_variant.*no_knowledge.*bm25_grep"):
            door()
    assert row_task(row, tau2={"retrieval_variant": "no_knowledge"}).task is not None


def test_a_choice_is_no_business_of_other_domains() -> None:
    config = Tau2Config(retrieval_variant="bm25")
    assert plan_jobs(["mock"], None, [], 1, 1, config)
    world = World("mock", "base", domains.tasks("mock", "base")[0], env_kwargs=config.environment)
    assert "retrieval_variant" not in world.env_kwargs


def test_an_unknown_variant_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"retrieval_variant='bm26' is unknown.*bm25_grep"):
        retrieval.require(BANK, {"retrieval_variant": "bm26"})


def test_what_a_variant_needs_is_named_before_anything_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    needs = {
        "openai_embeddings": "OPENAI_API_KEY",
        "qwen_embeddings_reranker": "OPENAI_API_KEY.*OPENROUTER_API_KEY",
        "bm25_reranker": "OPENAI_API_KEY",
        "terminal_use": "srt.*rg.*bwrap.*socat",
        "alltools-qwen": "srt.*OPENROUTER_API_KEY",
    }
    for name, wanted in needs.items():
        with pytest.raises(ConfigError, match=wanted):
            retrieval.require(BANK, {"retrieval_variant": name})
    monkeypatch.setattr(retrieval, "_absent", lambda packages: packages)
    with pytest.raises(ConfigError, match="pip install rank-bm25"):
        retrieval.require(BANK, {"retrieval_variant": "bm25"})
    assert retrieval.require(BANK, {"retrieval_variant": "grep_only"}) is not None


def test_an_evaluation_records_the_variant_and_the_split() -> None:
    def protocol(variant: str) -> Any:
        plan = default_plan([BANK], ["scripted"], tasks=2, overrides={"retrieval_variant": variant})
        return dataset_protocol(plan.datasets[0])

    one, two = protocol("bm25"), protocol("grep_only")
    assert one["environment"] == {"retrieval_variant": "bm25"} and one["policy_prompt"] != two["policy_prompt"]
    assert one["domains"] == [f"{BANK}/test"]
    assert one["task_files"][f"{BANK}/test by seed 0"] == domains.made_split_hash(BANK, "test")


# ---- the split -----------------------------------------------------------------------------------------------------------


def test_train_and_test_are_apart_and_together_everything() -> None:
    splits = domains.splits(BANK)
    train, test, base = (set(splits[name]) for name in ("train", "test", "base"))
    assert not train & test and train | test == base
    assert len(test) == 29  # 30 % of 97
    assert source_hashes(BANK, "train") != source_hashes(BANK, "test")
    assert domains.made_split_hash("mock", "base") is None


# ---- the context ---------------------------------------------------------------------------------------------------------


def test_a_knowledge_base_that_does_not_fit_is_told_before_the_first_episode() -> None:
    profile = build_profile(str(local_checkpoint()), Tau2Config())
    task = domains.splits(BANK)["base"][0]

    def asked(variant: str, limit: int | None) -> tuple[int, str]:
        config = Tau2Config(domain=BANK, task_split="base", retrieval_variant=variant)
        return longest_first_prompt([(config, task)], profile, limit)

    tokens, where = asked("bm25", 32_768)
    assert 1_000 < tokens < 32_768 and where == f"{BANK}/{task}"
    with pytest.raises(ConfigError, match=r"full_kb.*first prompt alone has \d{3},\d{3} tokens, the context 32,768"):
        asked("full_kb", 32_768)
    with pytest.raises(ConfigError, match=rf"has {tokens:,} tokens, the context {tokens:,}"):
        asked("bm25", tokens)


# ---- searching -----------------------------------------------------------------------------------------------------------


def searched() -> Player:
    player = Player(BANK, domains.tasks(BANK, "base")[0], variant="bm25_grep")
    for number, call in enumerate(SEARCHES):
        player.call(Call(**{**vars(call), "id": str(number)}))
    return player


def test_an_interrupted_search_is_taken_up_again_although_it_takes_another_time() -> None:
    player = searched()
    found = next(m for m in player.messages if m.role == "tool")
    found.content = re.sub(r"\d+ms", "987654ms", found.content)
    begun = player.messages[:1]
    again = World(BANK, "base", player.task, env_kwargs={"retrieval_variant": "bm25_grep"})
    replay_calls(again, begun, player.messages, {})
    found.content = found.content.replace("Content: ", "Content: not ", 1)
    again = World(BANK, "base", player.task, env_kwargs={"retrieval_variant": "bm25_grep"})
    with pytest.raises(CannotResume, match="KB_search"):
        replay_calls(again, begun, player.messages, {})


def test_an_answer_of_half_the_library_is_refused_and_scored_without_it() -> None:
    task = domains.tasks(BANK, "base")[0]
    everything = {"retrieval_variant": "grep_only", "retrieval_kwargs": {"grep_top_k": 698}}
    world = World(BANK, "base", task, env_kwargs=everything)
    call = tau2_compat.load().ToolCall(id="1", name="grep", arguments={"pattern": "e"}, requestor="assistant")
    result, reached = world.call(call)
    assert (result.error, reached) == (True, False) and LONG_ANSWER in result.content
    assert world.ran == []


def test_the_data_of_a_training_job_has_both_splits(tmp_path: Path) -> None:
    from tau2_slime.data.command import main

    assert main(["--domains", BANK, "--output_dir", str(tmp_path)]) in (0, None)
    names = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert names == [f"{BANK}_test_tasks.jsonl", f"{BANK}_train_tasks.jsonl"]
    assert domains.made_split_hash(BANK, "train") in (tmp_path / "tau2_manifest.json").read_text()
