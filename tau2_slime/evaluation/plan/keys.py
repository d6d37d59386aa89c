"""The keys of an evaluation file and what their values may be: every key that slime knows is known here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tau2_slime.evaluation.plan.yaml_source import YamlSource
from tau2_slime.slime_adapter import GENERATE


class Allowed(NamedTuple):
    """What the value of a key may be."""

    words: str
    fits: Callable[[object], bool]


def _number(low: float, high: float | None = None, *, above: bool = False) -> Allowed:
    """A number from ``low`` (``above``: more than that) to ``high``."""

    def fits(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (value > low if above else value >= low) and (high is None or value <= high)

    return Allowed(f"a number {'>' if above else '>='} {low:g}" + ("" if high is None else f" and <= {high:g}"), fits)


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


_TEXT = Allowed("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
_COUNT = Allowed("a whole number >= 1", lambda value: _whole(value, 1))
_SWITCH = Allowed("true or false", lambda value: isinstance(value, bool))
_ANYTHING = Allowed("anything", lambda value: True)

KEYS: dict[str, Allowed] = {
    "n_samples_per_eval_prompt": _COUNT,
    "temperature": _number(0),
    "top_p": _number(0, 1, above=True),
    "top_k": Allowed(
        "-1 or a whole number >= 1", lambda value: _whole(value, 1) or (value == -1 and _whole(value, -1))
    ),
    "max_response_len": _COUNT,
    "min_new_tokens": Allowed("a whole number >= 0", lambda value: _whole(value, 0)),
    "repetition_penalty": _number(0, 2, above=True),
    "stop": Allowed("a text or a list of texts", lambda value: isinstance(value, str) or _list_of(value, str)),
    "stop_token_ids": Allowed("a list of token ids", lambda value: _list_of(value, int)),
    "skip_special_tokens": _SWITCH,
    "no_stop_trim": _SWITCH,
    "input_key": _TEXT,
    "metadata_key": _TEXT,
    "label_key": _TEXT,
    "tool_key": _TEXT,
    "custom_generate_function_path": Allowed(GENERATE, lambda value: value == GENERATE),
    "metadata_overrides": Allowed("a mapping", lambda value: isinstance(value, dict)),
    # slime's, without a meaning for τ²: accepted, so that one file serves both doors.
    **dict.fromkeys(
        (
            *("rm_type", "custom_rm_path", "multimodal_keys", "apply_chat_template", "apply_chat_template_kwargs"),
            *("app_service", "eval_task_timeout", "min_eval_samples", "eval_early_stop_remaining"),
            *("eval_early_stop_idle_timeout", "message_processor", "reward_model", "remote_environment"),
        ),
        _ANYTHING,
    ),
}
"""What slime allows both under ``defaults`` and in a dataset."""
DATASET_KEYS = {
    "name": Allowed("a text or a number", lambda value: isinstance(value, (str, int, float)) and value != ""),
    "path": _TEXT,
}
"""What only a dataset has."""


def below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def checked(source: YamlSource, key: str, mapping: object, allowed: Mapping[str, Allowed]) -> dict[str, object]:
    """``mapping``, once it is one and every key and value in it is allowed."""
    if not isinstance(mapping, dict):
        raise source.error(key, f"must be a mapping, not {type(mapping).__name__}")
    for name, value in mapping.items():
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise source.error(below(key, name), f"unknown key{hint} (allowed: {', '.join(allowed)})")
        if value is not None and not allowed[name].fits(value):
            raise source.error(below(key, name), f"{value!r} is not allowed; give {allowed[name].words}")
    return mapping
