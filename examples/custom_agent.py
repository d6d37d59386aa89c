"""An agent of one's own: another prompt, and another meaning of what the policy says.

    tau2:
      agent_path: custom_agent.CarefulAgent       # this folder is on PYTHONPATH

`CarefulAgent` adds a rule to τ²'s system prompt. It also keeps the policy to that rule: in a turn with several calls, every
call but the first is refused, and the model reads why.
"""

from __future__ import annotations

from tau2_slime.episode.conversation import AgentTurn
from tau2_slime.tokens.calls.types import ParsedTurn
from tau2_slime.trainable_agents import TrainableLLMAgent

RULE = "Call one tool at a time and wait for its result."


class CarefulAgent(TrainableLLMAgent):
    """τ²'s LLM agent with one rule more."""

    def system_prompt(self) -> str:
        return f"{super().system_prompt()}\n\n{RULE}"

    def interpret(self, parsed: ParsedTurn) -> AgentTurn:
        turn = super().interpret(parsed)
        for position in range(1, len(turn.message.tool_calls or [])):
            turn.rejected.setdefault(position, f"This call was not made. {RULE}")
        return turn
