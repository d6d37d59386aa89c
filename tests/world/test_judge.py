"""The judge: τ²'s own question to a model of one's choice; a verdict on every assertion, or no reward at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.chat.completion import Completion, Ending, Said
from tau2_slime.chat.faults import CallFailed
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.play import play_and_score
from tau2_slime.episode.setup import build_episode
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.runner.api_agent import ApiSpeaker, ApiSpec
from tau2_slime.outcome import Blame, Termination
from tau2_slime.world import domains, judge, tau2_compat
from tau2_slime.world.judge import JudgeSpec, JudgeUnavailable, Verdict, read_verdicts
from tests.evaluation.api_server import ApiServer, gold
from tests.fresh import forget_users

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASSERTIONS = ["Agent was polite.", "Agent did not promise a refund."]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_users()
    monkeypatch.setattr(judge, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(judge, "BACKOFF_MAX", 0.002)


def judged(task: Any, assertions: list[str] | None = None) -> Any:
    basis = [tau2_compat.load().RewardType.NL_ASSERTION]
    update = {"reward_basis": basis, "nl_assertions": assertions or ASSERTIONS}
    return task.model_copy(update={"evaluation_criteria": task.evaluation_criteria.model_copy(update=update)})


def verdict(assertion: str, met: object = True) -> dict[str, Any]:
    return {"expectedOutcome": assertion, "reasoning": "because", "metExpectation": met}


def said(*results: dict[str, Any]) -> dict[str, Any]:
    return {"content": json.dumps({"results": list(results)})}


async def episode(server: ApiServer, **settings: Any) -> Any:
    """A gold episode of mock's first task, graded by the judge at ``server``."""
    config = Tau2Config(
        **{"domain": "mock", "task_split": "base", "user_model": "scripted", "allow_llm_judge": True},
        **{"judge_model": "openai/judge", "judge_base_url": server.url, **settings},
    )
    verdicts = server.answer
    server.answer = lambda body: verdicts(body) if body["model"] == "judge" else gold(body)
    policy = ApiSpeaker(ApiSpec("openai/policy", base_url=server.url), {})
    setup = await build_episode(config, judged(domains.tasks("mock", "base")[0]), policy, "scripted")
    return await play_and_score(setup)


def asked(server: ApiServer) -> int:
    return sum(request["model"] == "judge" for request in server.requests)


async def test_the_judge_of_ones_choice_is_asked_tau2s_question(monkeypatch: pytest.MonkeyPatch) -> None:
    import tau2.evaluator.evaluator_nl_assertions as module

    question: list[Any] = []
    t = tau2_compat.load()
    messages = [t.AssistantMessage(role="assistant", content="Hi"), t.UserMessage(role="user", content="Bye")]
    answer = t.AssistantMessage(role="assistant", content='{"results": []}')
    monkeypatch.setattr(module, "generate", lambda **kwargs: question.append(kwargs) or answer)
    module.NLAssertionsEvaluator.evaluate_nl_assertions(messages, ASSERTIONS)
    task = judged(domains.tasks("mock", "base")[0])
    async with ApiServer(lambda body: said(*map(verdict, ASSERTIONS))) as server:
        found = await judge.ask(JudgeSpec("openai/judge", base_url=server.url), task, messages)
    (request,) = server.requests
    assert request["messages"] == t.to_litellm_messages(question[0]["messages"])
    assert (request["model"], request["temperature"]) == ("judge", question[0]["temperature"])
    assert [v.met for v in found.verdicts] == [True, True] and found.tries == 1


@pytest.mark.parametrize(("second", "reward"), [(True, 1.0), (False, 0.0)])
async def test_an_episode_is_graded_by_its_verdicts_which_are_kept(second: bool, reward: float) -> None:
    answers = [{"content": "{}"}, said(verdict(ASSERTIONS[0]), verdict(ASSERTIONS[1], second))]
    async with ApiServer(lambda body: answers.pop(0)) as server:
        result = await episode(server)
    assert (result.reward, result.blame) == (reward, Blame.AGENT)
    kept = result.reward_info["nl_assertions"]
    assert [(c["nl_assertion"], c["met"], c["justification"]) for c in kept] == [
        (ASSERTIONS[0], True, "because"),
        (ASSERTIONS[1], second, "because"),
    ]
    assert result.reward_info["info"]["judge"] == {
        **{"model": "openai/judge", "base_url": server.url, "tries": 2, "cost": 0.0}
    }


@pytest.mark.parametrize("content", ["{}", '{"results": []}', "I think all is well.", ""])
async def test_a_judge_without_verdicts_is_no_success(content: str) -> None:
    """τ² 1.0.1 takes an empty list of verdicts for a success and pays 1.0."""
    async with ApiServer(lambda body: {"content": content}) as server:
        result = await episode(server)
    assert (result.reward, result.blame) == (None, Blame.INFRASTRUCTURE)
    assert result.termination is Termination.INFRASTRUCTURE_ERROR and "judge model openai/judge" in result.detail
    assert asked(server) == 5


async def test_a_judge_that_repeats_its_key_does_not_bring_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-live-0123456789abcdefghijklmnopqrstuv"
    monkeypatch.setenv("MY_JUDGE_KEY", key)
    async with ApiServer(lambda body: {"status": 401, "message": f"wrong key {key}"}) as server:
        result = await episode(server, judge_api_key_var="MY_JUDGE_KEY")
    assert "wrong key" in result.detail and key[:8] not in result.to_json()
    assert asked(server) == 1, "no retry cures it"


async def test_a_missing_key_is_told_before_anything_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    async with ApiServer(lambda body: said()) as server:
        with pytest.raises(ConfigError, match=r"judge model .*MY_JUDGE_KEY.*judge_api_key_var"):
            await episode(server, judge_api_key_var="MY_JUDGE_KEY")


async def test_a_conversation_that_a_limit_ended_is_not_judged() -> None:
    async with ApiServer(lambda body: said()) as server:
        result = await episode(server, max_turns=1)
    assert (result.reward, asked(server)) == (0.0, 0)


async def test_without_a_name_it_is_tau2s_judge() -> None:
    from tau2.config import DEFAULT_LLM_NL_ASSERTIONS, DEFAULT_LLM_NL_ASSERTIONS_ARGS

    spec = JudgeSpec().resolved()
    assert (spec.model, spec.args) == (DEFAULT_LLM_NL_ASSERTIONS, DEFAULT_LLM_NL_ASSERTIONS_ARGS)


# ---- reading -------------------------------------------------------------------------------------------------------------

GOOD = {
    "in order": json.dumps({"results": [verdict(ASSERTIONS[0], False), verdict(ASSERTIONS[1])]}),
    "in another order": json.dumps({"results": [verdict(ASSERTIONS[1]), verdict(ASSERTIONS[0], False)]}),
    "in other words": json.dumps({"results": [verdict("politeness", False), verdict("no refund promised")]}),
    "in a fence": "```json\n"
    + json.dumps({"results": [verdict(ASSERTIONS[0], False), verdict(ASSERTIONS[1])]})
    + "\n```",
}


@pytest.mark.parametrize("name", GOOD)
async def test_verdicts_are_read(name: str) -> None:
    assert read_verdicts(Completion(Said(GOOD[name])), ASSERTIONS) == (
        Verdict(ASSERTIONS[0], False, "because"),
        Verdict(ASSERTIONS[1], True, "because"),
    )


BAD = {
    "too few": {"results": [verdict(ASSERTIONS[0])]},
    "too many": {"results": [verdict(a) for a in (*ASSERTIONS, "x")]},
    "a text": {"results": [verdict(ASSERTIONS[0], "true"), verdict(ASSERTIONS[1])]},
    "none": {"results": [verdict(ASSERTIONS[0], None), verdict(ASSERTIONS[1])]},
    "no mapping": {"results": ["true", "true"]},
    "no list": {"results": {"a": 1, "b": 2}},
    "a list": [verdict(a) for a in ASSERTIONS],
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_verdict_on_every_assertion_is_refused(name: str) -> None:
    with pytest.raises(CallFailed):
        read_verdicts(Completion(Said(json.dumps(BAD[name]))), ASSERTIONS)


async def test_an_answer_that_was_cut_is_refused() -> None:
    with pytest.raises(CallFailed, match="cut"):
        read_verdicts(Completion(Said(GOOD["in order"]), Ending.CUT), ASSERTIONS)


async def test_no_try_more_than_allowed() -> None:
    task = judged(domains.tasks("mock", "base")[0])
    async with ApiServer(lambda body: {"status": 500}) as server:
        with pytest.raises(JudgeUnavailable, match="2 tries"):
            await judge.ask(JudgeSpec("openai/judge", base_url=server.url, retries=1), task, [])
    assert len(server.requests) == 2
