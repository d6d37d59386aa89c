"""Whatever comes in and whatever breaks, `generate` hands back the same sample in a shape that slime can train on."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import generate_with_tau2
from tau2_slime.samples import StandaloneSample
from tests.faults.conftest import GOLD, PAID, Stage, Status, check_sample, detail, outcome
from tests.faults.servers import Ask, Move, answer, error, http, partial, queued_abort, reset_mid_reply, say

MISTAKE = (Status.FAILED, "config_error", "infrastructure")

# ---- a configuration that cannot work --------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown domain": ({"domain": "spaceship"}, ("spaceship", "airline", "retail")),
    "unknown split": ({"task_split": "tarin"}, ("tarin", "base")),
    "unknown task": ({"task_id": "create_task_one"}, ("create_task_one", "create_task_1")),
    "no task": ({"task_id": None}, ("task_id", "index")),
    "position outside": ({"task_id": None, "index": 9999}, ("9999",)),
    "position and id disagree": ({"index": 1}, ("create_task_1", "disagree")),
    "unknown agent": ({"agent_type": "wizard"}, ("wizard", "llm", "solo", "gt")),
    "unknown key": ({"user_modell": "x"}, ("user_modell", "user_model")),
    "a bad number": ({"max_steps": 0}, ("max_steps",)),
    "unknown parser": ({"tool_call_parser": "morse"}, ("morse", "hermes")),
    "unknown environment setting": ({"env_kwargs": {"colour": 1}}, ("colour",)),
    "solo in airline": (
        {"domain": "airline", "task_split": "base", "task_id": None, "index": 0, "agent_type": "solo"},
        ("solo", "airline"),
    ),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_setting_is_named(stage: Stage, kind: str) -> None:
    metadata, words = BAD[kind]
    sample = await stage.play(task=metadata)
    assert outcome(sample) == MISTAKE
    for word in words:
        assert word in detail(sample)
    assert stage.router.asks == []


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({"hf_checkpoint": None}, "hf_checkpoint"),
        ({"hf_checkpoint": ""}, "hf_checkpoint"),
        ({"hf_checkpoint": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"sglang_router_ip": None}, "sglang_router_ip"),
        ({"sglang_router_port": None}, "sglang_router_port"),
        ({"tau2": {"user_modell": "x"}}, "user_modell"),
        ({"tau2": ["user_model"]}, "tau2"),
        ({"tau2": {"user_model": "gpt-4o-mini"}}, "OPENAI_API_KEY"),
    ],
)
async def test_a_bad_argument_is_named(stage: Stage, args: dict[str, Any], word: str) -> None:
    sample = await stage.play(args=args)
    assert outcome(sample) == MISTAKE
    assert word in detail(sample)
    assert "agent_type=" not in detail(sample), "the agent has nothing to do with it"


async def test_a_task_for_a_judge_is_refused_before_it_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.world import domains, tau2_compat

    task = domains.find_task("mock", "base", task_id="create_task_1").model_copy(deep=True)
    task.evaluation_criteria.nl_assertions = ["The agent was kind."]
    task.evaluation_criteria.reward_basis = [tau2_compat.load().RewardType.NL_ASSERTION]
    monkeypatch.setattr(domains, "find_task", lambda *_, **__: task)
    sample = await stage.play()
    assert outcome(sample) == MISTAKE
    assert "allow_llm_judge" in detail(sample)
    assert stage.router.asks == []


BROKEN_FILES: dict[str, dict[str, str | None]] = {
    "tokenizer.json is no JSON": {"tokenizer.json": "not json"},
    "tokenizer.json is another JSON": {"tokenizer.json": "{}"},
    "tokenizer.json is gone": {"tokenizer.json": None},
    "tokenizer_config.json is no JSON": {"tokenizer_config.json": "{"},
    "config.json is no JSON": {"config.json": "{"},
    "config.json is a list": {"config.json": "[]"},
    "generation_config.json is no JSON": {"generation_config.json": "{"},
}


def _copy(checkpoint: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint, folder)
    return folder


@pytest.mark.parametrize("kind", BROKEN_FILES)
async def test_a_broken_checkpoint_is_named(stage: Stage, tmp_path: Path, kind: str) -> None:
    folder = _copy(stage.checkpoint, tmp_path / "broken")
    for name, text in BROKEN_FILES[kind].items():
        (folder / name).unlink() if text is None else (folder / name).write_text(text)
    sample = await stage.play(args={"hf_checkpoint": str(folder)})
    assert outcome(sample) == MISTAKE
    assert "broken" in detail(sample)


TEMPLATES: dict[str, str | None] = {
    "none": None,
    "no tools": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "no closer": "{{ tools }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "raises": "{{ raise_exception('no') }}",
    "no Jinja": "{% if %}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
async def test_a_template_that_cannot_be_used_is_named(stage: Stage, tmp_path: Path, kind: str) -> None:
    folder = _copy(stage.checkpoint, tmp_path / "strange")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATES[kind]
    if TEMPLATES[kind] is None:
        del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    sample = await stage.play(args={"hf_checkpoint": str(folder)})
    assert outcome(sample) == MISTAKE
    assert "template" in detail(sample)
    assert "strange" in detail(sample)


@pytest.mark.parametrize("args", [{}, {"hf_checkpoint": "/nowhere/at/all"}], ids=["setting", "checkpoint"])
async def test_a_cause_is_logged_once(stage: Stage, caplog: pytest.LogCaptureFixture, args: dict[str, Any]) -> None:
    wrong = {} if args else {"domain": "spaceship"}
    with caplog.at_level(logging.INFO):
        samples = await asyncio.gather(*(stage.play(task=wrong, name=f"s{i}", args=args) for i in range(20)))
    assert {outcome(sample) for sample in samples} == {MISTAKE}
    told = [record for record in caplog.records if record.name.startswith("tau2_slime")]
    assert len(told) == 1


@pytest.mark.surprise
async def test_a_bug_is_logged_once_with_its_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("tau2_slime.assembly.make_user", explode)
    samples = await asyncio.gather(*(stage.play(name=f"s{i}") for i in range(20)))
    assert {outcome(sample) for sample in samples} == {(Status.FAILED, "infrastructure_error", "infrastructure")}
    assert all("a bug of ours" in detail(sample) for sample in samples)
    assert len([r for r in caplog.records if r.name.startswith("tau2_slime") and r.exc_info]) == 1


# ---- samples as slime makes them -------------------------------------------------------------------------------------


@dataclass
class _Counts:
    """Like slime's PrefixCacheInfo: adds what it finds."""

    total: int = 0

    def add(self, meta: dict[str, Any]) -> None:
        self.total += meta.get("cached_tokens", 0) + meta.get("prompt_tokens", 0)


@dataclass
class SlimeSample(StandaloneSample):
    prefix_cache_info: _Counts = field(default_factory=_Counts)
    spec_info: _Counts = field(default_factory=_Counts)


def _fresh(cls: type[StandaloneSample] = SlimeSample, **changes: Any) -> Any:
    metadata = {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}
    return cls(**{"index": 5, "group_index": 2, "session_id": "episode", "metadata": metadata, **changes})


async def test_cache_statistics_are_added(stage: Stage) -> None:
    stage.router.script = GOLD
    sample = await stage.run(stage.args(), _fresh())
    assert sample.prefix_cache_info.total == sum(len(ask.ids) for ask in stage.router.asks)


async def test_strange_statistics_of_the_server_break_nothing(stage: Stage) -> None:
    odd = answer("Your case is now complete.", mangle=lambda body: body["meta_info"].update(cached_tokens=None))
    stage.router.script = [GOLD[0], odd]
    sample = _fresh()
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99})
    check_sample(sample)
    assert outcome(sample) == PAID


async def test_an_earlier_unfinished_episode_is_forgotten(stage: Stage) -> None:
    first = await stage.play([partial("Let me")], aborted=lambda: bool(stage.router.asks))
    assert first.status is Status.ABORTED
    stage.router.script = GOLD
    stage.router.sent.clear()
    stage.router.asks.clear()
    stage.router._at.clear()
    first.metadata = {key: value for key, value in first.metadata.items() if key != "tau2"}
    first.loss_mask = [0] * first.response_length
    for name in ("raw_reward", "round_number"):
        del first.metadata[name]
    again = await stage.run(stage.args(), first)
    assert outcome(again) == PAID
    assert again.reward == 1.0
    assert again.metadata["raw_reward"] == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": None},
        {"metadata": {}},
        {"metadata": "text"},
        {"metadata": [1]},
        {"metadata": {"domain": 7, "task_id": b"bytes"}},
        {"metadata": {1: 2, None: 3}},
        {"prompt": None},
        {"prompt": [{"role": "user", "content": "3"}]},
        {"index": None, "group_index": None, "session_id": None},
        {"index": "first"},
    ],
    ids=str,
)
async def test_any_sample_comes_back(stage: Stage, changes: dict[str, Any]) -> None:
    stage.router.script = GOLD
    sample = _fresh(**changes)
    assert await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}) is sample
    check_sample(sample)


async def test_a_sample_without_a_session_gets_one_and_the_router_sees_it(stage: Stage) -> None:
    stage.router.script = GOLD
    sample = _fresh(session_id=None)
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}, True)
    assert sample.session_id
    assert {ask.key for ask in stage.router.asks} == {sample.session_id}


@pytest.mark.parametrize("params", [None, {}, {"max_new_tokens": None}, {"max_new_tokens": "many"}], ids=str)
async def test_any_sampling_parameters(stage: Stage, params: Any, request: pytest.FixtureRequest) -> None:
    stage.router.script = GOLD
    request.node.add_marker(pytest.mark.surprise)
    sample = _fresh()
    assert await generate_with_tau2.generate(stage.args(), sample, params) is sample
    check_sample(sample)


@pytest.mark.surprise
@pytest.mark.parametrize(
    "place",
    [
        "tau2_slime.trainable_agents.TrainableAgentMixin._fill_stats",
        "tau2_slime.policy.Transcript.drift",
        "tau2_slime.world.scoring.score",
        "tau2_slime.world.domains.World.set_state",
        "tau2_slime.world.domains.World.call",
        "tau2_slime.tokens.chat_delta.ChatDelta.between",
        "tau2_slime.tokens.chat_delta.ChatDelta.first_prompt_delta",
        "tau2_slime.tokens.parsers.hermes.HermesParser.parse",
        "tau2_slime.local.scripted_user.ScriptedUser.reply",
        "tau2_slime.samples.fill_sample",
        "tau2_slime.samples.reset_sample",
        "tau2_slime.generate_with_tau2._slime_state",
    ],
)
async def test_a_bug_anywhere_stops_no_training(stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    times = 0
    owner, name = place.rsplit(".", 1)
    original = _resolve(owner, name)

    def explode(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            raise ZeroDivisionError("a bug of ours")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, explode)
    stage.router.script = GOLD
    sample = _fresh()
    assert await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}) is sample
    assert times, "the planted bug was met"
    check_sample(sample)
    if name == "drift":
        assert outcome(sample) == PAID, "a metric costs no episode"
    else:
        assert outcome(sample)[::2] == (Status.FAILED, "infrastructure")
        assert "a bug of ours" in detail(sample)


@pytest.mark.surprise
async def test_a_callback_that_fails_loses_no_sample(stage: Stage) -> None:
    def explode(sample: Any, result: Any) -> None:
        raise OSError("disk full")

    sample = await stage.play(args={"tau2_on_result": explode})
    assert outcome(sample) == PAID


def _resolve(owner: str, name: str) -> Any:
    import importlib

    parts = owner.split(".")
    for size in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for part in parts[size:]:
            value = getattr(value, part)
        return getattr(value, name)
    raise ImportError(owner)


@dataclass
class OldSample:
    """A Sample that has no session_id, weight_versions and non_generation_time."""

    Status = StandaloneSample.Status

    index: int | None = 0
    prompt: Any = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    reward: float | None = None
    loss_mask: list[int] | None = None
    rollout_log_probs: list[float] | None = None
    status: StandaloneSample.Status = StandaloneSample.Status.PENDING
    metadata: dict[str, Any] = field(default_factory=dict)
    remove_sample: bool = False


async def test_a_sample_of_an_older_slime(stage: Stage) -> None:
    """Fields that its Sample lacks are not invented: its debug dump would not know them."""
    stage.router.script = GOLD
    sample = OldSample(metadata={"domain": "mock", "task_split": "base", "task_id": "create_task_1"})
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99})
    assert outcome(sample) == PAID
    assert set(vars(sample)) == {f.name for f in dataclasses.fields(OldSample)}


# ---- many at once ----------------------------------------------------------------------------------------------------

_PASSING: list[Move] = [
    error(500, "call_upstream_request_error"),
    error(503, "no_available_workers"),
    http(200, "<html>"),
    http(200, ""),
    reset_mid_reply(),
    queued_abort(),
]
_LASTING: list[Move] = [
    error(400, "bad request"),
    http(404, "Not Found"),
    answer("Hello there.", mangle=lambda body: body["output_ids"].reverse()),
]


def _fate(ask: Ask) -> Move | None:
    """A fault for a fifth of the requests, one of ten of them fatal; the same for the same request of the same episode."""
    number = int.from_bytes(hashlib.sha256(f"{ask.key}/{ask.ordinal}".encode()).digest()[:4], "big")
    if number % 50 == 0:
        return _LASTING[number // 50 % len(_LASTING)]
    return _PASSING[number // 50 % len(_PASSING)] if number % 50 < 10 else None


async def test_five_hundred_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.policy._RESUME_PAUSE", 0.01)
    fatal: set[str] = set()

    def choose(ask: Ask) -> Move | None:
        move = _fate(ask)
        if move in _LASTING:
            fatal.add(ask.key)
        return move

    stage.router.choose = choose
    stage.router.script = GOLD
    args = stage.args(request_retries=12, drift_rate=0.0)
    samples = [
        StandaloneSample(
            index=i,
            group_index=i // 8,
            session_id=f"s{i}",
            metadata={"domain": "mock", "task_split": "base", "task_id": "create_task_1"},
        )
        for i in range(500)
    ]
    returned = await asyncio.gather(*(generate_with_tau2.generate(args, s, {"max_new_tokens": 256}) for s in samples))
    assert all(a is b for a, b in zip(returned, samples, strict=True))
    for sample in samples:
        check_sample(sample)
        expected = (Status.FAILED, "infrastructure_error", "infrastructure") if sample.session_id in fatal else PAID
        assert outcome(sample) == expected
    assert fatal
    assert Counter(s.status for s in samples) == {
        Status.COMPLETED: 500 - len(fatal),
        Status.FAILED: len(fatal),
    }
    paid = [s for s in samples if s.status is Status.COMPLETED]
    assert {s.reward for s in paid} == {1.0}
    for sample in paid:
        prompt = len(sample.tokens) - sample.response_length
        sampled = [t for t, m in zip(sample.tokens[prompt:], sample.loss_mask, strict=True) if m]
        assert sampled == [t for ids in stage.router.sent[sample.session_id] for t in ids], (
            "no token of another episode"
        )
    assert len(stage.results) == 500


async def test_the_greeting_alone(stage: Stage) -> None:
    """The shortest honest episode: one word of the policy."""
    sample = await stage.play([say("Your case is now complete.")])
    assert sample.status is Status.COMPLETED
    assert sample.reward == 0.0
