"""Answers that were paid for, in a file of JSON lines: whoever asks the same again gets them without paying."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tau2_slime.chat.completion import Completion, Ending
from tau2_slime.chat.faults import OUTAGE, Fault
from tau2_slime.errors import ConfigError, Tau2SlimeError
from tau2_slime.runtime.files import append_line, ends_with_a_whole_line, json_lines
from tau2_slime.runtime.secrets import redact_words
from tau2_slime.world.judge import JudgeSpec, JudgeUnavailable, answered


class WriterSpec(JudgeSpec):
    """The model that writes, or the one that reads back."""

    ROLE = "model"
    KEY_OPTION = "--llm-api-key-var"


class EndpointLost(Tau2SlimeError):
    """The endpoint does not answer any more; what was answered is kept."""


class Answer(NamedTuple):
    """What a model said."""

    text: str
    """Empty if the answer was cut, filtered, or cannot be used."""
    cost: float
    """US dollars."""


class PaidAnswers:
    """Asks models, and keeps what they answer before anything is done with it."""

    def __init__(self, path: Path | None, price: Callable[[str, Completion], float]) -> None:
        """``price``: US dollars of a model's answer. A last line that a kill cut off is passed over."""
        self._path, self._price = path, price
        self._known: dict[str, Answer] = {}
        self._refused: Exception | None = None
        for row in json_lines(path) if path is not None else ():
            if row is None:
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._known[str(row["key"])] = Answer(str(row["text"]), float(row["cost"]))

    async def ask(self, spec: WriterSpec, prompt: Sequence[Mapping[str, Any]], number: int = 0) -> Answer:
        """The answer to ``prompt``; ``number`` tells several answers to one prompt apart.

        Raises:
            EndpointLost: it is out, after all tries.
            ConfigError: it refuses the key or the model.
            EpisodeAborted, BudgetSpent: the call must not be paid for.
            OSError: the answer cannot be written down.
        """
        key = prompt_hash([spec.model, spec.args, list(prompt), number])
        if key in self._known:
            return self._known[key]
        if self._refused is not None:
            raise self._refused
        try:
            answer, _, _ = await answered(spec, [dict(message) for message in prompt], lambda completion: completion)
        except JudgeUnavailable as error:
            if error.fault in OUTAGE or error.fault is Fault.RATE_LIMIT:
                raise EndpointLost(str(error)) from error
            if error.fault in (Fault.AUTHENTICATION, Fault.REJECTED):
                raise ConfigError(f"{error}; nothing more was asked") from error
            return Answer("", 0.0)  # garbage or a filter: this prompt gets nothing, and is asked again another time
        said = (answer.said.content or "") if answer.ending is Ending.WHOLE else ""
        clean = redact_words(said)
        found = Answer(clean if clean == said else "", self._price(spec.model, answer))
        self._keep(key, found)
        return found

    def refuse(self, why: Exception) -> None:
        """Raise ``why`` instead of a new call from now on; what is known is still given."""
        self._refused = why

    def _keep(self, key: str, answer: Answer) -> None:
        self._known[key] = answer
        if self._path is not None:
            line = json.dumps({"key": key, "text": answer.text, "cost": answer.cost}, ensure_ascii=False)
            append_line(self._path, line if ends_with_a_whole_line(self._path) else f"\n{line}")


def prompt_hash(value: object) -> str:
    """The same for the same question to the same model."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
