"""Text that came in through JSON escapes, made fit for UTF-8.

`"\\ud800"` is valid JSON and no valid text: τ² hashes it, an HTTP client and a trajectory file refuse it. It is mended once,
where it comes in.
"""

from __future__ import annotations

from typing import Any


def well_formed(text: str) -> str:
    """``text`` with the replacement character in place of each lone surrogate; pairs become the character they mean."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def well_formed_value(value: Any) -> Any:
    """A JSON value with every string in it, keys included, `well_formed`."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {well_formed_value(key): well_formed_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [well_formed_value(item) for item in value]
    return value
