"""``python -m tau2_slime.train``: the earlier recipe's command line, mapped onto slime's and handed to slime's train.py.

slime ignores flags that it does not know without a word, and it has no ``--rollout_module`` and no ``--model_path``: a
command line of the earlier recipe would train nothing of what it says.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.slime_adapter import GENERATE

MODULE = GENERATE.rpartition(".")[0]

RENAMED = {
    "rollout_module": ("--custom-generate-function-path", f"{MODULE} is the only rollout module"),
    "model_path": ("--hf-checkpoint", "the policy's folder in Hugging Face format, with its tokenizer"),
    "num_samples": ("--n-samples-per-prompt", "episodes of each task in a rollout"),
    "num_epochs": ("--num-epoch", "passes over the prompt data"),
    "batch_size": ("--rollout-batch-size", "tasks in a rollout"),
    "save_dir": ("--save", "where checkpoints go"),
    "sglang_router_ip": ("--sglang-router-ip", "a router that runs already; without it slime starts one"),
    "sglang_router_port": ("--sglang-router-port", "its port"),
}
"""The earlier recipe's flag -> slime's, and what it means."""
TOKENIZER = ("", "slime reads the tokenizer from --hf-checkpoint, so this must be the same folder")

EPILOG = """\
A flag of the earlier recipe may be written with _ or -, and together with its new name if both have the same value.
Added unless given: --num-steps-per-rollout 1 with --batch_size or --num_samples (where no --global-batch-size says
otherwise), --save-interval 20 with --save_dir (slime saves nothing without it), and --input-key prompt with
--rollout_module and --prompt-data (slime's own default, input, is not a key of the prepared rows).
Other flags reach slime as they are; those written with _ throughout are respelled with -, as slime would ignore them.
With slime's fully-async rollout function train_async.py is run, otherwise train.py; the exit status is its own.
SLIME_DIR names slime's checkout (default: where the installed slime comes from).
"""


@dataclass(frozen=True)
class Mapped:
    """What slime is started with."""

    argv: list[str]
    changes: list[tuple[str, str, str]]
    """(as written, as slime gets it, why); the first is empty for what is added."""
    dry_run: bool


class _Collect(argparse.Action):
    """Keeps (flag as written, its values) of every time that it is given."""

    def __call__(
        self, parser: object, namespace: object, values: str | Sequence[Any] | None, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (option_string, values)])


class _Help(argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return "VALUE"


def _parser() -> argparse.ArgumentParser:
    usage = "python -m tau2_slime.train [--dry-run] [flags of the earlier recipe] [slime's own arguments]"
    parser = argparse.ArgumentParser(usage=usage, epilog=EPILOG, formatter_class=_Help, allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="print the mapping and the command, start nothing")
    for key, (flag, meaning) in {**RENAMED, "tokenizer_path": TOKENIZER}.items():
        names = dict.fromkeys(name for name in (f"--{key}", f"--{key.replace('_', '-')}", flag) if name)
        parser.add_argument(*names, dest=key, nargs="*", action=_Collect, default=[], help=meaning)
    return parser


def map_arguments(argv: Sequence[str]) -> Mapped:
    """slime's command line for ``argv``.

    >>> map_arguments(["--num_epochs", "3", "--lr", "1e-6"]).argv
    ['--num-epoch', '3', '--lr', '1e-6']

    Raises:
        ConfigError: an unknown rollout module, a value that is missing, or an old flag and its new one that disagree.
    """
    spelt = [_slimes_spelling(word) for word in argv]
    changes = [(was, now, "slime spells its flags with -") for was, now in zip(argv, spelt, strict=True) if was != now]
    parsed, rest = _parser().parse_known_args(spelt)
    mapped: dict[str, str] = {}
    old = set()
    for key, (flag, meaning) in RENAMED.items():
        given = getattr(parsed, key)
        earlier = [(name, values) for name, values in given if name != flag]
        if key == "rollout_module":
            earlier = [(name, [_generate_path(name, value) for value in values]) for name, values in earlier]
        if given:  # of slime's own flag the last one counts, as for slime
            mapped[flag] = _one_value([*earlier, *[pair for pair in given if pair[0] == flag][-1:]])
        if earlier:
            old.add(key)
            changes.append((earlier[0][0], f"{flag} {mapped[flag]}", meaning))
    if parsed.tokenizer_path:
        _check_tokenizer(_one_value(parsed.tokenizer_path), mapped.get("--hf-checkpoint"))
        changes.append(("--tokenizer_path", "-", TOKENIZER[1]))
    there = {word.partition("=")[0] for word in rest}
    if "num_epochs" in old and "--num-rollout" in there:
        raise ConfigError("--num_epochs and --num-rollout: slime would ignore the epochs; give one of the two")

    def add(flag: str, value: str, why: str, *unless: str) -> None:
        if not there & {flag, *unless}:
            mapped[flag] = value
            changes.append(("", f"{flag} {value}", f"added: {why}"))

    if old & {"batch_size", "num_samples"}:
        add("--num-steps-per-rollout", "1", "one optimizer step per rollout", "--global-batch-size")
    if "save_dir" in old:
        add("--save-interval", "20", "slime saves nothing without it")
    if "rollout_module" in old and "--prompt-data" in there:
        add("--input-key", "prompt", "the key of the prepared rows")
    return Mapped([*(word for pair in mapped.items() for word in pair), *rest], changes, parsed.dry_run)


def _slimes_spelling(word: str) -> str:
    """``word``, with - for _ if it is a flag that slime would ignore only for that."""
    flag, equals, value = word.partition("=")
    if flag[2:] in (*RENAMED, "tokenizer_path") or not re.fullmatch(
        r"--[^-]+", flag
    ):  # with both, it is Megatron's own
        return word
    return flag.replace("_", "-") + equals + value


def _one_value(given: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The value that all of these flags are given."""
    for name, values in given:
        if len(values) != 1 or not values[0]:
            raise ConfigError(f"{' '.join([name, *values])}: {name} takes one value, and was given {len(values)}")
        if values != given[0][1]:
            first = f"{given[0][0]} {given[0][1][0]}"
            raise ConfigError(f"{first} and {name} {values[0]} are the same setting: give one of the two")
    return given[0][1][0]


def _generate_path(name: str, module: str) -> str:
    if module in (MODULE, GENERATE):
        return GENERATE
    raise ConfigError(
        f"{name} {module}: there is only {MODULE}; a generate function of your own is slime's "
        "--custom-generate-function-path package.module.function"
    )


def _check_tokenizer(folder: str, checkpoint: str | None) -> None:
    if checkpoint is None:
        raise ConfigError(
            "--tokenizer_path without --model_path: slime reads the tokenizer from the checkpoint, so name that one"
        )
    if Path(folder).expanduser().resolve() != Path(checkpoint).expanduser().resolve():
        raise ConfigError(
            f"--tokenizer_path {folder} is not the checkpoint {checkpoint}, and slime takes both from one folder: put the "
            "tokenizer's files (tokenizer.json, tokenizer_config.json, chat_template.jinja) into a copy of the checkpoint"
        )


def slime_folder() -> Path:
    """The checkout that holds slime's train.py.

    Raises:
        ConfigError: there is none; says where it looked.
    """
    named = os.environ.get("SLIME_DIR")
    if named:
        folder, where = Path(named).expanduser().resolve(), f"SLIME_DIR={named}"
    else:
        spec = importlib.util.find_spec("slime")  # finds without importing
        places = list(spec.submodule_search_locations or []) if spec is not None else []
        if not places:
            raise ConfigError(
                "slime is not installed here: run this in slime's container, or set SLIME_DIR to its checkout"
            )
        folder, where = Path(places[0]).resolve().parent, f"the installed slime ({places[0]})"
    if not (folder / "train.py").is_file() or not (folder / "slime").is_dir():
        raise ConfigError(
            f"{where} is not a checkout of THUDM/slime (it has no train.py beside slime/; PyPI's package slime is "
            "another one): set SLIME_DIR"
        )
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Become slime's process. Returns only from a dry run (0), and if the command line cannot be mapped (2)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        mapped = map_arguments(words or ["--help"])
        folder = slime_folder()
    except ConfigError as error:
        print(f"tau2_slime.train: {error}", file=sys.stderr)
        return 2
    fully_async = any("fully_async_rollout.generate_rollout_fully_async" in word for word in mapped.argv)
    command = [sys.executable, str(folder / ("train_async.py" if fully_async else "train.py")), *mapped.argv]
    print("tau2_slime.train: " + ("the command line as slime gets it" if mapped.changes else "nothing to map"))
    for written, becomes, why in mapped.changes:
        print(f"  {written:21}  ->  {becomes:50}  {why}")
    print(shlex.join(command), flush=True)
    if mapped.dry_run:
        return 0
    # slime, and this package where it is run from a clone that is not installed.
    folders = [str(folder), str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(folders)})


if __name__ == "__main__":
    sys.exit(main())
