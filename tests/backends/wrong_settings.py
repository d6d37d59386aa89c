"""Arguments that `load_environment` refuses on every release of verifiers, and what the error says."""

from __future__ import annotations

from typing import Any

WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"domain": "nope"}, "domain='nope' is unknown"),
    ({"task_split": "nope"}, "task_split='nope' is not a split"),
    ({"user_modl": "x"}, "unknown key 'user_modl'; did you mean 'user_model'"),
    ({"reward_shaping": {}}, "'reward_shaping' changes nothing here"),
    ({"user_llm": "gpt-4", "user_api_key_var": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ({"user_llm": "scripted", "user_model": "gpt-4"}, "both name the user simulator"),
]
