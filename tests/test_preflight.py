"""What the doctor checks before a launch: each mistake is found, named, and comes with its fix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.cli import preflight
from tau2_slime.cli.checks import Verdict
from tau2_slime.cli.examine import Finding, Launch, examine
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.slime_adapter import GENERATE
from tests.launch_lines import ROOT, fake_slime

ROW = {"index": 0, "prompt": [], "metadata": {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**metadata: Any) -> dict[str, Any]:
    return {**ROW, "metadata": {**ROW["metadata"], **metadata}}  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("TAU2_") or n.endswith("_API_KEY")]:
        monkeypatch.delenv(name)


async def findings(launch: Launch) -> dict[str, Finding]:
    config = Tau2Config(domain="mock", task_split="base")
    found = examine(config, hf_checkpoint=None, router=None, user_models=[], domains=["mock"], launch=launch)
    return {finding.subject: finding async for finding in found}


def test_good_rows_are_counted_and_bring_their_user_models(tmp_path: Path) -> None:
    unnumbered = {key: value for key, value in row(user_model="gpt-4o").items() if key != "index"}
    data = write(tmp_path / "d.jsonl", row(), unnumbered)
    found = preflight.prompt_data(str(data), {})
    assert "2 mock/base" in found.text
    assert sorted(model for model, _ in found.users) == ["gpt-4o", "gpt-4o-mini"]
    assert "1 mock/base" in preflight.prompt_data(f"{data}@[0:1]", {}).text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, ["missing", "prepare_tau2_data.py"]),
        ("", ["no rows"]),
        ("{\n", ["line 1", "JSON"]),
        ('{"metadata": "text"}\n', ["line 1", "metadata object"]),
        (json.dumps(ROW) + "\n" + json.dumps(row(task_id="create_task")) + "\n", ["line 2", "create_task_1"]),
        (json.dumps({**ROW, "index": 5}) + "\n", ["line 1", "disagree"]),
        (json.dumps(row(domain="moc")) + "\n", ["line 1", "moc"]),
        (json.dumps(row(max_turn=3)) + "\n", ["line 1", "max_turn"]),
    ],
)
def test_bad_rows_are_named_with_their_line(tmp_path: Path, content: str | None, named: list[str]) -> None:
    file = tmp_path / "d.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        preflight.prompt_data(str(file), {})
    assert all(name in str(refused.value) for name in [str(file), *named]), str(refused.value)


def dataset(file: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "first",
        "path": str(file),
        "custom_generate_function_path": GENERATE,
        "metadata_overrides": {"user_model": "openai/a", "user_base_url": "http://127.0.0.1:9/v1"},
        **changes,
    }


def test_an_evaluation_file_is_summed_up(tmp_path: Path) -> None:
    other = {"metadata": row(task_id="impossible_task_1")["metadata"]}  # rows need no index if they name their task
    data = write(tmp_path / "d.jsonl", row(), other)
    second = dataset(data, name="second", n_samples_per_eval_prompt=3, metadata_overrides={})
    section = {"defaults": {"n_samples_per_eval_prompt": 2}, "datasets": [dataset(data), second]}
    file = tmp_path / "eval.yaml"
    file.write_text(json.dumps({"eval": section}))
    found = preflight.eval_config(file, {})
    assert "2 datasets, 10 episodes" in found.text
    assert {model for model, _ in found.users} == {"openai/a", "gpt-4o-mini"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"path": "nowhere.jsonl"}, ["datasets[0].path", "nowhere.jsonl"]),
        (
            {"custom_generate_function_path": "my.generate"},
            ["datasets[0].custom_generate_function_path", "my.generate"],
        ),
        ({"metadata_overrides": {"user_modle": "x"}}, ["datasets[0].metadata_overrides", "user_modle"]),
        ({"metadata_overrides": {"domain": "airline"}}, ["datasets[0]", "line 1", "airline/base"]),
    ],
)
def test_a_bad_dataset_is_named(tmp_path: Path, changes: dict[str, Any], named: list[str]) -> None:
    write(tmp_path / "d.jsonl", row())
    file = tmp_path / "eval.yaml"
    file.write_text(json.dumps({"datasets": [dataset(tmp_path / "d.jsonl", **changes)]}))
    with pytest.raises(ConfigError) as refused:
        preflight.eval_config(file, {})
    assert all(name in str(refused.value) for name in named), str(refused.value)


def test_the_evaluation_file_that_comes_along_needs_its_folder_and_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATA_DIR", raising=False)
    with pytest.raises(ConfigError, match="DATA_DIR"):
        preflight.eval_config(ROOT / "eval_config.yaml", {})
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"retail_test_tasks\.jsonl is missing"):
        preflight.eval_config(ROOT / "eval_config.yaml", {})


async def test_every_missing_key_of_training_and_evaluation_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"user_model": "openrouter/deepseek/deepseek-v3.2", "user_api_key_var": "MY_KEY"}
    data = write(tmp_path / "d.jsonl", row())
    file = tmp_path / "eval.yaml"
    file.write_text(
        json.dumps(
            {
                "datasets": [
                    dataset(data, metadata_overrides=overrides),
                    dataset(data, name="second", metadata_overrides={"user_model": "anthropic/claude-sonnet-4-5"}),
                ]
            }
        )
    )
    launch = Launch(prompt_data=str(data), eval_config=file, tau2={"user_model_rotation": ["gpt-4o"]}, call_users=False)
    found = await findings(launch)
    missing = {name: f.text for name, f in found.items() if f.verdict is Verdict.FAIL}
    assert set(missing) == {"user gpt-4o", "user openrouter/deepseek/deepseek-v3.2", "user anthropic/claude-sonnet-4-5"}
    assert "OPENAI_API_KEY" in missing["user gpt-4o"]
    assert "MY_KEY" in missing["user openrouter/deepseek/deepseek-v3.2"]
    assert "ANTHROPIC_API_KEY" in missing["user anthropic/claude-sonnet-4-5"]  # named by nobody: litellm's own choice
    for name in ("OPENAI_API_KEY", "MY_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    found = await findings(launch)
    assert not [f for f in found.values() if f.verdict is Verdict.FAIL]
    assert not [f for f in found.values() if "sk-secret" in f.text]


async def test_solo_agents_need_no_user_model(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", row(agent_type="solo"))
    found = await findings(Launch(prompt_data=str(data), call_users=False))
    assert not [name for name in found if name.startswith("user")]


def test_a_conversion_that_is_missing_or_unfinished(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"convert_hf_to_torch_dist\.py"):
        preflight.torch_dist(tmp_path / "none")
    with pytest.raises(ConfigError, match="did not finish"):
        preflight.torch_dist(tmp_path)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("release\n")
    assert "release" in preflight.torch_dist(tmp_path)


def test_too_few_gpus_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="nvidia-smi"):
        preflight.gpus(8)
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: NVIDIA H100 (UUID: x)"; done\n')
    smi.chmod(0o755)
    assert "4 x NVIDIA H100" in preflight.gpus(4)
    with pytest.raises(ConfigError, match="NUM_GPUS=4"):
        preflight.gpus(8)
    smi.write_text(smi.read_text() + 'echo "  MIG 1g.10gb Device 0: (UUID: y)"\n')
    assert "4 x NVIDIA H100" in preflight.gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=0,1"):
        preflight.gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1, ")
    with pytest.raises(ConfigError, match="2 GPUs are visible"):
        preflight.gpus(3)
    smi.write_text(smi.read_text() + "exit 9\n")
    with pytest.raises(ConfigError, match="are asked for"):
        preflight.gpus(2)


def test_a_folder_that_is_not_slime(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SLIME_DIR"):
        preflight.slime_source(tmp_path)
    assert preflight.slime_source(fake_slime(tmp_path / "slime")) == str(tmp_path / "slime")
    for name in ("train.py", "slime/__init__.py"):
        folder = fake_slime(tmp_path / f"without {Path(name).stem}")
        (folder / name).unlink()
        with pytest.raises(ConfigError, match="SLIME_DIR"):
            preflight.slime_source(folder)


def test_the_jobs_mapping_counts_for_an_evaluation_as_well(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", row())
    file = tmp_path / "eval.yaml"
    file.write_text(json.dumps({"datasets": [dataset(data, metadata_overrides={})]}))
    assert [model for model, _ in preflight.eval_config(file, {"user_model": "openai/b"}).users] == ["openai/b"]


def test_a_model_is_called_once_for_each_endpoint_and_key() -> None:
    def config(**settings: Any) -> Tau2Config:
        return Tau2Config(domain="mock", task_split="base", **settings)

    first, same = config(user_base_url="http://a/v1"), config(user_base_url="http://a/v1", max_turns=3)
    elsewhere, other_key = (
        config(user_base_url="http://b/v1"),
        config(user_base_url="http://a/v1", user_api_key_var="K"),
    )
    callers = [("openai/m", c) for c in (first, same, elsewhere, other_key)]
    assert preflight.distinct(callers) == [callers[0], callers[2], callers[3]]
    assert preflight.distinct(callers)[0][1] is first
