"""What a tau-bench v1 results file says: runs, their tasks, and their conversations step by step. τ² is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tau2_slime.errors import ConfigError

RESPOND = "respond"
_OUTPUT = "API output: "


class V1Action(BaseModel):
    """A gold action: a tool and its arguments."""

    name: str
    kwargs: dict[str, Any]


class V1Task(BaseModel):
    """A task as v1's runs carry it."""

    instruction: str
    actions: list[V1Action]
    outputs: list[str] = []
    """What the agent has to say."""


class V1Run(BaseModel):
    """v1's `EnvRunResult`."""

    task_id: int
    trial: int
    reward: float = Field(ge=0, le=1)
    info: dict[str, Any]
    traj: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What messages call the run."""
        return f"task {self.task_id}, trial {self.trial}"


def read_results(path: Path) -> list[V1Run]:
    """The runs of a v1 results file.

    Raises:
        ConfigError: the file cannot be read or holds something else; with what and where.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the JSON file that tau-bench v1 wrote") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}); give the file that tau-bench v1 wrote") from error
    if isinstance(content, dict) and {"simulations", "simulation_index"} & content.keys():
        raise ConfigError(f"{path} holds τ² simulations already: `tau2-slime inspect` and `tau2 view` show them")
    if not isinstance(content, list) or not content:
        kind = "an empty list" if content == [] else f"a JSON {type(content).__name__}"
        raise ConfigError(f"{path}: expected a non-empty JSON list of tau-bench v1's runs, found {kind}")
    runs: dict[tuple[int, int], V1Run] = {}
    for position, entry in enumerate(content):
        try:
            run = V1Run.model_validate(entry)
        except ValidationError as error:
            raise ConfigError(f"{path}: entry {position} is not a run of tau-bench v1: {_first(error)}") from error
        if runs.setdefault((run.task_id, run.trial), run) is not run:
            raise ConfigError(
                f"{path}: {run.name} is there twice; give every repetition a trial of its own, or convert the files apart"
            )
    if not any(run.traj for run in runs.values()):
        said = next(iter(runs.values())).info.get("error", "no error was noted")
        raise ConfigError(f"{path}: no run has a trajectory, so there is nothing to play (v1 noted: {said})")
    return list(runs.values())


def _first(error: ValidationError) -> str:
    """The first problem, with where it is."""
    found = error.errors()[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else str(found["msg"])


def task_of(run: V1Run) -> V1Task:
    """The task that the run carries. Raises ConfigError if it carries none, or a malformed one."""
    try:
        return V1Task.model_validate(run.info.get("task"))
    except ValidationError as error:
        raise ConfigError(f"{run.name}: info.task is not a task of tau-bench v1: {_first(error)}") from error


# ---- what was said ---------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """A tool call with its result."""

    id: str
    name: str
    arguments: dict[str, Any]
    answer: str
    """The result in v1."""


@dataclass
class Step:
    """One message of the agent or the user, with the answers to its calls."""

    role: str
    text: str | None
    calls: list[Call] = field(default_factory=list)


def steps(run: V1Run) -> list[Step]:
    """The conversation without the system prompt.

    Raises:
        ConfigError: a message is malformed, or a call and its result do not belong together.
    """
    calls_as_text = not any(m.get("tool_calls") for m in run.traj) and any(_action(m) for m in run.traj)
    out = []
    rest = enumerate(run.traj)
    for number, message in rest:
        role, text = message.get("role"), message.get("content")
        if role == "system":
            continue
        if role not in ("user", "assistant") or not isinstance(text, str | None):
            raise _malformed(run, number, f"a message of role {role!r} with {type(text).__name__} content")
        if role == "assistant" and calls_as_text:
            out.append(_text_step(run, number, message, rest))
            continue
        step = Step(role, text)
        calls = message.get("tool_calls") or [] if role == "assistant" else []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise _malformed(run, number, "tool_calls is not a list of calls")
        for call in calls:
            _, result = next(rest, (0, {}))
            if result.get("role") != "tool" or result.get("tool_call_id") != call.get("id"):
                raise _malformed(run, number, f"the call {call.get('id')!r} is not followed by its result")
            step.calls.append(_call(run, number, call, str(result.get("content"))))
        out.append(step)
    return out


def _action(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The action of an ``act`` or ``react`` agent's message, as v1 finds it."""
    text = message.get("content")
    if message.get("role") != "assistant" or not isinstance(text, str):
        return None
    try:
        action = json.loads(text.rpartition("Action:")[2])
        name, arguments = action["name"], action["arguments"]
    except (ValueError, TypeError, KeyError):
        return None
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def _text_step(run: V1Run, number: int, message: Mapping[str, Any], rest: Iterator[tuple[int, dict[str, Any]]]) -> Step:
    """A message that may write a call as text, and the message after it that holds the result."""
    found = _action(message)
    if found is None:  # v1 shows the user the text
        return Step("assistant", str(message.get("content")).rpartition("Action:")[2].strip())
    name, arguments = found
    if name == RESPOND:
        return Step("assistant", str(arguments.get("content")))
    _, result = next(rest, (0, {}))
    answer = result.get("content")
    if not isinstance(answer, str) or not answer.startswith(_OUTPUT):
        raise _malformed(run, number, f"the action {name!r} is not followed by its {_OUTPUT.strip()!r}")
    return Step("assistant", None, [Call(f"v1_{number}", name, arguments, answer.removeprefix(_OUTPUT))])


def _call(run: V1Run, number: int, call: Mapping[str, Any], answer: str) -> Call:
    function = call.get("function")
    try:
        name, arguments = function["name"], json.loads(function["arguments"])  # type: ignore[index]
    except (ValueError, TypeError, KeyError):
        name = arguments = None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise _malformed(run, number, f"a call needs a name, and a JSON object as arguments: {str(function)[:120]}")
    return Call(str(call.get("id") or f"v1_{number}"), name, arguments, answer)


def _malformed(run: V1Run, number: int, what: str) -> ConfigError:
    return ConfigError(f"{run.name}: message {number} cannot be read ({what}); leave the run out, or repair the file")
