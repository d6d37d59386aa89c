"""The same sampled turns through slime's and Tinker's doors: the same tokens, loss mask and log-probs, where the cookbook's
renderer shows the conversation as the model's own chat template does; and renderers.md names where it does not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.local.spelling import log_prob
from tests.backends.doors import cases as scripts
from tests.backends.doors import renderers
from tests.backends.doors.cases import Case
from tests.backends.doors.checkpoint import qwen3
from tests.backends.doors.run import play, python_of
from tests.backends.setup_env import REPOSITORY, EnvUnavailable
from tests.tokens.support import qwen_tokenizer, trl_template


def some_cases() -> list[Case]:
    """Every script written by hand, gold, wrong and random ones; telecom's user has tools of its own."""
    parts = []
    for domain, count in (("mock", 3), ("telecom", 1)):
        tasks = dict(list(scripts.every_task(domain).items())[:count])
        parts.append(scripts.gather(domain, tasks, seeds=2, special=domain == "mock"))
    return scripts.joined(*parts)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("renderer", "template", "results_apart"),
    [
        ("qwen3_instruct", "qwen3_instruct_2507", True),
        ("qwen3", "qwen3", True),
        ("nemotron3", "nemotron_3_nano", False),
    ],
)
def test_same_tokens_masks_and_log_probs(renderer: str, template: str, results_apart: bool, tmp_path: Path) -> None:
    """``results_apart``: the renderer gives each of several tool results a turn of its own, which the template does not."""
    cases = some_cases()
    played = play(
        cases, tmp_path, qwen3(tmp_path / "model", template), ("slime", "tinker"), "--tokens", "--renderer", renderer
    )
    if played.missing:
        pytest.skip(str(played.missing))
    tokenizer = qwen_tokenizer(trl_template(template))
    same = 0
    for case in cases:
        ours, theirs = (played.records[door][case.key] for door in ("slime", "tinker"))
        where = f"{case.kind}, {case.domain}/{case.task_id} ({case.key})"
        if theirs["paid"] is None or not theirs["datums"]:  # nothing to train on, at either door
            assert (theirs["paid"] == ours["paid"] and not any(ours["loss_mask"])) or ours["paid"] == 0.0, where
            continue
        assert theirs["datums"] == 1, where
        sampled = [_sampled(record, where) for record in (ours, theirs)]
        assert sampled[0] == sampled[1], where
        if results_apart and any(len(turn.calls) > 1 for turn in case.script.agent):
            _assert_parts_at_a_second_result(tokenizer, ours["tokens"], theirs["tokens"], where)
            continue
        if renderer == "nemotron3" and any(
            turn.content != turn.content.strip() for turn in case.script.user if turn.content
        ):
            # The renderer trims what the user says, and the model's own template does not.
            shown = [_with_trimmed_users(tokenizer.decode(record["tokens"])) for record in (ours, theirs)]
            assert shown[0] == shown[1], where
            continue
        assert ours["tokens"] == theirs["tokens"], where
        assert ours["loss_mask"] == theirs["loss_mask"], where
        assert ours["log_probs"] == pytest.approx(theirs["log_probs"], abs=1e-5), where
        same += 1
    assert same > len(cases) // 3
    print(f"\n{renderer}: {same} of {len(cases)} episodes have the same tokens, masks and log-probs at both doors")


def _sampled(record: dict[str, Any], where: str) -> list[int]:
    """The tokens that are trained on, after a look at their log-probs: the server's, each at its own place."""
    tokens, mask, given = record["tokens"], record["loss_mask"], record["log_probs"]
    assert len(tokens) == len(mask) == len(given), where
    trained = [place for place, value in enumerate(mask) if value]
    wanted = [log_prob(place, tokens[place]) for place in trained]
    assert [given[place] for place in trained] == pytest.approx(wanted, abs=1e-5), where
    return [tokens[place] for place in trained]


def _with_trimmed_users(conversation: str) -> str:
    def trimmed(found: re.Match[str]) -> str:
        return f"<|im_start|>user\n{found[1].strip()}<|im_end|>"

    return re.sub(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", trimmed, conversation, flags=re.DOTALL)


def _assert_parts_at_a_second_result(tokenizer: Any, ours: list[int], theirs: list[int], where: str) -> None:
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:  # over before the results were shown
        assert ours == theirs, where
        return
    assert tokenizer.decode(ours[:at]).endswith("</tool_response>"), where
    assert tokenizer.decode(theirs[at:]).startswith("<|im_end|>\n<|im_start|>user\n<tool_response>"), where


@pytest.mark.timeout(1200)
def test_the_documentation_names_where_renderers_and_chat_templates_part() -> None:
    for _, family in renderers.FAMILIES:
        renderers.template_of(family).tokenizer()  # skips, naming what has not been fetched
    try:
        python = python_of("tinker")
    except EnvUnavailable as unavailable:
        pytest.skip(str(unavailable))
    command = [str(python), "-m", "tests.backends.doors.renderers"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1100)
    assert done.returncode == 0, done.stderr[-4000:]
    tables = renderers.tables(json.loads(done.stdout.splitlines()[-1]))
    page = (REPOSITORY / "tests" / "backends" / "doors" / "renderers.md").read_text(encoding="utf-8")
    assert tables in page, f"tests/backends/doors/renderers.md must say:\n{tables}"
