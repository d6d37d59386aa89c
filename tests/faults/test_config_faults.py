"""A configuration that cannot work: told once, by name and with what is allowed, before the policy is asked anything."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Stage, Status, detail, outcome

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
    assert [record.levelname for record in told] == ["ERROR", "WARNING"]
    assert "9 more of this kind" in told[1].getMessage(), "the tenth of twenty"
