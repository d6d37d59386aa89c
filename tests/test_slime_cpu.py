"""The driver of slime's rollout code has no slime in it until it is given one; what judges slime is judged here."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.local.tokenizer import build_local_checkpoint
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.tokens.engine import SglangEngine
from tests.slime_cpu import check, customer, watch
from tests.slime_cpu.server import FAULTS, JournalSampler, Options, RouterServer

Status = StandaloneSample.Status
PARAMS = {"temperature": 0.7, "top_p": 1.0, "top_k": -1, "max_new_tokens": 512}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)


def go_on_until_aborted(sampler: JournalSampler, sampled: int) -> None:
    """The next turn never ends by itself; the abort that ends it finds ``sampled`` tokens."""
    usual = sampler._wait

    async def wait(tokens: int, aborted: asyncio.Event) -> int:
        assert sampled < tokens
        sampler._wait = usual  # type: ignore[method-assign]
        await aborted.wait()
        return sampled

    sampler._wait = wait  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_local_checkpoint(tmp_path_factory.getbasetemp() / "checkpoint")


def new_sample(**fields: Any) -> StandaloneSample:
    metadata = {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}
    return StandaloneSample(index=4, group_index=2, session_id="session", metadata=metadata, **fields)


def arguments(server: RouterServer, checkpoint: Path, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip=server.host,
        sglang_router_port=server.port,
        tau2={"user_model": "scripted"},
        **more,
    )


@pytest.fixture(scope="module")
def played(checkpoint: Path) -> tuple[StandaloneSample, list[dict[str, Any]]]:
    """An episode of three turns, with a weight update in the middle of one, and what the server says about it."""

    async def play() -> tuple[StandaloneSample, list[dict[str, Any]]]:
        async with RouterServer(Options(str(checkpoint), spelling=0.3, chatty=True)) as server:
            go_on_until_aborted(server.sampler, 5)
            episode = asyncio.create_task(generate(arguments(server, checkpoint), new_sample(), PARAMS))
            await until(lambda: server.sampler.running > 0)
            await server.sampler.pause()
            server.sampler.resume()
            sample = await episode
            return sample, server.sampler.journal

    return asyncio.run(play())


def judge(sample: Any, calls: list[dict[str, Any]], **more: Any) -> check.Verdict:
    journal = check.Journal()
    journal.add(calls)
    return check.check_sample(sample, journal, params=(0.7, 1.0, -1), **more)


def first_sampled(sample: StandaloneSample) -> int:
    return (sample.loss_mask or []).index(1)


def test_a_true_sample_is_proven_to_the_last_token(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    verdict = judge(sample, calls)
    assert verdict.problems == []
    assert verdict.proven == sum(sample.loss_mask) > 0
    assert verdict.cut == 1, "the turn that the update cut short was continued"
    assert verdict.calls == len(calls) == 4
    assert verdict.unused == 0
    assert set(sample.weight_versions) == {"1", "2"}


def other_token(sample: StandaloneSample) -> None:
    sample.tokens[-sample.response_length + first_sampled(sample)] += 1


def other_context(sample: StandaloneSample) -> None:
    sample.tokens[0] += 1


def trained_context(sample: StandaloneSample) -> None:
    at = (sample.loss_mask or []).index(0)
    sample.loss_mask[at] = 1  # type: ignore[index]


def shifted_log_probs(sample: StandaloneSample) -> None:
    values = sample.rollout_log_probs or []
    sample.rollout_log_probs = values[1:] + values[:1]


def old_weights(sample: StandaloneSample) -> None:
    sample.weight_versions[-1] = "1"


def string_status(sample: StandaloneSample) -> None:
    sample.status = "completed"  # type: ignore[assignment]


def short_mask(sample: StandaloneSample) -> None:
    sample.loss_mask = (sample.loss_mask or [])[:-1]


def nothing_trained(sample: StandaloneSample) -> None:
    sample.loss_mask = [0] * sample.response_length


def no_reward(sample: StandaloneSample) -> None:
    sample.reward = None


def unpicklable(sample: StandaloneSample) -> None:
    sample.metadata["callback"] = lambda: None


def kept_state(sample: StandaloneSample) -> None:
    sample.metadata["tau2_resume"] = {}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (other_token, "were not sampled after exactly"),
        (other_context, "were not sampled after exactly"),
        (trained_context, "were not sampled after exactly"),
        (shifted_log_probs, "log-probs are not the server's"),
        (old_weights, "weight versions"),
        (string_status, "no member of Sample.Status"),
        (short_mask, "loss mask must be"),
        (nothing_trained, "nothing in it can be trained on"),
        (no_reward, "reward None"),
        (unpicklable, "cannot be pickled"),
        (kept_state, "resume state"),
    ],
)
def test_every_untruth_is_found(played: tuple[Any, Any], spoil: Callable[[Any], None], told: str) -> None:
    sample, calls = copy.deepcopy(played)
    spoil(sample)
    assert any(told in problem for problem in judge(sample, calls).problems)


def test_other_sampling_parameters_are_found(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    calls[0]["sampling"] = [0.0, 1.0, -1]
    assert any("sampled with [0.0" in problem for problem in judge(sample, calls).problems)


def test_a_call_serves_one_sample(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    journal = check.Journal()
    journal.add(calls)
    assert check.check_sample(sample, journal).problems == []
    assert check.check_sample(sample, journal).problems != []


def test_an_answer_that_never_arrived_proves_nothing(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    calls[0]["answered"] = False
    assert judge(sample, calls).problems != []


def test_an_episode_that_was_played_again_is_counted(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    assert judge(sample, [*calls, {**calls[-1], "context": "another"}]).unused == 1


def cut_off(sample: StandaloneSample) -> StandaloneSample:
    """``sample`` as it would have been, aborted at the end of its first turn."""
    early = copy.deepcopy(sample)
    mask = early.loss_mask or []
    begin = first_sampled(early)
    end = begin + mask[begin:].index(0)
    prompt = len(early.tokens) - early.response_length
    early.tokens, early.response_length = early.tokens[: prompt + end], end
    early.loss_mask, early.rollout_log_probs = mask[:end], (early.rollout_log_probs or [])[:end]
    early.weight_versions, early.status = early.weight_versions[:2], Status.ABORTED
    return early


def test_a_resumed_sample_keeps_what_it_had(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    before = check.Snapshot.of(cut_off(sample))
    assert before.unfinished
    assert judge(sample, calls, before=before).problems == []
    for name, value in (("tokens", [*before.tokens[:-1], 7]), ("log_probs", [-9.0] * len(before.log_probs))):
        other = copy.deepcopy(before)
        setattr(other, name, value)
        assert judge(copy.deepcopy(sample), copy.deepcopy(calls), before=other).problems != []


def test_the_masked_older_part_is_proven_too(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    before = check.Snapshot.of(cut_off(sample))
    kept = len(before.loss_mask)
    sample.loss_mask[:kept] = [0] * kept
    verdict = judge(sample, calls, before=before, mask_offpolicy=True)
    assert verdict.problems == []
    assert verdict.proven == sum(before.loss_mask) + sum(sample.loss_mask)
    again = check.Snapshot.of(sample, before)
    assert again.sampled == verdict.proven, "a sample that waits twice is remembered as it was sampled"


def test_an_episode_that_had_not_begun_may_begin_otherwise(played: tuple[Any, Any]) -> None:
    sample, calls = copy.deepcopy(played)
    stand_in = new_sample(
        tokens=[0, 0], response_length=1, loss_mask=[0], rollout_log_probs=[0.0], status=Status.ABORTED
    )
    before = check.Snapshot.of(cut_off(sample), check.Snapshot.of(stand_in))
    assert before == check.Snapshot.of(cut_off(sample))
    for masked in (False, True):
        assert judge(sample, calls, before=check.Snapshot.of(stand_in), mask_offpolicy=masked).problems == []


def test_a_batch_is_looked_at_as_slime_does() -> None:
    def group(number: int, indices: list[int]) -> list[StandaloneSample]:
        return [
            StandaloneSample(index=i, group_index=number, status=Status.COMPLETED, metadata={"raw_reward": 0.0})
            for i in indices
        ]

    seen: set[int] = set()
    assert check.batch_problems([group(0, [0, 1]), group(1, [2, 3])], 2, seen) == []
    assert seen == {0, 1, 2, 3}
    assert any("returned twice" in p for p in check.batch_problems([group(2, [3, 4])], 2, seen))
    assert any("a group of 1" in p for p in check.batch_problems([group(3, [5])], 2, seen))
    mixed = group(4, [6, 7])
    mixed[0].metadata.clear()
    mixed[1].group_index = 5
    mixed[1].status = Status.ABORTED
    told = check.batch_problems([mixed], 2, seen)
    assert {"one group, several group_index", "sample 7 reached the batch ABORTED"} < set(told)
    assert any("raw_reward" in p for p in told)


# ---- the server ----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def prompt(checkpoint: Path) -> Any:
    async with RouterServer(Options(str(checkpoint))) as server:
        yield server, server.sampler.policy.template.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


async def test_an_update_cuts_what_runs_and_holds_what_comes(prompt: tuple[RouterServer, list[int]]) -> None:
    server, ids = prompt
    engine = SglangEngine(server.url)
    go_on_until_aborted(server.sampler, 3)
    running = asyncio.create_task(engine.generate(ids, PARAMS, routing_key="a"))
    await until(lambda: server.sampler.running > 0)
    await server.sampler.pause()
    cut = await running
    waiting = asyncio.create_task(engine.generate(ids, PARAMS, routing_key="b"))
    await until(lambda: server.requests == 2)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    server.sampler.resume()
    whole = await waiting
    assert (cut.finish, cut.weight_version) == ("abort", "1")
    assert (whole.finish, whole.weight_version) == ("stop", "2")
    assert whole.ids[:3] == cut.ids
    assert whole.log_probs[:3] != cut.log_probs, "other weights, other log-probs"
    assert [call["finish"] for call in server.sampler.journal] == ["abort", "stop"]


@pytest.mark.parametrize("kind", FAULTS)
async def test_every_fault_reaches_the_client_and_a_retry_cures_it(
    prompt: tuple[RouterServer, list[int]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    server, ids = prompt
    server.options.faults = 1.0
    monkeypatch.setattr("tests.slime_cpu.server.FAULTS", (kind,))
    monkeypatch.setattr("tau2_slime.tokens.engine.BACKOFF_FIRST", 0.01)
    call = asyncio.create_task(SglangEngine(server.url).generate(ids, PARAMS, routing_key="a"))
    await until(lambda: server.failed >= 2)
    server.options.faults = 0.0
    done = await call
    assert done.retries >= 2
    assert done.finish == "stop"
    answered = [entry for entry in server.sampler.journal if entry["answered"]]
    assert [entry["ids"] for entry in answered] == [done.ids]


async def test_the_customer_answers_as_the_task_wants() -> None:
    from tau2_slime.world import domains

    task = domains.find_task("mock", "base", task_id="create_task_1")
    system = {"role": "system", "content": f"You are a customer.\n{task.user_scenario}\nStay in character."}
    hello = {"role": "user", "content": "Hi! How can I help you today?"}
    first = await customer.reply({"model": "m", "messages": [system, hello]})
    words = first["choices"][0]["message"]["content"]
    assert "mock/base/create_task_1" in words
    done = {"role": "user", "content": "Your case is now complete. Thank you for your patience."}
    last = await customer.reply({"messages": [system, hello, {"role": "assistant", "content": words}, done]})
    assert last["choices"][0]["message"]["content"] == "###STOP###"


async def test_a_task_that_an_episode_leaves_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgotten() -> None:
        await asyncio.sleep(60)

    kept: list[Any] = []

    async def careless(args: Any, sample: Any, params: Any, evaluation: bool) -> Any:
        kept.append(asyncio.create_task(forgotten()))
        await asyncio.create_task(asyncio.sleep(0))
        return sample

    monkeypatch.setattr("tau2_slime.generate_with_tau2.generate", careless)
    monkeypatch.setattr(watch, "left_behind", {})
    await watch.generate(None, "sample", {})
    kept[0].cancel()
    (name,) = watch.left_behind
    assert name.endswith("forgotten")
    assert watch.left_behind[name] == 1


def test_a_placeholder_is_forgotten_when_the_episode_begins() -> None:
    status = SimpleNamespace(name="ABORTED")
    fields = {"weight_versions": ["1"], "status": status}
    begun = SimpleNamespace(tokens=[5, 9], loss_mask=[0], rollout_log_probs=[0.0], **fields)
    sampled = SimpleNamespace(tokens=[5, 7, 8], loss_mask=[1, 1], rollout_log_probs=[-1.0, -1.0], **fields)
    masked = SimpleNamespace(tokens=[5, 7, 8, 6], loss_mask=[0, 0, 1], rollout_log_probs=[-1.0] * 3, **fields)
    first = check.Snapshot.of(begun)
    second = check.Snapshot.of(sampled, first)
    assert (first.loss_mask, second.loss_mask) == ([0], [1, 1])
    assert check.Snapshot.of(masked, second).loss_mask == [1, 1, 1], (
        "slime masked the older part: it was sampled all the same"
    )
