"""A user simulator of one's own: a customer who loses patience.

    tau2:
      user_path: custom_user.ImpatientUser       # this folder is on PYTHONPATH
      user_model: gpt-4o-mini
      user_args: {temperature: 0.0}

It lets τ²'s simulator speak and hangs up after `PATIENCE` messages. `tau2_slime.world.users.protocol` has the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2.data_model.message import UserMessage

from tau2_slime.world.users import LitellmUser, UserContext

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message

PATIENCE = 6
"""Messages of the user before it hangs up."""


class ImpatientUser:
    """τ²'s user simulator, but for at most `PATIENCE` messages."""

    def __init__(self, context: UserContext) -> None:
        self._simulator = LitellmUser(context.spec, tools=context.tools, instructions=context.instructions)
        self.stats = self._simulator.stats
        self._said = 0

    def start(self, history: list[Message]) -> None:
        self._simulator.stats = self.stats  # a resumed episode brings its own counters
        self._simulator.start(history)
        self._said = sum(message.role == "user" for message in history)

    async def reply(self, message: Delivered) -> UserMessage:
        self._said += 1
        if self._said > PATIENCE:
            return UserMessage(role="user", content="This takes too long. Goodbye. ###STOP###")
        return await self._simulator.reply(message)
