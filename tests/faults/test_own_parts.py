"""Parts of a researcher's own, loaded by dotted path from outside the package, as ``examples/`` shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import GOLD, PAID, Stage, Status, detail, outcome
from tests.faults.servers import FAREWELL, UserMove, say, spell

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = UserMove(content="Please create the task 'Important Meeting' for user_1.")
BYE = UserMove(content="Thank you. ###STOP###")


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield


async def test_a_user_of_ones_own_plays(stage: Stage) -> None:
    sample = await stage.play(users=[HELLO, BYE], user_path="custom_user.ImpatientUser")
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert sample.metadata["tau2"]["user_model"] == "custom_user.ImpatientUser:openai/test"
    assert sample.metadata["tau2"]["stats"]["user_calls"] == 2


async def test_it_does_what_it_was_written_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import custom_user

    monkeypatch.setattr(custom_user, "PATIENCE", 1)
    await stage.play([say("Which user?"), FAREWELL], users=[HELLO, HELLO], user_path="custom_user.ImpatientUser")
    assert "This takes too long" in stage.results[-1].messages[-1].content


async def test_a_user_that_answers_with_a_text_is_told_what_to_return(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import custom_user

    async def reply(self: Any, message: Any) -> Any:
        return "Hello."

    monkeypatch.setattr(custom_user.ImpatientUser, "reply", reply)
    sample = await stage.play(users=[], user_path="custom_user.ImpatientUser")
    assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
    assert "user simulator ImpatientUser: its reply is str, not a message; return τ²'s UserMessage(" in detail(sample)


@pytest.mark.surprise
async def test_a_user_that_awaits_what_it_cancelled_ends_its_own_episode_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import custom_user

    async def reply(self: Any, message: Any) -> Any:
        helper = asyncio.ensure_future(asyncio.sleep(60))
        helper.cancel()
        return await helper

    monkeypatch.setattr(custom_user.ImpatientUser, "reply", reply)
    sample = await stage.play(users=[], user_path="custom_user.ImpatientUser")
    assert outcome(sample) == (Status.FAILED, "infrastructure_error", "infrastructure")
    assert "was cancelled, but not the episode" in detail(sample)


async def test_a_user_of_tau2s_registry_plays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.world import tau2_compat

    t = tau2_compat.load()

    class Polite(t.UserSimulator):  # type: ignore[misc, name-defined]
        def generate_next_message(self, message: Any, state: Any) -> Any:
            text = "Please create the task 'Important Meeting' for user_1. Thanks! ###STOP###"
            reply = t.UserMessage(role="user", content=text)
            state.messages += [message, reply]
            return reply, state

    monkeypatch.setitem(t.registry._users, "polite", Polite)
    sample = await stage.play(users=[], user_path="polite")
    assert outcome(sample) == (Status.FAILED, "user_stop", "user"), "it hung up before the agent had a turn"
    assert sample.metadata["tau2"]["user_model"] == "polite:openai/test"


async def test_an_agent_of_ones_own_is_asked_with_its_own_prompt(stage: Stage) -> None:
    sample = await stage.play(agent_path="custom_agent.CarefulAgent")
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert sample.metadata["tau2"]["agent_path"] == "custom_agent.CarefulAgent"
    from custom_agent import RULE

    prompt = sample.tokens[: len(sample.tokens) - sample.response_length]
    from tau2_slime.policy.checkpoint import load_tokenizer

    assert RULE in load_tokenizer(str(stage.checkpoint)).decode(prompt)


async def test_its_meaning_of_a_turn_counts(stage: Stage) -> None:
    twice = say(spell("get_users", {}) + spell("get_users", {}))
    await stage.play([twice, *GOLD], agent_path="custom_agent.CarefulAgent")
    results = [message for message in stage.results[-1].messages if message.role == "tool"]
    assert [bool(result.error) for result in results[:2]] == [False, True]
    assert "This call was not made" in results[1].content


async def test_an_agent_of_tau2s_registry_gives_its_prompt(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.world import tau2_compat

    t = tau2_compat.load()

    class Shouting(t.LLMAgent):  # type: ignore[misc, name-defined]
        @property
        def system_prompt(self) -> str:
            return "SHOUT. " + super().system_prompt

    monkeypatch.setitem(t.registry._agents, "shouting", Shouting)
    sample = await stage.play(agent_path="shouting")
    assert outcome(sample) == PAID
    assert stage.results[-1].agent_path == "shouting"


async def test_a_parser_of_ones_own_reads_the_calls(stage: Stage) -> None:
    said = '{"name": "get_users", "parameters": {}}'
    await stage.play([say(said), FAREWELL], tool_call_parser="custom_parser.BareJsonParser")
    (called,) = [m for m in stage.results[-1].messages if m.role == "assistant" and m.tool_calls]
    assert called.tool_calls[0].name == "get_users"


WRONG = {
    "user_path": [
        ("nowhere.User", "no module 'nowhere'"),
        ("custom_user.Nobody", "has no 'Nobody'"),
        ("custom_user.PATIENCE", "not a class"),
        ("custom_agent.CarefulAgent", "no method reply"),
        ("nobody", "neither a dotted path"),
    ],
    "agent_path": [
        ("nowhere.Agent", "no module 'nowhere'"),
        ("custom_agent.RULE", "TrainableLLMAgent"),
        ("custom_user.ImpatientUser", "TrainableLLMAgent"),
        ("nobody", "neither a dotted path"),
    ],
    "tool_call_parser": [("nowhere.Parser", "no module 'nowhere'"), ("custom_agent.RULE", "RULE")],
}


@pytest.mark.parametrize(("key", "path", "words"), [(key, *case) for key, cases in WRONG.items() for case in cases])
async def test_a_path_that_leads_nowhere_is_one_clear_error(stage: Stage, key: str, path: str, words: str) -> None:
    sample = await stage.play(**{key: path})
    assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
    assert path in detail(sample)
    assert words in detail(sample)
    assert stage.router.asks == [], "nobody was asked anything"


def test_results_name_the_class_and_the_model_that_was_chosen_for_it() -> None:
    from tau2_slime.config import Tau2Config
    from tau2_slime.episode.users import check_user, user_role

    path = "custom_user.ImpatientUser"
    alone = Tau2Config.resolve({"user_path": path}, {}, {})
    chosen = Tau2Config.resolve({"user_path": path, "user_model": "gpt-4.1"}, {}, {})
    assert user_role(alone, alone.user_model).label == path
    assert user_role(chosen, chosen.user_model).label == f"{path}:gpt-4.1"
    assert path in check_user(alone, alone.user_model), "it is asked for no key of a model that it may not use"


def test_an_evaluation_with_another_agent_is_another_protocol(tmp_path: Path) -> None:
    from tau2_slime.evaluation.plan.datasets import load_plan
    from tau2_slime.evaluation.store.manifest import differences
    from tau2_slime.evaluation.store.protocol import dataset_protocol

    row = '{"index": 0, "metadata": {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    generate = "tau2_slime.generate_with_tau2.generate"
    entry = f"{{name: d, path: {tmp_path}/rows.jsonl, custom_generate_function_path: {generate}"
    protocols = []
    for overrides in ("{}", "{agent_path: custom_agent.CarefulAgent}"):
        file = tmp_path / "eval.yaml"
        file.write_text(f"eval:\n  datasets:\n    - {entry}, metadata_overrides: {overrides}}}\n")
        protocols.append(dataset_protocol(load_plan(file).datasets[0]))
    assert differences(*protocols)
    assert "agent_path" not in protocols[0], "folders of earlier versions are compared as before"


def test_a_simulator_that_changes_its_arguments_changes_nobody_elses() -> None:
    from tau2_slime.config import Tau2Config
    from tau2_slime.episode.users import user_spec
    from tau2_slime.world.users import UserContext

    config = Tau2Config.resolve({"user_args": {"stop": ["x"]}}, {}, {})
    context = UserContext(None, "mock", "base", "", None, user_spec(config, "gpt-4.1"))
    context.args["stop"].append("y")
    context.args["seed"] = 1
    assert Tau2Config.resolve({"user_args": {"stop": ["x"]}}, {}, {}).user_args == {"stop": ["x"]}
