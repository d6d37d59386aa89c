"""Partial rollout: an episode that slime interrupted anywhere ends with the tokens, words and reward of one it left alone.

The router continues a turn exactly where it was cut, so an interrupted trajectory must equal the uninterrupted one.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest

from tau2_slime.slime_adapter import weights
from tau2_slime.slime_adapter.sample import INTERRUPTED
from tests.faults.conftest import GOLD, PAID, Flag, Stage, Status, outcome, stats
from tests.faults.servers import Ask, Move, UserMove, after, answer, hang, queued_abort, spell

TURNS = (
    spell("get_users", {}) + "\n" + spell("nope", {}),
    '<tool_call>\n{"name": "create_task", "arguments": {"user_id": \n</tool_call>',
    "What shall it be called?",
    spell("create_task", {"user_id": "user_1", "title": "Important Meeting"}),
    "It is done: 'Important Meeting'.",
)
"""Two calls at once, one of which fails; a call that cannot be read; words; what earns the reward; words."""
WORDS = ("Please create a task for user_1.", "Important Meeting.", "Thank you. ###STOP###")


class Server:
    """A policy that says `TURNS`, and cuts a turn where it is told to."""

    def __init__(self, stage: Stage, flag: Flag, cuts: dict[int, list[float]]) -> None:
        """``cuts``: turn -> shares of it (0 to 1) at which an abort comes, in ascending order."""
        self.stage, self.flag, self.cuts = stage, flag, {turn: list(shares) for turn, shares in cuts.items()}
        self.turn = self.said = 0
        self.version = 1
        stage.router.choose = self

    def __call__(self, ask: Ask) -> Move:
        router = self.stage.router
        ids = [*router.encode(TURNS[self.turn]), router.id_of("<|im_end|>")]
        start = self.said
        stop, finish, action = len(ids), {"type": "stop", "matched": ids[-1]}, lambda: None
        if self.cuts.get(self.turn):
            stop = max(start, int(self.cuts[self.turn].pop(0) * (len(ids) - 1)))
            finish, action = {"type": "abort", "message": "Aborted"}, self.flag.set
            self.said = stop
        else:
            self.turn, self.said = self.turn + 1, 0
        if start == stop:
            return after(action, queued_abort())
        router.version = str(self.version)

        async def move(router: Any, request: Any, ask: Ask) -> Any:
            from aiohttp import web

            router.sent[ask.key].append(ids[start:stop])
            return web.json_response(router.body(ask, ids[start:stop], finish))

        return after(action, move)


def users(flag: Flag, cut: set[int]) -> list[UserMove]:
    """The user's words; before those in ``cut`` a call that an abort interrupts."""
    moves: list[UserMove] = []
    for position, words in enumerate(WORDS):
        if position in cut:
            moves.append(UserMove(silent=True, before=flag.set))
        moves.append(UserMove(content=words))
    return moves


async def play_on(
    stage: Stage,
    cuts: dict[int, list[float]],
    cut_users: set[int],
    between: Callable[[Any], Any] = lambda sample: sample,
    **tau2: Any,
) -> tuple[Any, int]:
    """The finished sample of an episode that is interrupted and taken up again, and in how many rollouts."""
    flag = Flag()
    server = Server(stage, flag, cuts)
    stage.user.script, rollouts = users(flag, cut_users), 1
    stage.user.prompts.clear()
    args = stage.args(user_model="openai/test", user_base_url=stage.user.url, user_timeout=20, **tau2)
    args.tau2_aborted = flag
    sample = await stage.run(args, stage.sample())
    while sample.status is Status.ABORTED:
        assert sample.remove_sample
        flag.on = False
        server.version += 1
        sample = await stage.run(args, between(sample))
        rollouts += 1
    return sample, rollouts


def told(stage: Stage) -> list[tuple[str, str | None, list[Any]]]:
    return [
        (m.role, m.content, [(c.name, c.arguments) for c in getattr(m, "tool_calls", None) or []])
        for m in stage.results[-1].messages
    ]


def same_episode(stage: Stage, sample: Any, whole: Any, words: Any) -> None:
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert sample.tokens == whole.tokens
    assert sample.loss_mask == whole.loss_mask
    assert sample.rollout_log_probs == whole.rollout_log_probs
    assert sample.response == whole.response
    assert told(stage) == words
    assert sample.metadata["tau2"]["restarted"] == ""
    counts = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors", "tool_calls", "junctions")
    assert {name: stats(sample)[name] for name in counts} == {name: stats(whole)[name] for name in counts}
    assert INTERRUPTED not in sample.metadata


CASES: dict[str, tuple[dict[int, list[float]], set[int]]] = {
    "in the first turn": ({0: [0.5]}, set()),
    "before the first token": ({0: [0.0]}, set()),
    "twice in one turn": ({3: [0.2, 0.7]}, set()),
    "after the whole of a turn but its stop token": ({3: [1.0]}, set()),
    "in a turn that cannot be read": ({1: [0.6]}, set()),
    "in the last turn": ({4: [0.5]}, set()),
    "in the user's first call": ({}, {0}),
    "in the user's second call": ({}, {1}),
    "in the user's farewell": ({}, {2}),
    "everywhere": ({turn: [0.0, 0.3, 0.9] for turn in range(5)}, {0, 1, 2}),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_interrupted_episode_is_taken_up(stage: Stage, case: str) -> None:
    whole, _ = await play_on(stage, {}, set())
    assert whole.reward == 1.0
    words = told(stage)
    prompts = [prompt["messages"] for prompt in stage.user.prompts]
    cuts, cut_users = CASES[case]
    stage.router.sent.clear()
    stage.router.asks.clear()
    sample, rollouts = await play_on(stage, cuts, cut_users)
    same_episode(stage, sample, whole, words)
    interruptions = sum(map(len, cuts.values())) + len(cut_users)
    assert rollouts == 1 + interruptions
    assert stats(sample)["resumes"] == interruptions
    assert len(stage.router.asks) == len(TURNS) + sum(map(len, cuts.values())), "nothing is sampled twice"
    asked = [prompt["messages"] for prompt in stage.user.prompts]
    assert len(asked) == len(prompts) + len(cut_users), "only an interrupted call of the user is made again"
    assert [p for i, p in enumerate(asked) if p not in asked[:i]] == prompts


@pytest.mark.parametrize(("bound", "starts_over"), [(2, True), (4, False)])
async def test_an_episode_that_is_too_old_starts_over(stage: Stage, bound: int, starts_over: bool) -> None:
    def update(sample: Any) -> Any:
        weights.saw(["5"])
        if starts_over:
            server = stage.router.choose
            server.turn = server.said = 0  # type: ignore[attr-defined]
            for told in (stage.router.sent, stage.router.asks, stage.user.prompts):
                told.clear()  # type: ignore[attr-defined]
        return sample

    sample, _ = await play_on(stage, {3: [0.5]}, set(), between=update, max_weight_lag=bound)
    assert outcome(sample) == PAID
    assert ("4 weight updates old" in sample.metadata["tau2"]["restarted"]) is starts_over
    assert set(sample.weight_versions) == ({"2"} if starts_over else {"1", "2"})


def through_pickle(sample: Any) -> Any:
    return pickle.loads(pickle.dumps(sample))


def through_json(sample: Any) -> Any:
    again = copy.copy(sample)
    again.metadata = json.loads(json.dumps(sample.metadata))
    return again


@pytest.mark.parametrize("carry", [through_pickle, through_json, copy.deepcopy])
async def test_the_buffer_may_be_written_and_read(stage: Stage, carry: Callable[[Any], Any]) -> None:
    whole, _ = await play_on(stage, {}, set())
    words = told(stage)
    stage.router.sent.clear()
    stage.router.asks.clear()
    sample, _ = await play_on(stage, {0: [0.4], 3: [0.5]}, {1}, between=carry)
    same_episode(stage, sample, whole, words)


async def test_weight_versions_are_kept(stage: Stage) -> None:
    sample, _ = await play_on(stage, {0: [0.5], 3: [0.5]}, {1})
    ledger = stage.results[-1].ledger
    assert sample.weight_versions == ["1", "2", "2", "2", "3", "4", "4"]
    assert [s.weight_version for s in ledger.segments if s.kind == "sampled"] == sample.weight_versions


@pytest.mark.parametrize("settings", [{}, {"max_weight_lag": 2}], ids=["", "which have no age"])
async def test_off_policy_tokens_stay_masked(stage: Stage, settings: dict[str, int]) -> None:
    """What slime does with --mask-offpolicy-in-partial-rollout before it hands the sample back."""
    whole, _ = await play_on(stage, {}, set())
    lengths: list[int] = []

    def mask(sample: Any) -> Any:
        sample.loss_mask = [0] * sample.response_length
        lengths.append(sample.response_length)
        return sample

    stage.router.sent.clear()
    stage.router.asks.clear()
    flag = Flag()
    Server(stage, flag, {3: [0.5]})
    stage.user.script = users(flag, set())
    stage.user.prompts.clear()
    args = stage.args(user_model="openai/test", user_base_url=stage.user.url, **settings)
    args.tau2_aborted = flag
    sample = await stage.run(args, stage.sample())
    flag.on = False
    masked = mask(sample)
    weights.saw(["99"])
    params = {"temperature": 1.0, "max_new_tokens": 512}
    from tau2_slime.generate_with_tau2 import generate

    sample = await generate(args, masked, params)
    cut = lengths[0]
    assert outcome(sample) == PAID
    assert sample.tokens == whole.tokens
    assert sample.metadata["tau2"]["restarted"] == ""
    assert sample.loss_mask[:cut] == [0] * cut
    assert sample.loss_mask[cut:] == whole.loss_mask[cut:]
    assert sample.rollout_log_probs == whole.rollout_log_probs
    stage.results[-1].ledger.check()


@pytest.mark.parametrize("seed", range(12))
async def test_interrupted_at_random(stage: Stage, seed: int) -> None:
    rng = random.Random(seed)
    whole, _ = await play_on(stage, {}, set())
    words = told(stage)
    stage.router.sent.clear()
    stage.router.asks.clear()
    cuts = {turn: sorted(rng.random() for _ in range(rng.randrange(3))) for turn in range(len(TURNS))}
    sample, _ = await play_on(stage, cuts, {i for i in range(3) if rng.random() < 0.4})
    same_episode(stage, sample, whole, words)


async def interrupted(stage: Stage) -> tuple[Any, Any]:
    """A sample whose second turn was cut, and the arguments it was played with."""
    flag = Flag()
    args = stage.args()
    args.tau2_aborted = flag
    stage.router.script = [GOLD[0], after(flag.set, hang())]
    sample = await stage.run(args, stage.sample())
    assert sample.status is Status.ABORTED
    flag.on = False
    return sample, args


def anew(stage: Stage) -> None:
    """The router has forgotten the episode."""
    stage.router.sent.clear()
    stage.router.asks.clear()
    stage.router._at.clear()
    stage.router.script = GOLD


def _older(sample: Any) -> None:
    sample.metadata[INTERRUPTED]["version"] = 0


def _other_user(sample: Any) -> None:
    sample.metadata[INTERRUPTED]["identity"]["user_model"] = "gpt-4o"


def _other_result(sample: Any) -> None:
    results = [m for m in sample.metadata[INTERRUPTED]["conversation"]["messages"] if m["role"] == "tool"]
    results[0]["content"] = "something else"


def _other_prompt(sample: Any) -> None:
    sample.tokens[0] += 1


def _shorter(sample: Any) -> None:
    sample.loss_mask.pop()


def _no_state(sample: Any) -> None:
    sample.metadata[INTERRUPTED] = {"version": 1}


def _no_messages(sample: Any) -> None:
    sample.metadata[INTERRUPTED]["conversation"]["messages"] = [{"role": "nobody"}]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_older, "version 0"),
        (_other_user, "user_model='gpt-4o'"),
        (_other_result, "replaying create_task"),
        (_other_prompt, "first prompt"),
        (_shorter, "saved ones"),
        (_no_state, "damaged"),
        (_no_messages, "damaged"),
    ],
)
async def test_what_cannot_be_taken_up_starts_over_and_says_why(
    stage: Stage, damage: Callable[[Any], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    sample, args = await interrupted(stage)
    damage(sample)
    anew(stage)
    sample = await stage.run(args, sample)
    assert outcome(sample) == PAID
    assert why in sample.metadata["tau2"]["restarted"]
    assert any("starts over" in record.getMessage() and why in record.getMessage() for record in caplog.records)
    assert stats(sample)["resumes"] == 0
    assert len(stage.router.asks) == len(GOLD)
    assert INTERRUPTED not in sample.metadata


async def test_aborted_again_before_it_is_taken_up(stage: Stage) -> None:
    sample, args = await interrupted(stage)
    before = copy.deepcopy(sample)
    args.tau2_aborted = lambda: True
    heard = len(stage.results)
    sample = await stage.run(args, sample)
    assert sample == before
    assert [result.termination for result in stage.results[heard:]] == ["aborted"], "whoever waits for a result has one"
    args.tau2_aborted = lambda: False
    stage.router.script = (*GOLD[:1], GOLD[0], *GOLD[1:])  # the second move is the one that hung
    stage.router._at["episode"] = 2
    sample = await stage.run(args, sample)
    assert outcome(sample) == PAID
    assert stats(sample)["resumes"] == 1


async def test_an_abort_while_the_reward_is_computed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.errors import EpisodeAborted
    from tau2_slime.world import scoring

    def aborted(*_: Any, **__: Any) -> None:
        raise EpisodeAborted("aborted while waiting")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score", aborted)
        sample = await stage.play()
    assert sample.status is Status.ABORTED
    asks = len(stage.router.asks)
    sample = await stage.run(stage.args(), sample)
    assert outcome(sample) == PAID
    assert len(stage.router.asks) == asks, "only the reward was missing"


async def test_a_finished_or_failed_sample_is_never_taken_up(stage: Stage) -> None:
    sample, args = await interrupted(stage)
    sample.status = Status.FAILED
    anew(stage)
    sample = await stage.run(args, sample)
    assert outcome(sample) == PAID
    assert stats(sample)["resumes"] == 0


async def test_a_turn_that_was_cut_at_its_last_token_is_a_length_stop(stage: Stage) -> None:
    flag = Flag()
    args = stage.args()
    args.tau2_aborted = flag
    size = 7

    def cut_at_the_end(ask: Ask) -> Move:
        ids = stage.router.encode("one two three four five six seven eight nine ten")[:size]
        text = stage.router.tokenizer.decode(ids)
        return after(flag.set, answer(text, stop=None, finish={"type": "abort", "message": "Aborted"}))

    stage.router.choose = cut_at_the_end
    sample = await stage.run(args, stage.sample(), max_new_tokens=size)
    assert sample.status is Status.ABORTED
    flag.on = False
    asks = len(stage.router.asks)
    sample = await stage.run(args, sample, max_new_tokens=size)
    assert outcome(sample) == (Status.TRUNCATED, "response_length", "limit")
    assert len(stage.router.asks) == asks
