"""`tau2-slime completion`: a script for bash or zsh that completes commands, options and files, without starting Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand

SHELLS = ("bash", "zsh")

_SCRIPT = """\
_tau2_slime() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" path="" given i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
            -*) break ;;
        esac
        given="${{path:+$path }}${{COMP_WORDS[i]}}"
        case " {paths} " in
            *"|$given|"*) path="$given" ;;
            *) break ;;
        esac
    done
    local words=""
    case "$path" in
{cases}
    esac
    case "$word" in
        -*) ;;
        *) [ -n "$path" ] && COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
    COMPREPLY+=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _tau2_slime tau2-slime
"""


def script(shell: str, root: ClickCommand) -> str:
    """The script. ``root``: the command line's own command, with its subcommands."""
    known = dict(_commands(root))
    paths = "".join(f"|{path}|" for path in known if path)
    cases = "\n".join(f'        "{path}") words="{" ".join(words)}" ;;' for path, words in known.items())
    text = _SCRIPT.format(paths=paths, cases=cases)
    return text if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{text}"


def _commands(command: ClickCommand, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each command's words on the command line, and what may follow: its subcommands and options."""
    inner: dict[str, ClickCommand] = getattr(command, "commands", {})
    options = [name for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")]
    yield path, [*inner, *dict.fromkeys([*options, "--help"])]
    for name, one in inner.items():
        yield from _commands(one, f"{path} {name}".strip())


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(help="bash or zsh.")],
) -> None:
    """Print a script that completes commands and options: eval "$(tau2-slime completion bash)"."""
    if shell not in SHELLS:
        raise ConfigError(f"completion {shell}: there are {' and '.join(SHELLS)}")
    typer.echo(script(shell, context.find_root().command), nl=False)
