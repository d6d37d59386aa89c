"""No ``.env`` file is read: one in the folder where a command happens to run must not choose keys, endpoints or proxies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unread() -> Iterator[None]:
    """While it is open, ``load_dotenv`` reads nothing: litellm and τ² call it when they are imported."""
    try:
        import dotenv
    except ImportError:
        yield
        return
    load_dotenv = dotenv.load_dotenv

    def read_nothing(*_: object, **__: object) -> bool:
        return True  # as if there had been one, or τ² warns of a missing file

    dotenv.load_dotenv = read_nothing
    try:
        yield
    finally:
        dotenv.load_dotenv = load_dotenv


def hint() -> str:
    """The end of a message about a variable that is not set: what to do if a ``.env`` file was meant to set it."""
    return " (.env is not read: run `set -a; . ./.env; set +a` first)" if Path(".env").is_file() else ""
