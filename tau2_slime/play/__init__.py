"""One conversation with a person at the terminal, as the user or as the agent."""
