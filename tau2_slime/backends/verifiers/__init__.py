"""τ² as a verifiers environment: v0 for releases 0.1.12 to 0.3 (`env`), v1 for 0.4 (`v1`). Needs the extra `verifiers`.

The package in ``environments/tau2_bench`` makes both known to verifiers under the id ``tau2_bench``.

Example (the model behind ``OPENAI_BASE_URL`` plays two tasks against the scripted user, which needs no key):

    >>> from tau2_slime.backends.verifiers import load_environment
    >>> env = load_environment(domain="mock", task_split="base", user_llm="scripted")
    >>> results = env.evaluate(model="gpt-4.1", num_examples=2)
    >>> results["completed"], results["failed"]
    (2, 0)
    >>> 0.0 <= results["score"] <= 1.0
    True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tau2_slime.backends.verifiers.versions import has_v1, require_any

if TYPE_CHECKING:
    from tau2_slime.backends.verifiers.env import Tau2Env as V0Env
    from tau2_slime.backends.verifiers.v1.env import Tau2Env as V1Env
    from tau2_slime.world.environment import World
    from tau2_slime.world.users import User

__all__ = ["has_v1", "load_environment"]


def load_environment(
    domain: str | None = None,
    num_train_examples: int = -1,
    num_eval_examples: int = -1,
    user_llm: str | None = None,
    task_split: str | None = None,
    eval_split: str | None = None,
    *,
    user: Callable[[World], User] | None = None,
    **settings: object,
) -> V0Env | V1Env:
    """The environment of one domain, in the API of the installed verifiers, which is imported here.

    Args:
        domain: a domain of τ²; None takes ``TAU2_DOMAIN``, else retail.
        num_train_examples: how many training tasks, from the first; -1 takes all. Only on verifiers < 0.4.
        num_eval_examples: how many evaluation tasks, from the first; -1 takes all.
        user_llm: the user simulator; another name for the setting ``user_model``.
        task_split: the split of the training tasks; None takes ``TAU2_TASK_SPLIT``, else train.
        eval_split: the split of the evaluation tasks; None takes ``task_split`` if that is given, else test.
        user: builds a user of your own from the episode's world; it replaces the simulator.
        settings: any other setting of `Tau2Config` that has an effect here. A setting that is not given comes from its
            ``TAU2_*`` variable, else from the defaults, as in slime's door.

    Raises:
        ConfigError: verifiers is missing or not supported; a setting, the domain or a split is wrong; the simulator's key
            is not set; or (verifiers >= 0.4) the package `tau2_bench` is not installed.
    """
    require_any()
    from tau2_slime.backends.verifiers.settings import EnvironmentRequest

    request = EnvironmentRequest(
        domain, num_train_examples, num_eval_examples, user_llm, task_split, eval_split, user, settings
    )
    if has_v1():
        from tau2_slime.backends.verifiers.v1.env import build as build_v1

        return build_v1(request)
    from tau2_slime.backends.verifiers.env import build as build_v0

    return build_v0(request)
