"""Tasks are found by what a data row says, or one clear error says why not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World


def test_the_package_itself_imports_no_tau2() -> None:
    code = (
        "import sys, tau2_slime, tau2_slime.config.settings, tau2_slime.episode.conversation, tau2_slime.world.domains, "
        "tau2_slime.world.users, tau2_slime.world.scoring; "
        "print([m for m in ('tau2', 'litellm', 'transformers', 'torch', 'slime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_the_domains_that_everyone_has() -> None:
    assert {"airline", "retail", "telecom", "mock"} <= set(domains.domains())


def test_train_and_test_share_no_task() -> None:
    for domain in ("airline", "retail", "telecom"):
        splits = domains.splits(domain)
        assert not set(splits["train"]) & set(splits["test"])
        assert len(splits["train"]) + len(splits["test"]) == len(splits["base"])
    assert len(domains.tasks("telecom", "full")) == 2285


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_order_of_a_split_is_the_one_of_tau2(split: str) -> None:
    loader = tau2_compat.load().registry.get_tasks_loader("airline")
    assert [task.id for task in domains.tasks("airline", split)] == [task.id for task in loader(split)]


def test_a_task_is_found_by_id_by_position_or_by_both() -> None:
    third = domains.tasks("airline", "train")[3]
    assert domains.find_task("airline", "train", index=3) is third
    assert domains.find_task("airline", "train", task_id=third.id) is third
    assert domains.find_task("airline", "train", task_id=third.id, index=3) is third
    if third.id.isdigit():
        assert domains.find_task("airline", "train", task_id=int(third.id)) is third  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"domain": "airlin"}, ["airlin", "unknown", "airline", "retail"]),
        ({"split": "dev"}, ["dev", "train", "test", "base"]),
        ({"task_id": "no-such"}, ["no-such", "airline/train", "30 tasks"]),
        ({"index": 30}, ["index=30", "30 tasks", "0 to 29"]),
        ({"index": -1}, ["index=-1"]),
        ({}, ["names no task", "task_id"]),
    ],
)
def test_what_cannot_be_found_is_explained(kwargs: dict[str, Any], says: list[str]) -> None:
    kwargs = {"domain": "airline", "split": "train", **kwargs}
    with pytest.raises(ConfigError) as caught:
        domains.find_task(kwargs.pop("domain"), kwargs.pop("split"), **kwargs)
    for words in says:
        assert words in str(caught.value)


def test_an_id_and_a_position_that_disagree_are_an_error() -> None:
    first, second = domains.tasks("airline", "train")[:2]
    with pytest.raises(ConfigError, match="prepare the data again") as caught:
        domains.find_task("airline", "train", task_id=first.id, index=1)
    assert "disagree" in str(caught.value) and repr(second.id) in str(caught.value)


def test_a_near_miss_of_an_id_gets_a_hint() -> None:
    known = domains.tasks("mock", "base")[0].id
    with pytest.raises(ConfigError, match=rf"did you mean .*{known}"):
        domains.find_task("mock", "base", task_id=known + "x")


# ---- worlds ----------------------------------------------------------------------------------------------------------


def call(world: World, name: str, requestor: str = "assistant", **arguments: Any) -> Any:
    t = tau2_compat.load()
    return world.call(t.ToolCall(id="c", name=name, arguments=arguments, requestor=requestor))[0]


def test_worlds_do_not_share_what_is_written() -> None:
    task = domains.tasks("mock", "base")[0]
    one, two = (World("mock", "base", task) for _ in range(2))
    created = call(one, "create_task", user_id="user_1", title="only here")
    assert not created.error
    assert (
        "only here" in call(one, "get_users").content or one.environment.get_db_hash() != two.environment.get_db_hash()
    )
    assert two.environment.get_db_hash() == World("mock", "base", task).environment.get_db_hash()


def test_a_solo_agent_gets_the_users_tools_and_the_solo_policy() -> None:
    task = domains.tasks("telecom", "small")[0]
    together, alone = World("telecom", "small", task), World("telecom", "small", task, solo=True)
    names = {tool.name for tool in together.agent_tools}
    user_names = {tool.name for tool in together.user_tools or []}
    assert user_names and not names & user_names
    assert {tool.name for tool in alone.agent_tools} == names | user_names
    assert alone.policy != together.policy


def test_a_user_without_tools_has_none() -> None:
    assert World("airline", "base", domains.tasks("airline", "base")[0]).user_tools is None


def test_what_solo_mode_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError):
        World("airline", "base", domains.tasks("airline", "base")[0], solo=True)


def test_an_unknown_environment_argument_is_named() -> None:
    task = domains.tasks("mock", "base")[0]
    with pytest.raises(ConfigError, match=r"retrieval_variamt.*mock"):
        World("mock", "base", task, env_kwargs={"retrieval_variamt": "bm25"})


def test_environment_arguments_reach_the_environment() -> None:
    task = domains.tasks("telecom", "small")[0]
    default = World("telecom", "small", task).policy
    if "policy_type" in tau2_compat.environment_kwargs("telecom", task, {"policy_type": "workflow"}):
        world = World("telecom", "small", task, env_kwargs={"policy_type": "workflow"})
        assert world.policy != default


@pytest.mark.skipif("banking_knowledge" not in domains.domains(), reason="this τ² has no banking_knowledge domain")
def test_a_banking_user_has_the_tools_that_the_task_names() -> None:
    for task in domains.tasks("banking_knowledge", "base")[:5]:
        world = World("banking_knowledge", "base", task)
        assert {tool.name for tool in world.user_tools or []} <= set(task.user_tools)
        assert world.env_kwargs["retrieval_variant"] == "no_knowledge"


def test_an_error_result_looks_like_one_of_tau2() -> None:
    world = World("mock", "base", domains.tasks("mock", "base")[0])
    t = tau2_compat.load()
    theirs = call(world, "no_such_tool")
    ours = world.error_result(t.ToolCall(id="c", name="no_such_tool", arguments={}, requestor="assistant"), "why")
    assert theirs.error and theirs.content.startswith("Error: ")
    assert ours.model_dump(exclude={"content", "timestamp"}) == theirs.model_dump(exclude={"content", "timestamp"})
    assert ours.content == "Error: why"
