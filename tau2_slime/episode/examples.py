"""Few-shot: example conversations behind the policy in the system prompt, from a file that `tau2-slime export` wrote.

Which ones is decided by the seed and the domain alone, so every episode of a run is shown the same, except that the task
which is played is never its own example. A task of τ²'s test split never is one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.config.task_split import names_a_file
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import json_lines
from tau2_slime.world import domains

if TYPE_CHECKING:
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.tokens.calls.action_text import ActionFormat
    from tau2_slime.tokens.calls.types import Call

TEST = "test"


@dataclass(frozen=True)
class Example:
    """One conversation of the file."""

    domain: str
    split: str
    task_id: str
    messages: tuple[dict[str, Any], ...]
    """As chat templates take them, without the system prompt."""

    def is_of(self, domain: str, split: str, task_id: str) -> bool:
        """Of this task: a file's task 7 is not τ²'s task 7."""
        same = names_a_file(self.split) == names_a_file(split)
        return same and (self.domain, self.task_id) == (domain, task_id)


def examples_of(config: Tau2Config, domain: str, split: str, task_id: str) -> list[Example]:
    """The examples that an episode of this task is shown: none if the setting ``few_shot`` is not set.

    Raises:
        ConfigError: the file cannot be read, holds a test task, or has too few examples of the domain.

    Two episodes of a run differ in their examples only if one of them would be its own.
    """
    if config.few_shot is None:
        return []
    known, count = list(_of_domain(config.few_shot, domain)), config.few_shot_count
    if len(known) <= count:
        raise ConfigError(
            f"few_shot {config.few_shot}: it has examples from {len(known)} tasks of {domain}; few_shot_count={count} needs "
            f"{count + 1}, because a task is never its own example; export more episodes, or lower the count"
        )
    random.Random(f"{config.few_shot_seed}/{domain}").shuffle(known)
    return [one for one in known if not one.is_of(domain, split, task_id)][:count]


def domains_in(path: str) -> list[str]:
    """The domains that the file has examples of."""
    return sorted({one.domain for one in _read(path)})


def told(examples: Sequence[Example], spell: Callable[[list[Call]], str], actions: ActionFormat | None) -> str:
    """The end of the system prompt that shows ``examples``, one or more.

    ``spell``: how this model writes calls; ``actions``: how it acts, if in plain text.
    """
    texts = [f"## Example {number}\n\n{_dialogue(one, spell, actions)}" for number, one in enumerate(examples, 1)]
    return "\n\n".join(["\n\n# Examples\n\nThese conversations went well. They are about other users.", *texts])


def _dialogue(example: Example, spell: Callable[[list[Call]], str], actions: ActionFormat | None) -> str:
    lines = []
    for message in example.messages:
        content = message.get("content") or ""
        if message["role"] == "tool":
            lines.append(f"Result: {content}" if actions is None else actions.result(content))
        elif message["role"] == "user":
            lines.append(f"User: {content}")
        else:
            calls = [
                (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []
            ]
            said = spell(calls) if calls else content if actions is None else actions.say(content)
            both = f"{content}\n{said}" if calls and content and actions is None else said
            lines.append(f"Assistant: {both}")
    return "\n".join(lines)


@lru_cache(maxsize=64)
def _of_domain(path: str, domain: str) -> tuple[Example, ...]:
    """The first example of each task of the domain, in the order of the file."""
    held_out = set(domains.splits(domain).get(TEST, ()))
    found: dict[tuple[str, bool], Example] = {}
    for one in _read(path):
        if one.domain != domain:
            continue
        of_file = names_a_file(one.split)
        if one.split == TEST or (one.task_id in held_out and not of_file):
            raise ConfigError(f"few_shot {path}: task {one.task_id} of {domain} is in τ²'s test split; leave it out")
        found.setdefault((one.task_id, of_file), one)
    return tuple(found.values())


@lru_cache(maxsize=64)
def _read(path: str) -> tuple[Example, ...]:
    if not Path(path).is_file():
        raise ConfigError(f"few_shot {path}: no such file; `tau2-slime export RUN --format examples` writes one")
    found = tuple(_examples(path))
    if not found:
        raise ConfigError(f"few_shot {path}: no example in it; `tau2-slime export RUN --format examples` writes them")
    return found


def _examples(path: str) -> Iterator[Example]:
    for number, row in enumerate(json_lines(Path(path)), 1):
        try:
            assert row is not None
            messages = tuple(row["messages"])
            for message in messages:
                assert message["role"] in ("user", "assistant", "tool")
                for call in message.get("tool_calls") or []:
                    assert isinstance(call["function"]["arguments"], dict) and call["function"]["name"]
                json.dumps(message.get("content") or "")
            yield Example(str(row["domain"]), str(row["task_split"]), str(row["task_id"]), messages)
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
            raise ConfigError(
                f"few_shot {path}, line {number}: not an example; `tau2-slime export RUN --format examples` writes them"
            ) from None
