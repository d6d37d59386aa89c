"""One conversation: set up, played, scored."""
