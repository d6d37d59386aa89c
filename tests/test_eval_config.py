"""eval_config.yaml: every dataset stands on its own, names real tasks, and is a valid configuration."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.files import write_files
from tau2_slime.data.plan import plan_files
from tau2_slime.data.request import DataRequest
from tau2_slime.world import domains
from tests.slime_checkout import run_in_slime

CONFIG = Path(__file__).parents[1] / "eval_config.yaml"
MODELS = {
    "openrouter/deepseek/deepseek-v3.2",
    "openrouter/google/gemini-2.5-flash-lite-preview-09-2025",
    "openrouter/openai/gpt-oss-120b",
}
ALL = {(domain, model) for domain in ("retail", "airline", "telecom") for model in MODELS}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_files(plan_files(DataRequest(domains=("retail", "airline", "telecom"), splits=("test",))), folder)
    return folder


def rows_at(path: str, data_dir: Path) -> list[dict[str, Any]]:
    """The rows of ``${oc.env:DATA_DIR}/file@[0:10]``, in the words of slime and OmegaConf."""
    name, sep, stop = path.replace("${oc.env:DATA_DIR}", str(data_dir)).removesuffix("]").partition("@[0:")
    assert sep
    return [json.loads(line) for line in Path(name).read_text().splitlines()][: int(stop)]


def evaluation() -> dict[str, Any]:
    return yaml.safe_load(CONFIG.read_text())["eval"]


def test_defaults_are_the_recipes() -> None:
    assert evaluation()["defaults"] == {
        "n_samples_per_eval_prompt": 4,
        "temperature": 1.0,
        "top_p": 0.95,
        "top_k": -1,
        "max_response_len": 8192,
    }


def test_every_dataset_names_its_own_keys_and_generate_function() -> None:
    datasets = evaluation()["datasets"]
    assert len({d["name"] for d in datasets}) == len(datasets)
    assert "retail-test-deepseek-v3.2" in {d["name"] for d in datasets}
    for dataset in datasets:
        module, _, function = dataset["custom_generate_function_path"].rpartition(".")
        assert (dataset["input_key"], dataset["metadata_key"], function) == ("prompt", "metadata", "generate")
        assert importlib.util.find_spec(module) is not None


def test_every_sample_resolves_to_a_test_task_and_the_datasets_own_user(data_dir: Path) -> None:
    seen = set()
    # What a training job leaves in the environment must not reach the evaluation's user models.
    environ = {"TAU2_USER_MODEL": "local", "TAU2_USER_BASE_URL": "http://localhost:1/v1", "TAU2_DOMAIN": "mock"}
    for dataset in evaluation()["datasets"]:
        rows = rows_at(dataset["path"], data_dir)
        assert len(rows) == 10
        for row in rows:
            config = Tau2Config.resolve(None, {**row["metadata"], **dataset["metadata_overrides"]}, environ)
            assert (config.task_split, config.user_base_url) == ("test", None)
            assert config.user_api_key_var == "OPENROUTER_API_KEY"
            assert config.user_model_for(7, evaluation=True) in MODELS
            task_id = row["metadata"]["task_id"]
            assert domains.find_task(config.domain, config.task_split, task_id=task_id, index=row["index"])
            assert dataset["name"].startswith(f"{config.domain}-test-")
        seen.add((config.domain, config.user_model))
    assert seen == ALL


LOAD = """
from types import SimpleNamespace
from omegaconf import OmegaConf
from slime.utils.data import read_file
from slime.utils.eval_config import build_eval_dataset_configs, ensure_dataset_list

config = OmegaConf.to_container(OmegaConf.load(given), resolve=True)
config = config.get("eval", config)
args = SimpleNamespace(input_key="input", n_samples_per_prompt=8, rollout_temperature=0.5, rollout_top_p=1.0)
built = build_eval_dataset_configs(args, ensure_dataset_list(config["datasets"]), dict(config["defaults"]))
answer = [
    {
        **{key: getattr(d, key) for key in (
            "name", "input_key", "metadata_key", "custom_generate_function_path", "n_samples_per_eval_prompt",
            "temperature", "top_p", "top_k", "max_response_len")},
        "samples": [[row[d.input_key], d.inject_metadata(row[d.metadata_key])] for row in read_file(d.path)],
    }
    for d in built
]
"""


def test_slime_builds_the_datasets(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """slime's own evaluation config and file reader; an unknown key would raise there."""
    monkeypatch.setitem(os.environ, "DATA_DIR", str(data_dir))
    seen = set()
    for dataset in run_in_slime(LOAD, str(CONFIG)):
        samples = dataset.pop("samples")
        del dataset["name"]
        assert dataset == {
            "input_key": "prompt",
            "metadata_key": "metadata",
            "custom_generate_function_path": "tau2_slime.generate_with_tau2.generate",
            **evaluation()["defaults"],
        }
        assert len(samples) == 10
        for prompt, metadata in samples:
            assert isinstance(prompt, list)
            config = Tau2Config.resolve(None, metadata, {})
            assert domains.find_task(config.domain, config.task_split, task_id=metadata["task_id"])
        seen.add((config.domain, config.user_model))
    assert seen == ALL
