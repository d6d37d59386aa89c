"""The other side of the conversation: who plays the user, how it is reached, what it costs and how well it does it."""

from tau2_slime.world.users import endpoints, quality
from tau2_slime.world.users.protocol import User, UserContext, UserStats
from tau2_slime.world.users.simulator import LitellmUser
from tau2_slime.world.users.spec import UserSpec, provider_of
from tau2_slime.world.users.spending import spending

__all__ = [
    "LitellmUser",
    "User",
    "UserContext",
    "UserSpec",
    "UserStats",
    "endpoints",
    "provider_of",
    "quality",
    "spending",
]
