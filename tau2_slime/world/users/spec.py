"""Models behind litellm: who plays the user, how to reach it, and which variable holds its key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from tau2_slime.config.simulators import Price
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import dotenv_files, secrets
from tau2_slime.world.litellm_client import load_litellm
from tau2_slime.world.users import endpoints

SERVED_BY_SLIME = "sglang:"
"""A base_url of this scheme names a model of slime's --sglang-config; `episode.users` puts in the router's address."""
_OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class ModelSpec:
    """A litellm model, and how to reach it."""

    ROLE: ClassVar[str] = "model"
    """How messages call the model's part."""
    KEY_OPTION: ClassVar[str] = ""
    """The setting that names the variable of its key."""

    model: str
    base_url: str | None = None
    api_key_var: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    """Further litellm arguments."""
    timeout: float = 120.0
    """Seconds a call."""
    retries: int = 4
    concurrency: int = 128
    """Calls in flight."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.model

    def connection(self) -> dict[str, Any]:
        """litellm's ``api_base`` and ``api_key``, read from the environment now and kept nowhere.

        Raises:
            ConfigError: the named variable is not set, or nobody said where slime serves this model.
        """
        provider = provider_of(self.model)
        base_url, key_var = self.base_url, self.key_variable
        if base_url is not None and base_url.startswith(SERVED_BY_SLIME):
            raise ConfigError(
                f"{self.ROLE} {self.label!r} is {base_url}, a model of slime's --sglang-config: its address is known only "
                "inside the training job"
            )
        if provider == "openai" and base_url is None:
            base_url = _OPENAI
        out: dict[str, Any] = {}
        if base_url is not None:
            out["api_base"] = base_url
        if key_var is not None:
            key = os.environ.get(key_var, "").strip()
            if not key:
                raise ConfigError(
                    f"{self.ROLE} {self.model!r} needs its key in the environment variable {key_var}, which is not set; "
                    f"export it, or name another variable with {self.KEY_OPTION}{dotenv_files.hint()}"
                )
            secrets.remember(key)
            out["api_key"] = key
        elif base_url is not None and provider in ("openai", "hosted_vllm"):
            out["api_key"] = "none"  # an endpoint of one's own: the client insists on some key
        return out

    def litellm_arguments(self) -> dict[str, Any]:
        """`connection` and `args` as litellm takes them. Raises ConfigError as `connection` does."""
        # A name of an endpoint of one's own, such as Qwen/Qwen3-4B: it speaks OpenAI's protocol.
        own = {"custom_llm_provider": "openai"} if known_provider(self.model) is None else {}
        return {**self.connection(), **own, **self.args}

    @property
    def host(self) -> str:
        """What takes the key: the endpoint's URL, or the provider whose URL litellm knows."""
        provider = provider_of(self.model)
        return self.base_url or (_OPENAI if provider == "openai" else provider)

    @property
    def key_variable(self) -> str | None:
        """The variable that holds the key, as far as it is known; None: litellm's own choice, or none is needed."""
        if self.api_key_var is None and provider_of(self.model) == "openai" and self.base_url in (None, _OPENAI):
            return "OPENAI_API_KEY"
        return self.api_key_var


@dataclass(frozen=True)
class UserSpec(ModelSpec):
    """One simulator."""

    ROLE = "user model"
    KEY_OPTION = "user_api_key_var"

    name: str = ""
    """What samples and metrics call it; empty: the model."""
    price: Price | None = None
    """Dollars for a million tokens; None: litellm's table."""
    patience: float = 600.0
    """Seconds that one reply may wait for an endpoint that is out."""
    budget: float | None = None
    """Dollars that all simulators of this process may cost before the next call is refused; None: no limit."""

    @property
    def label(self) -> str:
        return self.name or self.model

    def ready(self) -> None:
        """Raises ConfigError if it is known that no call can succeed: no key, or one that was refused before."""
        self.connection()
        endpoints.check_key(self.host, self.key_variable)


def provider_of(model: str) -> str:
    """litellm's provider for ``model``; ``openai`` where it cannot tell (any OpenAI-compatible endpoint)."""
    return known_provider(model) or "openai"


@lru_cache(maxsize=256)
def known_provider(model: str) -> str | None:
    """litellm's provider for ``model``; None if litellm does not know the name."""
    litellm = load_litellm()
    litellm.suppress_debug_info = True  # type: ignore[attr-defined]  # or it prints a list of providers whenever it does not know a name
    try:
        return str(litellm.get_llm_provider(model)[1])
    except litellm.exceptions.BadRequestError:
        return None
