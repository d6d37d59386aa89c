"""Shell completion by a real bash, and help that names every option whole."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tau2_slime.cli.commands import EXAMPLES, app
from tau2_slime.cli.completion import script

pytestmark = pytest.mark.fast


def completed(line: str) -> list[str]:
    """What bash offers at the end of ``line``."""
    words = line.split(" ")
    code = "\n".join(
        [
            script("bash", get_command(app)),
            f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _tau2_slime",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tau2-slime ro", ["rollout"]),
        ("tau2-slime rollout --user-st", ["--user-strategy"]),
        ("tau2-slime rollout -d mock --user-st", ["--user-strategy"]),
        ("tau2-slime tasks sh", ["show"]),
        ("tau2-slime synth verify --domai", ["--domain"]),
        ("tau2-slime inspect us", ["usr"]),
        ("tau2-slime nonsense --", ["--version", "--help"]),
    ],
)
def test_bash_offers_what_may_stand_there(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


def test_zsh_gets_the_same_through_bashs_functions() -> None:
    zsh, bash = (script(shell, get_command(app)) for shell in ("zsh", "bash"))
    assert zsh.startswith("autoload -U +X bashcompinit && bashcompinit\n") and zsh.endswith(bash)


@pytest.mark.parametrize(
    "words", [["rollout"], ["eval"], ["play"], ["diagnose"], ["export"], ["synth"], ["tasks", "check"]]
)
def test_help_names_every_option_whole_at_80_columns(words: list[str]) -> None:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0
    for option in command.params:
        for name in (*option.opts, *option.secondary_opts) if option.param_type_name == "option" else ():
            assert f"{name} " in done.output.replace(",", " ").replace("\n", " ") or f"{name} /" in done.output, name
    assert max(map(len, done.output.splitlines())) <= 80


def test_examples_are_commands_with_these_options() -> None:
    group: Any = get_command(app)
    for line in EXAMPLES.values():
        if not line.startswith("eval"):
            _, name, *rest = line.split()
            known = {word for option in group.commands[name].params for word in option.opts}
            assert {word for word in rest if word.startswith("-")} <= known, line
