"""Other frameworks' doors onto the same episode. Each is a thin adapter over `turns.TurnEpisode`; none is imported by the core."""
