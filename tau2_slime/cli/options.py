"""Options that several commands take."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tau2_slime.config.task_split import anchored, named, names_a_file
from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from tau2_slime.config.settings import Tau2Config

HfCheckpoint = Annotated[str | None, typer.Option(help="Folder or hub name of the policy's tokenizer.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that the checkpoint brings for its tokenizer.")
]
Router = Annotated[str | None, typer.Option(help="http://host:port of an sglang router or server.")]
PolicyModel = Annotated[str | None, typer.Option(help="Any litellm model as the policy, instead of a router.")]
PolicyBaseUrl = Annotated[str | None, typer.Option(help="Its endpoint, if it is your own.")]
PolicyApiKeyVar = Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")]
PolicyArgs = Annotated[str | None, typer.Option(help="JSON object of further litellm arguments.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Of the policy; default: 1, or the eval file's.")]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of the policy; default: 1, or the eval file's.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Tokens of one turn; default: 8192, or the eval file's.")]
MaxContextLen = Annotated[int | None, typer.Option(min=1, help="Tokens per trajectory.")]
GoldRate = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Embedded policy: share of episodes that it plays to the end.")
]
Mistakes = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Embedded policy: share of episodes that go wrong at the end.")
]
PolicyNoise = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Embedded policy: share of steps unlike gold's.")
]
Spelling = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Embedded policy: share of tokens split in two; default: 0.1."),
]
UserBaseUrl = Annotated[str | None, typer.Option(help="Endpoint of the user model.")]
UserApiKeyVar = Annotated[str | None, typer.Option(help="NAME of the variable that holds its key.")]
UserConcurrency = Annotated[int | None, typer.Option(min=1, help="Calls at a time of each user endpoint.")]
AgentStrategy = Annotated[
    str | None, typer.Option(help="How the agent acts: native, act, react, or the dotted path of a format of yours.")
]
FewShot = Annotated[
    Path | None, typer.Option(help="Examples for the system prompt: a file of `tau2-slime export --format examples`.")
]
UserStrategy = Annotated[
    str | None,
    typer.Option(help="How the user comes to a message: llm, rules, react, verify, reflection, or human: you type it."),
]
RetrievalVariant = Annotated[
    str | None, typer.Option(help="banking_knowledge: how the agent reads the documents, such as bm25_grep.")
]
TaskIds = Annotated[
    list[str] | None, typer.Option("--task-ids", "--task-id", "-t", help="Exactly these: --task-ids 2 4 6. Repeatable.")
]
AgentType = Annotated[str | None, typer.Option(help="llm, solo or gt.")]
MaxTurns = Annotated[int | None, typer.Option(min=1, help="Messages of agent and user together.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE: any setting, such as max_steps=300. Repeatable.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML with a tau2: mapping, as for --custom-config-path.")
]


def spread_lists(words: Sequence[str]) -> list[str]:
    """``--task-ids 2 4 6``, as τ-bench and τ² write it, with the option before each value.

    >>> spread_lists(["eval", "--task-ids", "2", "4", "--attempts", "1"])
    ['eval', '--task-ids', '2', '--task-ids', '4', '--attempts', '1']
    """
    out: list[str] = []
    option, values = "", 0
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            option, values = (word if word in ("--task-ids", "--task-id", "-t") else ""), 0
        elif option:
            if values:
                out.append(option)
            values += 1
        out.append(word)
    return out


def config_mapping(path: Path | None) -> dict[str, object]:
    """The ``tau2:`` mapping of a config file; empty without one. slime reads this file with PyYAML, so it is read so here.

    Raises:
        ConfigError: the file cannot be read, or has no such mapping.
    """
    if path is None:
        return {}
    from tau2_slime.runtime.yaml_text import UnreadableYaml, load_plain

    try:
        content = load_plain(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    except UnreadableYaml as error:
        line = "" if error.line is None else f", line {error.line}"
        raise ConfigError(f"--config {path}{line}: this YAML cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path} is not UTF-8 text: {error}") from error
    mapping = content.get("tau2") if isinstance(content, dict) else None
    if not isinstance(mapping, dict):
        raise ConfigError(f"--config {path}: it has no 'tau2:' mapping")
    return anchored(mapping, path.parent)


def begin(command: str, doing: str) -> None:
    """Say on stderr what takes the first seconds. Call it before anything large is imported."""
    typer.echo(f"tau2-slime {command}: {doing} ...", err=True)


def other_settings(given: Sequence[str] | None) -> dict[str, object]:
    """What ``--set KEY=VALUE`` says. Raises ConfigError: no such setting, or another form."""
    if not given:
        return {}
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.config.sources import check_keys
    from tau2_slime.evaluation.request import parse_settings

    found = parse_settings(list(given))
    check_keys(found, "--set", Tau2Config.model_fields)
    return found


def as_typed(
    error: ConfigError, options: Mapping[str, object], others: Mapping[str, object] | None = None
) -> ConfigError:
    """``error`` in the words of the command line: it names the option that the user gave, not where the value was put.

    ``others``: what came by ``--set``.
    """

    def option(found: re.Match[str]) -> str:
        if found[1] in (others or {}) and options.get(found[1]) is None:
            return f"--set {found[1]}"
        return f"--{found[1].replace('_', '-')}" if options.get(found[1]) is not None else found[0]

    return ConfigError(re.sub(r"sample\.metadata\['(\w+)'\]", option, str(error)))


def refuse_unused(reasons: Mapping[str, str | bool | None]) -> None:
    """Raises ConfigError if an option was given that would change nothing. ``reasons``: option -> why; False: it counts."""
    for option, why in reasons.items():
        if isinstance(why, str) and why:
            raise ConfigError(f"{option} would change nothing: {why}")


def sampling_params(temperature: float | None, top_p: float | None, max_new_tokens: int | None) -> dict[str, object]:
    """Of the options, those that were given, by sglang's names.

    Raises:
        ConfigError: no server would take one of them.
    """
    from tau2_slime.slime_adapter.request import check_sampling_params

    given = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    check_sampling_params(given)
    return {name: value for name, value in given.items() if value is not None}


_SETTINGS = frozenset(
    [
        *("user_model", "user_base_url", "user_api_key_var", "user_concurrency", "user_strategy"),
        *("agent_type", "agent_strategy", "few_shot", "retrieval_variant", "max_turns"),
    ]
)
"""Options that have the name of a setting."""


def typed_settings(typed: typer.Context) -> dict[str, object]:
    """The settings that the command line gives by options of their own, such as ``--max-turns``.

    A list is none: of ``--user-model`` where several may play.
    """
    given = {name: value for name, value in typed.params.items() if name in _SETTINGS and value is not None}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if not isinstance(value, list | tuple)
    }


_OF_API = ("policy_base_url", "policy_api_key_var", "policy_args")
_OF_EMBEDDED = ("gold_rate", "mistakes", "policy_noise", "spelling")
_OF_SEEN_TOKENS = ("hf_checkpoint", "max_context_len")


def refuse_unused_policy_options(typed: typer.Context) -> None:
    """Raises ConfigError if two policies were named, or an option is about another policy than the one that plays."""
    given = {name: value for name, value in typed.params.items() if value is not None}
    router, policy_model = given.get("router"), given.get("policy_model")
    if router is not None and policy_model is not None:
        raise ConfigError("--router and --policy-model name two policies: give one")
    other = f"{'--router' if router is not None else '--policy-model'} names another one"
    reasons: dict[str, str | bool] = {}
    for name in given:
        option = f"--{name.replace('_', '-')}"
        if name in _OF_API:
            reasons[option] = policy_model is None and "it is about --policy-model, which is not given"
        elif name in _OF_EMBEDDED:
            named = router is not None or policy_model is not None
            reasons[option] = named and f"it is a habit of the embedded policy, and {other}"
        elif name in _OF_SEEN_TOKENS:
            reasons[option] = policy_model is not None and "a model behind an API counts its own tokens"
    refuse_unused(reasons)
    if router is not None and "hf_checkpoint" not in given:
        raise ConfigError("--router needs --hf-checkpoint: the tokenizer and chat template of the model it serves")


def unused_user_options(settings: Tau2Config, options: Mapping[str, object]) -> dict[str, str | bool]:
    """For `refuse_unused`: what the command line says of the user's endpoint although no model plays the user."""
    from tau2_slime.config.settings import HUMAN
    from tau2_slime.episode.users import is_scripted, models_of

    names = ["user_model", "user_base_url", "user_api_key_var"]
    why: str | bool = False
    if settings.agent_type == "solo":
        why = "a solo agent has no user"
    elif settings.user_strategy == HUMAN:
        return {
            f"--{name.replace('_', '-')}": options.get(name) is not None and "a person plays the user" for name in names
        }
    elif settings.user_path is None and all(is_scripted(settings.simulator(n).model) for n in models_of(settings)):
        why, names = "the user is scripted; name a model with --user-model", names[1:]
    names = [*names, "user_strategy"] if names else ["user_strategy"]
    return {f"--{name.replace('_', '-')}": options.get(name) is not None and why for name in names}


def split_and_its_domain(
    settings: Tau2Config, said: Collection[str], split: str | None, domain: str | None
) -> tuple[str | None, str | None]:
    """The split that is meant, and the domain; that of a task file where nothing else says it. None: nobody says.

    ``split``, ``domain``: what the command line says. ``said``: the settings that were chosen by someone.

    Raises:
        ConfigError: the file cannot be read, or its first task does not say of which domain it is.
    """
    if split is None and "task_split" in said:
        split = settings.task_split
    if split is None:
        return None, domain
    split = named(split, settings.task_files)
    if domain is None and names_a_file(split) and "domain" not in said:
        from tau2_slime.world.domains import domain_of_file

        domain = domain_of_file(split)
    return split, domain


def refuse_misspelt_domains(names: Sequence[str]) -> None:
    """Raises ConfigError for what is nearly a domain of the installed τ²: told in a moment, while τ² takes seconds to load.

    The names stand in the source of τ²'s registry. A name that is like none of them is left to τ² itself.
    """
    found = importlib.util.find_spec("tau2")
    for folder in (found and found.submodule_search_locations) or []:
        try:
            source = Path(folder, "registry.py").read_text(encoding="utf-8")
        except OSError:
            return
        known, tasks = (
            set(re.findall(rf"register_{kind}\([^\")]*\"([\w-]+)\"", source)) for kind in ("domain", "tasks")
        )
        for name in names:
            near = difflib.get_close_matches(name, known & tasks, n=1, cutoff=0.75)
            if near and name not in known:
                there = ", ".join(sorted(known & tasks))
                raise ConfigError(f"domain={name!r} is unknown; did you mean {near[0]!r}? (τ² has: {there})")
