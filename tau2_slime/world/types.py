"""τ²'s own types under one name each, for signatures: τ² is imported only by type checkers here, never at run time.

Use it as ``if TYPE_CHECKING: from tau2_slime.world.types import Message, Task``.
"""

from __future__ import annotations

from typing import TypeAlias

from tau2.data_model.message import (
    AssistantMessage,
    MultiToolMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from tau2.data_model.simulation import RewardInfo, SimulationRun
from tau2.data_model.tasks import Task
from tau2.environment.db import DB
from tau2.environment.environment import Environment
from tau2.environment.tool import Tool as Tau2Tool

Message: TypeAlias = AssistantMessage | UserMessage | ToolMessage
"""One entry of a trajectory."""
Delivered: TypeAlias = Message | MultiToolMessage
"""What a speaker is given: one message, or the results of several tool calls together."""

__all__ = [
    "DB",
    "AssistantMessage",
    "Delivered",
    "Environment",
    "Message",
    "MultiToolMessage",
    "RewardInfo",
    "SimulationRun",
    "Task",
    "Tau2Tool",
    "ToolCall",
    "ToolMessage",
    "UserMessage",
]
