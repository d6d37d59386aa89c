"""``python -m tau2_slime.train``: the earlier recipe's command line, mapped onto slime's and handed to slime's train.py.

slime has no ``--rollout_module`` and no ``--model_path``, and silently ignores flags that it does not know: a command line
of the earlier recipe would train nothing of what it says. Every such flag becomes slime's own one here, all others pass
through, and the mapping is printed before slime starts. SLIME_DIR names slime's checkout; without it the installed slime's.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tau2_slime.errors import ConfigError

MODULE = "tau2_slime.generate_with_tau2"
GENERATE = f"{MODULE}.generate"
FULLY_ASYNC = "fully_async_rollout.generate_rollout_fully_async"


@dataclass(frozen=True)
class Renamed:
    """A flag of the earlier recipe and what it is in slime."""

    flag: str
    meaning: str


# The flags take one value each. The earlier recipe's batch and samples are those of a rollout: tasks, and episodes per task.
RENAMED: Mapping[str, Renamed] = {
    "rollout_module": Renamed("--custom-generate-function-path", f"{MODULE} is the one rollout module there is"),
    "model_path": Renamed(
        "--hf-checkpoint", "the policy's folder in Hugging Face format; its tokenizer is the one used"
    ),
    "num_samples": Renamed("--n-samples-per-prompt", "episodes of each task in a rollout"),
    "num_epochs": Renamed("--num-epoch", "passes over the prompt data"),
    "batch_size": Renamed("--rollout-batch-size", "tasks in a rollout"),
    "save_dir": Renamed("--save", "where checkpoints go"),
    "sglang_router_ip": Renamed("--sglang-router-ip", "a router that runs already; without it slime starts one"),
    "sglang_router_port": Renamed("--sglang-router-port", "its port"),
}
OWN = ("--dry-run", "--help", "-h")

HELP = """\
usage: python -m tau2_slime.train [--dry-run] [flags of the earlier recipe] [slime's own arguments]

Flags of the earlier recipe (written with _ or -, with a blank or = before the value) and what they become:
{table}
  --tokenizer_path        none: slime reads the tokenizer from --hf-checkpoint. Accepted if it names the same folder.

Added unless given: --num-steps-per-rollout 1 with --batch_size or --num_samples (one optimizer step per rollout, where no
--global-batch-size says otherwise), --save-interval 20 with --save_dir (slime saves nothing without it), and --input-key
prompt with --rollout_module and --prompt-data (slime's own default, input, is no key of the prepared rows).
A flag given together with its new name must have the same value. Other flags reach slime as they are; those written with _
throughout are respelled with -, as slime would ignore them silently. With slime's fully-async rollout function
train_async.py is run, otherwise train.py; the exit status is its own.

  --dry-run    print the mapping and the command, start nothing
  SLIME_DIR    slime's checkout (default: where the installed slime comes from)
"""


@dataclass
class Mapped:
    """What slime is started with, and a line for each thing that is not as it was written."""

    argv: list[str] = field(default_factory=list)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    """(as written, as slime gets it, why)"""
    dry_run: bool = False


def map_arguments(argv: Sequence[str]) -> Mapped:
    """slime's command line for ``argv``.

    Raises:
        ConfigError: an unknown rollout module, a value that is missing, or an old flag and its new one that disagree.
    """
    given = _take_apart(argv)
    out = Mapped(dry_run=any(name == "--dry-run" for name, _, _ in given))
    old: dict[str, tuple[str, str]] = {}
    passed: list[tuple[str, list[str], str]] = []
    for name, values, written in given:
        key = name.lstrip("-").replace("-", "_")
        if name in OWN:
            continue
        if (key in RENAMED or key == "tokenizer_path") and name != RENAMED.get(key, Renamed("", "")).flag:
            if len(values) != 1 or not values[0]:
                raise ConfigError(f"{name} takes one value, and was given {len(values)}: {written}")
            if key in old and old[key][1] != values[0]:
                raise ConfigError(f"{old[key][0]} {old[key][1]} and {name} {values[0]}: the same flag twice")
            old[key] = (name, values[0])
        elif name.startswith("--") and "_" in name and "-" not in name[2:]:
            passed.append((name.replace("_", "-"), values, written))
            out.lines.append((name, name.replace("_", "-"), "slime spells its flags with -"))
        else:
            passed.append((name, values, written))

    own = {name: values for name, values, _ in passed}
    mapped: list[str] = []
    if "rollout_module" in old:
        old["rollout_module"] = (old["rollout_module"][0], _generate_path(*old["rollout_module"]))
    for key, renamed in RENAMED.items():
        if key not in old:
            continue
        name, value = old[key]
        if renamed.flag in own:
            _agree(name, value, renamed.flag, own[renamed.flag])
        else:
            mapped += [renamed.flag, value]
        out.lines.append((name, f"{renamed.flag} {value}", renamed.meaning))
    if "tokenizer_path" in old:
        _same_tokenizer(old, own)
        out.lines.append(
            (old["tokenizer_path"][0], "-", "slime reads the tokenizer from --hf-checkpoint, the same folder")
        )
    if "num_epochs" in old and "--num-rollout" in own:
        raise ConfigError(
            f"{old['num_epochs'][0]} and --num-rollout: slime would ignore the epochs; give one of the two"
        )

    def add(flag: str, value: str, why: str) -> None:
        mapped.extend([flag, value])
        out.lines.append(("", f"{flag} {value}", why))

    flags = {*own, *mapped}
    steps = {"--global-batch-size", "--num-steps-per-rollout"}
    if ("batch_size" in old or "num_samples" in old) and not flags & steps:
        add("--num-steps-per-rollout", "1", "added: one optimizer step per rollout")
    if "save_dir" in old and "--save-interval" not in flags:
        add("--save-interval", "20", "added: slime saves nothing without it")
    if "rollout_module" in old and "--prompt-data" in flags and "--input-key" not in flags:
        add("--input-key", "prompt", "added: the key of the prepared rows")
    out.argv = mapped + [word for name, values, _ in passed for word in ([name, *values] if name else values)]
    return out


def _take_apart(argv: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """(flag, its values, as written); words before the first flag have the flag ``""``."""
    found: list[tuple[str, list[str], str]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            found.append((name, [value] if equals else [], word))
        elif word == "-h":
            found.append((word, [], word))
        elif found:
            found[-1][1].append(word)
            found[-1] = (found[-1][0], found[-1][1], f"{found[-1][2]} {word}")
        else:
            found.append(("", [word], word))
    return found


def _generate_path(name: str, module: str) -> str:
    if module in (MODULE, GENERATE):
        return GENERATE
    raise ConfigError(
        f"{name} {module}: there is only {MODULE}; a generate function of your own is slime's "
        "--custom-generate-function-path package.module.function"
    )


def _agree(name: str, value: str, flag: str, values: Sequence[str]) -> None:
    if list(values) != [value]:
        raise ConfigError(f"{name} {value} and {flag} {' '.join(values)} are the same setting: give one of the two")


def _same_tokenizer(old: Mapping[str, tuple[str, str]], own: Mapping[str, list[str]]) -> None:
    name, tokenizer = old["tokenizer_path"]
    checkpoint = old["model_path"][1] if "model_path" in old else " ".join(own.get("--hf-checkpoint", []))
    if not checkpoint:
        raise ConfigError(
            f"{name} without --model_path: slime reads the tokenizer from the checkpoint, so name that one"
        )
    if tokenizer != checkpoint and Path(tokenizer).expanduser().resolve() != Path(checkpoint).expanduser().resolve():
        raise ConfigError(
            f"{name} {tokenizer} is not the checkpoint {checkpoint}, and slime takes both from one folder: put the "
            "tokenizer's files (tokenizer.json, tokenizer_config.json, chat_template.jinja) into a copy of the checkpoint"
        )


def slime_folder() -> Path:
    """The checkout that holds slime's train.py.

    Raises:
        ConfigError: there is none; says where it looked.
    """
    named = os.environ.get("SLIME_DIR")
    if named:
        folder = Path(named).expanduser().resolve()
        where = f"SLIME_DIR={named}"
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
            f"{where} is no checkout of THUDM/slime (there is no train.py beside slime/; PyPI's package slime is "
            "another one): set SLIME_DIR"
        )
    return folder


def command(mapped: Mapped, folder: Path) -> list[str]:
    asynchronous = any(FULLY_ASYNC in word for word in mapped.argv)
    return [sys.executable, str(folder / ("train_async.py" if asynchronous else "train.py")), *mapped.argv]


def _table(lines: Sequence[tuple[str, str, str]]) -> str:
    widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
    return "\n".join(f"  {a:{widths[0]}}  ->  {b:{widths[1]}}  {why}".rstrip() for a, b, why in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: slime's own (128 + n for signal n); 2 if the command line cannot be mapped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or "--help" in words or "-h" in words:
        rows = [(f"--{key}", renamed.flag, renamed.meaning) for key, renamed in RENAMED.items()]
        print(HELP.format(table=_table(rows)), end="")
        return 0
    try:
        mapped = map_arguments(words)
        started = command(mapped, slime_folder())
    except ConfigError as error:
        print(f"tau2_slime.train: {error}", file=sys.stderr)
        return 2
    print("tau2_slime.train: " + ("the command line as slime gets it" if mapped.lines else "nothing to map"))
    if mapped.lines:
        print(_table(mapped.lines))
    print(shlex.join(started), flush=True)
    if mapped.dry_run:
        return 0
    # slime, and this package where it is run from a clone that is not installed.
    folders = [str(Path(started[1]).parent), str(Path(__file__).resolve().parents[1])]
    path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(started, env={**os.environ, "PYTHONPATH": path})
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal sent it to slime as well: let it end in its own way
            continue
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
