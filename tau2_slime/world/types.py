"""τ²'s own types under one name each, for signatures: τ² is imported only by type checkers here, never at run time.

Use it as ``if TYPE_CHECKING: from tau2_slime.world.types import Message, Task``.
"""

from __future__ import annotations

from typing import TypeAlias

from tau2.agent.llm_agent import LLMAgent, LLMGTAgent, LLMSoloAgent
from tau2.data_model.message import (
    AssistantMessage,
    MultiToolMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from tau2.data_model.simulation import RewardInfo, SimulationRun, TerminationReason
from tau2.data_model.tasks import EnvAssertion, InitializationData, InitialState, Task
from tau2.environment.db import DB
from tau2.environment.environment import Environment
from tau2.environment.tool import Tool as Tau2Tool
from tau2.environment.toolkit import ToolKitBase as ToolKit
from tau2.environment.toolkit import ToolType
from tau2.user.base import BaseUser as Tau2User
from tau2.user.user_simulator import UserSimulator

Message: TypeAlias = AssistantMessage | UserMessage | ToolMessage
"""One entry of a trajectory."""
Delivered: TypeAlias = Message | MultiToolMessage
"""What a speaker is given: one message, or the results of several tool calls together."""
Tau2Agent: TypeAlias = LLMAgent | LLMGTAgent | LLMSoloAgent
"""τ²'s agents whose prompts and tools are used; they call no model here."""

__all__ = [
    "DB",
    "AssistantMessage",
    "Delivered",
    "EnvAssertion",
    "Environment",
    "InitialState",
    "InitializationData",
    "Message",
    "MultiToolMessage",
    "RewardInfo",
    "SimulationRun",
    "Task",
    "Tau2Agent",
    "Tau2Tool",
    "Tau2User",
    "TerminationReason",
    "ToolCall",
    "ToolKit",
    "ToolMessage",
    "ToolType",
    "UserMessage",
    "UserSimulator",
]
