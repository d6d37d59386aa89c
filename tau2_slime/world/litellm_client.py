"""litellm as this package and τ² use it: no download at import, no `.env`, no redirects.

A redirect would carry a whole conversation to a host that nobody named. litellm's clients follow them, and it has no setting
against that, so the four places where it makes its clients are wrapped: in this process, for whoever uses litellm.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tau2_slime.runtime import dotenv_files

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def load_litellm() -> ModuleType:
    """litellm with the price table that it brings along: without the variable, importing it downloads one."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with dotenv_files.unread():
        import litellm

        litellm.get_llm_provider("openai/any")  # loads its providers here: its first use may be on the event loop
    _refuse_redirects()
    return litellm


def _refuse_redirects() -> None:
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    AsyncHTTPHandler.create_client = _follows_none(AsyncHTTPHandler.create_client)  # type: ignore[method-assign]
    openai: Any = BaseOpenAILLM
    openai._get_async_http_client = staticmethod(_follows_none(BaseOpenAILLM._get_async_http_client))
    openai._get_sync_http_client = staticmethod(_follows_none(BaseOpenAILLM._get_sync_http_client))
    begin = HTTPHandler.__init__

    @functools.wraps(begin)
    def begin_and_follow_none(self: HTTPHandler, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.client.follow_redirects = False

    HTTPHandler.__init__ = begin_and_follow_none  # type: ignore[method-assign]
    for made in _made_before():
        made.follow_redirects = False


def _follows_none(make: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        client: Any = make(*args, **kwargs)
        if client is not None:
            client.follow_redirects = False
        return client  # type: ignore[no-any-return]

    return made


def _made_before() -> list[httpx.Client | httpx.AsyncClient]:
    """The clients that litellm makes while it is imported."""
    import litellm

    handlers = [vars(litellm).get(name) for name in ("module_level_client", "module_level_aclient")]
    return [handler.client for handler in handlers if handler is not None]
