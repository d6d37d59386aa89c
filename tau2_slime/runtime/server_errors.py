"""What a model server's error message says, where the HTTP status alone does not tell."""

from __future__ import annotations

import re

_TOO_LONG = re.compile(
    r"context[ _](length|window|limit|size)|maximum (context|allowed)|longer than (allowed|the (model|context|max))"
    r"|(prompt|input|conversation|request|messages) (is|are) too long",
    re.IGNORECASE,
)


def speaks_of_length(text: str) -> bool:
    """True if an error message says that the conversation does not fit the model's context.

    Ask it only about refusals (HTTP 400 or 413): the phrases are short, and other errors may contain them.

    >>> speaks_of_length("The input (9000 tokens) is longer than the model's context length (8192 tokens).")
    True
    >>> speaks_of_length("temperature must be at least 0")
    False
    """
    return _TOO_LONG.search(text) is not None
