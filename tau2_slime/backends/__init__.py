"""Other frameworks' doors onto the same episode: thin adapters over `turns.TurnEpisode`, which the core never imports."""
