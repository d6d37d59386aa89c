"""A user simulator of one's own, by its dotted path or by its name in τ²'s registry of users."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.dotted_path import load_object
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.protocol import User, UserContext, UserStats
from tau2_slime.world.users.tau2_user import ThreadedTau2User

_WHAT = "user simulator"
"""What messages call the object that the setting names."""


def custom_user(path: str) -> Callable[[UserContext], User]:
    """Load and check a user class at once; the result builds the user of one episode.

    ``path`` names one of two kinds of class:

    - one that follows `protocol.User`, whose constructor takes one `UserContext`;
    - a user class of τ², whose constructor takes ``tools``, ``instructions``, ``llm`` and ``llm_args``. It blocks, so it
      plays in a thread. τ²'s registry may name it as well.

    >>> tau2s_own = custom_user("user_simulator")
    >>> the_same = custom_user("tau2.user.user_simulator.UserSimulator")

    Raises:
        ConfigError: nothing is there, or it cannot play; the message says what is missing. The result raises it as well,
            for a user without `UserStats` or without the key of its model.
    """
    found = _load(path)
    problem = _problem_with(found)
    if problem is not None or not isinstance(found, type):
        raise ConfigError(f"{_WHAT} {path!r} {problem}")
    return partial(ThreadedTau2User, path, found) if _is_tau2s(found) else partial(_build_own, path, found)


def registered_users() -> list[str]:
    """Names in τ²'s registry whose users can play."""
    registry = tau2_compat.load().registry
    return [name for name in registry.get_users() if _problem_with(registry.get_user_constructor(name)) is None]


def _load(path: str) -> object:
    registry = tau2_compat.load().registry
    if path in registry.get_users():
        return registry.get_user_constructor(path)
    if "." not in path:
        raise ConfigError(
            f"{_WHAT} {path!r} is neither a dotted path, such as my.module.MyUser, nor a user of τ²'s registry, which has: "
            f"{', '.join(registered_users())}"
        )
    return load_object(path, what=_WHAT)


def _is_tau2s(found: object) -> bool:
    return hasattr(found, "generate_next_message")


def _problem_with(found: object) -> str | None:
    """Why ``found`` cannot play a user, as the end of a sentence; None if it can."""
    if not isinstance(found, type):
        return f"is a {type(found).__name__}, not a class"
    if hasattr(found, "get_next_chunk"):
        return "speaks full-duplex (voice); only users that take turns can play"
    if inspect.isabstract(found):
        return f"is abstract; define {', '.join(sorted(getattr(found, '__abstractmethods__', ())))}"
    wanted = ("get_init_state", "is_stop") if _is_tau2s(found) else ("start", "reply")
    missing = [name for name in wanted if not callable(getattr(found, name, None))]
    if missing:
        kind = "a user class of τ²" if _is_tau2s(found) else "a user (tau2_slime.world.users.protocol.User)"
        return f"is not {kind}: it has no method {' and no method '.join(missing)}"
    return _problem_with_tau2s(found) if _is_tau2s(found) else _problem_with_own(found)


def _problem_with_tau2s(found: type[Any]) -> str | None:
    registry = tau2_compat.load().registry
    if "dummy_user" in registry.get_users() and issubclass(found, registry.get_user_constructor("dummy_user")):
        return "says nothing: it takes the user's place in τ²'s solo mode. Use agent_type: solo instead"
    if inspect.iscoroutinefunction(found.generate_next_message):
        return "has an asynchronous generate_next_message, which τ² calls as a plain function; define reply instead"
    return _problem_with_constructor(found, tools=None, instructions="", llm="", llm_args={})


def _problem_with_own(found: type[Any]) -> str | None:
    if not inspect.iscoroutinefunction(found.reply):
        return "has a reply that is not `async def`"
    return _problem_with_constructor(found, object())


def _problem_with_constructor(found: type[Any], *args: object, **kwargs: object) -> str | None:
    try:
        inspect.signature(found).bind(*args, **kwargs)
    except TypeError as error:
        wanted = ", ".join(kwargs) or "one UserContext"
        return f"cannot be built: its constructor must take {wanted} ({error})"
    return None


def _build_own(path: str, user_class: Callable[[UserContext], User], context: UserContext) -> User:
    user = user_class(context)
    if not isinstance(getattr(user, "stats", None), UserStats):
        raise ConfigError(
            f"{_WHAT} {path!r} sets no attribute stats: write `self.stats = UserStats()` in its constructor"
        )
    return user
