"""Texts by a model: an endpoint that lies in every way gets nothing into a task, and what was paid is not paid again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tau2_slime.cli.synth_texts import Texts
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import exit_status
from tau2_slime.synth.frames import Intent
from tau2_slime.synth.generate import Plan, run
from tau2_slime.synth.journal import Journal
from tau2_slime.synth.sampling.retail_wording import WHY
from tau2_slime.synth.sampling.telecom_wording import WIFI
from tau2_slime.synth.writing.reader import names
from tests.evaluation.api_server import ApiServer

KEY = "sk-very-secret-0123456789abcdef"
PRICES = ("writer=1000,1000", "reader=1000,1000")  # a call of 1,000 and 100 tokens costs 1.10 dollars


@cache
def rows(domain: str = "retail") -> list[dict[str, Any]]:
    journal = Journal(Path("/dev/null"))
    return run([Plan(domain, "medium", 2 if domain == "retail" else 24, 3)], journal)


def honest_text(body: dict[str, Any]) -> str:
    """What a good writer says to the first question of a conversation: every slot, in words of its own."""
    asked = json.loads(body["messages"][1]["content"])
    parts = []
    for request in asked["requests"]:
        slots = ", ".join(f"{slot} = {value}" for slot, value in request["about"].items())
        parts.append(f"You ask for {request['request']} with {slots}.")
    return " ".join(parts)


def honest_reading(text: str) -> dict[str, Any]:
    """What a good reader finds in such a text; any other sentence is a wish of another kind."""
    requests, others = [], []
    for sentence in re.split(r"(?<=[a-z0-9A-Z)])\. ?(?=You |$|[A-Z])", text.partition("\n\n")[2]):
        match = re.fullmatch(r"You ask for (.+?) with (.+?)\.?", sentence)
        if match is None:
            others += [sentence] if sentence.strip() else []
            continue
        slots = dict(part.split(" = ", 1) for part in re.split(r", (?=\w+ = )", match.group(2)))
        if "why" in slots:
            slots["why"] = next(reason for reason, words in WHY.items() if slots["why"] in words)
        if "wifi" in slots:
            slots["wifi"] = "no" if slots["wifi"] in WIFI else "yes"
        requests.append({"kind": match.group(1).replace(" ", "_"), **slots})
    return {"requests": requests, "others": others}


Lie = Callable[[str], str]


def endpoint(
    lie: Lie, *, reading: Lie = lambda said: said, lies: int = 99
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers of a writer that lies in its first ``lies`` answers to a task, and of a reader."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] == "reader":
            return {"content": reading(json.dumps(honest_reading(body["messages"][1]["content"])))}
        honest = honest_text(body)
        tries_before = sum(message["role"] == "assistant" for message in body["messages"])
        return {"content": lie(honest) if tries_before < lies else honest}

    return answer


def texts(url: str, max_cost: float | None = None) -> Texts:
    os.environ["SYNTH_TEST_KEY"] = KEY
    return Texts("writer", "reader", url, "SYNTH_TEST_KEY", max_cost, PRICES, 4)


async def written(
    answer: Callable[[dict[str, Any]], dict[str, Any]],
    folder: Path,
    max_cost: float | None = None,
    given: list[dict[str, Any]] | None = None,
) -> tuple[list[dict[str, Any]], str | None, int]:
    """The accepted events, why it stopped, and how many calls it took."""
    console = Console(file=(folder / "console.txt").open("a"))
    async with ApiServer(answer) as server:
        made, stopped = await asyncio.to_thread(
            texts(server.url, max_cost).write, given or rows(), folder, "test", console
        )
        assert not key_in(folder)
        return [row for row in made if row["accepted"]], stopped, len(server.requests)


def key_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def reason(row: dict[str, Any]) -> str:
    return str(row["task"]["user_scenario"]["instructions"]["reason_for_call"])


def templates() -> list[str]:
    return [reason(row) for row in rows() if row["accepted"]]


LIES: dict[str, Lie] = {
    "a fact is left out": lambda text: re.sub(r"#W\d{7}", "it", text),
    "another order": lambda text: re.sub(r"#W\d{7}", "#W0000001", text),
    "a tool of the agent": lambda text: f"{text} You expect cancel_pending_order to be used.",
    "an internal id": lambda text: f"{text} You have gift_card_1234567.",
    "a price": lambda text: f"{text} You know that it costs $512.30.",
    "a total in words": lambda text: f"{text} You expect five hundred dollars.",
    "a verdict": lambda text: f"{text} The agent should refuse anything else, says your friend to you.",
    "a word of grading": lambda text: f"{text} You hope for the reward signal.",
    "a stop token": lambda text: f"{text} You say ###STOP### then.",
    "a new wish": lambda text: f"{text} You also want a pony.",
    "a condition": lambda text: f"{text} If that fails, you want your money.",
    "the first person": lambda text: text.replace("You ask", "I ask"),
    "nobody is spoken to": lambda text: text.replace("You ask for", "The wish is"),
    "nothing": lambda text: "",
    "a request twice": lambda text: f"{text} {text}",
    "half of it": lambda text: text[: len(text) // 2],
    "markup": lambda text: f"**Request** {text}",
    "far too much": lambda text: text + " You wait." * 400,
    "the key": lambda text: f"{text} You have {KEY}.",
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_of_the_writer_never_reaches_a_task(name: str, tmp_path: Path) -> None:
    made, stopped, _ = await written(endpoint(LIES[name]), tmp_path)
    assert stopped is None
    assert [reason(row) for row in made] == templates()
    assert [row["writer"]["text"] for row in made] == ["template"] * len(made)
    assert all(len(row["writer"]["problems"]) == 3 for row in made)


TELECOM_LIES: dict[str, Lie] = {
    "a fact is left out": lambda text: (
        text.replace("MMS", "letter").replace("excellent", "good").replace("No Service", "zero")
    ),
    "another trouble": lambda text: re.sub("You ask for [a-z ]+ with", "You ask for stolen phone with", text),
    "a tool of the agent": lambda text: f"{text} You expect enable_roaming to be used.",
    "an internal id": lambda text: f"{text} You have line L1002.",
    "another amount": lambda text: f"{text} You will buy 5 GB.",
    "another plan": lambda text: f"{text} You also want another plan.",
    "a condition": lambda text: f"{text} If that fails, you leave the company.",
    "a verdict": lambda text: f"{text} You know that the agent must refuse that.",
    "a token": lambda text: f"{text} You say ###TRANSFER### then.",
    "the first person": lambda text: text.replace("You ask", "I ask"),
    "nothing": lambda text: "",
    "the key": lambda text: f"{text} You have {KEY}.",
}


def telecom_rows() -> list[dict[str, Any]]:
    """One of each kind of trouble; 'No Service' is easy."""
    easy = run([Plan("telecom", "easy", 20, 3)], Journal(Path("/dev/null")))
    kinds = {row["intents"][0]["kind"]: row for row in [*easy, *rows("telecom")]}
    assert set(kinds) == {"mms_fails", "slow_mobile_data", "no_service"}
    return list(kinds.values())


@pytest.mark.parametrize("name", TELECOM_LIES)
async def test_a_lie_about_a_phone_never_reaches_a_task(name: str, tmp_path: Path) -> None:
    given = telecom_rows()
    made, stopped, _ = await written(endpoint(TELECOM_LIES[name]), tmp_path, given=given)
    assert stopped is None
    assert [reason(row) for row in made] == [reason(row) for row in given]
    assert [row["writer"]["text"] for row in made] == ["template"] * 3


async def test_a_wifi_that_a_reader_finds_is_another_trouble(tmp_path: Path) -> None:
    given = [row for row in telecom_rows() if row["intents"][0]["kind"] == "slow_mobile_data"]
    has_wifi = endpoint(lambda text: re.sub(r"wifi = [a-z ]+", "wifi = there is good wifi", text))
    made, _, _ = await written(has_wifi, tmp_path, given=given)
    assert [row["writer"]["text"] for row in made] == ["template"]


async def test_an_honest_text_about_a_phone_is_taken_and_the_rest_of_the_task_stays(tmp_path: Path) -> None:
    given = telecom_rows()
    made, _, _ = await written(endpoint(lambda text: text), tmp_path, given=given)
    for before, after in zip(given, made, strict=True):
        assert after["writer"]["text"] == "model"
        assert reason(after) != reason(before)
        task = json.loads(json.dumps(after["task"]))
        task["user_scenario"]["instructions"]["reason_for_call"] = reason(before)
        assert task == before["task"]


READINGS: dict[str, Lie] = {
    "garbage": lambda said: "I think that looks fine.",
    "nothing is asked": lambda said: '{"requests": []}',
    "a request more": lambda said: json.dumps(
        {"requests": [*json.loads(said)["requests"], {"kind": "cancel", "order": "#W0000001", "why": "other"}]}
    ),
    "a condition": lambda said: json.dumps({**json.loads(said), "others": ["only if it is free"]}),
    "no list": lambda said: '{"requests": 7}',
}


@pytest.mark.parametrize("name", READINGS)
async def test_a_text_that_two_readers_do_not_recognise_is_not_taken(name: str, tmp_path: Path) -> None:
    made, _, _ = await written(endpoint(lambda text: text, reading=READINGS[name]), tmp_path)
    assert [reason(row) for row in made] == templates()


async def test_an_honest_text_is_taken_and_a_reason_helps_the_second_try(tmp_path: Path) -> None:
    asked: list[str] = []
    honest = endpoint(LIES["a condition"], lies=1)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(json.dumps(body["messages"]))
        return honest(body)

    made, _, calls = await written(answer, tmp_path)
    assert not set(map(reason, made)) & set(templates())
    for row in made:
        signed = row["writer"]
        assert (signed["model"], signed["text"], signed["attempts"]) == ("writer", "model", 2)
        assert signed["cost"] == pytest.approx(1.1 * 4)  # two of the writer, two votes
    assert calls == 4 * len(made)
    assert any("adds a condition" in prompt for prompt in asked)
    gold = {call["name"] for row in made for call in row["task"]["evaluation_criteria"]["actions"]}
    assert not [name for name in gold for prompt in asked if name in prompt], "the writer sees calls"
    again, _, more = await written(answer, tmp_path)
    assert (again, more) == (made, 0)


async def test_the_budget_stops_it_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    answer = endpoint(lambda text: text)
    made, stopped, calls = await written(answer, tmp_path, max_cost=4.0)
    assert stopped is not None
    assert 1 <= calls <= 3
    assert "template" not in [row.get("writer", {}).get("text") for row in made]
    made, stopped, more = await written(answer, tmp_path, max_cost=100.0)
    assert stopped is None
    assert [row["writer"]["text"] for row in made] == ["model"] * len(made)
    assert calls + more == 3 * len(made)
    bills = [json.loads(line) for line in (tmp_path / "costs.jsonl").read_text().splitlines()]
    assert sum(bill["cost"] for bill in bills) == pytest.approx(1.1 * 3 * len(made))


async def test_a_refused_key_is_one_clear_error_without_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing more was asked") as raised:
        await written(lambda body: {"status": 401, "message": f"bad key {KEY}", "code": "invalid_api_key"}, tmp_path)
    assert KEY not in str(raised.value)


def test_a_key_that_is_not_set_names_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with pytest.raises(ConfigError, match=r"NOT_SET.*--llm-api-key-var"):
        Texts("writer", "reader", "http://127.0.0.1:9/v1", "NOT_SET", None, (), 1).check()
    with pytest.raises(ConfigError, match="--max-cost needs a price"):
        Texts("nobody/model", "nobody/model", None, None, 1.0, (), 1).check()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_an_interrupted_run_pays_nothing_twice(how: signal.Signals, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    honest, enough = endpoint(lambda text: text), asyncio.Event()

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        seen[json.dumps(body)] += 1
        if sum(seen.values()) == 4:
            enough.set()
        return {**honest(body), "sleep": 0.05}

    async with ApiServer(answer) as server:
        command = [
            *(sys.executable, "-m", "tau2_slime.cli", "synth", "--domain", "retail", "--num-samples", "4"),
            *("--llm", "writer", "--llm-reader", "reader", "--llm-base-url", server.url, "--max-concurrency", "1"),
            *("--llm-api-key-var", "SYNTH_TEST_KEY", "--output-dir", str(tmp_path)),
        ]
        environment = {**os.environ, "SYNTH_TEST_KEY": KEY}
        first = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        await enough.wait()
        first.send_signal(how)
        _, said = await first.communicate()
        assert first.returncode == (-how if how is signal.SIGKILL else exit_status.UNFINISHED)
        assert b"Traceback" not in said
        assert (b"this goes on: tau2-slime synth" in said) == (how is signal.SIGINT)
        second = await asyncio.create_subprocess_exec(*command, env=environment)
        assert await second.wait() == 0
    # Two votes are two answers to one question. What was in flight at the kill may be asked again.
    votes = sum(count - (2 if '"reader"' in body[:60] else 1) for body, count in seen.items())
    assert votes <= 1
    assert not key_in(tmp_path)
    lines = (tmp_path / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["writer"]["text"] for line in lines] == ["model"] * 4


RETURN = Intent(
    "return",
    {"order": "your order #W1234567", "items": "T-Shirt and the Lamp", "pay": "your gift card"},
    {"order": ("#W1234567",), "items": ("T-Shirt", "Lamp"), "pay": ("gift card",)},
)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"items": "the Lamp and the T-Shirt"}, True),
        ({"order": "#W7654321"}, False),
        ({"items": "T-Shirt"}, False),
        ({"items": "T-Shirt and Lamp and Chair"}, False),
        ({"pay": "PayPal"}, False),
        ({"kind": "exchange"}, False),
        ({"why": "too small"}, False),
    ],
)
def test_a_reading_is_compared_slot_by_slot(change: dict[str, str], same: bool) -> None:
    request = {"kind": "return", "order": "#W1234567", "items": "T-Shirt and Lamp", "pay": "gift card", **change}
    assert names(json.dumps({"requests": [request], "others": []}), [RETURN]) is same
