"""SFT rows of the user's side are what the simulator was asked and answered, message by message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.export.command import ExportRequest, Format, Side, export
from tau2_slime.export.episodes import Filters
from tests.evaluation.api_server import ApiServer
from tests.test_agent_strategies import rollout
from tests.test_cli import tau2_slime


def user_of(domain: str, task_id: str) -> Any:
    """A model that plays the user: its case, a call of its own where it has tools, and goodbye."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        turns = sum(message["role"] == "assistant" for message in body["messages"])
        if turns == 0:
            return {"content": f"Hello, my case reference is {domain}/base/{task_id}."}
        if turns == 1 and body.get("tools"):
            return {"content": None, "calls": [("check_status_bar", "{}")]}
        return {"content": "###STOP###"}

    return answer


@pytest.mark.parametrize("domain", ["mock", "telecom"])
async def test_the_row_is_what_the_simulator_was_asked_and_said(domain: str, tmp_path: Path) -> None:
    from tau2_slime.world import domains

    task_id = domains.tasks(domain, "base")[0].id
    async with ApiServer(user_of(domain, task_id.replace(" ", "%20"))) as server:
        model = {"user_model": "openai/some-user", "user_base_url": server.url}
        await rollout(tmp_path / "run", domain, [task_id], **model)
    asked = server.requests[-1]
    request = ExportRequest(
        (tmp_path / "run",),
        Format.OPENAI,
        tmp_path / "out",
        Filters(0.0, keep=frozenset({"test-task"})),
        side=Side.USER,
    )
    card = export(request).card
    assert card["side"] == "user"
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    *before, last = row["messages"]
    assert last == {"role": "assistant", "content": "###STOP###"}
    assert [shape(message) for message in before] == [shape(message) for message in asked["messages"]]
    assert [tool["function"]["name"] for tool in row["tools"]] == [
        tool["function"]["name"] for tool in asked.get("tools") or []
    ]
    assert all("weight" not in message for message in row["messages"]), "the user wrote each of its messages"


def shape(message: dict[str, Any]) -> tuple[str, str, list[Any]]:
    calls = message.get("tool_calls") or []
    return message["role"], message.get("content") or "", [call["function"] for call in calls]


def test_a_script_is_nobody_to_learn_from(played: Path, tmp_path: Path) -> None:
    request = ExportRequest((played,), Format.SLIME_SFT, tmp_path, Filters(0.0), side=Side.USER)
    with pytest.raises(ConfigError, match="a script played the user"):
        export(request)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "dataframe"], "--side would change nothing: it is for openai, hf and slime-sft"),
        (["--format", "slime-sft", "--route", "exact"], "the runs keep no tokens of the user model"),
        (["--format", "openai", "--side", "judge"], "--side judge: there are agent, user"),
    ],
)
def test_bad_input_is_one_line(played: Path, options: list[str], words: str) -> None:
    done = tau2_slime("export", str(played), *(["--side", "user"] if "--side" not in options else []), *options)
    assert done.returncode == 2 and words in done.stderr.strip().splitlines()[-1]
