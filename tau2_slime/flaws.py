"""What a user simulator can do that no customer would; `world.users.quality` finds it."""

from __future__ import annotations

from enum import StrEnum


class Flaw(StrEnum):
    """What a simulator does wrong."""

    PREMATURE_STOP = "premature_stop"
    """It hangs up in the message that answers the agent's request to confirm an action, without declining it: the action is
    never done."""
    ROLE_FLIP = "role_flip"
    """It speaks as the agent: offers help, asks for the customer's data, reports what it did to the customer's order."""
    TOOL_CALL = "tool_call"
    """It calls a tool, or spells a call out, though this user has none."""
    LEAK = "leak"
    """It says its instructions: six words in a row of the scenario that speak to the simulator ("you want ...", "the
    agent"), eight of τ²'s guidelines, or a heading of either."""
    EMPTY = "empty"
    """It says nothing and calls nothing."""
    REPEAT = "repeat"
    """It says five words or more that it has said before, word for word, though the agent said something else."""
    INVENTED = "invented"
    """It states an id, an e-mail address, a number of four digits or more, an amount of money, or a name of its own that
    neither the scenario nor the agent nor a tool has mentioned."""
