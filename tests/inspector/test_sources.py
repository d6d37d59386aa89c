"""Every kind of file that `tau2-slime inspect` reads, and what it says of one that it cannot."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.episode.result import failed_result
from tau2_slime.errors import ConfigError
from tau2_slime.inspector import terminal
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.conversation import conversation_of
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.outcome import Termination
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample
from tau2_slime.view.page import write_page
from tests.inspector.browser import Page, assert_turns_are_the_ledgers, browse, read_tokens
from tests.test_cli import tau2_slime

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def test_the_list_says_what_was_played(rollout: Path) -> None:
    done = tau2_slime("inspect", str(rollout), COLUMNS="160")
    assert done.returncode == 0, done.stderr
    for word in (
        "create_task_1",
        "update_task_1",
        "retail",
        "user_stop",
        "8 episodes",
        "user scripted",
        "checks/db",
        "without an error",
    ):
        assert word in done.stdout
    only = tau2_slime("inspect", str(rollout), "--domain", "retail", COLUMNS="160")
    assert "4 episodes" in only.stdout
    assert "create_task_1" not in only.stdout


def test_the_list_is_whole_on_80_columns(rollout: Path) -> None:
    done = tau2_slime("inspect", str(rollout), COLUMNS="80")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["episode", "domain", "task", "msgs", "sampled", "errors", "reward", "ended"]
    assert all(line.rstrip().endswith("user_stop") for line in lines[:8])


def test_one_episode_in_full(rollout: Path) -> None:
    done = tau2_slime("inspect", str(rollout), "--episode", "5")
    assert done.returncode == 0, done.stderr
    for word in (
        "retail/train/0",
        "find_user_id_by_name_zip(",
        "sampled tokens",
        "finish stop",
        "reward breakdown",
        "database",
    ):
        assert word in done.stdout


def test_what_is_said_of_the_database_is_what_the_reward_says(
    rollout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_episodes(rollout).trajectories
    for right in (True, False):
        one = next(t for t in found if t.domain == "mock" and (t.reward == 1.0) is right)
        terminal.show_episode(one, None)
        said = capsys.readouterr().out
        assert ("database: as gold leaves it" in said) is right
        assert ("database: not as gold leaves it" in said) is not right


def test_a_model_cannot_steer_the_terminal(rollout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = read_episodes(rollout).trajectories[0]
    one.messages[-1]["content"] = "\x1b[2Jgone[red]not markup[/red]\x07"
    terminal.show_episode(one, None, world=False)
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert "\\x1b[2Jgone[red]not markup[/red]\\x07" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nowhere", None, ["no such file"]),
        ("x.txt", "hello", ["not a kind of file", "simulations.jsonl"]),
        ("x.json", "{}", ["not τ²'s results"]),
        ("empty.jsonl", "", ["no episode in it"]),
    ],
)
def test_what_is_no_file_of_episodes_gets_one_clear_line(
    tmp_path: Path, name: str, content: str | None, words: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as raised:
        read_episodes(tmp_path / name)
    for word in words:
        assert word in str(raised.value)


def test_an_unknown_episode_names_some(rollout: Path) -> None:
    done = tau2_slime("inspect", str(rollout), "--episode", "99")
    assert done.returncode == 2
    assert "--episode 99" in done.stderr


# ---- τ²'s own results --------------------------------------------------------------------------------------------------


def test_tau2s_own_results(rollout: Path, tmp_path: Path) -> None:
    from tau2.data_model.message import AssistantMessage, ToolMessage, UserMessage
    from tau2.data_model.simulation import AgentInfo, Info, Results, RewardInfo, SimulationRun, UserInfo
    from tau2.environment.environment import EnvironmentInfo

    from tau2_slime.world import domains

    kinds = {"assistant": AssistantMessage, "user": UserMessage, "tool": ToolMessage}
    played = next(one for one in read_episodes(rollout).trajectories if one.domain == "mock" and one.reward is not None)
    run = SimulationRun(
        id="a",
        task_id=played.task_id,
        start_time="2026-01-01",
        end_time="2026-01-01",
        duration=1.0,
        termination_reason="user_stop",
        reward_info=RewardInfo(**played.reward_info),
        messages=[kinds[message["role"]](**message) for message in played.messages],
        trial=0,
        seed=1,
    )
    info = Info(
        git_commit="x",
        num_trials=1,
        max_steps=100,
        max_errors=10,
        user_info=UserInfo(
            implementation="user_simulator", llm="vendor/user", llm_args={}, global_simulation_guidelines=""
        ),
        agent_info=AgentInfo(implementation="llm_agent", llm="vendor/agent", llm_args={}),
        environment_info=EnvironmentInfo(domain_name="mock", policy="", tool_defs=None),
        seed=1,
    )
    task = domains.find_task("mock", "base", task_id=played.task_id)
    Results(info=info, tasks=[task], simulations=[run]).save(tmp_path / "results.json")
    for path in (tmp_path, tmp_path / "results.json"):
        (one,) = read_episodes(path).trajectories
        assert (one.domain, one.task_id, one.user_model) == ("mock", played.task_id, "vendor/user")
        assert (one.reward, one.termination, one.blame) == (played.reward, "user_stop", "agent")
        assert [b.text for b in conversation_of(one)] == [str(m.get("content") or "") for m in played.messages]
        assert check_trajectory(one) == []
    write_page(tmp_path / "page.html", [one], title="results")
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_an_evaluations_folder(rollout: Path, tmp_path: Path) -> None:
    line = json.loads((rollout / "trajectories.jsonl").read_text().splitlines()[0])
    record = {k: v for k, v in line.items() if k not in ("index", "group", "generations")}
    stamps = [message.pop("timestamp", None) for message in record["messages"]]
    record |= {"dataset": "bench", "item": f"mock/{line['task_id']}", "attempt": 2, "excluded": False}
    record["clock"] = {"total_time": 1.5, "messages": stamps}
    (tmp_path / "simulations.jsonl").write_text(json.dumps(record) + "\n")
    (one,) = read_episodes(tmp_path).trajectories
    assert one.name == f"bench/mock/{line['task_id']}#2"
    assert one.reward == line["reward"]
    assert one.stats["total_time"] == 1.5
    assert check_trajectory(one) == []
    assert len(conversation_of(one)) == len(line["messages"]) + 1


# ---- files of earlier versions -----------------------------------------------------------------------------------------

OLD = Path(__file__).resolve().parents[1] / "data" / "rollout-0.1.0"
"""Written by version 0.1.0: ``tau2-slime rollout --domain mock --groups 1 --samples-per-prompt 4 --mistakes 0.4``."""


def test_an_old_rollout_is_listed_and_passes_the_check(tmp_path: Path) -> None:
    listed = tau2_slime("inspect", str(OLD), COLUMNS="160")
    assert "4 episodes, 0 excluded, mean reward 0.250" in listed.stdout, listed.stderr
    assert re.search(r"create_task +3 +33.3%", listed.stdout), "the tool's calls, and how many had no error"
    for name in ("samples.jsonl", "trajectories.jsonl"):  # without summary.json, which names the tokenizer
        shutil.copy(OLD / name, tmp_path / name)
    checked = tau2_slime("inspect", "--check", str(tmp_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "4 samples, 4 with tokens: 0 violations" in checked.stdout


def test_an_old_rollout_is_a_page_with_all_of_its_tokens(tmp_path: Path) -> None:
    found = read_episodes(OLD)
    language = language_of(found, None)
    page = tmp_path / "old.html"
    assert tau2_slime("inspect", str(OLD), "--html", str(page)).returncode == 0

    async def act(page: Page) -> list[Any]:
        out = []
        for number in range(len(found.trajectories)):
            await page.run(f"openEpisode({number})")
            out.append(await read_tokens(page, ".message.assistant"))
        return out

    for turns, one in zip(browse(page, tmp_path, act), found.trajectories, strict=True):
        assert_turns_are_the_ledgers(turns, one, language)


# ---- slime's dumps -----------------------------------------------------------------------------------------------------


def test_slimes_own_dump_shows_and_passes(slime: str, python: str, tmp_path: Path) -> None:
    """slime's `RolloutManager` plays and dumps, with partial rollouts that take old tokens out of the loss."""
    plan = {
        "slime": slime,
        "folder": str(tmp_path),
        "rollouts": 2,
        "keep_dumps": True,
        "flags": ["--partial-rollout", "--mask-offpolicy-in-partial-rollout", "--over-sampling-batch-size", "4"],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [python, "-m", "tests.slime_cpu", str(tmp_path / "plan.json"), str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "report.json").read_text())["problems"] == []
    from tau2_slime.local.tokenizer import local_checkpoint

    given = ["-m", "tau2_slime.cli", "inspect", str(tmp_path), "--hf-checkpoint", str(local_checkpoint())]
    done = subprocess.run([python, *given, "--check"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 samples, 12 with tokens: 0 violations" in done.stdout
    assert "12 first prompts" in done.stdout
    done = subprocess.run([python, *given, "--html", str(tmp_path / "p.html")], capture_output=True, text=True)
    assert "12 episodes" in done.stdout, done.stderr


@needs_torch
@pytest.mark.parametrize("old", [False, True])
def test_a_dump_details_folder_says_its_tokenizer(rollout: Path, tmp_path: Path, old: bool) -> None:
    import torch

    samples = [json.loads(line) for line in ((OLD if old else rollout) / "samples.jsonl").read_text().splitlines()]
    (tmp_path / "rollout_data").mkdir()
    (tmp_path / "tokenizer").mkdir()
    torch.save({"rollout_id": 3, "samples": samples}, tmp_path / "rollout_data" / "3.pt")
    loaded = read_episodes(tmp_path)
    assert loaded.checkpoint == str(tmp_path / "tokenizer")
    assert len(loaded.trajectories) == len(samples)
    assert all(check_trajectory(one) == [] for one in loaded.trajectories)


# ---- samples of episodes that failed -----------------------------------------------------------------------------------


def _file_of(sample: StandaloneSample, folder: Path) -> Path:
    row: dict[str, Any] = {**vars(sample), "status": sample.status.value}
    (folder / "samples.jsonl").write_text(json.dumps(row, default=str) + "\n")
    return folder / "samples.jsonl"


def test_a_sample_that_stands_in_for_nothing_passes(tmp_path: Path) -> None:
    result = failed_result("no answer", termination=Termination.USER_ERROR, domain="mock", task_id="t")
    sample = fill_sample(StandaloneSample(index=0), result)
    (one,) = read_episodes(_file_of(sample, tmp_path)).trajectories
    assert one.excluded
    assert check_trajectory(one) == []
    sample.loss_mask = [1]
    (one,) = read_episodes(_file_of(sample, tmp_path)).trajectories
    assert any("removed from training, but this token is in the loss" in str(v) for v in check_trajectory(one))


def test_a_foreign_sample_of_a_mixed_batch_is_checked_for_what_it_has(tmp_path: Path) -> None:
    sample = StandaloneSample(
        index=0, tokens=[1, 2, 3], response_length=2, loss_mask=[1, 0], rollout_log_probs=[-0.5, 0.0], reward=1.0
    )
    (one,) = read_episodes(_file_of(sample, tmp_path)).trajectories
    assert check_trajectory(one) == []
    sample.rollout_log_probs = [-0.5, -0.1]
    (one,) = read_episodes(_file_of(sample, tmp_path)).trajectories
    assert [v.position for v in check_trajectory(one)] == [2]


def test_importing_the_command_stays_cheap() -> None:
    code = (
        "import sys; import tau2_slime.cli.commands; "
        "print([m for m in ('tau2', 'litellm', 'transformers', 'torch', 'rich.table') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().startswith("["), done.stderr
    assert not {"tau2", "litellm", "transformers", "torch"} & set(json.loads(done.stdout.replace("'", '"')))
