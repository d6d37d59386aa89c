"""From a turn's text to tool calls."""
