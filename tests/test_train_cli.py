"""`python -m tau2_slime.train`: the earlier recipe's command line reaches slime with its own flags, or is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.train import RENAMED, map_arguments, slime_folder
from tests.launch_lines import ROOT, JobLine, checkpoint, fake_slime, parsed_by_slime

MODULE = "tau2_slime.generate_with_tau2"
RECIPE = [
    *("--rollout_module", MODULE, "--model_path", "/models/Q", "--tokenizer_path", "/models/Q/", "--num_samples", "8"),
    *("--num_epochs", "3", "--batch_size", "32", "--save_dir", "/ckpt"),
    *("--sglang_router_ip", "127.0.0.1", "--sglang_router_port", "30000"),
]


def pairs(argv: list[str]) -> dict[str, str]:
    return dict(zip(argv[::2], argv[1::2], strict=True))


def test_every_flag_of_the_recipe_becomes_slimes() -> None:
    assert pairs(map_arguments(RECIPE).argv) == {
        "--custom-generate-function-path": f"{MODULE}.generate",
        "--hf-checkpoint": "/models/Q",
        "--n-samples-per-prompt": "8",
        "--num-epoch": "3",
        "--rollout-batch-size": "32",
        "--save": "/ckpt",
        "--sglang-router-ip": "127.0.0.1",
        "--sglang-router-port": "30000",
        "--num-steps-per-rollout": "1",
        "--save-interval": "20",
    }


@pytest.mark.parametrize("spell", [lambda w: w.replace("_", "-"), lambda w: w], ids=["dashes", "underscores"])
def test_both_spellings_and_both_ways_to_give_a_value(spell: object) -> None:
    joined = [f"{spell(flag)}={value}" for flag, value in zip(RECIPE[::2], RECIPE[1::2], strict=True)]  # type: ignore[operator]
    assert pairs(map_arguments(joined).argv) == pairs(map_arguments(RECIPE).argv)


def test_everything_else_passes_through_in_order() -> None:
    further = ["--lr", "1e-6", "--colocate", "--eval-prompt-data", "a", "b.jsonl", "--rollout-top-k", "-1", "--x=y_z"]
    assert map_arguments(further).argv == further
    assert map_arguments(["--use_tis", "--override-opt_param-scheduler"]).argv == [
        "--use-tis",  # slime would have ignored the other spelling without a word
        "--override-opt_param-scheduler",  # this one is Megatron's own spelling
    ]


def test_the_users_own_choice_is_not_overruled() -> None:
    argv = map_arguments([*RECIPE, "--global-batch-size", "64", "--save-interval", "5"]).argv
    assert "--num-steps-per-rollout" not in argv
    assert argv.count("--save-interval") == 1
    data = map_arguments([*RECIPE, "--prompt-data", "d.jsonl"]).argv
    assert data[data.index("--input-key") + 1] == "prompt"
    data = map_arguments([*RECIPE, "--prompt-data", "d.jsonl", "--input-key", "index"]).argv
    assert [data[i + 1] for i, word in enumerate(data) if word == "--input-key"] == ["index"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["--rollout_module", "my.rollout"], ["my.rollout", MODULE, "--custom-generate-function-path"]),
        (["--rollout_module"], ["--rollout_module", "one value"]),
        (["--num_samples", "8", "--n-samples-per-prompt", "4"], ["--num_samples 8", "--n-samples-per-prompt 4"]),
        (["--num_samples", "8", "--num-samples", "4"], ["--num_samples 8", "--num-samples 4"]),
        (["--model_path", "/a", "--tokenizer_path", "/b"], ["/a", "/b", "tokenizer.json"]),
        (["--tokenizer_path", "/b"], ["--tokenizer_path", "--model_path"]),
        (["--num_epochs", "3", "--num-rollout", "5"], ["--num_epochs", "--num-rollout"]),
        (["--save_dir", "/a", "/b"], ["--save_dir /a /b", "given 2"]),
        (["--save_dir="], ["--save_dir", "one value"]),
        (["--model_path", "/a", "--hf_checkpoint", "/b"], ["--model_path /a", "--hf-checkpoint /b"]),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_both_names(line: list[str], named: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        map_arguments(line)
    assert all(name in str(refused.value) for name in named), str(refused.value)


def test_an_old_flag_and_its_new_one_may_agree() -> None:
    assert map_arguments(["--model_path", "/a", "--hf-checkpoint", "/a"]).argv == ["--hf-checkpoint", "/a"]
    both = ["--rollout_module", MODULE, "--custom-generate-function-path", f"{MODULE}.generate"]
    assert map_arguments(both).argv == ["--custom-generate-function-path", f"{MODULE}.generate"]


def test_of_slimes_own_flag_the_last_one_counts() -> None:
    twice = ["--save", "/a", "--lr", "1", "--save=/b"]
    assert map_arguments(twice).argv == ["--save", "/b", "--lr", "1"]
    assert map_arguments(["--custom-generate-function-path", "my.own"]).argv[-1] == "my.own"
    assert map_arguments(["--save_dir", "/b", *twice]).argv[:2] == ["--save", "/b"]
    with pytest.raises(ConfigError, match="--save_dir /a and --save /b"):
        map_arguments(["--save_dir", "/a", *twice])


@pytest.mark.parametrize("flag", ["--num_samples", "--batch_size"])
def test_either_size_of_a_rollout_makes_it_one_step(flag: str) -> None:
    assert pairs(map_arguments([flag, "8"]).argv)["--num-steps-per-rollout"] == "1"


def test_slimes_own_lines_get_nothing_added() -> None:
    own = ["--save", "/b", "--n-samples-per-prompt", "8", "--custom-generate-function-path", f"{MODULE}.generate"]
    assert set(map_arguments([*own, "--prompt-data", "d"]).argv) == {*own, "--prompt-data", "d"}
    assert map_arguments(["--model", "/a"]).argv == ["--model", "/a"]  # not taken for --model_path


def test_the_function_itself_may_be_named_as_the_module() -> None:
    argv = map_arguments(["--rollout_module", f"{MODULE}.generate"]).argv
    assert argv == ["--custom-generate-function-path", f"{MODULE}.generate"]


def test_the_tokenizers_folder_is_compared_as_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for tokenizer in (f"{tmp_path}/Q/", "Q", "./x/../Q"):
        mapped = map_arguments(["--model_path", f"{tmp_path}/Q", "--tokenizer_path", tokenizer])
        assert mapped.argv == ["--hf-checkpoint", f"{tmp_path}/Q"]
        assert [change[:2] for change in mapped.changes] == [
            ("--model_path", f"--hf-checkpoint {tmp_path}/Q"),
            ("--tokenizer_path", "-"),
        ]


def test_what_is_changed_is_told_with_its_reason() -> None:
    changes = map_arguments(["--num-samples", "8", "--use_tis"]).changes
    assert [change[:2] for change in changes] == [
        ("--use_tis", "--use-tis"),
        ("--num-samples", "--n-samples-per-prompt 8"),
        ("", "--num-steps-per-rollout 1"),
    ]
    assert all(why for _, _, why in changes)
    assert map_arguments(["--lr", "1"]).changes == []


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k != "SLIME_DIR"}
    return subprocess.run(
        [sys.executable, "-m", "tau2_slime.train", *argv],
        env={**clean, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_slimes_script_is_run_and_its_exit_status_passed_on(tmp_path: Path) -> None:
    slime = fake_slime(tmp_path / "slime")
    (slime / "train.py").write_text("import sys, slime, tau2_slime\nprint(sys.argv[1:])\nsys.exit(7)\n")
    done = run(*RECIPE, SLIME_DIR=str(slime))
    assert done.returncode == 7
    assert str(map_arguments(RECIPE).argv) in done.stdout
    assert all(flag in done.stdout and f"--{key}" in done.stdout for key, (flag, _) in RENAMED.items())
    (slime / "train.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert run("--lr", "1", SLIME_DIR=str(slime)).returncode == -signal.SIGTERM  # a shell says 128 + 15


def test_slime_and_this_package_come_first_on_the_path(tmp_path: Path) -> None:
    slime = fake_slime(tmp_path / "slime")
    (slime / "train.py").write_text("import os\nprint(os.environ['PYTHONPATH'])\n")
    for given in ("", "/elsewhere"):
        told = run("--lr", "1", SLIME_DIR=str(slime), PYTHONPATH=given).stdout.splitlines()[-1]
        assert told.split(os.pathsep) == [str(slime), str(ROOT), *filter(None, [given])]


def test_fully_async_rollouts_run_slimes_other_script(tmp_path: Path) -> None:
    slime = fake_slime(tmp_path / "slime")
    (slime / "train_async.py").write_text("print('the asynchronous one')\n")
    path = "slime.rollout.fully_async_rollout.generate_rollout_fully_async"
    assert "the asynchronous one" in run("--rollout-function-path", path, SLIME_DIR=str(slime)).stdout


def test_a_dry_run_starts_nothing(tmp_path: Path) -> None:
    slime = fake_slime(tmp_path / "slime")
    (slime / "train.py").write_text("raise SystemExit('started')\n")
    done = run("--dry-run", *RECIPE, SLIME_DIR=str(slime))
    assert done.returncode == 0
    assert f"{slime}/train.py" in done.stdout
    assert "--dry-run" not in done.stdout.splitlines()[-1]


def test_without_slime_it_says_where_it_looked(tmp_path: Path) -> None:
    done = run("--lr", "1", SLIME_DIR=str(tmp_path))
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert run("--lr", "1").returncode == 2


def test_an_installed_slime_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slime = fake_slime(tmp_path / "checkout")
    (slime / "slime" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.delenv("SLIME_DIR", raising=False)
    monkeypatch.syspath_prepend(str(slime))
    monkeypatch.delitem(sys.modules, "slime", raising=False)
    assert slime_folder() == slime
    (slime / "train.py").unlink()  # PyPI's placeholder of the same name
    with pytest.raises(ConfigError, match="PyPI"):
        slime_folder()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "train.py").write_text("")
    monkeypatch.setenv("SLIME_DIR", str(tmp_path / "half"))
    with pytest.raises(ConfigError, match=r"SLIME_DIR=.*half is not a checkout"):
        slime_folder()


def test_help_names_every_flag() -> None:
    for done in (run("--help"), run()):
        assert done.returncode == 0
        assert all(f"--{key}" in done.stdout for key in (*RENAMED, "tokenizer_path"))


def test_slime_understands_the_mapped_line(tmp_path: Path) -> None:
    model = str(checkpoint(tmp_path / "Q"))
    line = [model if word.startswith("/models/Q") else word for word in RECIPE]
    shape = "--num-layers 36 --hidden-size 2560 --num-attention-heads 32 --ffn-hidden-size 9728 --rotary-base 5000000"
    shape += " --norm-epsilon 1e-6 --kv-channels 128 --num-query-groups 8 --group-query-attention --vocab-size 151936"
    argv = map_arguments(
        [*line, *shape.split(), "--colocate", "--prompt-data", "d.jsonl", "--micro-batch-size", "1"]
    ).argv
    verdict = parsed_by_slime([JobLine("train.py", argv, {"CUDA_DEVICE_MAX_CONNECTIONS": "1"})])["cases"][0]
    assert verdict["error"] is None
    assert verdict["unknown"] == []
    wanted = {
        "custom_generate_function_path": f"{MODULE}.generate",
        "hf_checkpoint": model,
        "n_samples_per_prompt": 8,
        "num_epoch": 3,
        "rollout_batch_size": 32,
        "global_batch_size": 256,
        "save": "/ckpt",
        "save_interval": 20,
        "input_key": "prompt",
        "sglang_router_ip": "127.0.0.1",
        "sglang_router_port": 30000,
    }
    assert {key: verdict["args"][key] for key in wanted} == wanted
